"""Scans of slabs and crystals: periodic bonds, what one cut frees, how far atoms may move."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.data import covalent_radii
from ase.geometry import get_distances
from ase.spacegroup import crystal
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.graph.neighbors import neighbor_pairs
from sfumato.reference.scans import ROOM, bonds, candidate_scans, candidates, cuts, network
from sfumato.systems import System


def system(atoms):
    return System(atoms.numbers, atoms.positions, cell=np.array(atoms.cell), pbc=atoms.pbc)


def slab(adsorbate=None, height=1.85):
    atoms = fcc111("Cu", (2, 2, 3), a=3.615, vacuum=8)
    if adsorbate is not None:
        add_adsorbate(atoms, adsorbate, height, "ontop")
    return system(atoms)


CO = Atoms("CO", [[0, 0, 0], [0, 0, 1.15]])
METHOXY = Atoms("OCH3", [[0, 0, 0], [0.4, 0, 1.36], [1.48, 0, 1.36], [0.1, 0.9, 1.9], [0.1, -0.9, 1.9]])
NACL = system(bulk("NaCl", "rocksalt", 5.64, cubic=True))
BENZENE = system(
    crystal(
        "CCCHHH",
        [
            (-0.0569, 0.1387, -0.0054),
            (-0.1335, 0.0460, 0.1264),
            (-0.0774, -0.0925, 0.1295),
            (-0.0976, 0.2447, -0.0177),
            (-0.2409, 0.0794, 0.2218),
            (-0.1371, -0.1631, 0.2312),
        ],
        spacegroup=61,
        cellpar=[7.39, 9.42, 6.81, 90, 90, 90],
    )
)


def told(found):
    return [(candidate.type, len(candidate.atoms), candidate.exclusion) for candidate in found]


def test_every_atom_of_diamond_has_four_bonds_in_any_cell():
    for cubic, count in ((False, 2), (True, 8)):
        net = network(system(bulk("C", "diamond", 3.567, cubic=cubic)))
        assert np.bincount(net.pairs.ravel()).tolist() == [4] * count
        assert len({tuple(row) for row in np.hstack([net.pairs, net.shift]).tolist()}) == 2 * count
    # The one atom of primitive copper is bonded to twelve of its own images: six bonds, each once.
    net = network(system(bulk("Cu", "fcc", 3.615)))
    assert (net.pairs == 0).all()
    assert len(net.pairs) == 6


def test_in_salt_the_bonds_are_those_of_six_neighbors():
    net = network(NACL)
    unlike = NACL.numbers[net.pairs[:, 0]] != NACL.numbers[net.pairs[:, 1]]
    assert np.bincount(net.pairs[unlike].ravel()).tolist() == [6] * 8


def test_a_chain_through_the_cell_cannot_be_cut_but_its_hydrogens_can():
    x = [[0, 0.4, 0], [0.87, 1.0, 0], [-0.87, 1.0, 0], [0, -0.4, 1.27], [0.87, -1, 1.27], [-0.87, -1, 1.27]]
    chain = system(Atoms("CH2CH2", x, cell=[6, 6, 2.54], pbc=True))
    found = cuts(6, network(chain))
    assert [(cut.j, cut.k) for cut in found if cut.finite] == [(0, 1), (0, 2), (3, 4), (3, 5)]
    assert [(cut.j, cut.k) for cut in found if not cut.finite] == [(1, 0), (2, 0), (4, 3), (5, 3)]
    assert told(candidates(chain)) == [("C", 1, None), ("H", 1, None)]
    assert [c.type for c in candidates(chain, "angle")] == ["C-C-H"]
    assert candidates(chain, "torsion") == []


def test_a_link_between_two_slabs_frees_nothing_finite():
    # Two planes of a square lattice joined by one bond through a bridging pair.
    plane = np.array([[x, y, 0] for x in (0, 1.5) for y in (0, 1.5)])
    atoms = np.concatenate([plane, [[0, 0, 1.5], [0, 0, 3.0]], plane + np.array([0, 0, 4.5])])
    layers = System(np.full(10, 6), atoms, cell=np.diag([3.0, 3.0, 30.0]), pbc=np.ones(3, dtype=bool))
    assert {(cut.j, cut.k) for cut in cuts(10, network(layers))} == {
        (0, 4),
        (4, 0),
        (4, 5),
        (5, 4),
        (5, 6),
        (6, 5),
    }
    assert not any(cut.finite for cut in cuts(10, network(layers)))


def test_carbon_monoxide_leaves_its_slab_alone():
    found = candidates(slab(CO), frames=40)
    co, *sites = found
    assert (co.type, co.exclusion) == ("C-Cu", None)
    assert co.atoms.tolist() == [8, 12]  # copper stays, carbon moves
    assert np.flatnonzero(co.fragment == 1).tolist() == [12, 13]
    at_rest = slab(CO).positions
    assert (co.positions[:, :12] == at_rest[:12]).all()
    moved = co.positions[:, 12:] - at_rest[12:]
    assert np.abs(moved[..., :2]).max() < 1e-12
    assert moved[:, 0, 2] == pytest.approx(co.lengths - 1.85)
    assert moved[:, 1] == pytest.approx(moved[:, 0])
    assert co.lengths[[0, -1]] == pytest.approx([0.5 * 2.08, 2 * 2.08])
    assert [c.type for c in sites] == ["Cu", "Cu", "C", "O"]
    angles = {c.type: c.exclusion for c in candidates(slab(CO), "angle")}
    assert angles["Cu-C-O"].startswith("linear: ")


def test_methoxy_on_copper_has_its_own_bond_angles_and_torsions():
    found = candidates(slab(METHOXY, 1.9))
    assert [c.type for c in found if len(c.atoms) == 2] == ["Cu-O", "C-O"]
    assert {len(c.positions) for c in found} == {100}
    bends = candidates(slab(METHOXY, 1.9), "angle")
    assert [c.type for c in bends] == ["Cu-Cu-O", "C-O-Cu", "H-C-O"]
    on_copper, methyl = candidates(slab(METHOXY, 1.9), "torsion")
    assert told([on_copper, methyl]) == [("C-O-Cu-Cu", 4, None), ("Cu-O-C-H", 4, None)]
    assert np.flatnonzero(on_copper.fragment == 1).tolist() == [12, 13, 14, 15, 16]
    assert np.flatnonzero(methyl.fragment == 1).tolist() == [13, 14, 15, 16]


def test_the_sites_of_salt_by_numbers():
    """Sodium goes from half the radii sum until the chloride behind it is at 0.8 × 2.68 Å."""
    sodium, chlorine = candidates(NACL)
    assert told([sodium, chlorine]) == [("Na", 1, None), ("Cl", 1, None)]
    for site in (sodium, chlorine):
        (k,) = site.atoms
        assert np.flatnonzero(site.fragment == 1).tolist() == [k]
        way = np.linalg.norm(site.positions[:, k] - site.positions[0, k], axis=1)
        assert site.lengths == pytest.approx(way, abs=1e-12)
        assert site.lengths[-1] == pytest.approx((2.82 - 0.8 * 2.68) + (2.82 - 0.5 * 2.68))
        first = site.positions[0, k] - NACL.positions[k]
        assert sorted(np.abs(first)) == pytest.approx([0, 0, 2.82 - 1.34])


def test_the_site_of_copper_by_numbers():
    """Outwards the opposite neighbor, at 2.556 Å, stops it at 0.8 × 2.556; inwards nothing does."""
    (site,) = candidates(system(bulk("Cu", "fcc", 3.615, cubic=True)))
    near = 3.615 / np.sqrt(2)
    assert site.lengths[-1] == pytest.approx(0.2 * near + (near - 0.5 * 2.64))
    # In the primitive cell copper's neighbors are its own images: nothing would change.
    assert candidates(system(bulk("Cu", "fcc", 3.615))) == []


def test_a_hydrogen_on_copper_is_moved_as_a_site_not_as_a_fragment():
    found = candidates(slab(Atoms("H"), 1.55))
    assert ("H", 1, None) in told(found)
    assert all(len(candidate.atoms) == 1 for candidate in found)


def test_an_atom_in_a_cage_has_no_room():
    # One atom moves on the line to its neighbor, whose image behind it stops it at 0.8 of the distance.
    x = [[0, 0, 0], [0, 0, 1.15]]
    tight = System(np.array([6, 6]), np.array(x), cell=np.diag([9.0, 9.0, 2.3]), pbc=np.ones(3, dtype=bool))
    (site,) = candidates(tight)
    assert site.lengths[-1] == pytest.approx(1.15 - 0.76 + 0.2 * 1.15)
    close = System(
        np.array([6, 6]), np.array([[0, 0, 0], [0, 0, 0.8]]), tight.cell / [1, 1, 1.4375], tight.pbc
    )
    (site,) = candidates(close)
    assert site.exclusion == "no room: other atoms leave 0.20 Å along the bond, less than 0.3 Å"


def test_molecular_crystals_bend_and_shift_hydrogens_but_break_no_ring():
    found = candidates(BENZENE)
    assert {c.type for c in found} == {"C", "H"}
    assert all(len(c.atoms) == 1 for c in found)
    bends = candidates(BENZENE, "angle")
    assert {c.type for c in bends} == {"C-C-H"}
    assert len(bends) <= 3  # 24 hydrogens of three kinds
    assert candidates(BENZENE, "torsion") == []


def test_one_of_several_equivalent_angles_stands_for_all():
    two = molecule("H2O")
    other = two.copy()
    other.rotate(70, (1, 2, 3))
    other.translate([4, 0, 0])
    pair = two + other
    pair.set_cell([8, 8, 8])
    pair.pbc = True
    assert [c.type for c in candidates(system(pair), "angle")] == ["H-O-H"]
    assert told(candidates(system(pair))) == [("O", 1, None), ("H", 1, None)]


def test_a_molecule_in_a_box_gives_the_bonds_of_the_molecule():
    ethanol = molecule("CH3CH2OH")
    free = candidate_scans(System(ethanol.numbers, ethanol.positions))
    ethanol.center(5)
    ethanol.pbc = True
    boxed = [c for c in candidates(system(ethanol)) if len(c.atoms) == 2]
    assert {frozenset(c.atoms) for c in boxed} == {frozenset(c.atoms) for c in free}
    for a in free:
        (b,) = [c for c in boxed if c.type == a.type]
        assert b.lengths == pytest.approx(a.lengths, abs=1e-12)
        for k in (0, 50, 99):  # the same shapes, although one fragment moves instead of two
            x, y = a.positions[k], b.positions[k]
            assert np.linalg.norm(x[:, None] - x, axis=-1) == pytest.approx(
                np.linalg.norm(y[:, None] - y, axis=-1), abs=1e-12
            )


@given(st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=9, max_size=9), st.floats(0, 9))
@settings(max_examples=15, deadline=None)
def test_wrapping_atoms_into_other_cells_changes_nothing(shifts, offset):
    ethanol = molecule("CH3CH2OH")
    ethanol.set_cell([[7, 0, 0], [2, 7.5, 0], [0, -1, 8]])
    ethanol.pbc = True
    plain = system(ethanol)
    wrapped = System(
        plain.numbers, plain.positions + offset + np.array(shifts) @ plain.cell, plain.cell, plain.pbc
    )
    for coordinate in ("bond", "angle", "torsion"):
        before, after = candidates(plain, coordinate, frames=5), candidates(wrapped, coordinate, frames=5)
        assert told(before) == told(after)
        for a, b in zip(before, after):
            assert a.atoms.tolist() == b.atoms.tolist()
            assert b.lengths == pytest.approx(a.lengths, abs=1e-9)
            for x, y in zip(a.positions, b.positions):
                args = {"cell": plain.cell, "pbc": plain.pbc}
                assert get_distances(x, **args)[1] == pytest.approx(get_distances(y, **args)[1], abs=1e-9)
            # Atoms of the coordinate lie side by side, so that a drawing or a ruler needs no images.
            chain = b.positions[:, b.atoms]
            if len(b.atoms) > 1:
                near = np.linalg.norm(chain[:, 1:] - chain[:, :-1], axis=-1)
                assert near.max() < 4


def reaching(structure, positions, moving, cutoff):
    """Distances from every atom that rests to every near image of one that moves: (i, j, shift) → Å."""
    at = System(structure.numbers, positions, structure.cell, structure.pbc)
    pairs = neighbor_pairs(at, cutoff)
    apart = positions[pairs.j] + pairs.shift @ structure.cell - positions[pairs.i]
    rows = np.column_stack([pairs.i, pairs.j, pairs.shift]).tolist()
    chosen = np.flatnonzero(moving[pairs.j] & ~moving[pairs.i])
    return {tuple(rows[k]): float(np.linalg.norm(apart[k])) for k in chosen}


@pytest.mark.parametrize("name", ["NaCl", "Cu", "MgO", "CO on Cu", "benzene", "W"])
def test_no_other_pair_comes_closer_than_allowed(name):
    structure = {
        "NaCl": NACL,
        "Cu": system(bulk("Cu", "fcc", 3.615, cubic=True)),
        "MgO": system(bulk("MgO", "rocksalt", 4.212, cubic=True)),
        "CO on Cu": slab(CO),
        "benzene": BENZENE,
        "W": system(bulk("W", "bcc", 3.165) * (2, 2, 2)),
    }[name]
    for candidate in candidates(structure, frames=12):
        moving = candidate.fragment == 1
        k = int(candidate.atoms[-1])
        toward = candidate.positions[0, k] - candidate.positions[-1, k]
        pairs = neighbor_pairs(structure, 3.3)
        apart = structure.positions[pairs.j] + pairs.shift @ structure.cell - structure.positions[pairs.i]
        off = np.linalg.norm(np.cross(apart, toward), axis=1) / np.linalg.norm(toward)
        on_line = (pairs.j == k) & (off < 1e-6) & (apart @ toward < 0)
        nearest = np.flatnonzero(on_line)[np.linalg.norm(apart[on_line], axis=1).argmin()]
        scanned = (int(pairs.i[nearest]), k, *pairs.shift[nearest].tolist())
        radii = covalent_radii[structure.numbers]
        at_rest = reaching(structure, structure.positions, moving, 7.0)
        for frame in candidate.positions:
            for pair, distance in reaching(structure, frame, moving, 4.0).items():
                allowed = ROOM * min(radii[pair[0]] + radii[pair[1]], at_rest[pair])
                assert distance >= allowed - 1e-9 or pair == scanned


def test_overlapping_atoms_and_lists_of_bonds_are_refused():
    close = System(
        np.array([6, 8]), np.array([[0, 0, 0.1], [0, 0, 4.9]]), cell=5 * np.eye(3), pbc=np.ones(3, dtype=bool)
    )
    with pytest.raises(ValueError, match=r"0 \(C\) and 1 \(O\) overlap \(0\.200 Å apart\)"):
        candidates(close)
    with pytest.raises(ValueError, match="does not say which images"):
        candidates(NACL, bonds=[(0, 1)])
    with pytest.raises(ValueError, match="periodic"):
        bonds(NACL)
    with pytest.raises(ValueError, match="periodic"):
        candidate_scans(NACL)
