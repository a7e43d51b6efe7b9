"""Plugins that use up a known amount of something, in Python and as a static native program.

Each takes `{"what": WORD, "amount": N}` and answers with what it knows of its own use.
"""

import functools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kit.home import Home
from kit.native import run_file
from plugsec.outcome import Outcome

MIB = 1024 * 1024
_GENEROUS = """
schema = "plugsec.policy/1"
[limits]
wall_ms = 300000
cpu_ms = 120000
memory = "1G"
output_bytes = "64M"
tmp_bytes = "1G"
file_bytes = "1G"
denials = 1000000
processes = 65
[[grant]]
id = "children"
plugins = ["*"]
process = 64
"""
ASKS = ({"name": "process", "max": 64, "reason": "starts children"},)

_PYTHON = """
import mmap, os, time

def burn(milliseconds):
    while time.process_time() * 1000 < milliseconds: pass
    return round(time.process_time() * 1000)

def burn_in_a_child(milliseconds):  # which nobody waits for
    if not os.fork():
        burn(milliseconds)
        os.write(ends[1], b"x")
        time.sleep(600)
    os.read(ends[0], 1)
    return milliseconds

def burn_and_hang(milliseconds):
    burn(milliseconds)
    time.sleep(600)

def touch(megabytes):
    block = mmap.mmap(-1, megabytes << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, megabytes << 20, 4096): block[at] = 1
    time.sleep(0.15)
    return megabytes

def touch_in_children(megabytes):
    for _ in range(4):
        if not os.fork():
            touch(megabytes // 4)
            os.write(ends[1], b"x")
            time.sleep(600)
    for _ in range(4): os.read(ends[0], 1)
    return megabytes

def write_files(megabytes):
    with open("/tmp/x", "wb") as file:
        for _ in range(megabytes): file.write(bytes(1 << 20))
    return megabytes

def live_together(tasks):
    children = []
    for _ in range(tasks - 1):
        child = os.fork()
        if not child:
            time.sleep(600)
        children.append(child)
    time.sleep(0.15)
    for child in children: os.kill(child, 9)
    for child in children: os.waitpid(child, 0)
    return tasks

def say(count):
    for fd in (1, 2):
        for _ in range(count // 2 // 1000): os.write(fd, b" " * 1000)
    return count

def sleep(milliseconds):
    time.sleep(milliseconds / 1000)
    return milliseconds

ends = os.pipe()

@plugin.method
def go(what, amount):
    return globals()[what](amount)
"""

_NATIVE = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int ends[2];

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}
static void nap(long ms) { struct timespec t = {ms / 1000, ms % 1000 * 1000000}; nanosleep(&t, 0); }
static void burn(long ms) { while (now_ms() < ms); }
static void touch(long mib) {
    volatile char *p = mmap(0, mib << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long at = 0; at < mib << 20; at += 4096) p[at] = 1;
    nap(150);
}
static void done(void) { if (write(ends[1], "x", 1)) nap(600000); _exit(0); }

int main(void) {
    char in[4096], *at, what[64] = "";
    ssize_t n = read(0, in, sizeof in - 1);
    in[n > 0 ? n : 0] = 0;
    if ((at = strstr(in, "\"what\":\""))) sscanf(at + 8, "%63[a-z_]", what);
    long amount = (at = strstr(in, "\"amount\":")) ? atol(at + 9) : 0;
    char x;
    if (pipe(ends)) return 9;
    if (!strcmp(what, "burn")) { burn(amount); amount = now_ms(); }
    else if (!strcmp(what, "burn_and_hang")) { burn(amount); nap(600000); }
    else if (!strcmp(what, "burn_in_a_child")) {
        if (!fork()) { burn(amount); done(); }
        if (read(ends[0], &x, 1) != 1) return 9;
    }
    else if (!strcmp(what, "touch")) touch(amount);
    else if (!strcmp(what, "touch_in_children")) {
        for (int i = 0; i < 4; i++) if (!fork()) { touch(amount / 4); done(); }
        for (int i = 0; i < 4; i++) if (read(ends[0], &x, 1) != 1) return 9;
    }
    else if (!strcmp(what, "write_files")) {
        FILE *file = fopen("/tmp/x", "w");
        char *block = calloc(1, 1 << 20);
        for (long i = 0; i < amount; i++) fwrite(block, 1, 1 << 20, file);
        fclose(file);
    }
    else if (!strcmp(what, "live_together")) {
        pid_t children[64];
        for (long i = 0; i < amount - 1; i++) if (!(children[i] = fork())) { nap(600000); _exit(0); }
        nap(150);
        for (long i = 0; i < amount - 1; i++) { kill(children[i], SIGKILL); waitpid(children[i], 0, 0); }
    }
    else if (!strcmp(what, "say")) {
        char block[1000];
        memset(block, ' ', sizeof block);
        for (int fd = 1; fd < 3; fd++)
            for (long i = 0; i < amount / 2 / 1000; i++) if (write(fd, block, 1000) != 1000) return 9;
    }
    else if (!strcmp(what, "sleep")) nap(amount);
    else return 9;
    printf("%ld\n", amount);
    return 0;
}
"""


def generous(home: Home) -> str:
    """A policy with higher limits than strict's, and children."""
    path = home.root / "generous.toml"
    path.write_text(_GENEROUS)
    return str(path)


@functools.cache
def static_program(source: str) -> bytes:
    """A C program, statically linked; skips the test where the host has no compiler."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: native test programs cannot be built (apt install gcc libc6-dev)")
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        (where / "program.c").write_text(source)
        command = ["cc", "-O1", "-static", "-pthread", "-o", "program", "program.c"]
        subprocess.run(command, check=True, cwd=where)
        return (where / "program").read_bytes()


def use_up(home: Home, kind: str, what: str, amount: int, **limits: int) -> Outcome:
    """Run one workload as a `kind` ("python" or "native") of plugin."""
    call = json.dumps({"what": what, "amount": amount}, separators=(",", ":")).encode()
    more: dict[str, Any] = {"permissions": ASKS, "limits": {"wall_ms": 30_000, **limits}, "input": call}
    policy = generous(home)
    if kind == "native":
        return run_file(home, static_program(_NATIVE), policy, **more)
    return home.attack(_PYTHON, policy, **more)
