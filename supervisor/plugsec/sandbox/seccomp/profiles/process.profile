# The `process` permission: children, and signals among them. pids.max or RLIMIT_NPROC bounds them.

[allow]
clone  arg0 & 0x7e020000 == 0                # any child, no new namespace
fork                    # a child
vfork                   # a child
kill                    # the pid namespace holds only the jail; its init is immune
tkill                   # the same
setpgid                 # job control among children
setsid                  # a session inside the jail
pidfd_open              # waiting for a child
pidfd_send_signal       # the same namespace holds only the jail
