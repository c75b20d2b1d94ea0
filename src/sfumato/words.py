"""Words for messages and tables, and values as JSON has them."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return "did you mean …?" for a mistyped word, or the list of what is valid."""
    valid = list(valid)
    close = get_close_matches(word, valid, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(valid)}"


def duration(seconds: float | None) -> str:
    """Return a time span as a person reads it at a glance, for example "3 min 20 s"; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(n: int, what: str) -> str:
    """Return "1 scan", "2 scans", "12 345 scans": a number with its noun.

    Args:
        n: the number.
        what: the noun in the singular; the plural takes an s.
    """
    return f"{n:,} {what}{'s' * (n != 1)}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plain(value: Any) -> Any:
    """Return a value in JSON types; a number that is not finite, for which JSON has no word, is None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
