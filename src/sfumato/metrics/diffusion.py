"""Diffusivity from mean squared displacements with uncertainty from blocks, and its activation energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from sfumato.metrics.stats import Estimate
from sfumato.systems import Floats
from sfumato.units import KELVIN

FIT = (0.1, 0.5)
"""Of a block, the lags between which the displacement is fitted: after vibrations, and averaged often."""

RESAMPLES = 4000


def squared_displacement(positions: Floats, lag: int) -> float:
    """Return the mean over time origins of Σ_i |r_i(t + τ) − r_i(t)|², of all atoms together.

    Args:
        positions: (F, N, 3) Å, never wrapped into the cell.
        lag: τ in frames, at least one and less than F.

    Returns:
        Å².
    """
    moved = positions[lag:] - positions[:-lag]
    moved = moved - moved.mean(axis=1, keepdims=True)  # a drift of the whole is no diffusion
    return float((moved**2).sum(axis=(1, 2)).mean())


def block_diffusivities(positions: Floats, spacing: float, blocks: int) -> Floats:
    """Return the diffusivity of all atoms together, D = dS/6dτ with S of `squared_displacement`, by block.

    With one defect in the cell this is that of the defect times the correlation factor of its mechanism (½
    for vacancies of a diamond lattice), whatever the number of atoms.

    Args:
        positions: (F, N, 3) Å, never wrapped into the cell.
        spacing: ps between frames.
        blocks: into which the trajectory is cut.

    Returns:
        (blocks,) Å²/ps, from a straight line through S at the lags of `FIT`; a block may come out negative.

    Raises:
        ValueError: fewer than twenty frames in a block, or a spacing that is not positive.
    """
    length = len(positions) // max(blocks, 1)
    if blocks < 1 or length < 20:
        raise ValueError(f"{len(positions)} frames are too few for {blocks} blocks of twenty")
    if not spacing > 0:
        raise ValueError(f"spacing: must be positive, got {spacing}")
    lags = np.unique(np.linspace(FIT[0] * length, FIT[1] * length, 12).astype(int))
    found = []
    for k in range(blocks):
        part = positions[k * length : (k + 1) * length]
        values = [squared_displacement(part, lag) for lag in lags.tolist()]
        found.append(float(np.polyfit(lags * spacing, values, 1)[0]) / 6)
    return np.array(found)


def mean_of_blocks(values: Floats, confidence: float = 0.95) -> Estimate:
    """Return the mean of blocks with Student's interval; fewer than two have none.

    Args:
        values: (B,) of each block.
        confidence: of the interval.
    """
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), n, n)
    half = float(student.ppf(0.5 + confidence / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n, n)


@dataclass(frozen=True)
class Arrhenius:
    """D = D₀ exp(−E/kT).

    Args:
        energy: eV, with the interval of resampled blocks.
        prefactor: Å²/ps.
    """

    energy: Estimate
    prefactor: float


def arrhenius(blocks: Mapping[float, Floats], seed: int = 0) -> Arrhenius | None:
    """Return the activation energy from the diffusivities at several temperatures.

    A straight line through ln D against 1/kT; its interval (95 %) is of blocks resampled at each temperature.

    Args:
        blocks: temperature in K → (B,) diffusivities of blocks.
        seed: of the resamples.

    Returns:
        None where fewer than two temperatures have a positive mean.
    """
    sound = {kelvin: values for kelvin, values in blocks.items() if len(values) and values.mean() > 0}
    if len(sound) < 2:
        return None
    beta = np.array([1 / (KELVIN * kelvin) for kelvin in sound])
    rng = np.random.default_rng(seed)
    slope, height = np.polyfit(beta, np.log([values.mean() for values in sound.values()]), 1)
    drawn = np.array(
        [
            values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
            for values in sound.values()
        ]
    )
    good = (drawn > 0).all(axis=0)
    slopes = np.polyfit(beta, np.log(drawn[:, good]), 1)[0] if good.any() else np.zeros(0)
    several = min(len(values) for values in sound.values()) > 1 and good.mean() > 0.95
    low, high = np.quantile(-slopes, [0.025, 0.975]) if several else (np.nan, np.nan)
    energy = Estimate(float(-slope), float(low), float(high), len(sound), len(blocks))
    return Arrhenius(energy, float(np.exp(height)))
