"""The balance of the energy along a path: every interval is halved until the work of the force explains it.

Where the force is the gradient of the energy, E(b) − E(a) + ∫F·dr vanishes, and a quadrature of high order
shows it with few samples. An interval that is halved again and again and keeps its misfit holds a step of the
energy, however small and wherever it is: nothing between the samples can hide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.metrics.jumps import NODES, WEIGHTS, Curve, Sample
from sfumato.systems import Bools, Floats

AROUND = 6
"""Samples whose polynomial is integrated: of a smooth function the misfit falls as h⁷."""

DEEP = 7
"""Halvings of an interval that a smooth function hardly needs: where the force jumps the misfit falls as h
only, where its slope does as h²."""


def imbalance(places: Floats, energy: Floats, power: Floats) -> Floats:
    """Return (M − 1,) eV, E(b) − E(a) + ∫F·dr of every interval: energy that the force does not show.

    The same as `jumps.unexplained` for all intervals at once.

    Args:
        places: (M,) Å, M ≥ 6, increasing.
        energy: (M,) eV.
        power: (M,) eV/Å, F·dr/ds.
    """
    intervals = np.arange(len(places) - 1)
    first = np.clip(intervals - 2, 0, len(places) - AROUND)
    window = first[:, None] + np.arange(AROUND)
    x, y = places[window], power[window]
    middle, half = (places[1:] + places[:-1]) / 2, np.diff(places) / 2
    at = middle[:, None] + half[:, None] * NODES
    total = np.zeros_like(at)
    for k in range(AROUND):
        others = [m for m in range(AROUND) if m != k]
        factors = (at[:, :, None] - x[:, None, others]) / (x[:, None, [k]] - x[:, None, others])
        total += factors.prod(axis=2) * y[:, [k]]
    misfit: Floats = np.diff(energy) + half * (total @ WEIGHTS)
    return misfit


HOPELESS = 3, 0.5
"""Rounds of halving after which a smooth function is explained in more than this share of its intervals;
where it is not, the force is no gradient, and more samples would not change that."""


@dataclass(frozen=True, eq=False)
class Balance:
    """How far the energy along a path is explained.

    Args:
        samples: of the whole path, in order.
        open: places of the intervals that stayed unexplained down to the narrowest.
        deep: places that took `DEEP` halvings or more until they were explained.
        left_over: eV, the largest misfit of the other intervals.
        exhausted: whether the evaluations that were allowed did not suffice; then `left_over` says how
            much is unexplained.
    """

    samples: list[Sample]
    open: list[float]
    deep: list[float]
    left_over: float
    exhausted: bool


def balance(
    curve: Curve, grid: list[Sample], limit: float, drift: float, narrowest: float, most: int
) -> Balance:
    """Halve the intervals of a path until the work explains the energy in each, or it is too narrow for that.

    Args:
        curve: what is searched.
        grid: samples in order, at least six.
        limit: eV that noise may leave in an interval.
        drift: eV/Å by which the power may be inexact.
        narrowest: Å, intervals of this width are left open.
        most: samples to add.
    """
    samples, added, rounds = list(grid), 0, 0
    coarse = np.array([sample.place for sample in grid])
    while True:
        places = np.array([sample.place for sample in samples])
        columns = (np.array([getattr(sample, what) for sample in samples]) for what in ("energy", "power"))
        misfit, width = np.abs(imbalance(places, *columns)), np.diff(places)
        bad = misfit > limit + drift * width
        wide = bad & (width > narrowest)
        hopeless = rounds >= HOPELESS[0] and wide.mean() > HOPELESS[1]
        if not wide.any() or added + int(wide.sum()) > most or hopeless:
            break
        rounds += 1
        middles = (places[1:] + places[:-1])[wide] / 2
        new = curve(middles.tolist())
        added += len(new)
        samples = sorted([*samples, *new], key=lambda sample: sample.place)
    closed = ~(bad & ~wide)
    spread = np.diff(coarse)[np.searchsorted(coarse, places[:-1], side="right") - 1]
    deep = closed & (width <= spread / 2**DEEP)
    return Balance(
        samples,
        _places(places, misfit, ~closed),
        _places(places, spread / width, deep),
        float(misfit[closed].max(initial=0.0)),
        bool(wide.any()),
    )


def _places(places: Floats, size: Floats, chosen: Bools) -> list[float]:
    """Return the middle of the interval with the largest size in each run of chosen neighboring ones."""
    rows = np.flatnonzero(chosen)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
    worst = [int(run[np.argmax(size[run])]) for run in runs]
    return [float((places[k] + places[k + 1]) / 2) for k in worst]
