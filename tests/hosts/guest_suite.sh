#!/bin/sh
# Runs on an emulated host (run.py) in the project's folder, as the user that the host gives us.
#   guest_suite.sh HOST
# Prints one line for each expectation and a closing line that counts them; exit status 0 when all were met.
set -u
host=$1
passed=0 failed=0
plugsec() { python3 -m plugsec "$@"; }

# expect STATUS WHAT COMMAND…: runs it, keeps stdout in out and stderr in err, compares the exit status.
expect() {
  wanted=$1 what=$2; shift 2
  "$@" > out 2> err
  got=$?
  if [ $got = "$wanted" ]; then passed=$((passed + 1)); echo "ok    $what"
  else failed=$((failed + 1)); echo "FAIL  $what: exit $got instead of $wanted"; sed 's/^/      /' out err; fi
}
# says WHAT FILE TEXT: the last command's output contains TEXT.
says() {
  if grep -qF -- "$3" "$2"; then passed=$((passed + 1)); echo "ok    $1"
  else failed=$((failed + 1)); echo "FAIL  $1: no '$3' in $2:"; sed 's/^/      /' "$2"; fi
}
close() { echo "$passed passed, $failed failed"; [ $failed = 0 ]; exit; }

expect 0 "doctor answers" plugsec doctor
cat out
expect 0 "doctor answers machines" plugsec doctor --json
expect 0 "what doctor prints for machines is JSON" python3 -m json.tool out

expect 0 "a key is made" plugsec keygen key --no-passphrase
expect 0 "a plugin is scaffolded" plugsec new acme/wordfreq --runtime python
expect 0 "it is packed" plugsec pack wordfreq -o wordfreq.plug
expect 3 "unsigned, it does not run" plugsec run wordfreq.plug --input wordfreq/example.input.json
expect 0 "it is signed" plugsec sign wordfreq.plug --key key
expect 3 "signed by a key that nobody trusts, it does not run" \
  plugsec run wordfreq.plug --input wordfreq/example.input.json
expect 0 "the key is trusted" plugsec trust add key.pub --publisher acme

case $host in
  debian12-without-user-namespaces | debian12-masked-proc)
    expect 8 "a host that lacks required layers refuses under builtin:strict" \
      plugsec run wordfreq.plug --input wordfreq/example.input.json
    cat err
    expect 8 "and says so to machines" plugsec run wordfreq.plug --input wordfreq/example.input.json --json
    says "with the outcome" out '"outcome":"refused"'
    close ;;
esac

expect 0 "it runs in its jail" plugsec run wordfreq.plug --input wordfreq/example.input.json --json
says "with the outcome" out '"outcome":"ok"'
cat out
expect 0 "the log verifies" plugsec audit verify

cp wordfreq.plug tampered.plug
size=$(stat -c %s tampered.plug)
printf 'X' | dd of=tampered.plug bs=1 seek=$((size - 1536)) conv=notrunc 2> /dev/null
expect 4 "one changed byte of the payload and it is refused" \
  plugsec run tampered.plug --input wordfreq/example.input.json

if [ -d examples/hostile ]; then
  expect 0 "the hostile plugin is packed" plugsec pack examples/hostile -o hostile.plug
  expect 0 "it is signed: a signature says who, not what" plugsec sign hostile.plug --key key
  expect 0 "it runs contained" plugsec run hostile.plug --input examples/hostile/example.input.json --json
  cat out
fi

log=$(find "${XDG_STATE_HOME:-$HOME/.local/state}/plugsec" -name '*.jsonl' | head -n 1)
sed -i '1s/0/1/' "$log"
expect 9 "one changed character of the log and it does not verify" plugsec audit verify
close
