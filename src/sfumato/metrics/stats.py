"""Means with honest intervals, and paired comparisons: bootstrap within strata, sign-flip permutation.

A value of nan means "n/a" everywhere here: it is left out of the mean and shows in the coverage n of N.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.systems import Floats

CHUNK = 1 << 15
"""Random draws held in memory at once; this many fit a processor's cache, which makes it twice as fast."""


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
    resamples: int = 10_000,
    confidence: float = 0.95,
    total: int | None = None,
) -> Estimate:
    """Return the plain mean with its bootstrap percentile interval, resampling within strata.

    Each resample draws k − 1 of the k values of every stratum with replacement and keeps the stratum's
    weight k/n: the variance of the mean is then unbiased even in strata of two or three. A stratum of one
    value says nothing about its spread, so such strata are pooled into one, and a last lone value joins
    the smallest other stratum; the interval then includes the differences between them.

    Args:
        values: (n,) nan is n/a.
        strata: the stratum of each value.
        rng: source of the resamples.
        resamples: how many.
        confidence: of the interval.
        total: N of the coverage; by default all values given, n/a included.

    Returns:
        In the unit of the values. One value has no interval (nan), no value no mean either.

    Raises:
        ValueError: lengths that differ, an infinite value, or impossible settings.

    Source: McCarthy & Snowden 1985 (k − 1 draws), Cochran 1977 (collapsed strata).
    """
    x = _values(values, "values", len(strata))
    _check_settings(resamples, confidence)
    counted = np.isfinite(x)
    n, of = int(counted.sum()), len(x) if total is None else total
    if of < n:
        raise ValueError(f"total: {of} is less than the {n} values that are not n/a")
    mean = float(x[counted].mean()) if n else math.nan
    if n < 2:
        return Estimate(mean, math.nan, math.nan, n, of)
    sums = np.zeros(resamples)
    for group in _groups(x[counted], np.asarray(strata)[counted]):
        k = len(group)
        # Deviations are summed, not values: equal values then give exactly the mean.
        deviation = (group - group.mean()) * (k / (k - 1))
        for rows in _rows(resamples, k - 1):
            draws = rng.integers(k, size=(rows.stop - rows.start, k - 1))
            sums[rows] += deviation[draws].sum(axis=1)
    low, high = mean + np.quantile(sums / n, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(mean, float(low), float(high), n, of)


def by_stratum(
    values: ArrayLike,
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> dict[str, Estimate]:
    """Return the mean and interval of each stratum alone, by name in alphabetical order.

    Args:
        values: (n,) nan is n/a.
        strata: the stratum of each value.
        rng: source of the resamples.
        resamples: how many.
        confidence: of the intervals.

    Raises:
        ValueError: as `stratified_bootstrap`.
    """
    x, label = _values(values, "values", len(strata)), np.asarray(strata)
    return {
        str(name): stratified_bootstrap(
            x[label == name], label[label == name], rng=rng, resamples=resamples, confidence=confidence
        )
        for name in np.unique(label)
    }


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    strata: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare two potentials item by item: the mean of a − b, its interval, and whether it is chance.

    The p-value flips the sign of each difference at random: p = (1 + k) / (1 + resamples), where k counts
    the resamples whose |mean| reaches the observed one. The 1 is the observed signs themselves, one of the
    equally likely arrangements, so p is never zero. Six pairs cannot bring it much below 2/2⁶ = 0.03.

    Args:
        a: (n,) nan is n/a.
        b: (n,) likewise; item i is the same scan as in `a`.
        strata: the stratum of each item.
        rng: source of the resamples and of the flips.
        resamples: how many of each.
        confidence: of the interval.

    Returns:
        Over the pairs with both values: mean and interval as `stratified_bootstrap`, the fraction of
        pairs with a < b (a tie is not lower), and the two-sided p-value. nan where there is no pair.

    Raises:
        ValueError: as `stratified_bootstrap`.

    Source: Fisher 1935 (sign flips); Phipson & Smyth 2010 (the + 1).
    """
    difference = _values(a, "a", len(strata)) - _values(b, "b", len(strata))
    estimate = stratified_bootstrap(difference, strata, rng=rng, resamples=resamples, confidence=confidence)
    d = difference[np.isfinite(difference)]
    lower, p = math.nan, math.nan
    if len(d):
        lower = float((d < 0).mean())
        # Sums of the same numbers in another order differ in the last bits: those count as equal.
        reach = abs(d.sum()) - 1e-12 * np.abs(d).sum()
        extreme = 0
        for rows in _rows(resamples, len(d)):
            signs = 2.0 * rng.integers(2, size=(rows.stop - rows.start, len(d)), dtype=np.int8) - 1.0
            extreme += int((np.abs(signs @ d) >= reach).sum())
        p = (1 + extreme) / (1 + resamples)
    return PairedDifference(estimate.mean, estimate.low, estimate.high, estimate.n, lower, p, estimate.total)


def _values(values: ArrayLike, what: str, n: int) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.shape != (n,):
        raise ValueError(f"{what}: expected one value for each of the {n} strata labels, got shape {x.shape}")
    if np.isinf(x).any():
        raise ValueError(f"{what}: value {int(np.flatnonzero(np.isinf(x))[0])} is infinite; use nan for n/a")
    return x


def _check_settings(resamples: int, confidence: float) -> None:
    if resamples < 1:
        raise ValueError(f"resamples: at least 1, got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: between 0 and 1, for example 0.95, got {confidence}")


def _groups(values: Floats, label: NDArray[np.str_]) -> list[Floats]:
    """Split two or more values by stratum, so that every group has at least two."""
    groups = [values[label == name] for name in np.unique(label)]
    lone = [group for group in groups if len(group) == 1]
    groups = sorted((group for group in groups if len(group) > 1), key=len)
    if len(lone) == 1:
        groups[0] = np.concatenate([groups[0], lone[0]])
    elif lone:
        groups.append(np.concatenate(lone))
    return groups


def _rows(count: int, width: int) -> Iterator[slice]:
    """Cut `count` rows of `width` draws into slices of bounded size."""
    step = max(1, CHUNK // max(1, width))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))
