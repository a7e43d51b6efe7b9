# The `jit` permission: memory that is written and then executed.

[allow]
mmap                    # any protection
mprotect                # any protection
