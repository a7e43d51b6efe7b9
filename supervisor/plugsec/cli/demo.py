"""`plugsec demo`: the whole way of a plugin, on real input, as commands that the reader can repeat.

Each step is a line for a shell with the exit code that it must have; a step that ends otherwise makes
the demo fail, so that it doubles as a smoke test of an installation.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from typing import Annotated, NamedTuple

import typer

from plugsec.cli.common import refuse, say
from plugsec.errors import Defect, UsageError

_LICENCES = ("/usr/share/common-licenses/GPL-3", "/usr/share/licenses/common/GPL-3.0-only/license.txt")
_STEP_TIMEOUT_S = 120


class Step(NamedTuple):
    """A shell line, what it shows, and its exit code; `needs` is a program that it cannot do without."""

    title: str
    line: str
    code: int = 0
    needs: str = ""


def register(app: typer.Typer) -> None:
    """Add `demo`."""
    app.command("demo", epilog="Examples:\n\nplugsec demo\n\nplugsec demo ./demo-directory")(demo)


def demo(
    directory: Annotated[
        str | None,
        typer.Argument(metavar="DIR", help="A new directory to work in; a temporary one otherwise."),
    ] = None,
) -> None:
    """Show everything on real input in under a minute; uses a home of its own and touches nothing else."""
    try:
        where = _prepare(directory)
        environment = _environment(where)
    except UsageError as error:
        refuse(error)
    print(f"$ cd {where}\n$ export PLUGSEC_HOME=$PWD/home", flush=True)
    for step in steps():
        print(f"\n# {step.title}\n$ {step.line}", flush=True)
        lacking = _lacking(step, environment["PATH"])
        if lacking:
            print(f"(left out: {step.needs} {lacking})", flush=True)
            continue
        ended = subprocess.run(
            ["/bin/sh", "-c", step.line],
            cwd=where, env=environment, timeout=_STEP_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        if ended.returncode != 0:
            print(f"(exit {ended.returncode})", flush=True)
        if ended.returncode != step.code:
            refuse(Defect(
                f"the demo expected exit {step.code} there", "plugsec doctor; then report this output"
            ))  # fmt: skip
    say(f"\nDone. Everything is in {where}; repeat any line there, then: rm -r {where}")


def _lacking(step: Step, path: str) -> str:
    """Why a step cannot be shown here, or nothing."""
    if not step.needs:
        return ""
    if shutil.which(step.needs, path=path) is None:
        return "is not installed"
    import pwd  # noqa: PLC0415 - not everywhere, and neither is this command

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:  # a container's arbitrary uid
        return "refuses users who are not in the password file"
    return ""


def steps() -> tuple[Step, ...]:
    """The demo, in order."""
    licence = next((path for path in _LICENCES if os.path.exists(path)), "wordfreq/wordfreq.py")
    return (
        Step("A publisher's key", "plugsec keygen release --no-passphrase"),
        Step("The plugin becomes a bundle: the same sources always give the same bytes",
             "plugsec pack wordfreq -o wordfreq-1.2.3.plug"),
        Step("Signed with an ordinary SSH key", "plugsec sign wordfreq-1.2.3.plug --key release"),
        Step("Nobody trusts that key yet", "plugsec verify wordfreq-1.2.3.plug", 3),
        Step("Now we do", "plugsec trust add release.pub --publisher acme --plugins 'acme/*'"),
        Step("And it verifies", "plugsec verify wordfreq-1.2.3.plug"),
        Step("Also with stock OpenSSH, without plugsec",
             "tar xOf wordfreq-1.2.3.plug PLUGSEC/manifest.json > m"
             " && tar xOf wordfreq-1.2.3.plug --wildcards 'PLUGSEC/signatures/*.sshsig' > s"
             " && echo \"acme $(cat release.pub)\" > allowed_signers"
             " && ssh-keygen -Y verify -f allowed_signers -I acme -n plugsec-manifest@v1 -s s < m",
             needs="ssh-keygen"),
        Step("Run on a real text; the result is JSON, the receipt is signed",
             "plugsec run wordfreq-1.2.3.plug count --param file=licence --param top=3"
             f" --input-file licence={licence} --receipt wordfreq.receipt"),
        Step("The receipt holds, offline", "plugsec receipt verify wordfreq.receipt"),
        Step("A CSV file becomes a report and a chart",
             "plugsec pack csvreport -o csvreport-0.3.0.plug"
             " && plugsec sign csvreport-0.3.0.plug --key release"
             " && plugsec run csvreport-0.3.0.plug render --input csvreport/example.input.json"
             " --input-file data.csv=csvreport/sales.csv --output-dir report && cat report/report.md"),
        Step("A signed and trusted plugin turns hostile: everything it tries is refused and explained",
             "plugsec pack hostile -o hostile-6.6.6.plug && plugsec sign hostile-6.6.6.plug --key release"
             " && plugsec run hostile-6.6.6.plug attack --param home=$HOME"),
        Step("It floods its output", "plugsec run hostile-6.6.6.plug flood --quiet", 7),
        Step("It never comes back", "plugsec run hostile-6.6.6.plug spin --limit wall_ms=1000 --quiet", 7),
        Step("It starts threads without end", "plugsec run hostile-6.6.6.plug bomb --quiet", 7),
        Step("It hoards memory", "plugsec run hostile-6.6.6.plug hoard --limit memory=64M --quiet", 7),
        Step("One word of the signed bundle changed",
             "LC_ALL=C sed 's/the smallest plugin/the smartest plugin/' wordfreq-1.2.3.plug > tampered.plug"
             " && plugsec run tampered.plug count --param text=hello", 4),
        Step("Everything above is in the audit log, and it verifies",
             "plugsec audit verify && plugsec audit show | tail -n 4"),
        Step("One word of a copy of the log changed",
             "cp -r home/state/audit tampered-log"
             " && sed -i 's/acme\\/hostile/acme\\/helpful/' tampered-log/*.jsonl"
             " && plugsec audit verify --audit tampered-log", 9),
    )  # fmt: skip


def _prepare(directory: str | None) -> str:
    where = os.path.abspath(directory) if directory else tempfile.mkdtemp(prefix="plugsec-demo-")
    if directory:
        try:
            os.mkdir(where)
        except OSError as error:
            raise UsageError(f"{where} cannot be made: {error.strerror}", "name a new directory") from error
    examples = _examples()
    for name in ("wordfreq", "csvreport", "hostile"):
        shutil.copytree(os.path.join(examples, name), os.path.join(where, name),
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    return where


def _examples() -> str:
    """The example plugins: inside the installed package, or beside it in a checkout."""
    import plugsec_plugins  # noqa: PLC0415

    package = os.path.dirname(os.path.abspath(str(plugsec_plugins.__file__)))
    for candidate in (os.path.join(package, "examples"), os.path.join(os.path.dirname(package), "examples")):
        if os.path.isdir(candidate):
            return candidate
    raise UsageError("this installation has no example plugins", "run the demo from a checkout: make demo")


def _environment(where: str) -> dict[str, str]:
    """The caller's environment with a home of the demo's own and this very plugsec first on the path."""
    beside = os.path.dirname(os.path.abspath(sys.executable))
    if not os.access(os.path.join(beside, "plugsec"), os.X_OK):
        beside = os.path.join(where, "bin")
        os.mkdir(beside)
        script = os.path.join(beside, "plugsec")
        with open(script, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec "{sys.executable}" -m plugsec "$@"\n')
        os.chmod(script, 0o700)
    return {
        **os.environ,
        "PATH": f"{beside}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "PLUGSEC_HOME": os.path.join(where, "home"),
        "HOME": os.environ.get("HOME", "/root"),
    }
