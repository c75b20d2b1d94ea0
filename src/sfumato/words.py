"""Words for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return "did you mean …?" for a mistyped word, or the list of what is valid."""
    valid = list(valid)
    close = get_close_matches(word, valid, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(valid)}"
