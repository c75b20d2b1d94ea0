"""Means with honest intervals, and paired comparisons: one studentized bootstrap within strata for both.

A value of nan means "n/a" everywhere here: it is left out of the mean and shows in the coverage n of N.

What is resampled is the statistic t = (mean of the draws − mean) / standard error of the draws. Its
distribution stands for that of (mean − true mean) / standard error, so that the interval follows the skewness
of the values and the uncertainty of their spread, which percentiles of the drawn means do not. Interval and
p-value are two readings of that one distribution and cannot contradict each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.metrics.resampling import (
    CHUNK,
    EXACT,
    drawn,
    draws,
    every_sample,
    groups_of,
    studentized,
    studentized_apart,
)
from sfumato.systems import Bools, Floats, Ints

RESAMPLES = 9_999
"""With one more, the observed one, a round number of arrangements."""

FEWEST = 5
"""Values; the spread of fewer says too little for an interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` of `total` items with its confidence interval; nan where it cannot be had."""

    mean: float
    low: float
    high: float
    n: int
    total: int


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a − b over the `n` of `total` items both have, its interval and its p-value."""

    mean: float
    low: float
    high: float
    n: int
    fraction_lower: float
    p_value: float
    total: int


def stratified_bootstrap(
    values: ArrayLike,
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    total: int | None = None,
) -> Estimate:
    """Return the plain mean with its studentized bootstrap interval, resampling within strata.

    Of the n values of a stratum ⌊n/2⌋ + 2 (at most n) are drawn, and deviations are rescaled so that their
    variance is the unbiased one. A stratum of one value says nothing about its spread: such strata are
    pooled into one, and a last lone value joins the smallest other stratum; the interval then includes the
    differences between them. Up to `EXACT` values in one stratum are not drawn but enumerated.

    Args:
        values: (n,) nan is n/a.
        strata: the stratum of each value.
        rng: source of the resamples; one number is taken from it, whatever the values.
        resamples: how many.
        confidence: of the interval.
        total: N of the coverage; by default all values given, n/a included.

    Returns:
        In the unit of the values. Fewer than `FEWEST` values have no interval (nan), none no mean either.

    Raises:
        ValueError: lengths that differ, an infinite value, or impossible settings.

    Source: Hall 1988 (percentile-t), Rao & Wu 1988 (rescaling in strata), Cochran 1977 (collapsed strata).
    """
    x = _values(values, "values", len(strata))
    n, of = int(np.isfinite(x).sum()), len(x) if total is None else total
    if of < n:
        raise ValueError(f"total: {of} is less than the {n} values that are not n/a")
    (estimate,) = _estimates(x[:, None], strata, rng, resamples, confidence)
    return Estimate(estimate.mean, estimate.low, estimate.high, n, of)


def estimates(
    columns: Mapping[str, ArrayLike],
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Return what `stratified_bootstrap` returns for each of many columns, at nearly the cost of one.

    Args:
        columns: by name, each (n,); nan is n/a.
        strata: the stratum of each value.
        rng: source of the resamples.
        resamples: how many.
        confidence: of the intervals.

    Returns:
        By name; a column's estimate does not depend on which others are there.

    Raises:
        ValueError: as `stratified_bootstrap`.
    """
    table = [_values(values, name, len(strata)) for name, values in columns.items()]
    if not table:
        return {}
    return dict(zip(columns, _estimates(np.column_stack(table), strata, rng, resamples, confidence)))


def by_stratum(
    values: ArrayLike,
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Return the mean and interval of each stratum alone, by name in alphabetical order.

    Args:
        values: (n,) nan is n/a.
        strata: the stratum of each value.
        rng: source of the resamples.
        resamples: how many.
        confidence: of the intervals.

    Returns:
        By stratum; one with fewer than `FEWEST` values has no interval (nan).

    Raises:
        ValueError: as `stratified_bootstrap`.
    """
    x = _values(values, "values", len(strata))
    found = estimates_by_stratum({"": x}, strata, rng=rng, resamples=resamples, confidence=confidence)
    return found[""]


def estimates_by_stratum(
    columns: Mapping[str, ArrayLike],
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, dict[str, Estimate]]:
    """Return what `by_stratum` returns for each of many columns, at nearly the cost of one.

    Args:
        columns: by name, each (n,); nan is n/a.
        strata: the stratum of each value.
        rng: source of the resamples.
        resamples: how many.
        confidence: of the intervals.

    Returns:
        By column, then by stratum.

    Raises:
        ValueError: as `stratified_bootstrap`.
    """
    label = np.asarray(strata)
    table = {name: _values(values, name, len(strata)) for name, values in columns.items()}
    found: dict[str, dict[str, Estimate]] = {name: {} for name in table}
    for stratum in np.unique(label).tolist():
        inside = label == stratum
        part = {name: x[inside] for name, x in table.items()}
        alone = estimates(part, label[inside].tolist(), rng=rng, resamples=resamples, confidence=confidence)
        for name, estimate in alone.items():
            found[name][str(stratum)] = estimate
    return found


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two potentials item by item: the mean of a − b, its interval, and whether it is chance.

    The two-sided p-value is twice the share of resampled t that reach the observed t on its side, the
    observed one counted among them, and never less than 2/2ᵏ, the least that the signs of k differences
    other than zero can say. The interval, at confidence c, leaves out zero exactly where p < 1 − c.

    Args:
        a: (n,) nan is n/a.
        b: (n,) likewise; item i is the same scan as in `a`.
        strata: the stratum of each item.
        rng: source of the resamples.
        resamples: how many.
        confidence: of the interval.

    Returns:
        Over the pairs with both values: mean and interval as `stratified_bootstrap`, but of ⌊3n/7⌋ + 2
        draws per stratum, the fraction of
        pairs with a < b (a tie is not lower), and the p-value. nan where there is no pair. Fewer than
        `FEWEST` pairs have no interval; their p-value is that of all sign flips, at least 1/8.

    Raises:
        ValueError: as `stratified_bootstrap`.

    Source: Hall & Wilson 1991 (tests by the bootstrap), Phipson & Smyth 2010 (the observed one counts).
    """
    found = paired_differences(
        {"": (a, b)}, strata, rng=rng, resamples=resamples, confidence=confidence, names=("a", "b")
    )
    return found[""]


def paired_differences(
    pairs: Mapping[str, tuple[ArrayLike, ArrayLike]],
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    names: tuple[str, str] = ("first", "second"),
) -> dict[str, PairedDifference]:
    """Return what `paired_difference` returns for each of many pairs, at nearly the cost of one.

    Args:
        pairs: by name, (a, b), each (n,); nan is n/a.
        strata: the stratum of each item.
        rng: source of the resamples.
        resamples: how many.
        confidence: of the intervals.
        names: of a and b in messages.

    Returns:
        By name; a pair's result does not depend on which others are there.

    Raises:
        ValueError: as `stratified_bootstrap`.
    """
    if not pairs:
        return {}
    n = len(strata)
    a, b = ([_values(pair[k], names[k], n) for pair in pairs.values()] for k in (0, 1))
    d = np.column_stack(a) - np.column_stack(b)
    tests = _tests(d, strata, rng, resamples, confidence, paired=True)
    found = {}
    for name, column, test in zip(pairs, d.T, tests, strict=True):
        known = column[np.isfinite(column)]
        lower, p = (float((known < 0).mean()), test.p_value) if len(known) else (math.nan, math.nan)
        low, high = test.low, test.high
        if p >= 1 - confidence:
            low, high = min(low, 0.0), max(high, 0.0)
        found[name] = PairedDifference(test.mean, low, high, len(known), lower, p, n)
    return found


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values corrected for the number of comparisons made together.

    Args:
        p_values: (n,) of one family; nan is n/a and is not a comparison.

    Returns:
        (n,) adjusted, at most 1: rejecting those below α keeps the probability of any false rejection at α
        or less, whatever the dependence between them. nan stays nan.

    Raises:
        ValueError: not a list, or a value outside 0…1.

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p_values: expected a list of numbers, got shape {p.shape}")
    known = np.flatnonzero(np.isfinite(p))
    if np.isinf(p).any() or (p[known] < 0).any() or (p[known] > 1).any():
        raise ValueError("p_values: each must be between 0 and 1, or nan for n/a")
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0) if len(order) else 0.0
    return adjusted


class _Test(NamedTuple):
    mean: float
    low: float
    high: float
    p_value: float


def _estimates(
    table: Floats, strata: Sequence[str], rng: np.random.Generator, resamples: int, confidence: float
) -> list[Estimate]:
    counts = np.isfinite(table).sum(axis=0).tolist()
    tests = _tests(table, strata, rng, resamples, confidence)
    return [Estimate(t.mean, t.low, t.high, n, len(table)) for t, n in zip(tests, counts, strict=True)]


def _tests(
    table: Floats,
    strata: Sequence[str],
    rng: np.random.Generator,
    resamples: int,
    confidence: float,
    *,
    paired: bool = False,
) -> list[_Test]:
    """Return mean, interval and p-value of each column, (n, M), with nan for n/a; resamples are shared."""
    if resamples < 1:
        raise ValueError(f"resamples: at least 1, got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: between 0 and 1, for example 0.95, got {confidence}")
    seed = int(rng.integers(1 << 63))
    label = np.asarray(strata)
    found = [_Test(math.nan, math.nan, math.nan, math.nan)] * table.shape[1]
    width = max(1, CHUNK // max(resamples, 1))
    patterns = list(_patterns(np.isfinite(table)))
    if paired and len(patterns) > 1:
        patterns = _apart(table, label, patterns, found, (seed, resamples, confidence))
    for known, columns in patterns:
        for start in range(0, len(columns) if known.any() else 0, width):
            some = columns[start : start + width]
            tests = _pattern(table[np.ix_(known, some)], label[known], seed, resamples, confidence, paired)
            for column, test in zip(some, tests, strict=True):
                found[column] = test
    return found


def _patterns(finite: Bools) -> Iterator[tuple[Bools, Ints]]:
    """Yield every pattern of known values, (n,), with the columns of (n, M) that have it."""
    columns: dict[bytes, list[int]] = {}
    for k, pattern in enumerate(np.ascontiguousarray(finite.T)):
        columns.setdefault(pattern.tobytes(), []).append(k)
    for pattern, some in columns.items():
        yield np.frombuffer(pattern, dtype=bool), np.array(some)


def _apart(
    table: Floats,
    label: NDArray[np.str_],
    patterns: list[tuple[Bools, Ints]],
    found: list[_Test],
    draws: tuple[int, int, float],
) -> list[tuple[Bools, Ints]]:
    """Do the pairs of a table, (n, M), each with known values of its own, at once.

    Args:
        table: of differences.
        label: the stratum of each row.
        patterns: of known values, with their columns.
        found: where the tests of columns go.
        draws: the seed, the resamples, and the confidence.

    Returns:
        The patterns that are left, since they have too few values or too many.
    """
    seed, resamples, confidence = draws
    rest, ready = [], []
    for known, columns in patterns:
        groups = groups_of(label[known]) if known.sum() >= FEWEST else []
        longest = max(map(len, groups), default=0)
        if longest * resamples > CHUNK or (len(groups) < 2 and known.sum() <= EXACT):
            rest.append((known, columns))
        else:
            ready += [(int(column), table[known, column], groups) for column in columns]
    width = max(1, CHUNK // resamples)
    for start in range(0, len(ready), width):
        numbers, xs, groups_by_column = zip(*ready[start : start + width])
        t, error = studentized_apart(xs, groups_by_column, seed, resamples)
        mean = np.array([x.mean() for x in xs])
        nonzero = np.array([(x != 0).sum() for x in xs])
        tests = _judged(mean, nonzero, t, error, np.full(resamples, 1 / (1 + resamples)), confidence)
        for column, test in zip(numbers, tests, strict=True):
            found[column] = test
    return rest


def _pattern(
    x: Floats, label: NDArray[np.str_], seed: int, resamples: int, confidence: float, paired: bool
) -> list[_Test]:
    """Do the columns of a table without nan, (n, M)."""
    mean = x.mean(axis=0)
    if len(x) < FEWEST:
        return [_Test(float(m), math.nan, math.nan, _flipped(d)) for m, d in zip(mean, x.T, strict=True)]
    groups = groups_of(label)
    if len(groups) == 1 and len(x) <= EXACT:
        counts, weights = every_sample(len(x), draws(len(x), paired=paired))
        samples: Iterable[list[Floats]] = [counts]
        observed = 0.0
    else:
        samples = drawn(groups, seed, resamples, paired)
        weights, observed = np.full(resamples, 1.0 / (1 + resamples)), 1.0 / (1 + resamples)
    t, error = studentized(x, groups, samples)
    return _judged(mean, (x != 0).sum(axis=0), t, error, weights, confidence, observed)


def _judged(
    mean: Floats,
    nonzero: Ints,
    t: Floats,
    error: Floats,
    weights: Floats,
    confidence: float,
    observed: float | None = None,
) -> list[_Test]:
    """Return the tests of columns whose t was resampled.

    Args:
        mean: (M,) of each column; `nonzero`, (M,), how many of its values are not 0.
        t: (M, B); `error`, (M,), the standard errors.
        weights: (B,) of the samples.
        confidence: of the intervals.
        observed: weight of the observed t; by default that of each sample.
    """
    observed = float(weights[0]) if observed is None else observed
    low, high, p = _read(t, mean / np.where(error > 0, error, 1.0), weights, observed, 1 - confidence)
    p = np.where(error > 0, p, np.where(mean == 0, 1.0, 2 * observed))
    p = np.clip(p, 2.0 ** (1 - nonzero), 1.0)
    ends = mean - low * error, mean - high * error
    return list(map(_Test, mean.tolist(), *(e.tolist() for e in ends), p.tolist()))


def _flipped(d: Floats) -> float:
    """Return the share of all sign flips of a few differences, (n,), whose |sum| reaches the observed one."""
    sums = np.abs(np.array(list(itertools.product((-1.0, 1.0), repeat=len(d)))) @ d)
    # Sums of the same numbers in another order differ in the last bits: those count as equal.
    return float((sums >= abs(d.sum()) - 1e-12 * np.abs(d).sum()).mean())


def _read(
    t: Floats, observed_t: Floats, weights: Floats, observed: float, level: float
) -> tuple[Floats, Floats, Floats]:
    """Read interval ends and p-values off resampled t, (M, B), of which each sample has a weight, (B,).

    Returns:
        (M,) the t of the lower and of the upper end, the outermost that a test at that level accepts, and
        the two-sided p-value; `observed` is the weight of the observed t itself.
    """
    near = 1e-9 * np.maximum(1.0, np.abs(observed_t))
    upper = (t >= (observed_t - near)[:, None]) @ weights
    lower = (t <= (observed_t + near)[:, None]) @ weights
    p = np.minimum(2 * (np.minimum(upper, lower) + observed), 1.0)
    outer = level / 2 - observed - 1e-12
    if observed:
        # Equal weights: the outermost accepted is the k-th from either end.
        k = min(max(math.ceil(outer / weights[0]), 1), t.shape[1])
        ordered = np.partition(t, (k - 1, t.shape[1] - k), axis=1)
        return ordered[:, -k], ordered[:, k - 1], p
    order = np.argsort(t, axis=1)
    below = np.cumsum(weights[order], axis=1)
    above = below[:, -1:] - below + weights[order]
    ordered = np.take_along_axis(t, order, axis=1)
    accepted = np.where(above >= outer, ordered, -np.inf).max(axis=1)
    return accepted, np.where(below >= outer, ordered, np.inf).min(axis=1), p


def _values(values: ArrayLike, what: str, n: int) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.shape != (n,):
        raise ValueError(f"{what}: expected one value for each of the {n} strata labels, got shape {x.shape}")
    if np.isinf(x).any():
        raise ValueError(f"{what}: value {int(np.flatnonzero(np.isinf(x))[0])} is infinite; use nan for n/a")
    return x
