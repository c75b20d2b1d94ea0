"""Energy conservation along a trajectory: how fast energy drifts, and what a potential's own force leaves
unexplained. Pure functions of arrays.

Times are in ps, energies in meV per atom unless said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sfumato.metrics.stats import Estimate, stratified_bootstrap
from sfumato.systems import Floats

BLOCKS = 10
"""Of a trajectory, of equal length."""

FEWEST_SAMPLES = 2 * BLOCKS
"""Of a trajectory, for a drift."""

STRETCH = 8
"""Consecutive residuals that are added up to see how they grow."""


def block_slopes(time: Floats, energy: Floats) -> Floats:
    """Return the `BLOCKS` − 1 differences of consecutive block means, over the time between them.

    Their mean is the drift: from the mean of the first tenth of the run to that of the last tenth. Where the
    energy does a random walk, as on a surface with jumps, the differences are independent and their spread
    gives the drift's uncertainty; where it fluctuates about a constant they cancel, and the interval is wider
    than need be.

    Args:
        time: (M,) ps, equidistant.
        energy: (M,) meV per atom.

    Returns:
        (`BLOCKS` − 1,) meV per atom and ps; nan where there are fewer than `FEWEST_SAMPLES`.
    """
    if len(time) < FEWEST_SAMPLES:
        return np.full(BLOCKS - 1, np.nan)
    edges = np.linspace(0, len(time), BLOCKS + 1).astype(int)
    starts, counts = edges[:-1], np.diff(edges)
    means = [np.add.reduceat(values, starts) / counts for values in (time, energy)]
    slopes: Floats = np.diff(means[1]) / np.diff(means[0])
    return slopes


def drift_over(
    slopes: Mapping[str, Floats], rng: np.random.Generator, *, size: bool = False, total: int | None = None
) -> Estimate:
    """Return the mean drift of some trajectories with the interval of a bootstrap of their blocks.

    The interval says how well the mean over these trajectories is known from runs of this length, not where
    it would lie for others.

    Args:
        slopes: trajectory → its `block_slopes`; those with nan are left out.
        rng: source of the resamples.
        size: whether each drift counts by its size, so that one up and one down do not cancel.
        total: N of the coverage; by default the number of trajectories.
    """
    known = {name: values for name, values in slopes.items() if np.isfinite(values).all()}
    of = len(slopes) if total is None else total
    if not known:
        return Estimate(math.nan, math.nan, math.nan, 0, of)
    signed = {name: values * (np.sign(values.mean()) if size else 1.0) for name, values in known.items()}
    strata = [name for name, values in signed.items() for _ in values]
    found = stratified_bootstrap(np.concatenate(list(signed.values())), strata, rng=rng)
    return Estimate(found.mean, found.low, found.high, len(known), of)


def end_error(energy: Floats) -> float:
    """Return |E(end) − E(start)|, the published error of a run, in the unit of the energies, (M,).

    Source: Liu et al. 2026, Table 2 and appendix E; it includes the first half-step of velocity Verlet, which
        is of order h² and no drift.
    """
    return float(abs(energy[-1] - energy[0])) if len(energy) else math.nan


def scatter(energy: Floats) -> float:
    """Return the standard deviation of energies, (M,), about the straight line through them; nan below 3."""
    if len(energy) < 3:
        return math.nan
    line = np.polynomial.Polynomial.fit(np.arange(len(energy)), energy, 1)
    return float(np.std(energy - line(np.arange(len(energy)))))


def robust_spread(values: Floats) -> float:
    """Return the standard deviation of a normal distribution of the same median |deviation|; nan if empty."""
    if not len(values):
        return math.nan
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


@dataclass(frozen=True)
class Residuals:
    """What the residuals of energy and work along a path look like.

    Args:
        count: residuals.
        jump: eV, the largest isolated one: |fourth difference| / 6, in which a single one shows as itself and
            what varies smoothly hardly.
        rough: eV, root mean square of the isolated ones.
        spread: eV, robust standard deviation of all.
        mismatch: the part of the work that the energy does not know of: robust standard deviations of sums
            of `STRETCH` consecutive residuals and of the work in them, their ratio.
        growth: exponent of the variance of sums of n residuals: 0 for noise of the energy, which cancels,
            1 for independent jumps, up to 2 for a force that is smoothly wrong.
        where: place of the largest isolated one among the residuals.
    """

    count: int
    jump: float
    rough: float
    spread: float
    mismatch: float
    growth: float
    where: int

    @property
    def noise(self) -> float:
        """eV, standard deviation of the energy's own noise, if the residuals are nothing else."""
        return self.spread / math.sqrt(2)


def residuals(residual: Floats, work: Floats) -> Residuals:
    """Describe the residuals of energy and work.

    Args:
        residual: (M,) eV, U(x₂) − U(x₁) + ∫ F·dx of consecutive intervals.
        work: (M,) eV, ∫ F·dx.

    Returns:
        nan in place of every number where there are fewer than 2 × `STRETCH` residuals, or none but zeros.
    """
    n = len(residual) // STRETCH * STRETCH
    if n < 2 * STRETCH or not residual.any():
        rough = 0.0 if len(residual) > 4 and not residual.any() else math.nan
        return Residuals(len(residual), rough, rough, rough, math.nan, math.nan, 0)
    fourth = np.abs(np.diff(residual, 4)) / 6
    long, done = (values[:n].reshape(-1, STRETCH).sum(axis=1) for values in (residual, work))
    moved = robust_spread(done)
    return Residuals(
        len(residual),
        float(fourth.max()),
        float(np.sqrt(np.mean(fourth**2))),
        robust_spread(residual),
        robust_spread(long) / moved if moved > 0 else math.nan,
        math.log(float(np.mean(long**2)) / float(np.mean(residual**2))) / math.log(STRETCH),
        int(np.argmax(fourth)) + 2,
    )


def split_residuals(potential: Floats, unexplained: Floats, delay: int) -> tuple[Floats, Floats]:
    """Return (residual, work) of consecutive intervals, eV, from sums that were recorded at every step.

    Args:
        potential: (M,) eV.
        unexplained: (M,) eV, the sum of all residuals up to the interval that ends `delay` − 1 steps before;
            nan at first.
        delay: steps from the beginning of an interval to the step at which its residual is known.
    """
    known = np.flatnonzero(np.isfinite(unexplained))
    if not len(known):
        return np.zeros(0), np.zeros(0)
    first = int(known[0])
    residual = np.diff(unexplained[first:], prepend=0.0)
    change = np.diff(potential[first - delay : first - delay + len(residual) + 1])
    return residual, residual - change


OUTLIER = 10.0
"""Times the median size of the residuals of an interval's parts that one must have to stand out."""


def zoom(unexplained: float, energy: Floats, work: Floats) -> str:
    """Say of what kind the residual of an interval is, from many points on the straight line through it.

    Args:
        unexplained: eV, what the work of the whole interval left unexplained.
        energy: (P,) eV, at equidistant points.
        work: (P,) eV, F·Δx there, with the Δx of the whole interval.

    Returns:
        "jump": it stands in few of the parts; "noise": the parts have far more than the whole; "spread": all
        parts have some of it, so the force is not the gradient; "gone": the parts have none of it, only the
        long interval did; "" where nothing is known.
    """
    if len(energy) < 3 or not unexplained:
        return ""
    parts = np.diff(energy) + 0.5 * (work[1:] + work[:-1]) / (len(energy) - 1)
    size, whole = np.abs(parts), abs(unexplained)
    out = size > OUTLIER * np.median(size)
    if size[out].sum() >= 0.4 * whole:
        return "jump"
    if size.sum() > 6 * max(whole, abs(parts.sum())):
        return "noise"
    return "spread" if abs(parts.sum()) >= 0.4 * whole else "gone"
