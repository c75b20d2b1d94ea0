"""A few numbers of every frame, from one reading of a set that may be larger than memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sfumato.datasets.duplicates import invariants, reach
from sfumato.datasets.energies import AtomEnergies
from sfumato.datasets.loader import Rows, small_molecules
from sfumato.graph.neighbors import half_pairs
from sfumato.systems import Batch, Bools, Floats, Ints, Prediction
from sfumato.units import HARTREE

CHUNK = 1024
"""Frames in memory at once."""

PAIRS_AT_ONCE = 100_000
"""Distances in memory at once."""

CLASH = 0.45
"""times the sum of covalent radii: atoms closer than this clash; bond scans are compressed to 0.5."""


@dataclass(frozen=True, eq=False)
class Summary:
    """A few numbers of every frame (S,).

    Args:
        keys: equal only for the same atoms in the same order, and the same charge and spin.
        exact: equal only for structures that are equal to the last bit.
        composition: equal only for the same numbers of each element.
        invariants: (S, 6) as of `duplicates.invariants`.
        reach: as of `duplicates.reach`.
        energy: eV.
        all_electron: eV, about the total energy of the atoms alone.
        residual: eV per atom, energy less the fitted energies of the atoms.
        largest: eV/Å, largest force; NaN without forces.
        net: eV/Å, of a molecule the sum of forces; 0 in a crystal.
        closest: smallest distance over the sum of covalent radii, 1 where no two atoms clash.
        volume: Å³ per atom.
        pressure: eV/Å³, mean diagonal stress.
        periodic: in any direction.
        has_forces: whether it has forces.
        has_stress: whether it has a stress.
    """

    keys: Ints
    exact: Ints
    composition: Ints
    invariants: Floats
    reach: Floats
    energy: Floats
    all_electron: Floats
    residual: Floats
    largest: Floats
    net: Floats
    closest: Floats
    volume: Floats
    pressure: Floats
    periodic: Bools
    has_forces: Bools
    has_stress: Bools


def summarize(rows: Rows, atom_energies: AtomEnergies) -> Summary:
    """Read all frames once and keep a few numbers of each."""
    parts = []
    for start in range(0, len(rows), CHUNK):
        batch, labels = rows.read(start, min(start + CHUNK, len(rows)))
        parts.append(_summary_of(batch, labels, atom_energies))
    names = Summary.__dataclass_fields__
    return Summary(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _summary_of(batch: Batch, labels: Prediction, atom_energies: AtomEnergies) -> Summary:
    s = len(batch)
    counts = np.maximum(np.diff(batch.offsets), 1)
    lacking = np.isnan(labels.forces).any(axis=1)
    largest = np.zeros(s)
    np.maximum.at(largest, batch.index, np.where(lacking, 0.0, np.linalg.norm(labels.forces, axis=1)))
    largest[batch.index[lacking]] = np.nan
    net = np.stack([np.bincount(batch.index, column, s) for column in labels.forces.T], axis=1)
    volume = np.abs(np.linalg.det(batch.cell))
    stress = np.full((s, 3, 3), np.nan) if labels.stress is None else labels.stress
    z = batch.numbers.astype(float)
    # Of a neutral atom, within 1 % from carbon on: Thomas–Fermi with corrections, Schwinger 1981.
    atom = HARTREE * (-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3))
    keys, exact, composition = _hashes(batch)
    return Summary(
        keys=keys,
        exact=exact,
        composition=composition,
        invariants=invariants(batch),
        reach=reach(batch),
        energy=labels.energy,
        all_electron=np.bincount(batch.index, atom, s).astype(float),
        residual=(labels.energy - atom_energies.total(batch)) / counts,
        largest=largest,
        net=np.where(batch.pbc.any(axis=1), 0.0, np.linalg.norm(net, axis=1)),
        closest=_closest(batch),
        volume=volume / counts,
        pressure=np.trace(stress, axis1=1, axis2=2) / 3,
        periodic=np.asarray(batch.pbc.any(axis=1)),
        has_forces=~np.isnan(largest),
        has_stress=np.asarray(np.isfinite(stress).all(axis=(1, 2))),
    )


def _hashes(batch: Batch) -> Ints:
    """Return (3, S) numbers: of the atoms in order, of the whole structure, of its composition."""
    numbers, positions = (np.ascontiguousarray(x).tobytes() for x in (batch.numbers, batch.positions))
    kinds = [np.ascontiguousarray(x).tobytes() for x in (batch.pbc, batch.charge, batch.multiplicity)]
    cells, sizes = np.ascontiguousarray(batch.cell).tobytes(), (3, 8, 8)
    known: dict[bytes, tuple[Any, bytes, bytes]] = {}
    found = []
    for k, (start, stop) in enumerate(pairwise(batch.offsets.tolist())):
        kind = b"".join(
            [numbers[8 * start : 8 * stop], *(x[n * k : n * k + n] for x, n in zip(kinds, sizes))]
        )
        if kind not in known:  # trajectories have the same atoms over and over
            sha, content = hashlib.blake2b(kind, digest_size=8), np.sort(batch.numbers[start:stop]).tobytes()
            known[kind] = sha, sha.digest(), hashlib.blake2b(content, digest_size=8).digest()
        sha, atoms, composition = known[kind]
        whole = sha.copy()
        whole.update(positions[24 * start : 24 * stop])
        whole.update(cells[72 * k : 72 * k + 72])
        found.append(atoms + whole.digest() + composition)
    return np.frombuffer(b"".join(found), dtype="<i8").reshape(-1, 3).T.astype(np.int64)


def radius_ratios(batch: Batch, cutoffs: Floats) -> tuple[Ints, Floats]:
    """Return the atoms (P,) of both ends of near pairs, and distances over the sum of covalent radii."""
    from ase.data import covalent_radii

    radii = covalent_radii[batch.numbers]
    half = half_pairs(batch, cutoffs)
    ratio = np.linalg.norm(half.vectors(batch), axis=1) / (radii[half.i] + radii[half.j])
    return np.concatenate([half.i, half.j]), np.concatenate([ratio, ratio])


def _closest(batch: Batch) -> Floats:
    """Return (S,) the smallest distance over the sum of covalent radii, where below `CLASH`; else 1."""
    from ase.data import covalent_radii

    found = np.ones(len(batch))
    small, rest, _ = small_molecules(batch)
    sizes = np.diff(batch.offsets)[small]
    for n in np.unique(sizes[sizes > 1]).tolist():
        frames = small[sizes == n]
        for some in np.split(
            frames, range(PAIRS_AT_ONCE // n**2 + 1, len(frames), PAIRS_AT_ONCE // n**2 + 1)
        ):
            atoms = batch.offsets[some][:, None] + np.arange(n)
            x, radii = batch.positions[atoms], covalent_radii[batch.numbers[atoms]]
            i, j = np.triu_indices(n, 1)
            ratio = np.sqrt(((x[:, i] - x[:, j]) ** 2).sum(axis=2)) / (radii[:, i] + radii[:, j])
            found[some] = ratio.min(axis=1)
    if len(rest):
        widest = np.full(len(rest), 0.3)
        np.maximum.at(widest, rest.index, covalent_radii[rest.numbers])
        ends, ratios = radius_ratios(rest, 2 * CLASH * widest)
        closest = np.ones(len(rest))
        np.minimum.at(closest, rest.index[ends], ratios)
        found[np.setdiff1d(np.arange(len(batch)), small)] = closest
    return np.where(found < CLASH, found, 1.0)
