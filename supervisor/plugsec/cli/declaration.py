"""The options of `plugsec run`, declared once.

Typer builds the command, its help and its errors from this table; `fast` reads a well-formed command
line from the same table without importing Typer (64 ms). A property test holds the two equal.
"""

ONE, MANY, PAIRS, FLAG = "one", "many", "pairs", "flag"


class Option:
    """One option: `kind` is ONE value, MANY (repeatable), PAIRS (`K=V`, repeatable) or FLAG.

    A plain class: this module is read before boot is started, and `typing` alone takes 2 ms.
    """

    __slots__ = ("flag", "help", "kind", "metavar", "name", "short")

    def __init__(self, flag: str, kind: str, metavar: str, help: str, short: str = "") -> None:
        self.flag, self.kind, self.metavar, self.help, self.short = flag, kind, metavar, help, short
        self.name = flag.removeprefix("--").replace("-", "_")  # `--input-file` is `input_file`


ARGUMENTS = (
    (
        "bundle",
        True,
        "BUNDLE|NAME",
        "A .plug file, or publisher/name[@version] as installed; ./FILE is a file.",
    ),
    ("method", False, "METHOD", "The method to call; may be left out when there is only one."),
)

RUN_OPTIONS = (
    Option("--input", ONE, "FILE|-", "The input, one JSON value; - reads standard input."),
    Option("--param", PAIRS, "K=V", "Adds a member to the input object; V is JSON if it reads as JSON."),
    Option("--input-file", PAIRS, "N=PATH", "A file that the plugin finds as $INPUT/N, read-only."),
    Option("--output-dir", ONE, "DIR", "Where files left in $OUTPUT go: a new or empty directory."),
    Option("--policy", MANY, "FILE", "A policy file or builtin:NAME; several mean their intersection."),
    Option("--limit", PAIRS, "K=V", "Lowers a limit, such as wall_ms=2000 or memory=64M."),
    Option("--receipt", ONE, "FILE", "Writes a signed receipt."),
    Option("--allow-degraded", MANY, "LAYER", "Accepts that a layer is missing, if the policy lists it."),
    Option("--unsafe-unsigned", FLAG, "", "Runs a bundle that nobody vouches for. Recorded as an override."),
    Option("--allow-downgrade", FLAG, "", "Runs an older release than one accepted here. Recorded likewise."),
    Option("--json", FLAG, "", "One JSON object on stdout instead of the bare result."),
    Option("--quiet", FLAG, "", "Only errors on stderr: no log, no denials.", "-q"),
    Option("--trust", ONE, "DIR", "The trust store."),
    Option("--audit", ONE, "DIR", "The audit log."),
    Option("--home", ONE, "DIR", "Where plugsec keeps everything; also PLUGSEC_HOME."),
)

RUN_HELP = """Run one method of a signed plugin in its jail; its result is JSON on stdout.

The bundle is verified, the policy decides what it may do, and every denial is explained on stderr.
Exit codes: 0 done, 1 policy, 3 trust, 4 malformed, 5 schema, 6 plugin failed, 7 limit, 8 host, 9 audit.
"""

RUN_EXAMPLES = """Examples:

plugsec run wordfreq-1.2.3.plug count --input example.input.json

plugsec run wordfreq-1.2.3.plug --param text='to be or not to be' --json

plugsec run acme/wordfreq@1.2.3 count --input example.input.json

plugsec run report.plug render --input-file data.csv=./sales.csv --output-dir ./out

plugsec run report.plug --policy site.toml --limit wall_ms=2000 --receipt run.receipt
"""
