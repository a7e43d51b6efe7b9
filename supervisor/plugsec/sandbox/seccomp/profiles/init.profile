# Pid 1 of the jail: it reaps, reports once and leaves. Not combined with the base.

[allow]
wait4                   # its work
sendmsg                 # its two reports: confined, and how the plugin ended
exit_group              # its end, and with it the jail's
exit                    # the same
rt_sigreturn            # return from a handler
rt_sigprocmask          # the interpreter
futex                   # the interpreter
mmap  arg2 & 0x4 == 0   # the interpreter
munmap                  # the interpreter
brk                     # the interpreter
madvise                 # the interpreter
restart_syscall         # the kernel's own continuation
