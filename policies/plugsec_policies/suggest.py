"""Did you mean …? One guess at what a misspelt word was meant to be. Only refusals come here."""

from collections.abc import Iterable

# A guess for a very long word helps nobody and difflib's cost grows with the square of the length.
WORD_MAX = 64


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean NAME?`, or the list of known words where none is near."""
    import difflib  # noqa: PLC0415  (5 ms; a run that is not refused never needs it)

    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6) if len(word) <= WORD_MAX else []
    if near:
        return f"did you mean {near[0]}?"
    return "the known words are " + ", ".join(words)
