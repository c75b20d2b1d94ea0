"""Words for error messages, and values as JSON has them."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return "did you mean …?" for a mistyped word, or the list of what is valid."""
    valid = list(valid)
    close = get_close_matches(word, valid, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(valid)}"


def plain(value: Any) -> Any:
    """Return a value in JSON types; a number that is not finite, for which JSON has no word, is None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
