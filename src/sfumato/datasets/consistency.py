"""Do energies, forces and stresses of a set belong together? Their units and signs, from the numbers alone.

Between two near configurations of the same atoms the energy changes by the work of the forces and the stress,
    E_j − E_i ≈ r · (−½ Σ (F_i + F_j)·Δx) + s · (V̄ ½ (σ_i + σ_j) : ε),
exactly for a quadratic surface. r and s are 1 if all labels are in consistent units and of the right sign; a
wrong unit makes them the ratio of the two units, a wrong sign −1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sfumato.datasets.loader import Rows, gather
from sfumato.systems import Bools, Floats, Ints, System

FARTHEST = 0.35
"""Å, rms displacement of a pair that is compared: beyond, the surface is not near quadratic."""

MOST_BENT = 0.05
"""Å, by which bonds of a molecule may be shorter halfway than at the ends (root of the sum of squares). A
methyl group that turns goes along a circle, not along the straight line on which the work is taken. On the
300 K configurations of 3BPA the ratio is 0.84 to 0.93 with this limit and 0.61 to 0.76 without."""

MOSTLY = 3.0
"""times as much work of stress as of forces makes a pair one of strain."""

MISFIT = 0.3
"""of the strain work, that a strained pair may leave unexplained."""

LARGEST_STRAIN = 0.06
"""of a pair that is compared."""

LARGEST_TURN = 0.02
"""by which the cell of one may be turned against that of the other."""

GROUPS = 64
"""Kinds of structures that pairs are taken from."""

FRAMES = 600
"""Frames that pairs are taken from, of all groups."""

PAIR_VALUES = 2_000_000
"""Numbers in one array of pairs."""

PAIRS = 400
"""Closest pairs that are compared."""

FEWEST = 5
"""Pairs below which nothing is known."""

SURE = 0.15
"""A ratio is known if its standard error is less than this part of it, or of 1."""


@dataclass(frozen=True)
class Ratio:
    """A slope that should be 1.

    Args:
        value: the slope; NaN where there are no pairs.
        error: its standard error.
        pairs: how many pairs have work of this kind.
    """

    value: float
    error: float
    pairs: int

    @property
    def known(self) -> bool:
        """Whether the pairs tell anything."""
        return self.pairs >= FEWEST and self.error < SURE * max(1.0, abs(self.value))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Near configurations of the same atoms.

    Args:
        energy: (P,) eV, E_j − E_i.
        work: (P,) eV, of the forces; NaN where one has none.
        strain_work: (P,) eV, of the stress; 0 where the cell is the same, NaN where one has no stress.
        gross: (P,) eV, the strain work with every component counted positive; 0 unless it is most of all
            work, counted so.
        apart: (P,) how far from each other, of what is allowed.
    """

    energy: Floats
    work: Floats
    strain_work: Floats
    gross: Floats
    apart: Floats

    def __len__(self) -> int:
        return len(self.energy)

    def take(self, rows: Ints | Bools) -> Pairs:
        """Return some of the pairs."""
        return Pairs(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def superposed(a: Floats, b: Floats) -> Floats:
    """Return the rotations that bring structures closest to others, without mirroring.

    Args:
        a: (P, N, 3) Å, centerd on the mean.
        b: likewise.

    Returns:
        (P, 3, 3), so that b @ R is closest to a.

    Source: Kabsch 1976.
    """
    u, _, vt = np.linalg.svd(np.einsum("pni,pnj->pij", b, a))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    return np.asarray(u @ vt)


def _bends(numbers: Ints, start: Floats, moved: Floats) -> Floats:
    """Return (P,) Å, how much shorter bonds are halfway along a straight line than at its ends."""
    from ase.data import covalent_radii

    sums = covalent_radii[numbers][:, None] + covalent_radii[numbers][None]

    def distances(x: Floats) -> Floats:
        return np.asarray(np.linalg.norm(x[:, :, None] - x[:, None], axis=-1))

    first = distances(start)
    bonded = (first < 1.3 * sums) & ~np.eye(len(numbers), dtype=bool)
    shorter = 0.5 * (first + distances(start + moved)) - distances(start + 0.5 * moved)
    return np.asarray(np.sqrt((np.where(bonded, shorter, 0.0) ** 2).sum(axis=(1, 2))))


def near_pairs(rows: Rows, keys: Ints, rng: np.random.Generator) -> Pairs:
    """Find near configurations of the same atoms, along trajectories and among random frames.

    Args:
        rows: the frames.
        keys: (S,) frames with the same key have the same atoms in the same order.
        rng: chooses the frames that are looked at.

    Returns:
        The nearest neighbor of each chosen frame, if near enough; at most `PAIRS`, the closest.
    """
    found = [_group_pairs(*group) for group in _groups(rows, keys, rng)]
    if not found:
        return Pairs(*np.zeros((5, 0)))
    names = Pairs.__dataclass_fields__
    pairs = Pairs(*(np.concatenate([getattr(p, name) for p in found]) for name in names))
    order = np.argsort(pairs.apart, kind="stable")
    return pairs.take(order[:PAIRS])


def _groups(
    rows: Rows, keys: Ints, rng: np.random.Generator
) -> Iterator[tuple[list[System], Floats, Floats, Floats | None]]:
    """Yield structures and labels of some frames of each of some groups."""
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    many = np.flatnonzero(counts >= 2)
    chosen = rng.choice(many, min(GROUPS, len(many)), replace=False) if len(many) else many
    by_group = np.argsort(place, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    for g in chosen.tolist():
        frames = np.sort(by_group[starts[g] : starts[g + 1]])
        atoms = max(1, int(rows.offsets[frames[0] + 1] - rows.offsets[frames[0]]))
        most = max(8, min(FRAMES // len(chosen), int((2 * PAIR_VALUES / (3 * atoms)) ** 0.5)))
        if len(frames) > most:  # neighbors in the file are neighbors in time
            first = rng.choice(len(frames) - 1, most // 2, replace=False)
            frames = frames[np.union1d(first, first + 1)]
        batch, labels = gather(rows, frames)
        n, s = len(batch.numbers) // len(batch), len(batch)
        yield list(batch), labels.energy, labels.forces.reshape(s, n, 3), labels.stress


def _group_pairs(systems: list[System], energy: Floats, forces: Floats, stress: Floats | None) -> Pairs:
    """Return the nearest neighbor of each of some configurations of the same atoms."""
    x, f = np.stack([s.positions for s in systems]), forces
    i, j = np.triu_indices(len(systems), 1)
    pbc = systems[0].pbc
    n = max(1, x.shape[1])
    if pbc.any():
        cells = np.stack([s.cell for s in systems])
        if not (np.abs(np.linalg.det(cells)) > 0).all():
            return Pairs(*np.zeros((5, 0)))
        moved, strain, turn = _strained(x, cells, pbc, i, j)
        mean_force = 0.5 * (f[i] + f[j])
        volume = np.abs(np.linalg.det(0.5 * (cells[i] + cells[j])))
        strained = np.abs(strain).max(axis=(1, 2), initial=0.0)
        near = (strained < LARGEST_STRAIN) & (turn < LARGEST_TURN)
        mean_stress = np.full_like(cells, np.nan)[i] if stress is None else 0.5 * (stress[i] + stress[j])
        parts = volume[:, None, None] * mean_stress * strain
        parts[strained < 1e-6] = 0.0
        strain_work, gross = parts.sum(axis=(1, 2)), np.abs(parts).sum(axis=(1, 2))
    else:
        x = x - x.mean(axis=1, keepdims=True)
        rotation = superposed(x[i], x[j])
        moved = x[j] @ rotation - x[i]
        mean_force = 0.5 * (f[i] + f[j] @ rotation)
        near = np.ones(len(i), dtype=bool)
        strained, strain_work, gross = np.zeros((3, len(i)))
    distance = np.sqrt((moved**2).sum(axis=(1, 2)) / n)
    near &= (distance < FARTHEST) & (distance + strained > 1e-3)
    apart = np.where(near, distance / FARTHEST + strained / LARGEST_STRAIN, np.inf)
    if not pbc.any():
        most = min(4 * len(systems), PAIR_VALUES // n**2 + 1)
        close = np.argsort(apart, kind="stable")[: min(most, int(near.sum()))]
        bends = _bends(systems[0].numbers, x[i[close]], moved[close])
        apart[:] = np.inf
        apart[close] = np.where(bends < MOST_BENT, bends / MOST_BENT, np.inf)
    work = -(mean_force * moved).sum(axis=2)
    gross[~(gross > MOSTLY * np.abs(work).sum(axis=1))] = 0.0
    pairs = Pairs(energy[j] - energy[i], work.sum(axis=1), strain_work, gross, apart)
    return pairs.take(_nearest(i, j, apart, len(systems)))


def _strained(x: Floats, cells: Floats, pbc: Bools, i: Ints, j: Ints) -> tuple[Floats, Floats, Floats]:
    """Return displacements (P, N, 3) without strain and drift, strains (P, 3, 3) and turns (P,)."""
    fractional = x @ np.linalg.inv(cells)
    change = fractional[j] - fractional[i]
    change[..., pbc] -= np.round(change[..., pbc])
    change -= np.median(change, axis=1, keepdims=True)  # the drift, unless most atoms move
    change[..., pbc] -= np.round(change[..., pbc])
    change -= change.mean(axis=1, keepdims=True)
    middle = 0.5 * (cells[i] + cells[j])
    gradient = np.linalg.inv(middle) @ (cells[j] - cells[i])
    flipped = np.swapaxes(gradient, 1, 2)
    turn = 0.5 * np.abs(gradient - flipped).max(axis=(1, 2), initial=0.0)
    return change @ middle, 0.5 * (gradient + flipped), turn


def _nearest(i: Ints, j: Ints, apart: Floats, n: int) -> Ints:
    """Return the pairs (numbers) that are the closest one of either partner."""
    square = np.full((n, n), np.inf)
    square[i, j] = square[j, i] = apart
    number = np.zeros((n, n), dtype=np.int64)
    number[i, j] = number[j, i] = np.arange(len(i))
    partner = square.argmin(axis=1)
    good = np.isfinite(square[np.arange(n), partner])
    return np.unique(number[np.arange(n), partner][good])


def work_ratios(pairs: Pairs) -> tuple[Ratio, Ratio]:
    """Return how much energy a unit of the forces' work and of the stress' work stands for.

    Least absolute deviations by reweighting, so that a few pairs across a barrier do not decide, each
    equation divided by the root of its size, so that large cells do not decide either.

    Args:
        pairs: near configurations.

    Returns:
        r and s of the module's equation.
    """
    work = np.stack([pairs.work, pairs.strain_work], axis=1)
    good = np.isfinite(work).all(axis=1)
    work, energy = work[good], pairs.energy[good]
    size = np.sqrt(np.abs(energy) + np.abs(work).sum(axis=1))
    work, energy, size = work[size > 0], energy[size > 0], size[size > 0]
    present = (np.abs(work) > 1e-3 * size[:, None] ** 2).any(axis=0)
    counts = [int((np.abs(work[:, k]) > 1e-3 * size**2).sum()) for k in range(2)]
    value, error = np.full(2, np.nan), np.full(2, np.inf)
    if len(energy) > 2 and present.any():
        A, b = (work / size[:, None])[:, present], energy / size
        weight = np.ones(len(b))
        for _ in range(30):
            slope = np.linalg.lstsq(A * weight[:, None], b * weight, rcond=None)[0]
            weight = 1 / np.sqrt(np.abs(b - A @ slope) + 1e-3 * np.abs(b).max())
        weighted, residual = A * weight[:, None], (b - A @ slope) * weight
        variance = (residual @ residual) / max(1, len(b) - A.shape[1])
        covariance = variance * np.linalg.pinv(weighted.T @ weighted)
        value[present], error[present] = slope, np.sqrt(np.diag(covariance))
    return Ratio(float(value[0]), float(error[0]), counts[0]), Ratio(
        float(value[1]), float(error[1]), counts[1]
    )


def misfits(pairs: Pairs) -> tuple[int, int]:
    """Return how many strained pairs there are, and of how many the stress does not explain the energy.

    A wrong order of the six components leaves the slope near 1 if most strains have no shear, but the
    pairs with shear do not fit.
    """
    rest = np.abs(pairs.energy - pairs.work - pairs.strain_work)
    return int((pairs.gross > 0).sum()), int(
        (rest[pairs.gross > 0] > MISFIT * pairs.gross[pairs.gross > 0]).sum()
    )
