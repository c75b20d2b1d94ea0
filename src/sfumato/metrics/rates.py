"""Pass rates with intervals, also where several trials belong to one molecule."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.stats import Estimate

Z95 = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 %."""


def pass_rate(passed: ArrayLike, groups: Sequence[str], total: int) -> Estimate:
    """Return a share with its 95 % Wilson interval for as many independent trials as the trials are worth.

    Trials of one group resemble each other. The variance of the share between groups over that of
    independent trials, not less than 1, says by how much their number counts too high; where all trials come
    out alike this cannot be seen, and each group counts as one.

    Args:
        passed: (n,) of the trials that count.
        groups: (n,) what each belongs to, for example a molecule.
        total: trials that were meant.

    Returns:
        nan without a trial.

    Source: Wilson 1927; Korn & Graubard 1998 for the effective number of trials.
    """
    x = np.asarray(passed, dtype=float)
    n = len(x)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0, total)
    p = float(x.mean())
    worth = _worth(x, np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].reshape(-1))
    z2 = Z95**2 / worth
    middle = (p + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * math.sqrt(p * (1 - p) / worth + z2 / (4 * worth))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), n, total)


def _worth(x: np.ndarray, code: np.ndarray) -> float:
    n, groups = len(x), int(code.max()) + 1
    p = float(x.mean())
    if groups == n:
        return float(n)
    if p in (0.0, 1.0) or groups < 2:
        return float(groups)
    off = np.bincount(code, x - p, groups)
    between = groups / (groups - 1) * float((off**2).sum()) / n**2
    effect = between / (p * (1 - p) / n)
    return n / max(effect, 1.0)
