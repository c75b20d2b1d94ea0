"""Numbers of every frame: the same for the same atoms, exact where structures are, and the closest pair."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import covalent_radii

from sfumato.datasets.summary import CLASH, _closest, _hashes
from sfumato.systems import Batch, System


def made(seed: int, sizes: list[int], box: float = 3.0) -> list[System]:
    rng = np.random.default_rng(seed)
    return [System(rng.choice([1, 6, 8], n), rng.uniform(0, box, (n, 3))) for n in sizes]


def test_the_closest_pair_of_molecules_of_any_size() -> None:
    systems = made(0, [1, 2, 30, 2, 9, 9, 30, 1, 200, 9, 130])
    found = _closest(Batch.of(systems))
    for system, closest in zip(systems, found, strict=True):
        radii, x = covalent_radii[system.numbers], system.positions
        ratio = np.linalg.norm(x[:, None] - x[None], axis=2) / (radii[:, None] + radii)
        expected = ratio[~np.eye(len(x), dtype=bool)].min(initial=1.0)
        assert closest == pytest.approx(expected if expected < CLASH else 1.0)
    assert (found < CLASH).sum() > 2
    assert (found == 1).sum() > 2


def test_hashes_tell_atoms_structures_and_compositions_apart() -> None:
    (one,) = made(1, [5])
    moved = System(one.numbers, one.positions + 1e-12)
    swapped = System(one.numbers[::-1], one.positions)
    charged = System(one.numbers, one.positions, charge=1, multiplicity=2)
    cell = System(one.numbers, one.positions, 9 * np.eye(3), np.array([True, True, False]))
    wider = System(one.numbers, one.positions, 9.5 * np.eye(3), np.array([True, True, False]))
    more = System(np.append(one.numbers, 1), np.vstack([one.positions, [[8.0, 8, 8]]]))
    systems = [one, one, moved, swapped, charged, cell, wider, more]
    assert one.numbers.tolist() != one.numbers[::-1].tolist()
    atoms, exact, composition = (row.tolist() for row in _hashes(Batch.of(systems)))
    assert atoms[:3] == [atoms[0]] * 3
    assert atoms[5] == atoms[6]
    assert len(set(atoms)) == 5
    assert exact[0] == exact[1]
    assert len(set(exact)) == 7
    assert len(set(composition[:7])) == 1
    assert composition[7] != composition[0]
