# Beside the base for the `python` kind: nothing. execve stays refused: this process is the interpreter.

[allow]
