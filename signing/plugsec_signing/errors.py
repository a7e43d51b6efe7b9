"""Everything that the signing room can refuse, as one tree.

    SigningError
    └── (each subclass carries a stable `id` and the exit `code` of the command line)

The two bottom rooms do not know each other, so each room has its own root with the same shape;
`plugsec.errors` draws them together (docs/adr/0002-one-error-shape.md).
"""


class SigningError(Exception):
    """A refusal in words for people.

    `id` is the stable identifier (`PLG-…`), `code` the exit code of docs/cli, `message` says what was
    attempted and why it was refused, `hint` the next thing to type. Text that came from a plugin must
    be escaped by whoever displays it, not here.
    """

    id: str = "PLG-GEN-000"
    code: int = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
