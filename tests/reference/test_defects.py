"""Point defects: distances by hand, in both orientations of a diamond lattice, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.geometry import get_distances

from sfumato.io import from_ase
from sfumato.reference.defects import (
    BROKEN,
    DUMBBELL,
    hop_ends,
    hops_of,
    is_diamond,
    kinds_of,
    supercell,
    with_defect,
)

A = 5.0
SILICON = from_ase(bulk("Si", "diamond", A, cubic=True))
TURNED = replace(SILICON, positions=1.3 - SILICON.positions)
COPPER = from_ase(bulk("Cu", "fcc", 3.6, cubic=True))


def distances(system, atom):
    _, found = get_distances(system.positions[atom], system.positions, cell=system.cell, pbc=True)
    return np.sort(np.delete(found[0], atom))


@pytest.mark.parametrize("crystal", [SILICON, TURNED], ids=["as it is", "inverted"])
def test_interstitials_by_hand(crystal):
    assert is_diamond(crystal)
    tetrahedral, hexagonal, split = (
        with_defect(crystal, 2, kind) for kind in ("tetrahedral", "hexagonal", "split")
    )
    assert {len(system) for system in (tetrahedral, hexagonal, split)} == {65}
    assert distances(tetrahedral, 64)[:4] == pytest.approx([np.sqrt(3) / 4 * A] * 4)
    assert distances(hexagonal, 64)[:6] == pytest.approx([np.sqrt(11) / 8 * A] * 6)
    near = distances(split, 64)
    assert np.abs(near - 2 * DUMBBELL * A).min() < 1e-9
    assert near[0] > 0.37 * A
    assert distances(split, 0)[:3] == pytest.approx(near[:3])  # both atoms of the pair are alike


@pytest.mark.parametrize("crystal", [SILICON, TURNED, COPPER], ids=["Si", "inverted", "Cu"])
def test_a_vacancy_hop_by_hand(crystal):
    first, last = hop_ends(crystal, 2, "vacancy")
    assert len(first) == len(last) == 8 * len(crystal) - 1
    moved = np.linalg.norm(last.positions - first.positions, axis=1)
    assert (moved > 1e-9).sum() == 1
    bond = distances(supercell(crystal, 2), 0)[0]
    assert moved.max() == pytest.approx(bond)
    assert np.abs(first.positions - with_defect(crystal, 2, "vacancy").positions).max() == 0
    assert distances(first, 5)[0] > bond - 12 * BROKEN


def test_an_interstitial_hop_is_between_tetrahedral_sites():
    first, last = hop_ends(SILICON, 2, "interstitial")
    assert distances(last, 64)[:4] == pytest.approx([np.sqrt(3) / 4 * A] * 4)
    assert np.linalg.norm(last.positions - first.positions, axis=1)[64] == pytest.approx(np.sqrt(3) / 4 * A)


def test_what_can_be_made():
    assert kinds_of(COPPER) == hops_of(COPPER) == ("vacancy",)
    assert len(kinds_of(SILICON)) == 4
    with pytest.raises(
        ValueError, match="interstitials are known for the cubic cell of a diamond lattice only"
    ):
        with_defect(COPPER, 2, "split")
    with pytest.raises(ValueError, match="no defect 'hole'; there are vacancy, split"):
        with_defect(SILICON, 2, "hole")
    assert not is_diamond(from_ase(bulk("Si", "diamond", A)))
