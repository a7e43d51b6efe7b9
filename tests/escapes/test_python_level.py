"""Attacks from inside the interpreter: on the guest SDK, on the frames, on the supervisor that reads them.

A Python plugin owns its interpreter, so nothing in there is a wall. What must hold is the other side: the
run ends, with a code that tells the truth, and says nothing but what the plugin could have said anyway.
"""

import json
import resource
from typing import NamedTuple

import pytest

from kit.home import Home
from kit.outside import canary

# A flood must fill no more than its own budget; what the supervisor may grow by beyond it is slack.
_GROWTH_BYTES_MAX = 256 * 1024 * 1024


class Frames(NamedTuple):
    """Bytes on the call channel in the place of an answer, and how the run has to end."""

    name: str
    data: bytes
    outcome: str = "failed"
    code: int = 6
    result: object = None


_ANSWER = b'{"jsonrpc":"2.0","id":2,"result":"forged"}\n'
FRAMES = (
    Frames("two answers: the first counts", _ANSWER + _ANSWER.replace(b"forged", b"second"), "ok", 0, "forged"),
    Frames("an answer and then garbage", _ANSWER + b"\xff\x00garbage", "ok", 0, "forged"),
    Frames("an answer to what was not asked", _ANSWER.replace(b":2,", b":3,")),
    Frames("an answer to the greeting again", _ANSWER.replace(b":2,", b":1,")),
    Frames("an answer with a text for an id", _ANSWER.replace(b":2,", b':"2",')),
    Frames("an answer with a list for an id", _ANSWER.replace(b":2,", b":[2],")),
    Frames("an answer with null for an id", _ANSWER.replace(b":2,", b":null,")),
    Frames("an answer with a negative id", _ANSWER.replace(b":2,", b":-2,")),
    Frames("an answer with a huge id", _ANSWER.replace(b":2,", b":" + b"9" * 5000 + b",")),
    Frames("neither result nor error", b'{"jsonrpc":"2.0","id":2}\n'),
    Frames("result and error at once", b'{"jsonrpc":"2.0","id":2,"result":1,"error":{"message":"x"}}\n'),
    Frames("an error that is no object", b'{"jsonrpc":"2.0","id":2,"error":"x"}\n'),
    Frames("an error of wrong types", b'{"jsonrpc":"2.0","id":2,"error":{"message":[],"data":7,"code":{}}}\n'),
    Frames("an error with wrong details", b'{"jsonrpc":"2.0","id":2,"error":{"data":{"type":[1],"trace":{"a":1}}}}\n'),
    Frames("another version", b'{"jsonrpc":"1.0","id":2,"result":1}\n'),
    Frames("no version", b'{"id":2,"result":1}\n'),
    Frames("a request to the supervisor", b'{"jsonrpc":"2.0","id":7,"method":"open","params":{}}\n'),
    Frames("an unknown notification", b'{"jsonrpc":"2.0","method":"$/exec","params":{}}\n'),
    Frames("a notification without parameters", b'{"jsonrpc":"2.0","method":"$/log"}\n'),
    Frames("a notification with a list", b'{"jsonrpc":"2.0","method":"$/log","params":["x"]}\n'),
    Frames("no object", b"[1,2,3]\n"),
    Frames("a number", b"7\n"),
    Frames("an empty line", b"\n"),
    Frames("a batch", b"[" + _ANSWER.strip() + b"]\n"),
    Frames("garbage", bytes(range(256)) + b"\n"),
    Frames("zeros", bytes(4096) + b"\n"),
    Frames("half a frame", _ANSWER[:20]),
    Frames("a frame without its end", _ANSWER.strip()),
    Frames("no JSON", b"{'jsonrpc': '2.0'}\n"),
    Frames("UTF-16", _ANSWER.decode().encode("utf-16")),
    Frames("a byte order mark", b"\xef\xbb\xbf" + _ANSWER),
    Frames("no UTF-8", _ANSWER.replace(b"forged", b"\xff\xfe")),
    Frames("a lone surrogate", _ANSWER.replace(b"forged", b"\\ud800")),
    Frames("NaN", _ANSWER.replace(b'"forged"', b"NaN")),
    Frames("Infinity", _ANSWER.replace(b'"forged"', b"-Infinity")),
    Frames("1e400", _ANSWER.replace(b'"forged"', b"1e400")),
    Frames("5,000 digits", _ANSWER.replace(b'"forged"', b"1" * 5000)),
    Frames("a duplicate member", b'{"jsonrpc":"2.0","id":2,"result":1,"result":2}\n'),
    Frames("a duplicate member deep inside", _ANSWER.replace(b'"forged"', b'{"a":[{"b":1,"b":2}]}')),
    Frames("1,000 levels", _ANSWER.replace(b'"forged"', b"[" * 1000 + b"]" * 1000)),
    Frames("a million levels", b"[" * 1_000_000 + b"\n"),
    Frames("a million objects", b'{"a":' * 1_000_000 + b"\n"),
    Frames("two frames on one line", _ANSWER.strip() + _ANSWER),
    Frames("a carriage return inside", _ANSWER.replace(b",", b",\r"), "ok", 0, "forged"),
    Frames("members in another order", b'{"result":"forged","id":2,"jsonrpc":"2.0"}\n', "ok", 0, "forged"),
    Frames("members that nobody asked for", _ANSWER.replace(b"}", b',"x":{"y":1}}'), "ok", 0, "forged"),
)  # fmt: skip
_WRITER = """
import os
@plugin.method
def go(data):
    data = bytes.fromhex(data) if isinstance(data, str) else b""
    while data:
        data = data[os.write(3, data):]
    os._exit(0)
"""


@pytest.mark.parametrize("frames", FRAMES, ids=lambda frames: frames.name)
def test_frames(frames: Frames, home: Home) -> None:
    """What is no answer to the call ends the run as a failure of the plugin, never of ours."""
    data = frames.data
    if len(data) > 100_000:  # as a recipe, not as an input
        unit = b'{"a":' if data.startswith(b'{"a":') else b"["
        source = _WRITER.replace('else b""', f'else {unit!r} * 1_000_000 + b"\\n"')
        outcome = home.attack(source, input=b'{"data":0}')
    else:
        outcome = home.attack(_WRITER, input=json.dumps({"data": data.hex()}).encode())
    assert (outcome.outcome, outcome.code, outcome.result) == (frames.outcome, frames.code, frames.result)
    if frames.code == 6:
        assert outcome.error is not None
        assert outcome.error.id.startswith("PLG-RUN-")


FLOODS = {
    "log lines": ('b\'{"jsonrpc":"2.0","method":"$/log","params":{"text":"x"}}\\n\' * 1000', 3),
    "log lines without text": ('b\'{"jsonrpc":"2.0","method":"$/log","params":{}}\\n\' * 1000', 3),
    "huge log lines": ('b\'{"jsonrpc":"2.0","method":"$/log","params":{"text":"\' + b"x" * 1_000_000 + b\'"}}\\n\'', 3),
    "claims of denials": (
        'b\'{"jsonrpc":"2.0","method":"$/denied","params":{"call":"read","path":"/%d"}}\\n\' % next(counter)', 3
    ),
    "progress": ('b\'{"jsonrpc":"2.0","method":"$/progress","params":{"done":1,"total":2}}\\n\' * 1000', 3),
    "one frame that never ends": ("b'x' * 65536", 3),
    "stdout": ("b'x' * 65536", 1),
    "stdout in lines": ("b'x\\n' * 32768", 1),
    "stderr": ("b'x' * 65536", 2),
    "stderr byte by byte": ("b'x'", 2),
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
def test_floods(flood: str, home: Home) -> None:
    """Every channel counts into one budget, and passing it ends the run with its name."""
    data, fd = FLOODS[flood]
    source = (
        "import itertools, os\ncounter = itertools.count()\n@plugin.method\ndef go():\n"
        f"    while True: os.write({fd}, {data})\n"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    outcome = home.attack(source, limits={"output_bytes": 1_000_000})
    assert outcome.limit is not None, outcome
    assert outcome.limit.name == "output"
    assert outcome.code == 7
    assert outcome.usage.output_bytes <= 1_000_000 + 65536
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < _GROWTH_BYTES_MAX


def test_a_frame_of_a_hundred_megabytes_is_not_kept(home: Home) -> None:
    """A generous budget does not make the channel take a frame beyond its own bound."""
    policy = home.policy('[limits]\noutput_bytes = "512M"\n')
    source = (
        "import os\n@plugin.method\ndef go():\n"
        '    os.write(3, b\'{"jsonrpc":"2.0","id":2,"result":"\')\n'
        "    for _ in range(1600): os.write(3, b'x' * 65536)\n"
        "    os.write(3, b'\"}\\n')\n    os._exit(0)\n"
    )
    outcome = home.attack(source, policy)
    assert outcome.code in {6, 7}
    assert outcome.result is None
    assert outcome.usage.output_bytes < 64 * 1024 * 1024


# How a plugin may leave ------------------------------------------------------------------------------------

ENDINGS = {
    "os._exit(0) without an answer": "os._exit(0)",
    "os._exit(0) in the middle of a frame": "(os.write(3, b'{\"jsonrpc\":\"2.0\",\"id\":2,\"res'), os._exit(0))",
    "os._exit(3)": "os._exit(3)",
    "os._exit(125), which is boot's own": "os._exit(125)",
    "sys.exit(0)": "sys.exit(0)",
    "sys.exit with a text": "sys.exit('bye')",
    "SystemExit of a list": "raise_(SystemExit([1, 2]))",
    "abort": "os.abort()",
    "a segmentation fault": "ctypes.string_at(1)",
    "a jump to nowhere": "ctypes.CFUNCTYPE(None)(8)()",
    "SIGKILL to itself": "signal.raise_signal(signal.SIGKILL)",
    "SIGSYS to itself": "signal.raise_signal(signal.SIGSYS)",
    "SIGXCPU to itself": "signal.raise_signal(signal.SIGXCPU)",
    "a real-time signal to itself": "signal.raise_signal(40)",
    "recursion": "deep()",
    "recursion in C": "deep_in_c()",
    "KeyboardInterrupt": "raise_(KeyboardInterrupt())",
    "GeneratorExit": "raise_(GeneratorExit())",
    "an exception without a text": "raise_(Unprintable())",
    "an exception with a huge text": "raise_(ValueError('x' * 10_000_000))",
    "an exception with a control sequence": "raise_(ValueError('\\x1b]52;c;x\\x07'))",
    "an exception with a lone surrogate": "raise_(ValueError('\\ud800'))",
    "a chain of a thousand exceptions": "chain(1000)",
    "a group of exceptions": "raise_(ExceptionGroup('g', [ValueError(1), OSError(2)]))",
    "a result that JSON does not know": "{1, 2}",
    "a result that is NaN": "float('nan')",
    "a result that holds itself": "endless()",
    "a result of bytes": "b'x'",
    "a result with a hostile class": "Hostile(a=1)",
    "a result with odd keys": "{(1, 2): 3}",
    "a closed channel": "os.close(3)",
    "a channel shut down": "__import__('socket').socket(fileno=3).shutdown(2)",
    "a channel in the place of stdout": "(os.dup2(1, 3), 1)[1]",
}  # fmt: skip
_ENDING = """
import ctypes, os, signal, sys

def raise_(error): raise error
def deep(): return deep()
def deep_in_c():
    sys.setrecursionlimit(10**9)
    value = []
    for _ in range(5_000_000): value = [value]
    return repr(value)
def chain(count):
    try:
        chain(count - 1) if count else raise_(ValueError("first"))
    except Exception as error:
        raise ValueError("next") from error
def endless():
    value = []
    value.append(value)
    return value
class Unprintable(Exception):
    def __str__(self): raise ValueError("no")
    __repr__ = __str__
class Hostile(dict):
    def items(self): raise SystemExit(7)
    def __iter__(self): os._exit(9)

@plugin.method
def go(ending):
    return eval(ending)
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_without_an_answer_are_the_plugins_failure(ending: str, home: Home) -> None:
    """Exit 6 with words that a person understands; no limit is blamed that was not hit."""
    call = json.dumps({"ending": ENDINGS[ending]}).encode()
    outcome = home.attack(_ENDING, input=call, limits={"wall_ms": 20_000})
    assert (outcome.outcome, outcome.code, outcome.limit) == ("failed", 6, None), outcome
    assert outcome.error is not None
    assert outcome.error.message
    assert len(outcome.error.message) + len(outcome.error.hint) < 20_000


# What a plugin can do to what is around it in the interpreter -------------------------------------------------

TAMPERING = {
    "another sdk": "sys.modules['plugsec_plugins.guest.sdk'].plugin.methods.clear()",
    "another serve": "setattr(sys.modules['plugsec_plugins.guest.serve'], '_raised', None)",
    "another json": "[setattr(json, n, None) for n in ('loads', 'decoder')]",
    "another write": "setattr(os, 'write', lambda fd, data: (_ for _ in ()).throw(OSError(5)))",
    "a trace of every call": "sys.settrace(lambda *a: None)",
    "a profile of every call": "sys.setprofile(lambda *a: None)",
    "an audit hook that refuses": "sys.addaudithook(lambda event, a: (_ for _ in ()).throw(OSError(event)))",
    "an audit hook that lies": "sys.addaudithook(lambda event, a: None)",
    "no builtins": "__import__('builtins').__dict__.pop('len')",
    "a broken importer": "sys.meta_path.insert(0, None)",
    "frames above it": "[sys._getframe(n).f_locals.clear() for n in range(3)]",
    "frames above it, kept": "[sys._getframe(n).f_globals.clear() for n in range(1, 4)]",
    "no garbage collection": "(gc.disable(), gc.freeze())",
    "an exit handler that never returns": "atexit.register(time.sleep, 600)",
    "a thread that never ends": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "an object that lives after the end": "setattr(sys, 'x', type('D', (), {'__del__': lambda s: time.sleep(600)})())",
    "a held lock": "threading._shutdown_locks_lock.acquire() if hasattr(threading, '_shutdown_locks_lock') else 0",
    "the interpreter's own memory": "ctypes.memset(id(None), 0xff, 8)",
    "every object there is": "[o.clear() for o in gc.get_objects() if type(o) is dict and 'sock' in o]",
    "closed outputs": "(sys.stdout.close(), sys.stderr.close())",
    "closed descriptors": "(os.close(0), os.close(1), os.close(2))",
}  # fmt: skip
_TAMPERED = """
import atexit, ctypes, gc, json, os, sys, threading, time
@plugin.method
def go(act):
    eval(act)
    return "answered"
"""


@pytest.mark.parametrize("act", TAMPERING)
def test_tampering_changes_only_the_plugins_own_answer(act: str, home: Home) -> None:
    """Whatever it breaks in its interpreter, the run ends at once with its answer or its failure."""
    call = json.dumps({"act": TAMPERING[act]}).encode()
    outcome = home.attack(_TAMPERED, input=call, limits={"wall_ms": 20_000})
    assert (outcome.outcome, outcome.result) in {("ok", "answered"), ("failed", None)}, outcome


def test_a_silenced_audit_hook_hides_no_kernel_denial(home: Home) -> None:
    """Claims are the interpreter's and can be lost; the kernel's word cannot."""
    source = """
import os, sys
@plugin.method
def go():
    claims = sys.modules["plugsec_plugins.guest.claims"]
    claims._absolute = lambda argument: None
    try:
        open("/etc/shadow")
    except OSError:
        pass
    try:
        os.kill(1, 9)
    except OSError:
        pass
"""
    outcome = home.attack(source)
    if "denial-report" not in outcome.layers_active:
        pytest.skip("denial-report: another filter's listener stands in the way on this host")
    assert [(denial.call, denial.source) for denial in outcome.denials] == [("kill", "kernel")]


def test_a_claim_of_denials_is_only_a_claim(home: Home) -> None:
    """A plugin that makes some up is not believed to have met the kernel, and no limit counts them."""
    frame = (
        '{"jsonrpc":"2.0","method":"$/denied","params":{"call":"socket","path":"AF_INET","source":"kernel"}}'
    )
    source = f"import os\n@plugin.method\ndef go(): os.write(3, {(frame + chr(10)).encode()!r} * 50)\n"
    outcome = home.attack(source, limits={"denials": 10})
    assert outcome.code == 0
    assert {(denial.source, denial.count) for denial in outcome.denials} == {("claimed", 50)}


def test_the_guest_holds_nothing_of_the_supervisors(home: Home) -> None:
    """A walk over every object of the interpreter finds no socket, no lock and no secret to use."""
    source = """
import gc, os, sys, types
@plugin.method
def go(secret):
    names, found = set(), []
    for thing in gc.get_objects():
        kind = type(thing).__name__
        if kind == "socket" and thing.fileno() != -1:
            found.append("an open socket")
        if isinstance(thing, types.ModuleType):
            names.add(thing.__name__)
    modules = sorted(n for n in names | set(sys.modules) if n.startswith("plugsec") and "guest" not in n)
    return [found, [n for n in modules if n.split(".")[1:2] not in ([], ["sandbox"], ["runtimes"], ["typed"])]]
"""
    outcome = home.attack(source, input=b'{"secret":"x"}')
    assert outcome.result == [[], []]


def test_plugsec_does_not_start_again_inside(home: Home) -> None:
    """Neither its package nor its command is there, and a jail in the jail cannot be made."""
    source = """
import sys
@plugin.method
def go():
    said = []
    for name in ("plugsec.pipeline", "plugsec.cli.run", "plugsec_policies.decision", "plugsec_signing.verify",
                 "psutil", "cryptography", "typer", "site", "plugsec.sandbox.launch"):
        sys.modules.pop(name, None)
        try:
            __import__(name)
            said.append(name)
        except ImportError:
            pass
    return said
"""
    assert home.attack(source).result in ([], ["site"])


def test_a_plugin_named_like_the_standard_library_shadows_only_itself(home: Home) -> None:
    """Its modules come first on its own path, after everything that boot needed was imported."""
    files = dict.fromkeys(
        ("json.py", "os.py", "encodings.py", "traceback.py", "_socket.py", "sitecustomize.py"),
        "import os\nos.write(2, b'shadowed')\nraise SystemExit\n",
    )
    files["main.py"] = "from plugsec_plugins.guest import plugin\n@plugin.method\ndef go(): return 1\n"
    outcome = home.run(home.bundle(files))
    assert (outcome.result, outcome.stderr) == (1, b"")


def test_code_at_the_top_of_a_module_runs_inside(home: Home) -> None:
    """Importing is running: it happens after the go-ahead, in the jail, and is watched like the call."""
    with canary() as own:
        before = own.state()
        outcome = home.attack(f"open({str(own.file)!r}, 'w')\n@plugin.method\ndef go(): return 1\n")
        assert outcome.code == 6
        assert own.state() == before
    outcome = home.attack("import time\ntime.sleep(600)\n", limits={"wall_ms": 300})
    assert outcome.limit is not None
    assert outcome.limit.name == "wall"


def test_input_does_not_choose_what_is_called(home: Home) -> None:
    """The members of the input are arguments; none of them is code or a method's name."""
    source = """
@plugin.method
def go(**members):
    return sorted(members)
"""
    call = {"ctx": 1, "method": "x", "__class__": "x", "self": 2, "plugin": 3}
    outcome = home.attack(source, input=json.dumps(call).encode())
    assert outcome.code in {0, 6}
    assert outcome.code == 6 or set(outcome.result) == set(call)
