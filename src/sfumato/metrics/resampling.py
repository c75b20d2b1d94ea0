"""Samples of a bootstrap within strata: how many values are drawn, which, and how often each.

A sample is held as counts, how often each value of a stratum is in it, so that the sums over many samples of
many columns of values are products of matrices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sfumato.systems import Floats, Ints

CHUNK = 1 << 22
"""Numbers of one array held in memory at once."""

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
