"""A CSV file in, a Markdown report and an SVG bar chart out."""

import csv
from collections import defaultdict
from decimal import Decimal, InvalidOperation
from xml.sax.saxutils import escape

from plugsec_plugins.guest import Context, plugin

BAR_HEIGHT, GAP, LABEL_WIDTH, CHART_WIDTH = 22, 8, 160, 420


@plugin.method
def render(*, file: str, group: str, value: str, ctx: Context) -> dict:
    """Sum the column `value` by the column `group`."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    rows = skipped = 0
    with open(ctx.input_path(file), newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            rows += 1
            try:
                sums[row[group]] += Decimal(row[value])
            except InvalidOperation:
                skipped += 1
    if skipped:
        ctx.log(f"{skipped} rows have no number in {value!r}", level="warning")
    ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    _write(ctx.output_path("report.md"), _report(ranked, group, value, rows))
    _write(ctx.output_path("chart.svg"), _chart(ranked))
    return {"rows": rows, "groups": len(ranked), "files": ["chart.svg", "report.md"]}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def _report(ranked: list[tuple[str, Decimal]], group: str, value: str, rows: int) -> str:
    total = sum((amount for _, amount in ranked), Decimal())
    lines = [f"# {value} by {group}", "", f"{rows} rows, {len(ranked)} groups, total {total:,}.", ""]
    lines += [f"| {group} | {value} | share |", "|---|---:|---:|"]
    lines += [f"| {name} | {amount:,} | {amount / total:.1%} |" for name, amount in ranked if total]
    return "\n".join(lines) + "\n"


def _chart(ranked: list[tuple[str, Decimal]]) -> str:
    most = max((amount for _, amount in ranked), default=Decimal(1)) or Decimal(1)
    height = len(ranked) * (BAR_HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL_WIDTH + CHART_WIDTH + 100}" height="{height}"'
        ' font-family="sans-serif" font-size="13">'
    ]
    for index, (name, amount) in enumerate(ranked):
        top = GAP + index * (BAR_HEIGHT + GAP)
        width = max(Decimal(0), amount / most * CHART_WIDTH)
        text_y = top + BAR_HEIGHT - 6
        parts += [
            f'<text x="{LABEL_WIDTH - 8}" y="{text_y}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="#3a6ea5"/>',
            f'<text x="{LABEL_WIDTH + width + 6:.1f}" y="{text_y}">{amount:,}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
