"""The seccomp listener: answers every refused call with EPERM, at once, and never blocks.

One call is let through (SECCOMP_USER_NOTIF_FLAG_CONTINUE): the first execve of an `exec` jail, made by
boot itself, single-threaded and trusted, before any plugin code exists.
"""

import errno
import select

from plugsec.supervision.denials import DenialCounter

# A guest that only makes refused calls must not keep the loop from its deadline and its pipes.
ANSWERS_PER_TURN_MAX = 64


class Listener:
    """Wraps the listener's descriptor; `start_once` allows boot's own execve."""

    def __init__(self, fd: int, names: dict[int, str], *, start_once: bool) -> None:
        self.fd = fd
        self._names = names
        self._may_start = start_once
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def serve(self, counter: DenialCounter) -> None:
        """Answer what is pending, at most ANSWERS_PER_TURN_MAX calls."""
        from plugsec.sandbox import linux  # noqa: PLC0415 - 5 ms of ctypes that a run without denials saves

        for _ in range(ANSWERS_PER_TURN_MAX):
            events = self._poll.poll(0)
            if not events or not events[0][1] & select.POLLIN:
                return
            try:
                notification, _pid, number, arguments = linux.notif_receive(self.fd)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EINTR}:
                    continue  # the caller died or was interrupted in between: normal
                raise
            call = self._names.get(number, f"call {number}")
            proceed = self._may_start and call == "execve"
            try:
                linux.notif_answer(self.fd, notification, errno=errno.EPERM, proceed=proceed)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
            if proceed:
                self._may_start = False
            else:
                counter.refuse(call, arguments)
