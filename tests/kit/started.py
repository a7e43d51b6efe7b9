"""`plugsec run` as a child process of a test, and what the test reads of its home afterwards."""

import json
import signal
import subprocess

import psutil

from kit.home import Home
from kit.outside import PATIENCE_S, command_line, eventually

# The second thread tells those who watch from outside that the plugin's code runs.
SLEEPER = """
import signal, threading, time
@plugin.method
def go():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    time.sleep(600)
"""
GREETING = "@plugin.method\ndef go(): return 'hello'\n"
JAILED = 3  # waiter, init, plugin


def bundle_of(home: Home, code: str, **more: object) -> str:
    """A bundle of a Python plugin."""
    return home.bundle({"main.py": "from plugsec_plugins.guest import plugin\n" + code}, **more)  # type: ignore[arg-type]


class Started:
    """The command line as a child process, with what was seen of its descendants."""

    def __init__(self, home: Home, bundle: str, *more: str) -> None:
        self.home = home
        arguments = ["run", bundle, "--home", str(home.home), "--json", *more]
        self.process = subprocess.Popen(
            command_line(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.seen: set[psutil.Process] = set()

    def descendants(self) -> set[psutil.Process]:
        """Everything below the supervisor now."""
        try:
            found = set(psutil.Process(self.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            found = set()
        self.seen |= found
        return found

    def wait_until_running(self, processes: int = JAILED) -> "Started":
        """Until so many processes are there and the plugin's code runs, in a thread of its own too."""
        assert eventually(lambda: len(self.descendants()) >= processes and any(map(threaded, self.seen)))
        return self

    def gone(self) -> bool:
        """Whether nothing that was seen runs any more."""
        return eventually(lambda: not [process for process in self.seen if runs(process)])

    def said(self) -> tuple[int, str, str]:
        """Exit status, stdout and stderr, once it has ended by itself."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out.decode(), err.decode()

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send the supervisor a signal, and reap it."""
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE_S)


def threaded(process: psutil.Process) -> bool:
    """Whether it has more than one thread."""
    try:
        return process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def runs(process: psutil.Process) -> bool:
    """Whether it is there and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def records(home: Home) -> list[dict[str, object]]:
    """Every record of the home's audit log, in order; a last line that is being written is left out."""
    found = []
    for path in sorted((home.home / "state").glob("**/*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "event" in record:
                found.append(record)
    return found


def stories(home: Home) -> dict[str, list[tuple[object, object]]]:
    """What the log tells of each run: its starts and ends, in order, each with its decision."""
    told: dict[str, list[tuple[object, object]]] = {}
    for record in records(home):
        if record["event"] in {"run.start", "run.end"}:
            told.setdefault(str(record["run"]), []).append((record["event"], record.get("decision")))
    return told


def registered(home: Home) -> set[str]:
    """The runs that the home's register holds: alive, or dead and not yet swept."""
    directory = home.home / "state" / "runs"
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def verified(home: Home) -> bool:
    """Whether the audit log verifies, as the command line judges."""
    ended = subprocess.run(
        command_line("audit", "verify", "--home", str(home.home)), check=False, capture_output=True
    )
    return ended.returncode == 0
