# The `fs.write` permission: record locks, as databases take them on what they write.

# Only with it: a lock for reading needs no more than a descriptor for reading and keeps the host's own
# writers out, and no limit counts the kernel's memory for locks. Not F_GETLK and not flock: through a
# library that both map read-only, one run could see the lock of another.
[allow]
fcntl  arg1 & 0xffffffff in 6, 7            # SETLK, SETLKW
fcntl  arg1 & 0xffffffff in 37, 38          # the same, by open file
