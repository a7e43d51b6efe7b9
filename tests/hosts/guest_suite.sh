#!/bin/sh
# The command line on an emulated host (run.py), in the project's folder, as the user that the host gives us.
# Attacks and limits are tests/escapes/run_catalogue.py's.
#   guest_suite.sh HOST
# Prints a line for each expectation and a closing line that counts them; exit status 0 when all were met.
set -u
host=$1
passed=0 failed=0
plugsec() { python3 -m plugsec "$@"; }
examples=$(python3 -c 'import os, plugsec_plugins; print(os.path.dirname(plugsec_plugins.__file__))')/examples
mkdir -p "$HOME/.ssh" && echo "a canary" > "$HOME/.ssh/id_ed25519" && chmod 600 "$HOME/.ssh/id_ed25519"

met() { passed=$((passed + 1)); echo "ok    $1"; }
missed() { failed=$((failed + 1)); echo "FAIL  $1"; shift; cat "$@" | sed 's/^/      /'; }

# expect STATUS WHAT COMMAND…: runs it with stdout in `out` and stderr in `err`, compares the exit status.
expect() {
  wanted=$1 what=$2; shift 2
  "$@" > out 2> err
  got=$?
  if [ $got = "$wanted" ]; then met "$what"; else missed "$what: exit $got instead of $wanted" out err; fi
}

# shows WHAT EXPRESSION: the last command's JSON, as `it`, makes the Python expression true.
shows() {
  if python3 -c "import json; it = json.load(open('out')); raise SystemExit(not ($2))"; then met "$1"
  else missed "$1: not $2" out err; fi
}

close() { echo "$passed passed, $failed failed"; [ $failed = 0 ]; exit; }

plugsec keygen key --no-passphrase 2> /dev/null > /dev/null
for name in wordfreq hostile; do
  expect 0 "$name is packed" plugsec pack "$examples/$name" -o $name.plug
done
input=$examples/wordfreq/example.input.json
expect 3 "unsigned, it does not run" plugsec run wordfreq.plug count --input "$input"
for name in wordfreq hostile; do
  expect 0 "$name is signed" plugsec sign $name.plug --key key
done
expect 3 "signed by a key that nobody trusts, it does not run" plugsec run wordfreq.plug count --input "$input"
expect 0 "the key is trusted" plugsec trust add key.pub --publisher acme
expect 0 "and the bundle verifies" plugsec verify wordfreq.plug

if [ "$host" = debian12-without-user-namespaces ]; then
  expect 8 "doctor says that builtin:strict cannot run here" plugsec doctor --json
  shows "naming the layer" '"user-namespace" in it["missing"]'
  shows "with advice" 'all(row["advice"] for row in it["layers"] if not row["active"])'
  expect 8 "a run under builtin:strict is refused" plugsec run wordfreq.plug count --input "$input" --json
  shows "as an outcome" 'it["outcome"] == "refused" and it["code"] == 8 and it["result"] is None'
  shows "naming the layer" '"namespace" in it["error"]["message"] and it["error"]["hint"]'
  expect 0 "the refusal is in the log, which verifies" plugsec audit verify
  close
fi

expect 0 "doctor finds all that builtin:strict requires" plugsec doctor --json
shows "every layer is there" 'all(row["active"] for row in it["layers"])'
expect 0 "the signed plugin runs" plugsec run wordfreq.plug count --input "$input" --json
shows "with a result" 'it["outcome"] == "ok" and it["result"]["words"] > 0'
shows "under every layer" 'it["layers"]["degraded"] == [] and len(it["layers"]["active"]) >= 14'
expect 0 "the hostile plugin runs contained" plugsec run hostile.plug attack --param "home=$HOME" --json
shows "everything that it tried was stopped" \
  'len(it["result"]) >= 12 and all(word.startswith("stopped") for word in it["result"].values())'
shows "calls are reported by the kernel" \
  '{"socket", "execve", "ptrace"} <= {d["call"] for d in it["denials"] if d["source"] == "kernel"}'
shows "file refusals are claimed" 'any(d["source"] == "claimed" for d in it["denials"])'
shows "and the canary was not read" '"a canary" not in str(it)'
if [ "$(cat "$HOME/.ssh/id_ed25519")" = "a canary" ]; then met "nor changed"
else missed "the canary was changed" "$HOME/.ssh/id_ed25519"; fi
if ! pgrep -f sandbox/boot.py > out; then met "no process is left"; else missed "processes are left" out; fi
left=$(find "$PLUGSEC_CGROUP" -mindepth 1 -type d ! -name main | grep -v -e '/plugsec$' || true)
if [ -z "$left" ]; then met "no cgroup is left"; else echo "$left" > out; missed "cgroups are left" out; fi
expect 0 "the log of all that verifies" plugsec audit verify
expect 0 "the whole demo runs" plugsec demo "$HOME/demo"
close
