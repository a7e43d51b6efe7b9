"""The calls of a start, process by process and layer by layer, and the errnos that each could fail with.

`SITES` is the boot sequence as it is known. A test compares it with what a healthy run does, so a call
that is added anywhere in the sandbox must be entered here, or in `EXCLUDED` with the reason why not.
"""

import errno as e

# Calls of the jail's processes: "PROCESS LAYER" to the calls made while that layer is being entered.
_BOOT = {
    "boot boot": """
        close_range prctl(PR_SET_PDEATHSIG) signal.signal signal.pthread_sigmask socket.recvmsg os.pread os.close
    """,
    "boot cgroup": "os.write os.close",
    "boot rlimits": "os.open os.write os.close",
    "boot user-namespace": """
        unshare socket.sendmsg socket.recvmsg os.setgroups os.setresgid os.setresuid prctl(PR_SET_PDEATHSIG)
    """,
    "boot mount-namespace": "mount openat2 open_tree os.close",
    "boot pid-namespace": "os.pipe os.fork",
    "waiter no-new-privs": "prctl(PR_SET_NO_NEW_PRIVS) prctl(PR_GET_NO_NEW_PRIVS)",
    "waiter capabilities": "prctl(PR_CAP_AMBIENT) capset",
    "waiter pid-namespace": "os.close os.pidfd_open socket.sendmsg socket.close os.waitpid",
    "init pid-namespace": "os.close prctl(PR_SET_PDEATHSIG) os.fork",
    "init mount-namespace": """
        fsopen fsconfig fsmount move_mount mount_setattr mount pivot_root umount2 prctl(PR_SET_DUMPABLE)
        os.fchdir os.chdir os.makedirs os.symlink os.open os.fchmod os.write os.pread os.fstat os.close
        os.path.isdir os.path.exists
    """,
    "init uts-namespace": "sethostname setdomainname",
    "init rlimits": "os.setsid resource.setrlimit",
    "init capabilities": """
        prctl(PR_CAPBSET_DROP) prctl(PR_CAPBSET_READ) prctl(PR_SET_SECUREBITS) prctl(PR_CAP_AMBIENT) capset
        prctl(PR_SET_MDWE)
    """,
    "init no-new-privs": "prctl(PR_SET_NO_NEW_PRIVS) prctl(PR_GET_NO_NEW_PRIVS)",
    "init landlock": """
        landlock_create_ruleset(version) landlock_create_ruleset landlock_add_rule landlock_restrict_self
        os.open os.fstat os.close
    """,
    "init seccomp": "os.close close_range seccomp socket.sendmsg os.wait4",
    "plugin seccomp": """
        close_range os.set_inheritable os.chdir os.open os.dup2 os.close seccomp(listener) socket.sendmsg
        socket.recvmsg
        socket.close
    """,
}

# Calls of the supervisor: "supervisor MODULE", and the layer that a refusal must name.
_SUPERVISOR = {
    "supervisor spawn": ("boot", """
        socket.socketpair os.pipe fcntl.fcntl os.posix_spawn os.pidfd_open os.set_blocking
    """),
    # Not one layer: the spec (boot), the id maps (user-namespace), an input file.
    "supervisor launch": ("", """
        os.memfd_create os.write fcntl.fcntl socket.sendmsg socket.recvmsg os.open(setgroups) os.open(uid_map)
        os.open(gid_map)
    """),
    "supervisor seccomp": ("seccomp", """
        open(base.profile) open(write.profile) open(python.profile) open(init.profile)
        open(x86_64.calls) open(aarch64.calls) os.open(*.bpf) os.fstat os.read
    """),
    "supervisor granted": ("mount-namespace", "open(mountinfo) os.stat"),
    "supervisor identity": ("user-namespace", """
        open(uid_map) open(subuid) open(subgid) os.makedirs os.open(N) fcntl.flock
    """),
    "supervisor cgroups": ("cgroup", """
        open(mountinfo) open(cgroup) open(cgroup.controllers) open(cgroup.subtree_control) os.makedirs os.mkdir
        os.open(cgroup.procs) os.open(tasks) os.path.exists
        os.open(memory.limit_in_bytes) os.open(memory.memsw.limit_in_bytes) os.open(pids.max)
        os.open(memory.max) os.open(memory.swap.max) os.open(memory.oom.group) os.write
        os.open(memory.oom_control) os.open(memory.max_usage_in_bytes) os.open(cpuacct.usage)
        os.open(pids.events) os.open(memory.events) os.open(memory.peak) os.open(pids.peak) os.open(cpu.stat)
        os.read os.rmdir
    """),
}  # fmt: skip

SITES = {f"{where} {call}": where.split()[1] for where, calls in _BOOT.items() for call in calls.split()}
SITES |= {f"{where} {call}": layer for where, (layer, calls) in _SUPERVISOR.items() for call in calls.split()}

_CANNOT_FAIL = "cannot fail (its man page has no ERRORS that could happen here)"
_NO_CLOSE_ERROR = "a pipe, socket or kernel file: close(2) has nothing to report of one"
EXCLUDED = {
    "boot boot os.getppid": _CANNOT_FAIL,
    "boot boot os.umask": _CANNOT_FAIL,
    "boot user-namespace os.getppid": _CANNOT_FAIL,
    "boot user-namespace resource.getrusage": _CANNOT_FAIL,
    "init pid-namespace select.poll": "makes an object; poll(2) itself is a method of it",
    "supervisor launch select.poll": "makes an object; poll(2) itself is a method of it",
    "supervisor launch os.uname": _CANNOT_FAIL,
    "supervisor build os.uname": _CANNOT_FAIL,
    "supervisor build os.geteuid": _CANNOT_FAIL,
    "supervisor seccomp os.geteuid": _CANNOT_FAIL,
    "supervisor cgroups os.geteuid": _CANNOT_FAIL,
    "supervisor identity os.geteuid": _CANNOT_FAIL,
    "supervisor identity os.getegid": _CANNOT_FAIL,
    "supervisor build resource.getrlimit": _CANNOT_FAIL,
    "supervisor granted os.path.lexists": "says no: the grant is refused, as for any path that is not there",
    "supervisor spawn os.close": _NO_CLOSE_ERROR,
    "supervisor launch os.close": _NO_CLOSE_ERROR,
    "supervisor launch socket.close": _NO_CLOSE_ERROR,
    "supervisor seccomp os.close": _NO_CLOSE_ERROR,
    "supervisor cgroups os.close": _NO_CLOSE_ERROR,
    "supervisor identity os.close": _NO_CLOSE_ERROR,
    "supervisor launch signal.pidfd_send_signal": "to our own child: only ESRCH, which is answered by waiting",
    "supervisor launch os.wait4": "only ECHILD, where the host application reaps for us",
}

_PRIVILEGED = (e.EPERM, e.ENOSYS, e.EINVAL, e.ENOMEM, e.EACCES, e.ENOSPC, e.EBUSY, e.EINTR)
_FILE = (e.EACCES, e.EMFILE, e.ENOENT, e.ENFILE, e.ENOMEM, e.EIO, e.ELOOP)
_SPACE = (e.ENOSPC, e.EACCES, e.EIO, e.EDQUOT, e.EROFS, e.ENOMEM)
_ERRNOS = {
    "fcntl.fcntl": (e.EMFILE, e.EPERM, e.EINVAL, e.EBUSY),
    "fcntl.flock": (e.ENOLCK, e.EIO, e.EINTR),
    "fsmount": (e.EPERM, e.EMFILE, e.ENFILE, e.EBUSY, e.ENOMEM, e.EINVAL),
    "fsopen": (e.EPERM, e.EMFILE, e.ENODEV, e.ENOSYS, e.ENFILE, e.ENOMEM),
    "open": _FILE,
    "open_tree": (e.EPERM, e.EINVAL, e.ENOSPC, e.EMFILE, e.ENOSYS, e.ENOMEM, e.EACCES),
    "openat2": (e.EACCES, e.ELOOP, e.ENOSYS, e.EAGAIN, e.ENOENT, e.EMFILE, e.ENOMEM, e.EINTR),
    "os.chdir": (e.EACCES, e.ENOENT, e.EIO),
    "os.close": (e.EIO, e.EINTR, e.EDQUOT),
    "os.dup2": (e.EMFILE, e.EBUSY, e.EINTR),
    "os.fchdir": (e.EACCES, e.ENOTDIR, e.EIO),
    "os.fchmod": (e.EPERM, e.EROFS, e.EIO),
    "os.fork": (e.EAGAIN, e.ENOMEM, e.ENOSYS),
    "os.fstat": (e.EIO, e.EOVERFLOW, e.ENOMEM),
    "os.makedirs": _SPACE,
    "os.memfd_create": (e.ENOSYS, e.EMFILE, e.ENFILE, e.ENOMEM, e.EACCES),
    "os.mkdir": _SPACE,
    "os.open": _FILE,
    "os.pidfd_open": (e.EMFILE, e.ENOSYS, e.ENFILE, e.ENOMEM, e.EPERM),
    "os.pipe": (e.EMFILE, e.ENFILE, e.ENOMEM),
    "os.posix_spawn": (e.EAGAIN, e.ENOENT, e.ENOMEM, e.EACCES, e.ENOEXEC),
    "os.pread": (e.EIO, e.EINTR, e.ENOMEM),
    "os.read": (e.EIO, e.ENODEV, e.ENOMEM),
    "os.rmdir": (e.EBUSY,),  # others leave the directory to the next start, which is not this suite's
    "os.set_blocking": (e.EBADF, e.EPERM),
    "os.set_inheritable": (e.EBADF, e.EINVAL, e.ENOMEM),
    "os.setgroups": (e.EPERM, e.ENOMEM, e.EINVAL),
    "os.setsid": (e.EPERM, e.ENOSYS),
    "os.stat": (e.EACCES, e.EIO, e.ENOMEM, e.ELOOP),
    "os.symlink": _SPACE,
    "os.wait4": (e.EINTR, e.EINVAL),
    "os.waitpid": (e.EINTR, e.EINVAL),
    "os.write": (e.ENOSPC, e.EIO, e.EPERM, e.EINVAL, e.EBUSY, e.ENOMEM),
    "prctl(PR_CAPBSET_DROP)": (e.EPERM, e.EINVAL, e.ENOSYS),
    "prctl(PR_SET_MDWE)": (e.EPERM, e.EINVAL, e.ENOMEM),
    "resource.setrlimit": (e.EPERM, e.EINVAL),
    "seccomp(listener)": (e.ENOMEM, e.EINVAL, e.EBUSY, e.EACCES, e.EPERM, e.ENOSYS, e.EMFILE),
    "signal.pthread_sigmask": (e.EINVAL, e.ENOSYS),
    "signal.signal": (e.EINVAL, e.EPERM),
    "socket.close": (e.EIO, e.EINTR),
    "socket.recvmsg": (e.EMFILE, e.ENOMEM, e.EINTR, e.ECONNRESET, e.ENOBUFS),
    "socket.sendmsg": (e.ENOBUFS, e.ETOOMANYREFS, e.ENOMEM, e.EPIPE, e.EMSGSIZE, e.EPERM),
    "socket.socketpair": (e.EMFILE, e.ENFILE, e.EAFNOSUPPORT, e.ENOMEM),
}


def errnos(site: str) -> tuple[int, ...]:
    """What the call at this site can plausibly fail with, the likeliest first."""
    call = site.split()[2]
    for name in (call, call.split("(")[0]):
        if name in _ERRNOS:
            return _ERRNOS[name]
    return (e.ENOENT,) if call.startswith("os.path.") else _PRIVILEGED
