"""Numbers as people read them: three significant digits, intervals, p-values, names with units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate, PairedDifference


@dataclass(frozen=True)
class Metric:
    """How a number is presented.

    Args:
        key: its name in results.
        title: for people.
        unit: that it is shown in; empty for counts and ratios.
        meaning: one or two sentences.
        factor: from the unit of results to the one shown.
    """

    key: str
    title: str
    unit: str
    meaning: str
    factor: float = 1.0

    @property
    def heading(self) -> str:
        """Title with unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def of(self, numbers: Mapping[str, Estimate]) -> Estimate | None:
        """Return the number in the unit shown; None where it rests on nothing."""
        e = numbers.get(self.key)
        if e is None or not e.n:
            return None
        return replace(e, mean=self.factor * e.mean, low=self.factor * e.low, high=self.factor * e.high)


def number(value: float, decimals: int | None = None) -> str:
    """Return a number with three significant digits, or with `decimals`; "n/a" for nan."""
    if not math.isfinite(value):
        return "n/a"
    if decimals is None:
        decimals = decimals_of(value)
    if decimals < 0 and value:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:.{max(decimals, 0)}f}"
    return text if float(text) else text.removeprefix("-")


def decimals_of(value: float) -> int:
    """Return the decimals that show three significant digits; −1 asks for powers of ten."""
    size = abs(value)
    if size == 0 or not math.isfinite(size):
        return 0
    return max(0, 2 - math.floor(math.log10(size))) if 1e-2 <= size < 1e5 else -1


def mean(estimate: Estimate | PairedDifference) -> str:
    """Return the mean, with no more digits than its interval makes sense of."""
    return number(estimate.mean, _decimals(estimate))


def interval(estimate: Estimate | PairedDifference) -> str:
    """Return "[low, high]" with as many decimals as the mean; "[n/a]" where there is none."""
    if math.isnan(estimate.low):
        return "[n/a]"
    decimals = _decimals(estimate)
    return f"[{number(estimate.low, decimals)}, {number(estimate.high, decimals)}]"


def _decimals(estimate: Estimate | PairedDifference) -> int | None:
    """Return the decimals of a mean; those of its interval where it is as good as zero beside that."""
    if not estimate.mean:
        return None
    decimals = decimals_of(estimate.mean)
    if decimals < 0 and abs(estimate.mean) < 1:
        ends = max(abs(estimate.low), abs(estimate.high))
        return decimals_of(ends) if ends >= 1e-2 else decimals
    return decimals


def p_value(value: float) -> str:
    """Return a p-value, never as zero."""
    if math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
