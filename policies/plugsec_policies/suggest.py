"""Did you mean …? One guess at what a misspelt word was meant to be. Only refusals come here."""

from collections.abc import Iterable

# A guess for a very long word helps nobody, and the cost grows with the square of the length.
WORD_MAX = 64


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean NAME?`, or the list of known words where none is near."""
    words = sorted(known)
    if len(word) <= WORD_MAX:
        # One slip for each three letters: more would be another word.
        most = max(1, len(word) // 3)
        distance, nearest = min(
            ((_distance(word.lower(), each.lower()), each) for each in words), default=(most + 1, "")
        )
        if distance <= most:
            return f"did you mean {nearest}?"
    return "the known words are " + ", ".join(words)


def _distance(a: str, b: str) -> int:
    """Count the slips between two words: letters more, less, other or swapped (string alignment)."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(row[j - 1] + 1, last[j] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
