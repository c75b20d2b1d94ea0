"""Do two numbers rank models alike? Rank correlations with intervals, and what is left given a third number.

Intervals are analytic, since a bootstrap over a dozen models draws ties that were not there: with
z = artanh(correlation), z ± 1.96 s, and for n models

    s² = (1 + ρ²/2)/(n − 3)  for Spearman's ρ,    s² = 0.437/(n − 4)  for Kendall's τ,

with one model fewer for each number that is held fixed (Bonett and Wright 2000, Psychometrika 65, 23;
Fieller, Hartley and Pearson 1957, Biometrika 44, 470). They take models as drawn independently: those of one
family are not, which leaving families out shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.stats import Estimate
from sfumato.systems import Floats

FEWEST = 6
"""Models; of fewer an interval would be all of −1 to 1."""

NORMAL = 1.959963984540054
"""Of 95 %."""


@dataclass(frozen=True)
class Association:
    """How alike two numbers rank models.

    Args:
        spearman: ρ with its interval.
        kendall: τ-b with its interval.
        partial: Spearman's ρ given a third number, with its interval; None without one.
        without: family → ρ of the models of all others; NaN where fewer than three are left.
    """

    spearman: Estimate
    kendall: Estimate
    partial: Estimate | None
    without: dict[str, float]


def association(
    x: ArrayLike, y: ArrayLike, given: ArrayLike | None = None, families: Sequence[str] = ()
) -> Association:
    """Return the rank correlations of two numbers.

    Args:
        x: (n,) of each model; NaN is n/a, and a model without one of the numbers is left out.
        y: (n,) of each model.
        given: (n,) a number to hold fixed, or None.
        families: (n,) of each model; none: no family is left out.

    Raises:
        ValueError: arrays of different lengths.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    c = None if given is None else np.asarray(given, dtype=float)
    lengths = {len(a), len(b), *([] if c is None else [len(c)]), *([len(families)] if families else [])}
    if len(lengths) > 1:
        raise ValueError(f"expected as many values of each number, got {sorted(lengths)}")
    total, there = len(a), np.isfinite(a) & np.isfinite(b)
    rho, tau = _spearman(a[there], b[there]), _kendall(a[there], b[there])
    n = int(there.sum())
    partial = None
    if c is not None:
        whole = there & np.isfinite(c)
        partial = _spread(_partial(a[whole], b[whole], c[whole]), int(whole.sum()), total, held=1)
    own = np.asarray(families, dtype=object)
    others = {family: there & (own != family) for family in dict.fromkeys(families)}
    without = {family: _spearman(a[rest], b[rest]) for family, rest in others.items()}
    return Association(_spread(rho, n, total), _spread_of_tau(tau, n, total), partial, without)


def _spearman(a: Floats, b: Floats) -> float:
    """Return the correlation of ranks, ties sharing theirs; NaN of fewer than three or of equal values."""
    from scipy.stats import rankdata

    if len(a) < 3:
        return math.nan
    i, j = (rankdata(x) - (len(x) + 1) / 2 for x in (a, b))
    size = math.sqrt(float(i @ i) * float(j @ j))
    return float(i @ j) / size if size else math.nan


def _partial(a: Floats, b: Floats, c: Floats) -> float:
    """Return (ρ_ab − ρ_ac ρ_bc)/√((1 − ρ_ac²)(1 − ρ_bc²)); NaN where c leaves nothing to explain."""
    ab, ac, bc = _spearman(a, b), _spearman(a, c), _spearman(b, c)
    left = (1 - ac**2) * (1 - bc**2)
    return (ab - ac * bc) / math.sqrt(left) if left > 1e-12 else math.nan


def _kendall(a: Floats, b: Floats) -> float:
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic) if len(a) > 2 else math.nan


def _spread(rho: float, n: int, total: int, held: int = 0) -> Estimate:
    return _by_artanh(rho, (1 + rho**2 / 2) / max(n - held - 3, 1), n, total)


def _spread_of_tau(tau: float, n: int, total: int) -> Estimate:
    return _by_artanh(tau, 0.437 / max(n - 4, 1), n, total)


def _by_artanh(value: float, variance: float, n: int, total: int) -> Estimate:
    if n < FEWEST or math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, total)
    middle, half = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value))), NORMAL * math.sqrt(variance)
    return Estimate(value, math.tanh(middle - half), math.tanh(middle + half), n, total)
