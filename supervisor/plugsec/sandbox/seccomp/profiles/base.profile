# What every kind of plugin may ask the kernel for. One call a line, with its reason.
# A line may carry conditions on arguments (argN, 0 to 5): all of one line must hold; several lines
# for one call are alternatives. Everything not listed is refused with EPERM and reported.

[allow]
# Descriptors that already exist
read                    # granted files and streams
readv                   # the same
pread64                 # the same
preadv                  # the same
preadv2                 # the same
write                   # granted files and streams
writev                  # the same
pwrite64                # the same
pwritev                 # the same
pwritev2                # the same
lseek                   # positions in granted files
close                   # giving up a descriptor
close_range             # the same, many at once
dup                     # copies of descriptors one has
dup2                    # the same
dup3                    # the same
fstat                   # metadata of an open file
ftruncate               # Landlock and mounts decided when it was opened
fallocate               # within the tmpfs's size
fsync                   # harmless on tmpfs
fdatasync               # the same
fadvise64               # a hint
readahead               # a hint
sendfile                # between descriptors one has
copy_file_range         # the same
splice                  # the same
tee                     # the same
pipe                    # a private pipe
pipe2                   # the same
eventfd                 # a private counter
eventfd2                # the same
poll                    # waiting
ppoll                   # waiting
select                  # waiting
pselect6                # waiting
epoll_create            # waiting
epoll_create1           # waiting
epoll_ctl               # waiting
epoll_wait              # waiting
epoll_pwait             # waiting
epoll_pwait2            # waiting
timerfd_create          # a private timer
timerfd_settime         # the same
timerfd_gettime         # the same
signalfd                # the process's own signals
signalfd4               # the same
# no leases, no notify, no owner signals; no locks, whose kernel memory nothing counts (see write.profile)
fcntl  arg1 & 0xffffffff in 0, 1, 2, 3, 4   # DUPFD, GETFD, SETFD, GETFL, SETFL
fcntl  arg1 & 0xffffffff in 1030, 1032      # DUPFD_CLOEXEC, GETPIPE_SZ
# by 32 bits, as the kernel reads it: high bits must not hide TIOCSTI
ioctl  arg1 & 0xffffffff in 0x5401, 0x5413  # TCGETS, TIOCGWINSZ: is this a terminal?
ioctl  arg1 & 0xffffffff in 0x541b, 0x5421  # FIONREAD, FIONBIO
ioctl  arg1 & 0xffffffff in 0x5450, 0x5451  # FIONCLEX, FIOCLEX

# Sockets: only connected pairs inside the jail. STREAM or SEQPACKET, never DGRAM: a datagram socket
# may name another address with each message, such as a socket file of the host in a granted directory.
socketpair  arg0 & 0xffffffff == 1 and arg1 & 0xf in 1, 5  # AF_UNIX: an event loop's wake-up
sendmsg                 # on a pair; also how boot hands over the listener
sendto  arg4 == 0                           # on a pair, without an address
recvmsg                 # on a pair; also how boot gets the go-ahead
recvfrom                # on a pair
shutdown                # on a pair
# of level SOL_SOCKET: TYPE, ERROR, SNDBUF, RCVBUF, ACCEPTCONN, PROTOCOL, DOMAIN; not PEERPIDFD, which
# would be a handle on the supervisor
getsockopt  arg1 & 0xffffffff == 1 and arg2 & 0xffffffff in 3, 4, 7, 8, 30, 38, 39  # on a pair
getsockname             # on a pair
getpeername             # on a pair

# Paths: mounts and Landlock decide. Never a set-id mode: on a granted directory of the host it would
# outlive the jail. A mode counts only with O_CREAT (0x40) or O_TMPFILE (0x400000).
open  arg1 & 0x400040 == 0                  # nothing is made
open  arg2 & 0xc00 == 0                     # or without set-id bits
openat  arg2 & 0x400040 == 0                # nothing is made
openat  arg3 & 0xc00 == 0                   # or without set-id bits
creat  arg1 & 0xc00 == 0                    # see above
stat                    # see above
lstat                   # see above
newfstatat              # see above
statx                   # see above
access                  # see above
faccessat               # see above
faccessat2              # see above
readlink                # see above
readlinkat              # see above
getdents                # listing
getdents64              # listing
getcwd                  # the jail's own tree
chdir                   # see above
fchdir                  # see above
mkdir                   # see above
mkdirat                 # see above
rmdir                   # see above
unlink                  # see above
unlinkat                # see above
rename                  # see above
renameat                # see above
renameat2               # see above
link                    # results with more than one link are not collected
linkat                  # the same
symlink                 # links are not collected
symlinkat               # the same
truncate                # see above
chmod  arg1 & 0xc00 == 0                    # own files, no set-id bits
fchmod  arg1 & 0xc00 == 0                   # the same
fchmodat  arg2 & 0xc00 == 0                 # the same
fchmodat2  arg2 & 0xc00 == 0                # the same
utime                   # own files
utimes                  # own files
utimensat               # own files
futimesat               # own files
umask                   # of the process
statfs                  # sizes of the jail's file systems
fstatfs                 # the same
getxattr                # reading only
lgetxattr               # reading only
fgetxattr               # reading only
listxattr               # reading only
llistxattr              # reading only
flistxattr              # reading only

# Memory: never writable and executable at once, never executable without a file behind it
mmap  arg2 & 0x4 == 0                       # no PROT_EXEC
mmap  arg2 & 0x6 == 0x4 and arg3 & 0x20 == 0  # PROT_EXEC without PROT_WRITE, not anonymous: libraries
mprotect  arg2 & 0x4 == 0                   # nothing becomes executable
munmap                  # own memory
mremap                  # own memory
madvise                 # own memory
msync                   # own memory
brk                     # own memory
membarrier              # own threads

# Threads, not processes: CLONE_THREAD and no namespace flag
clone  arg0 & 0x7e030000 == 0x10000         # pthread_create
set_tid_address         # of the thread
set_robust_list         # of the thread
rseq                    # of the thread
futex                   # locks
sched_yield             # of the thread
sched_getaffinity       # how many processors
sched_getparam          # reading only
sched_getscheduler      # reading only
sched_get_priority_max  # reading only
sched_get_priority_min  # reading only
getcpu                  # which processor
getpriority             # reading only
arch_prctl  arg0 & 0xffffffff in 0x1002, 0x1003, 0x3001  # SET_FS, GET_FS, CET status
prctl  arg0 & 0xffffffff in 15, 16, 0x53564d41           # names of threads and of mappings

# Time
clock_gettime           # reading
clock_getres            # reading
clock_nanosleep         # waiting
nanosleep               # waiting
gettimeofday            # reading
time                    # reading
times                   # reading
alarm                   # own signal
setitimer               # own signal
getitimer               # own signal
timer_create            # own signal
timer_settime           # own signal
timer_gettime           # own signal
timer_getoverrun        # own signal
timer_delete            # own signal
pause                   # waiting
restart_syscall         # the kernel's own continuation

# Signals to oneself
rt_sigaction            # own dispositions
rt_sigprocmask          # own mask
rt_sigreturn            # return from a handler
rt_sigpending           # own signals
rt_sigsuspend           # own signals
rt_sigtimedwait         # own signals
sigaltstack             # own stack
tgkill                  # abort() and raise(); the pid namespace holds only the jail

# Who and where am I
getpid                  # inside the pid namespace
gettid                  # the same
getppid                 # the same
getpgrp                 # the same
getpgid                 # the same
getsid                  # the same
getuid                  # the jail's user
geteuid                 # the same
getgid                  # the same
getegid                 # the same
getresuid               # the same
getresgid               # the same
getgroups               # the same
capget                  # always empty
uname                   # the jail's own host name
sysinfo                 # memory and load
getrandom               # randomness
getrlimit               # reading
prlimit64  arg2 == 0    # reading; one's own limits are hard
getrusage               # reading
personality  arg0 & 0xffffffff == 0xffffffff  # query only

# Ending
exit                    # of the thread
exit_group              # of the process
wait4                   # there is nothing to wait for without the process permission
waitid                  # the same

[enosys]
clone3                  # its flags are in memory, out of a filter's sight; libcs fall back to clone
io_uring_setup          # a second way to make every call
io_uring_enter          # the same
io_uring_register       # the same
openat2                 # its mode is in memory, out of sight; libcs fall back to openat
open_tree               # the new mount API
move_mount              # the same
fsopen                  # the same
fsconfig                # the same
fsmount                 # the same
fspick                  # the same
mount_setattr           # the same
map_shadow_stack        # libcs go on without
futex_waitv             # libcs go on without
