# Beside the base for the `exec` kind. Its one execve is not listed: the listener lets boot's own
# first call through and refuses every later one, which a filter cannot count.

[allow]
get_robust_list         # musl and Go ask for it at start
sched_setaffinity  arg0 == 0                # a runtime pins its own thread
mlock                   # bounded by RLIMIT_MEMLOCK
munlock                 # the same
mincore                 # Go's runtime probes the page size with it
tkill                   # musl's abort(); the pid namespace holds only the jail
