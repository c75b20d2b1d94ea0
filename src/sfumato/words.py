"""Words for messages and tables, and values as JSON has them."""

import math
import re
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


def printable(text: str, most: int = 2000) -> str:
    """Return a text that may hold anything as a terminal can take it: bounded, control characters escaped.

    Args:
        text: perhaps of an error about a file of others.
        most: characters.
    """
    if len(text) > most:
        text = f"{text[:most]}… ({len(text)} characters)"
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", lambda match: repr(match[0])[1:-1], text)


def plain(value: Any) -> Any:
    """Return a value in JSON types; a number that is not finite, for which JSON has no word, is None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
