"""How a call is put to the plugin and its answer read back: `rpc` over descriptor 3, or `oneshot`.

Both read bytes that the plugin wrote, through the one hardened decoder. An `Answer` is what the plugin
said; whether it is believed (limits, schema) is decided later.
"""

import json
import os
import signal

from plugsec.supervision.denials import DenialCounter
from plugsec.supervision.streams import Reader
from plugsec_signing.canonical import decode
from plugsec_signing.errors import SigningError
from plugsec_signing.typed import Any, NamedTuple, Protocol

PROTOCOL_VERSIONS = (1,)
HELLO_ID, CALL_ID = 1, 2
RESULT_BYTES_MAX = 8 * 1024 * 1024
_FRAMES_PER_TURN_MAX = 256
# Decoded in one turn while the plugin lives: hostile JSON takes 0.1 µs a byte, and the deadline, the
# listener and the pipes wait for it. A larger frame can only be the answer; it is decoded afterwards.
LIVE_BYTES_MAX = 128 * 1024
_TEXT_CHARACTERS_MAX = 4000


class Answer(NamedTuple):
    """What came back: a result, or an error in the plugin's words (`error_type` is its exception)."""

    ok: bool
    result: Any = None
    message: str = ""
    error_type: str = ""
    trace: str = ""
    broken: bool = False  # the plugin broke the protocol


class Dialect(Protocol):
    """One way of talking to a plugin."""

    answer: Answer | None
    notes: list[str]
    pending: bool  # whole frames are waiting for the next turn

    @property
    def over(self) -> bool:
        """Nothing more is expected of the plugin."""
        ...

    def advance(self, denials: DenialCounter) -> None:
        """Take in what the reader has collected so far; sets `answer` when there is one."""
        ...

    def finish(self, status: int | None) -> None:
        """The plugin is over with this wait status; draw the last conclusion."""
        ...


class Rpc:
    """Newline-delimited JSON-RPC 2.0, see the guest's `serve.py`."""

    def __init__(self, reader: Reader) -> None:
        self.answer: Answer | None = None
        self.notes: list[str] = []
        self.pending = False
        self._reader = reader
        self._position = self._searched = 0
        self._large = b""  # a frame that is decoded when the plugin is dead
        self._greeted = False

    @property
    def over(self) -> bool:
        """Whether the answer is there, read or unread."""
        return self.answer is not None or bool(self._large)

    @staticmethod
    def request(
        method: str,
        params: Any,  # noqa: ANN401 - any JSON
        deadline_ms: int,
        readable: tuple[str, ...],
        writable: tuple[str, ...],
    ) -> bytes:
        """The greeting and the call, sent together."""
        hello = {
            "versions": PROTOCOL_VERSIONS, "nonce": os.urandom(8).hex(),
            "readable": readable, "writable": writable,
        }  # fmt: skip
        call = {"method": method, "params": params, "deadline_ms": deadline_ms}
        frames = (
            {"jsonrpc": "2.0", "id": HELLO_ID, "method": "plugsec/hello", "params": hello},
            {"jsonrpc": "2.0", "id": CALL_ID, "method": "call", "params": call},
        )
        return b"".join(json.dumps(frame, separators=(",", ":")).encode() + b"\n" for frame in frames)

    def advance(self, denials: DenialCounter) -> None:
        """Handle whole frames, at most _FRAMES_PER_TURN_MAX and LIVE_BYTES_MAX a turn."""
        data = self._reader.data
        self.pending = False
        stop = self._position + LIVE_BYTES_MAX
        for _ in range(_FRAMES_PER_TURN_MAX):
            if self.over:
                return
            if self._position > stop:
                break
            end = data.find(b"\n", max(self._position, self._searched))
            if end < 0:
                self._searched = len(data)
                if len(data) - self._position > RESULT_BYTES_MAX:
                    self._break(f"a frame of more than {RESULT_BYTES_MAX} bytes")
                return
            line = bytes(data[self._position : end])
            self._position = end + 1
            if len(line) > LIVE_BYTES_MAX:
                self._large = line
            else:
                self._frame(self._decoded(line), denials)
        self.pending = True

    def finish(self, status: int | None) -> None:
        """No more frames will come."""
        if self._large and self.answer is None and (frame := self._decoded(self._large)) is not None:
            if "id" in frame:
                self._reply(frame)
            else:
                self._break(f"a notification of more than {LIVE_BYTES_MAX} bytes")
        if self.answer is None:
            self.answer = Answer(False, message=f"the plugin ended without an answer ({ending(status)})")

    def _break(self, what: str) -> None:
        self.answer = Answer(False, message=f"the plugin broke the call protocol: {what}", broken=True)

    def _decoded(self, line: bytes) -> dict[str, Any] | None:
        try:
            frame = decode(line, max_bytes=RESULT_BYTES_MAX)
        except SigningError as error:
            self._break(error.message)
            return None
        if not isinstance(frame, dict) or frame.get("jsonrpc") != "2.0":
            self._break("not a JSON-RPC 2.0 object")
            return None
        return frame

    def _frame(self, frame: dict[str, Any] | None, denials: DenialCounter) -> None:
        if frame is None:
            return
        if "id" in frame:
            self._reply(frame)
        else:
            self._notification(frame.get("method"), frame.get("params"), denials)

    def _reply(self, frame: dict[str, Any]) -> None:
        identifier, error = frame["id"], frame.get("error")
        if identifier == HELLO_ID and not self._greeted and isinstance(frame.get("result"), dict):
            self._greeted = True
            if frame["result"].get("version") not in PROTOCOL_VERSIONS:
                self._break("no common protocol version")
        elif identifier != CALL_ID or not self._greeted:
            self._break("a reply to something that was not asked")
        elif "result" in frame and error is None:
            self.answer = Answer(True, result=frame["result"])
        elif isinstance(error, dict):
            extra = error.get("data")
            extra = extra if isinstance(extra, dict) else {}
            self.answer = Answer(
                False,
                message=str(error.get("message", ""))[:_TEXT_CHARACTERS_MAX],
                error_type=str(extra.get("type", ""))[:200],
                trace=str(extra.get("trace", ""))[:_TEXT_CHARACTERS_MAX],
            )
        else:
            self._break("a reply with neither a result nor an error")

    def _notification(self, method: object, params: object, denials: DenialCounter) -> None:
        if not isinstance(params, dict):
            self._break("a notification without parameters")
        elif method == "$/denied":
            denials.claim(str(params.get("call", ""))[:40], str(params.get("path", "")))
        elif method == "$/log":
            level = str(params.get("level", "info"))[:10]
            self.notes.append(f"{level}: {str(params.get('text', ''))[:_TEXT_CHARACTERS_MAX]}")
        elif method != "$/progress":
            self._break("an unknown notification")


class Oneshot:
    """`PROGRAM METHOD`: the input on stdin, the result on stdout, the exit status says which it is."""

    def __init__(self, reader: Reader) -> None:
        self.answer: Answer | None = None
        self.over = False  # before the program has ended
        self.notes: list[str] = []
        self.pending = False
        self._reader = reader

    @staticmethod
    def request(params: Any) -> bytes:  # noqa: ANN401
        """The program's stdin."""
        return json.dumps(params, separators=(",", ":")).encode() + b"\n"

    def advance(self, denials: DenialCounter) -> None:
        """Nothing to do before the program has ended."""

    def finish(self, status: int | None) -> None:
        """Read the result once the program has ended well."""
        if status != 0:
            self.answer = Answer(False, message=f"the program ended badly ({ending(status)})")
            return
        try:
            result = decode(bytes(self._reader.data), max_bytes=RESULT_BYTES_MAX)
        except SigningError as error:
            text = f"the program's stdout is not one JSON value: {error.message}"
            self.answer = Answer(False, message=text, broken=True)
        else:
            self.answer = Answer(True, result=result)


def ending(status: int | None) -> str:
    """A wait status in words."""

    if status is None:
        return "it was killed"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return f"killed by {name}" + (": a forbidden kind of system call" if name == "SIGSYS" else "")
    return f"exit status {os.WEXITSTATUS(status)}"
