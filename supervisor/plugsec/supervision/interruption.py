"""The operator's wish to stop."""

import os


class Interruption:
    """The operator's wish to stop, as a descriptor that polls; set from a signal handler or a thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.requested = False

    def request(self) -> None:
        """Ask every run that watches this to end."""
        self.requested = True
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
