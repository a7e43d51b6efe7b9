"""A process that dies by SIGKILL after its n-th change to the disk, and what a power cut leaves of it.

The system calls are the real ones; they are only counted, and what each file held when it was last
synced is remembered, because that is all that a power cut owes us.
"""

import os
import pickle
import signal

CHANGES = (
    "write",
    "pwrite",
    "ftruncate",
    "fsync",
    "fdatasync",
    "rename",
    "unlink",
    "mkdir",
    "posix_fallocate",
)


class Death:
    """What is known of a child that was killed: what it had been told, and what was on the disk."""

    def __init__(self, killed, acknowledged, synced):
        self.killed, self.acknowledged, self.synced = killed, acknowledged, synced


def die_after(changes, directory, work):
    """Fork; the child runs `work(acknowledge)` and is killed after `changes` changes to the disk."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _child(changes, directory, work, writer)
        finally:
            os._exit(3)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        raw = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL), (code, raw)
    return Death(code != 0, *pickle.loads(raw))


def _child(changes, directory, work, pipe):
    acknowledged, left = [], [changes]
    synced = {name: _content(os.path.join(directory, name)) for name in _files(directory)}
    real_write = os.write

    def report():
        real_write(pipe, pickle.dumps((acknowledged, synced)))
        os.close(pipe)

    def counted(name):
        real = getattr(os, name)

        def call(*arguments, **keywords):
            result = real(*arguments, **keywords)
            if name in ("fsync", "fdatasync"):
                path = os.readlink(f"/proc/self/fd/{arguments[0]}")
                if os.path.isfile(path):
                    synced[os.path.relpath(path, directory)] = _content(path)
            left[0] -= 1
            if left[0] == 0:
                report()
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in CHANGES:
        setattr(os, name, counted(name))
    work(acknowledged.append)
    report()
    os._exit(0)


def _files(directory):
    for where, _, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(where, name), directory)


def _content(path):
    with open(path, "rb") as file:
        return file.read()


def power_cuts(directory, synced):
    """Every state that the disk may be in after the power failed: file name to content, many of them.

    Of each file that changed since its last sync: the synced content, the present content, an unsynced
    tail cut in the middle, or of the right length but never written (zeros). Of the head, either slot may
    have arrived alone. Names are taken as they are: the log syncs a directory before it relies on one.
    """
    choices = []
    for name in sorted(_files(directory)):
        if name.startswith("torn/") or name == "reserve":
            continue
        now, then = _content(os.path.join(directory, name)), synced.get(name, b"")
        if now == then:
            continue
        options = {now, then}
        if name == "head" and len(then) == len(now):
            options |= {now[:4096] + then[4096:], then[:4096] + now[4096:]}
            torn = [slot for slot in (0, 1) if now[slot * 4096 :][:4096] != then[slot * 4096 :][:4096]]
            options |= {now[: slot * 4096 + 700] + then[slot * 4096 + 700 :] for slot in torn[:1]}
        elif len(now) > len(then) and now.startswith(then):
            options |= {now[: (len(now) + len(then)) // 2], then + bytes(len(now) - len(then))}
        choices.append((name, sorted(options)))
    states = [{}]
    for name, options in choices:
        states = [{**state, name: option} for state in states for option in options]
    return states
