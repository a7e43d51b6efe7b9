"""One command on the emulated host: pack the project, boot, stream the output, return the exit status.

About ten seconds under emulation; `PLUGSEC_TEST_ACCEL=kvm` is quicker where KVM works. Nothing comes back
from the guest but its output and the status; its disk is an overlay that disappears.
"""

import io
import os
import shlex
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, NamedTuple

from image import TO_RUN, HostError, Image, require

MEMORY_MIB = 3072
BOOT_ALLOWANCE_SECONDS = 120  # added to the command's own time limit; a boot takes about ten
STATUS_BYTES = 16  # "255\n" and room


class Host(NamedTuple):
    """A kind of host that plugsec must know how to behave on."""

    name: str
    user: str = "tester"
    user_namespaces: bool = True
    masked_proc: bool = False
    lacks: frozenset[str] = frozenset()  # layers, by the names of `plugsec doctor`; it has all others


def run(base: Image, host: Host, project: Path, command: list[str], *, seconds: int, out: BinaryIO) -> int:
    """Run `command` in a copy of `project` on `host`, writing what it prints to `out`; return its status.

    Raises HostError when the guest did not report a status within `seconds` and the boot allowance, with the
    last lines of the kernel's console.
    """
    require(TO_RUN)
    with tempfile.TemporaryDirectory(prefix="plugsec-host-") as name:
        work = Path(name)
        _pack(work / "project.tar", host, project, command)
        machine = subprocess.Popen(
            _qemu(base, work), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert machine.stdout is not None and machine.stderr is not None
        deadline = threading.Timer(seconds + BOOT_ALLOWANCE_SECONDS, machine.kill)
        deadline.start()
        try:
            while block := os.read(machine.stdout.fileno(), 65536):
                out.write(block)
                out.flush()
            complaint = machine.stderr.read(4096).decode(errors="replace")
            machine.wait()
        finally:
            deadline.cancel()
            machine.kill()
            machine.wait()
        status = _read(work / "status")[:STATUS_BYTES].strip()
        if not status.isdigit():
            console = "\n".join(_read(work / "console").splitlines()[-15:])
            raise HostError(f"{host.name} did not finish ({seconds} s allowed); {complaint}{console}")
        return int(status)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _pack(path: Path, host: Host, project: Path, command: list[str]) -> None:
    """Write the project and the host's settings as the tar that the guest unpacks from its second disk."""
    words = {
        "GUEST_USER": host.user,
        "USER_NAMESPACES": "yes" if host.user_namespaces else "no",
        "MASKED_PROC": "yes" if host.masked_proc else "no",
    }
    settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in words.items())
    with tarfile.open(path, "w") as tar:
        tar.add(project, arcname=".")
        for name, text in ((".host", settings), (".command", shlex.join(command) + "\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(text.encode()))


def _qemu(base: Image, work: Path) -> list[str]:
    def file(path: Path) -> str:
        return str(path).replace(",", ",,")  # QEMU's options are separated by commas

    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none", "-nic", "none",
        # Emulation works everywhere; KVM under a hypervisor aborts on some (an MSR that cannot be set), so it
        # is only used when asked for.
        "-accel", os.environ.get("PLUGSEC_TEST_ACCEL", "tcg,thread=multi"), "-cpu", "max", "-smp", "2",
        "-m", str(MEMORY_MIB),
        "-kernel", str(base.kernel), "-initrd", str(base.initrd),
        "-append", "console=ttyS0 quiet panic=-1",
        "-drive", f"if=virtio,format=raw,snapshot=on,file={file(base.disk)}",
        "-drive", f"if=virtio,format=raw,readonly=on,file={file(work / 'project.tar')}",
        "-serial", f"file:{file(work / 'console')}",
        "-device", "virtio-serial",
        # Not "stdio": at the end of its input QEMU takes the port for closed, and the guest's writes block.
        "-chardev", "file,id=out,path=/dev/stdout", "-device", "virtserialport,chardev=out,name=plugsec.out",
        "-chardev", f"file,id=status,path={file(work / 'status')}",
        "-device", "virtserialport,chardev=status,name=plugsec.status",
    ]  # fmt: skip
