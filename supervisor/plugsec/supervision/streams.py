"""Reading and writing a jail's pipes without ever blocking, to a shared byte cap."""

import os

_READ_BYTES = 65536
READS_PER_TURN_MAX = 16  # one loud pipe must not starve the others


class OutputBudget:
    """How many bytes the plugin may still send over all of its channels together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    @property
    def exceeded(self) -> bool:
        """Whether more was sent than is allowed."""
        return self.used > self._limit

    def room(self) -> int:
        """Bytes that may still be kept, plus one that proves the limit was passed."""
        return max(0, self._limit - self.used) + 1


class Reader:
    """Collects one descriptor's bytes until its end."""

    def __init__(self, fd: int, budget: OutputBudget) -> None:
        self.fd = fd
        self.data = bytearray()
        self.ended = False
        self._budget = budget

    def pump(self) -> None:
        """Read what is there, within the budget and READS_PER_TURN_MAX."""
        for _ in range(READS_PER_TURN_MAX):
            if self.ended or self._budget.exceeded:
                return
            try:
                chunk = os.read(self.fd, min(_READ_BYTES, self._budget.room()))
            except BlockingIOError:
                return
            except OSError:  # ECONNRESET on a socket whose peer died with unread data
                chunk = b""
            if not chunk:
                self.ended = True
                return
            self._budget.used += len(chunk)
            self.data += chunk


class Writer:
    """Feeds one descriptor; what the plugin does not read is dropped when it ends."""

    def __init__(self, fd: int, data: bytes) -> None:
        self.fd = fd
        self._left = memoryview(data)

    @property
    def done(self) -> bool:
        """Whether everything was written or nobody reads any more."""
        return not self._left

    def pump(self) -> None:
        """Write what fits."""
        try:
            while self._left:
                self._left = self._left[os.write(self.fd, self._left[:_READ_BYTES]) :]
        except BlockingIOError:
            return
        except OSError:  # EPIPE: the plugin closed its end, which is its right
            self._left = memoryview(b"")
