"""The guest's side of the call channel: newline-delimited JSON-RPC 2.0 on one descriptor.

Everything here runs in the plugin's process and is therefore not trusted by the supervisor, which
decodes and checks each frame again. Plugin code is imported only once the call has arrived.
"""

import json
import os
import sys

from plugsec_plugins.guest import claims, sdk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

FRAME_BYTES_MAX = 16 * 1024 * 1024  # the supervisor sends at most 8 MiB of input
_TRACE_CHARACTERS_MAX = 4000
_READ_BYTES = 65536

PARSE_ERROR, METHOD_NOT_FOUND, PLUGIN_RAISED = -32700, -32601, -32000


class _Channel:
    """Whole frames in both directions over one stream socket."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""

    def read(self) -> "dict[str, Any] | None":
        """The next frame, or None at the end."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > FRAME_BYTES_MAX:
                return None
            chunk = os.read(self._fd, _READ_BYTES)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        frame: dict[str, Any] = json.loads(line)
        return frame

    def write(self, frame: "dict[str, Any]") -> None:
        data = memoryview(json.dumps(frame, allow_nan=False, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(self._fd, data) :]

    def notify(self, method: str, params: "dict[str, Any]") -> None:
        self.write({"jsonrpc": "2.0", "method": method, "params": params})


def main(fd: int, module: str) -> "NoReturn":
    """Answer `plugsec/hello` and one `call`, then leave."""
    channel = _Channel(fd)
    code = 0
    while (frame := channel.read()) is not None:
        if frame["method"] == "plugsec/hello":
            params = frame["params"]
            channel.write(
                {"jsonrpc": "2.0", "id": frame["id"], "result": {"version": max(params["versions"])}}
            )
            claims.install(
                lambda call, path: channel.notify("$/denied", {"call": call, "path": path[:4096]}),
                tuple(params["readable"]),
                tuple(params["writable"]),
            )
        elif frame["method"] == "call":
            reply = _call(channel, module, frame["params"])
            code = 1 if "error" in reply else 0
            _flush()
            channel.write({"jsonrpc": "2.0", "id": frame["id"], **reply})
            break
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # the plugin closed it, or the supervisor stopped reading


def _call(channel: _Channel, module: str, params: "dict[str, Any]") -> "dict[str, Any]":
    for stream in (sys.stdout, sys.stderr):
        # A plugin's streams are text files here; typeshed calls them TextIO, which has no reconfigure.
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    try:
        __import__(module)
        function = sdk.plugin.methods.get(params["method"])
        if function is None:
            known = ", ".join(sorted(sdk.plugin.methods)) or "none"
            text = f"the module {module} offers no method {params['method']!r} (it offers: {known})"
            return {"error": {"code": METHOD_NOT_FOUND, "message": text}}
        context = sdk.Context(deadline_ms=params["deadline_ms"], notify=channel.notify)
        result = _invoke(function, params["params"], context)
        json.dumps(result, allow_nan=False)  # what JSON cannot say is this method's error, not the channel's
    except SystemExit as error:
        return _raised(error, f"the plugin called sys.exit({error.code!r})")
    except BaseException as error:  # whatever the plugin raised is its answer
        return _raised(error, f"{type(error).__name__}: {error}")
    return {"result": result}


def _invoke(function: "Any", value: "Any", context: sdk.Context) -> "Any":  # noqa: ANN401 - any JSON
    """Call with the input object's members as keywords; any other input is the one argument."""
    code = getattr(function, "__code__", None)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if code else ()
    keywords = {"ctx": context} if "ctx" in names else {}
    if isinstance(value, dict):
        return function(**value, **keywords)
    return function(value, **keywords)


def _raised(error: BaseException, text: str) -> "dict[str, Any]":
    data = {"type": type(error).__name__, "trace": ""}
    if not isinstance(error, MemoryError):
        try:
            data["trace"] = _trace(error)
        except (OSError, ImportError):
            data["trace"] = ""  # no descriptor is left to read the module with; the error itself says that
    return {"error": {"code": PLUGIN_RAISED, "message": text[:2000], "data": data}}


def _trace(error: BaseException) -> str:
    import traceback  # noqa: PLC0415 - 15 ms that only a failing plugin pays

    where = error.__traceback__
    while where is not None and where.tb_frame.f_code.co_filename == __file__:
        where = where.tb_next  # the author's own frames are what helps
    return "".join(traceback.format_exception(type(error), error, where))[-_TRACE_CHARACTERS_MAX:]
