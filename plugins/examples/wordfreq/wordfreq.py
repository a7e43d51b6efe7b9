"""Counts words: the smallest plugin that does something useful."""

import re
from collections import Counter

from plugsec_plugins.guest import Context, plugin

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@plugin.method
def count(*, text: str = "", file: str = "", top: int = 10, ctx: Context) -> dict:
    """Count the words of `text`, or of the input file called `file`."""
    if file:
        with open(ctx.input_path(file), encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    words = Counter(match.group().lower() for match in WORD.finditer(text))
    # Ties in alphabetical order: the same input gives the same output, byte for byte.
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))[:top]
    return {
        "words": words.total(),
        "distinct": len(words),
        "top": [{"word": word, "count": number} for word, number in ranked],
    }
