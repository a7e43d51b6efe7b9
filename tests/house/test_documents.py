"""What the documents say is true: commands in `console` blocks are run, links lead somewhere.

A `console` block is a story told to a shell: lines after `$ ` are commands (`> ` continues one), the lines
below them are what the reader sees. Every such line must appear in the command's output, `…` standing for anything. A command
ends with status 0 unless its line says `# exit N`. A `python run` block is a program and one more command.
The blocks of one document run in order, in one fresh
folder with nothing of the user's own.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CLONE = Path(__file__).parent.parent.parent
DOCUMENTS = sorted(path for pattern in ("*.md", "docs/**/*.md") for path in CLONE.glob(pattern))
STATUS = re.compile(r"\s+# exit (\d+)$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND_SECONDS = 120  # far above any command here; what takes longer hangs
# What the reader of a document has in front of them when its story begins.
AT_HAND = {
    "README.md": ("LICENSE",),
    "docs/formats/bundle.md": tuple(
        f"tests/signing/golden/{name}"
        for name in ("wordfreq-1.2.3.plug", "acme.pub", "attested-1.2.3.plug", "review.pub")
    ),
    "docs/user-guide.md": ("LICENSE", "plugins/examples"),
}


class Step(NamedTuple):
    """One command of a story, what it ends with, and the lines that the document shows below it."""

    line: int
    command: str
    status: int
    shown: list[str]


def steps(document: Path) -> Iterator[Step]:
    inside, step = False, None
    program: list[str] | None = None
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if step:
                yield step
            if program is not None:
                yield Step(number, f"python3 -c {shlex.quote(chr(10).join(program))}", 0, [])
            inside, step = line.strip() == "```console", None
            program = [] if line.strip() == "```python run" else None
        elif program is not None:
            program.append(line)
        elif inside and line.startswith("$ "):
            if step:
                yield step
            status = STATUS.search(line)
            step = Step(number, STATUS.sub("", line[2:]), int(status[1]) if status else 0, [])
        elif inside and step and (line == ">" or line.startswith("> ")):  # the shell's second prompt
            step = step._replace(command=f"{step.command}\n{line[2:]}")
        elif inside and step and line.strip():
            step.shown.append(line.strip())


# The page of an error id shows what a refusal looks like, not a story of its own; test_explain looks at those.
STORIES = [document for document in DOCUMENTS if document.parent.name != "errors" and any(steps(document))]


def missing_layers(environment: dict[str, str]) -> list[str]:
    """Ask doctor which layers that builtin:strict requires are missing on this host."""
    doctor = subprocess.run(
        [sys.executable, "-m", "plugsec", "doctor", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )
    return list(json.loads(doctor.stdout)["missing"])


@pytest.mark.parametrize("document", STORIES, ids=lambda path: str(path.relative_to(CLONE)))
def test_a_document_tells_a_true_story(document: Path, tmp_path: Path) -> None:
    bin_dir = Path(sys.executable).parent
    if not (bin_dir / "plugsec").exists():
        pytest.skip("no installed `plugsec` beside this interpreter; `make test` installs the wheel first")
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    # NO_COLOR and a fixed width: what is compared is what a pipe shows.
    environment = {
        "HOME": str(home),
        "PATH": f"{bin_dir}:{os.environ.get('PATH', os.defpath)}",
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "COLUMNS": "110",
        "TMPDIR": str(tmp_path),
    }
    if missing := missing_layers(environment):
        pytest.skip(f"this host lacks {', '.join(missing)}")
    for name in AT_HAND.get(str(document.relative_to(CLONE)), ()):
        copy = shutil.copytree if (CLONE / name).is_dir() else shutil.copy
        copy(CLONE / name, here / Path(name).name)
    for step in steps(document):
        where = f"{document.name}:{step.line}: {step.command}"
        if step.command.startswith("cd "):
            here /= step.command[3:].strip()
            continue
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=here,
            env=environment,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
        )
        assert done.returncode == step.status, f"{where}\n{done.stdout}"
        for line in step.shown:
            pattern = ".*".join(re.escape(part) for part in line.split("…"))
            assert re.search(pattern, done.stdout), f"{where}\nshould show: {line}\nshows:\n{done.stdout}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CLONE)))
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    files = [target.split("#")[0] for target in targets if ":" not in target and not target.startswith("#")]
    assert [name for name in files if not (document.parent / name).exists()] == []


def test_the_decisions_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (CLONE / "docs/adr").glob("*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
