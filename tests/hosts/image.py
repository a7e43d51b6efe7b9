"""The base image of the emulated host: Debian 12 with its own kernel, built once, kept in the cache.

The image is a function of this folder's recipe: its directory's name carries a digest of the recipe, so a
changed recipe builds anew beside the old image. Building needs root (debootstrap unpacks device nodes and
foreign owners); running the image does not.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SUITE = "bookworm"
KERNEL = "linux-image-cloud-amd64"
# What a stock server install has, as far as plugsec can see it; strace and bubblewrap serve whoever debugs.
PACKAGES = ("python3", "libseccomp2", "openssh-client", "iproute2", "procps", "kmod", "bubblewrap", "strace")
# In this order: each needs the ones before it.
MODULES = (
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
)
DISK_MIB = 2048  # sparse; room for the project and for what the tests write
KEPT = 2  # the one in use, and that of another branch
BUILD_SECONDS = 1800  # a slow mirror; a build that takes longer hangs
# Program -> Debian package, as needed to build and to run.
TO_BUILD = {
    "debootstrap": "debootstrap",
    "mke2fs": "e2fsprogs",
    "cpio": "cpio",
    "busybox": "busybox-static",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
TO_RUN = {"qemu-system-x86_64": "qemu-system-x86"}


class Image(NamedTuple):
    """What QEMU needs; every member is the path of a file that nobody writes again."""

    disk: Path
    kernel: Path
    initrd: Path


class HostError(Exception):
    """The emulated host could not be built or did not finish; the message says what to do."""


def cache() -> Path:
    """Return the folder for images and packages, outside every clone."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plugsec" / "hosts"


def image() -> Image:
    """Return the base image, building it first where it is missing (about two minutes, root only)."""
    recipe = hashlib.sha256(
        b"\0".join((HERE / name).read_bytes() for name in ("image.py", "guest_init", "initrd_init"))
    ).hexdigest()
    folder = cache() / f"{SUITE}-{recipe[:16]}"
    if not folder.is_dir():
        _build(folder)
    return Image(folder / "disk.ext4", folder / "vmlinuz", folder / "initrd.gz")


def prune(parent: Path, pattern: str) -> None:
    """Keep the newest KEPT folders of a kind: a changed recipe must not fill the user's cache for ever."""
    folders = sorted(parent.glob(pattern), key=lambda path: path.stat().st_mtime)
    for old in folders[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def require(programs: dict[str, str]) -> None:
    """Install the packages of missing programs where we may, else say what to type; raises HostError."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    missing = sorted({package for name, package in programs.items() if not shutil.which(name, path=path)})
    if not missing:
        return
    if os.geteuid() != 0:
        raise HostError(f"missing programs; type: sudo apt-get install {' '.join(missing)}")
    print(f"plugsec: installing {' '.join(missing)} (apt-get)", file=sys.stderr)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    if subprocess.run(install, check=False, capture_output=True).returncode != 0:
        _must(["apt-get", "update", "-qq"])
        _must(install)


def _build(folder: Path) -> None:
    if os.geteuid() != 0:
        raise HostError(
            "building the Debian image needs root, once; type: sudo make test-hosts, or as root\n"
            f"  XDG_CACHE_HOME={folder.parent.parent.parent} python3 tests/hosts/run.py --build"
        )
    require(TO_BUILD)
    print(f"plugsec: building a stock Debian 12 in {folder} (once, about two minutes)", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # On the same file system, so that the last step is one rename: a folder that exists is complete.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="build-") as name:
        work = Path(name)
        (work / "out").mkdir()
        base = work / "base"
        _must(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(base)])
        _fetch_kernel(work, base)
        _must(["chroot", str(base), "useradd", "--create-home", "--uid", "1000", "tester"])
        for leftover in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
            shutil.rmtree(base / leftover, ignore_errors=True)
        shutil.copy(HERE / "guest_init", base / "guest_init")
        (base / "guest_init").chmod(0o755)
        disk = work / "out" / "disk.ext4"
        with disk.open("wb") as file:
            file.truncate(DISK_MIB << 20)
        _must(["mke2fs", "-q", "-t", "ext4", "-d", str(base), str(disk)])
        _write_initrd(work)
        (work / "out").rename(folder)
    prune(folder.parent, f"{SUITE}-*")


def _fetch_kernel(work: Path, base: Path) -> None:
    """Unpack the suite's kernel under work/kernel, through apt as the *guest's* sources configure it."""
    dirs = {
        "Dir::State": base / "var/lib/apt",
        "Dir::State::status": base / "var/lib/dpkg/status",
        "Dir::Cache": base / "var/cache/apt",
        "Dir::Etc::sourcelist": base / "etc/apt/sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::trusted": base / "etc/apt/trusted.gpg",
        "Dir::Etc::trustedparts": base / "etc/apt/trusted.gpg.d",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in dirs.items() for word in ("-o", f"{key}={value}")]
    _must(["apt-get", *options, "update", "-qq"])
    depends = _must(["apt-cache", *options, "depends", "--important", KERNEL])
    versioned = next(
        (word for word in depends.split() if word.startswith("linux-image-") and word != KERNEL), None
    )
    if versioned is None:
        raise HostError(f"{KERNEL} names no kernel in {SUITE}: {depends!r}")
    _must(["apt-get", *options, "download", "-qq", versioned], cwd=work)
    package = next(work.glob("linux-image-*.deb"))
    _must(["dpkg-deb", "--extract", str(package), str(work / "kernel")])
    shutil.copy(next((work / "kernel/boot").glob("vmlinuz-*")), work / "out" / "vmlinuz")


def _write_initrd(work: Path) -> None:
    """Pack busybox, the virtio modules and initrd_init: just enough to find the disk and hand over."""
    root = work / "initrd"
    for name in ("bin", "modules", "root", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
    for number, name in enumerate(MODULES):
        found = next((work / "kernel").rglob(f"{name}.ko"), None)
        if found is not None:  # a later kernel may have it built in
            shutil.copy(found, root / f"modules/{number:02}-{name}.ko")
    shutil.copy(HERE / "initrd_init", root / "init")
    (root / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*"))) + "\n"
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        cwd=root,
        input=names.encode(),
        capture_output=True,
        check=True,
    ).stdout
    (work / "out" / "initrd.gz").write_bytes(gzip.compress(archive, 6))


def _must(command: list[str], cwd: Path | None = None) -> str:
    """Run a build step and return its output; raises HostError with the end of what it said."""
    env = {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "LC_ALL": "C",
        "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
    }
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BUILD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise HostError(f"{command[0]}: {err}") from err
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return done.stdout
