"""explain: the page of an error id: what happened, why it is refused, what to do, an example."""

import os
import re
from typing import Annotated, Any, NamedTuple

import typer

from plugsec.cli.common import emit_json, refuse
from plugsec.cli.edge import show
from plugsec.cli.options import Json, examples
from plugsec.errors import REFUSALS, UsageError

ID = re.compile(r"PLG-[A-Z]+-[0-9]+", re.ASCII)
_PAGE = re.compile(
    r"# (?P<id>PLG-[A-Z]+-[0-9]+): (?P<title>[^\n]+)\n\nExit code (?P<code>[0-9]+)\.\n\n"
    r"\*\*What happened\.\*\* (?P<happened>.+)\n\n\*\*Why it is refused\.\*\* (?P<why>.+)\n\n"
    r"\*\*What to do\.\*\* (?P<next>.+)\n\n\*\*Example\.\*\*\n\n```text\n(?P<example>.+)\n```\n",
    re.DOTALL,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain", epilog=_EXAMPLES)(explain)


_EXAMPLES = examples(
    "plugsec explain PLG-BND-007", "plugsec explain --list", "plugsec explain PLG-BND-007 --json"
)


class Page(NamedTuple):
    """What there is to say about an error id; `code` is the exit code that goes with it."""

    id: str
    title: str
    code: int
    happened: str
    why: str
    next: str
    example: str


def explain(
    what: Annotated[str | None, typer.Argument(metavar="ID", help="An error id such as PLG-BND-007.")] = None,
    every: Annotated[bool, typer.Option("--list", help="All ids, one a line.")] = False,
    json: Json = False,
) -> None:
    """Explain an error id: what happened, why it is refused, what to do."""
    try:
        if every == (what is not None):
            raise UsageError("give an error id, or --list", "plugsec explain PLG-BND-007")
        if every:
            _list(as_json=json)
            return
        page = read_page(_known_id(str(what)))
    except REFUSALS as err:
        refuse(err, as_json=json)
    if json:
        emit_json({"outcome": "ok", "code": 0, "page": page._asdict()})
        return
    show(f"{page.id}: {page.title} (exit code {page.code})")
    for heading, text in (("what happened", page.happened), ("why", page.why), ("what to do", page.next)):
        show("")
        show(f"{heading}:")
        show(f"  {text}")
    show("")
    for line in page.example.split("\n"):
        show(f"  {line}")


def page_ids() -> list[str]:
    """Every id that has a page, sorted."""
    return sorted(name.removesuffix(".md") for name in os.listdir(_directory()) if ID.match(name))


def read_page(error_id: str) -> Page:
    """Read the page of an id that has one."""
    with open(os.path.join(_directory(), f"{error_id}.md"), encoding="utf-8") as file:
        found = _PAGE.fullmatch(file.read())
    if found is None:
        raise RuntimeError(f"the page of {error_id} is not of the form of all others")
    fields: dict[str, Any] = found.groupdict()
    return Page(**{**fields, "code": int(fields["code"])})


def _list(*, as_json: bool) -> None:
    pages = [read_page(each) for each in page_ids()]
    if as_json:
        emit_json({"outcome": "ok", "code": 0, "pages": [page._asdict() for page in pages]})
        return
    for page in pages:
        show(f"{page.id:<12} {page.code:>3}  {page.title}")


def _known_id(text: str) -> str:
    from plugsec_policies.suggest import did_you_mean  # noqa: PLC0415

    wanted, known = text.upper(), page_ids()
    if wanted in known:
        return wanted
    if not ID.fullmatch(wanted):
        raise UsageError(f"{text!r} is not an error id", "ids look like PLG-BND-007; plugsec explain --list")
    hint = did_you_mean(wanted, known)
    near = hint.startswith("did you mean")  # otherwise it would be the whole list
    raise UsageError(f"there is no error id {wanted}", hint if near else "plugsec explain --list shows all")


def _directory() -> str:
    """Where the pages are: inside the installed package, or in a checkout's docs."""
    import plugsec  # noqa: PLC0415

    package = os.path.dirname(os.path.abspath(str(plugsec.__file__)))
    checkout = os.path.join(os.path.dirname(os.path.dirname(package)), "docs", "errors")
    for candidate in (os.path.join(package, "error_pages"), checkout):
        if os.path.isdir(candidate):
            return candidate
    raise UsageError("this installation has no error pages", "they are docs/errors/ of the sources")
