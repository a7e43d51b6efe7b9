# The `exec` permission: starting the programs that were granted. Landlock's EXECUTE and the mounts
# hold it to those; execveat and memfd_create stay refused.

[allow]
execve                  # Landlock decides which file
