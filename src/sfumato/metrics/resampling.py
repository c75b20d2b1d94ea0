"""Samples of a bootstrap within strata: how many values are drawn, which, and how often each.

A sample is held as counts, how often each value of a stratum is in it, so that the sums over many samples of
many columns of values are products of matrices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sfumato.systems import Floats, Ints

CHUNK = 1 << 22
"""Numbers of one array held in memory at once."""

LEAST_SPREAD = 0.2
"""Of the observed standard error; draws that are nearly all the same value count as spread by this."""

EXACT = 10
"""Values of one stratum; up to so many all samples are enumerated instead of drawn."""


def draws(n: int, *, paired: bool = False) -> int:
    """Return how many of n values of a stratum each resample draws.

    Fewer draws than values make the resampled t more skewed, as it should be: a small sample seldom has the
    longest tail in it. A test draws fewer than an interval of a mean, so as to find few false differences
    where only the rare large one has another sign. docs/metrics.md has the coverage both were chosen by.
    """
    return min(n, (3 * n // 7 if paired else n // 2) + 2)


def drawn(groups: list[Ints], seed: int, resamples: int, paired: bool) -> Iterator[list[Floats]]:
    """Yield parts of bounded size of the resamples: how often each draws each value of every stratum.

    Every stratum has a generator of its own, so that the parts may be of any size.
    """
    sizes = [(len(rows), draws(len(rows), paired=paired)) for rows in groups]
    if max(sizes)[0] * resamples <= CHUNK:
        yield [_times(n, m, resamples, seed, k).astype(float) for k, (n, m) in enumerate(sizes)]
        return
    generators = [np.random.default_rng([seed, k]) for k in range(len(groups))]
    step = max(1, CHUNK // max(sizes)[0])
    for start in range(0, resamples, step):
        part = min(step, resamples - start)
        yield [_counted(n, m, part, rng).astype(float) for (n, m), rng in zip(sizes, generators, strict=True)]


def _counted(n: int, m: int, resamples: int, rng: np.random.Generator) -> Ints:
    picks = rng.integers(n, size=(resamples, m)) + n * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=n * resamples).reshape(resamples, n)


@lru_cache(maxsize=24)
def _times(n: int, m: int, resamples: int, seed: int, stratum: int) -> NDArray[np.uint16]:
    """Return counts that all models of a run share, in little memory."""
    return _counted(n, m, resamples, np.random.default_rng([seed, stratum])).astype(np.uint16)


@lru_cache(maxsize=2 * EXACT)
def every_sample(n: int, m: int) -> tuple[list[Floats], Floats]:
    """Return every sample of m of n values, as counts (B, n), and the probability of each, (B,)."""
    bars = np.array(list(itertools.combinations(range(m + n - 1), n - 1)))
    edges = np.column_stack([np.full(len(bars), -1), bars, np.full(len(bars), m + n - 1)])
    counts = np.diff(edges, axis=1) - 1
    factorial = np.array([math.factorial(k) for k in range(m + 1)], dtype=float)
    weights = factorial[m] / factorial[counts].prod(axis=1) / float(n) ** m
    return [counts.astype(float)], weights


def groups_of(label: NDArray[np.str_]) -> list[Ints]:
    """Return the rows of each stratum, so that every group has at least two of two or more rows."""
    groups = [np.flatnonzero(label == name) for name in np.unique(label)]
    lone = [group for group in groups if len(group) == 1]
    groups = sorted((group for group in groups if len(group) > 1), key=len)
    if len(lone) == 1:
        groups[0] = np.concatenate([groups[0], lone[0]])
    elif lone:
        groups.append(np.concatenate(lone))
    return groups


def studentized(x: Floats, groups: list[Ints], samples: Iterable[list[Floats]]) -> tuple[Floats, Floats]:
    """Return the resampled t, (M, B), and the standard errors, (M,), of the means of columns, (n, M).

    In a stratum of n values, of which m are drawn, deviations count √(m/(n − 1)) times, so that the drawn
    mean has the variance s²/n of the observed one.

    Args:
        x: without nan.
        groups: the rows of each stratum.
        samples: parts of the B resamples, each with the counts of every stratum, (B of it, n of the stratum).
    """
    deviations = [np.ascontiguousarray((x[rows] - x[rows].mean(axis=0)).T) for rows in groups]
    sizes = [len(rows) for rows in groups]
    observed = sum(
        (d**2).sum(axis=1) * (n / (n - 1) / len(x) ** 2) for d, n in zip(deviations, sizes, strict=True)
    )
    # Equal values leave rounding, which is not a spread.
    error = np.sqrt(np.where(observed > (1e-14 * np.abs(x).max(axis=0)) ** 2, observed, 0.0))
    least = np.where(error > 0, (LEAST_SPREAD * error) ** 2, 1.0)[:, None]
    parts = []
    for counts in samples:
        shift, variance = np.zeros((2, x.shape[1], len(counts[0])))
        for d, n, count in zip(deviations, sizes, counts, strict=True):
            m = float(count[0].sum())
            scale = m / (n - 1) * (n / len(x)) ** 2
            drawn = d @ count.T
            shift += math.sqrt(scale) / m * drawn
            drawn *= drawn / m
            variance += scale / m / (m - 1) * (d**2 @ count.T - drawn)
        parts.append(shift / np.sqrt(np.maximum(variance, least)))
    return np.concatenate(parts, axis=1), error


def studentized_apart(
    columns: Sequence[Floats], groups: Sequence[list[Ints]], seed: int, resamples: int
) -> tuple[Floats, Floats]:
    """Return the resampled t, (M, B), and the standard errors, (M,), of the means of columns of any lengths.

    Strata of as many values have the same draws, whichever values these are, so that their sums are one
    product of matrices. The formulas are those of `studentized`.

    Args:
        columns: M, each (n,) without nan.
        groups: of each, the rows of its strata (`groups_of`).
        seed: of the draws of a test; `resamples`, B.
    """
    parts: dict[tuple[int, int], list[int]] = {}
    for c, strata in enumerate(groups):
        for k, rows in enumerate(strata):
            parts.setdefault((k, len(rows)), []).append(c)
    lengths = np.array([len(x) for x in columns])
    observed, (shift, variance) = np.zeros(len(columns)), np.zeros((2, len(columns), resamples))
    for (k, n), some in parts.items():
        values = np.stack([columns[c][groups[c][k]] for c in some])
        d = values - values.mean(axis=1)[:, None]
        observed[some] += (d**2).sum(axis=1) * (n / (n - 1) / lengths[some] ** 2)
        m = draws(n, paired=True)
        count = _times(n, m, resamples, seed, k).astype(float).T
        scale = (m / (n - 1) * (n / lengths[some]) ** 2)[:, None]
        sums = d @ count
        shift[some] += np.sqrt(scale) / m * sums
        sums *= sums / m
        variance[some] += scale / m / (m - 1) * (d**2 @ count - sums)
    # Equal values leave rounding, which is not a spread.
    size = np.array([np.abs(x).max() for x in columns])
    error = np.sqrt(np.where(observed > (1e-14 * size) ** 2, observed, 0.0))
    floor = np.where(error > 0, (LEAST_SPREAD * error) ** 2, 1.0)[:, None]
    return shift / np.sqrt(np.maximum(variance, floor)), error
