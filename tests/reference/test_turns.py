"""Angle and torsion scans: molecules by hand, rigid turns, arc lengths, clashes and exclusions."""

from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.metrics.smoothness import work_energy_residual
from sfumato.reference.scans import (
    CLASH_FACTOR,
    angle,
    bridge_bonds,
    candidates,
    moving_clashes,
    torsion,
    turned,
)
from sfumato.systems import System
from tests.reference.test_scans import TOLUENE


def system(name):
    atoms = molecule(name)
    return System(atoms.numbers, atoms.positions)


def types(found):
    return [candidate.type for candidate in found]


def good(found):
    assert [candidate.exclusion for candidate in found] == [None] * len(found)
    return found


def test_a_quarter_turn_by_hand():
    x = np.array([[1.0, 0, 0], [0, 0, 3], [5, 5, 5]])
    (still, quarter) = turned(x, np.array([True, True, False]), [0, 0, 1], [0, 0, 2], [0, np.pi / 2])
    assert still == pytest.approx(x, abs=1e-15)
    assert quarter == pytest.approx(np.array([[0, 1.0, 0], [0, 0, 3], [5, 5, 5]]), abs=1e-15)


@pytest.mark.parametrize("phi", [-179.0, -60.0, 0.0, 1e-5, 90.0, 180.0])
def test_torsions_have_the_sign_of_iupac(phi):
    # Looking from j to k, along +z, the right-handed turn from i to l is clockwise, hence positive.
    a = np.radians(phi)
    points = np.array([[1.0, 0, -0.3], [0, 0, 0], [0, 0, 1.5], [2 * np.cos(a), 2 * np.sin(a), 1.1]])
    assert np.degrees(torsion(points)) == pytest.approx(phi, abs=1e-12)
    theirs = Atoms("H4", points).get_dihedral(0, 1, 2, 3)
    assert np.degrees(torsion(points)) % 360 == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("theta", [1e-7, 60.0, 109.5, 179.9999999, 180.0])
def test_angles_are_exact_also_near_a_straight_line(theta):
    a = np.radians(theta)
    points = np.array([[2.0, 0, 0], [0, 0, 0], [3 * np.cos(a), 3 * np.sin(a), 0]])
    assert np.degrees(angle(points)) == pytest.approx(theta, abs=1e-12)


def test_the_torsion_of_ethane_by_numbers():
    ethane = system("C2H6")
    (scan,) = good(candidates(ethane, "torsion", frames=99))
    assert scan.type == "H-C-C-H"
    assert scan.atoms.tolist() == [2, 0, 1, 5]
    assert scan.fragment.tolist() == [-1, 1, -1, -1, -1, 1, 1, 1]
    # The hydrogens lie 1.0197 Å off the axis; 98 steps of a 99th of a turn: the first frame is not repeated.
    radius = np.hypot(*ethane.positions[5, :2])
    assert radius == pytest.approx(1.0197, abs=1e-3)
    assert np.diff(scan.lengths) == pytest.approx(2 * np.pi * radius / 99, abs=1e-12)
    assert scan.lengths[0] == pytest.approx(np.pi * radius, abs=1e-6)  # staggered: trans
    assert scan.positions[0] == pytest.approx(ethane.positions, abs=1e-14)
    # A third of a turn puts every hydrogen of the methyl group where another one was.
    assert scan.positions[33][[5, 6, 7]] == pytest.approx(ethane.positions[[6, 7, 5]], abs=1e-5) or (
        scan.positions[33][[5, 6, 7]] == pytest.approx(ethane.positions[[7, 5, 6]], abs=1e-5)
    )


def test_the_torsions_of_butane_are_one_per_bridge_bond_between_its_heaviest_neighbors():
    butane = system("trans-butane")
    carbons = np.flatnonzero(butane.numbers == 6)
    found = good(candidates(butane, "torsion"))
    assert sorted(types(found)) == ["C-C-C-C", "C-C-C-H", "C-C-C-H"]
    (middle,) = [candidate for candidate in found if candidate.type == "C-C-C-C"]
    assert sorted(middle.atoms) == carbons.tolist()
    assert len(middle.lengths) == 100
    now = np.degrees(np.unwrap(torsion(middle.positions[:, middle.atoms])))
    assert abs(now[0]) == pytest.approx(180, abs=1e-4)
    assert now - now[0] == pytest.approx(3.6 * np.arange(100), abs=1e-9)
    bridges = bridge_bonds(14, np.argwhere(np.triu(contacts(butane))))
    assert {tuple(sorted(c.atoms[1:3].tolist())) for c in found} == {(b.i, b.j) for b in bridges}


def contacts(molecule_, most=1.7):
    x = molecule_.positions
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    bonded = distance < np.where(np.add.outer(molecule_.numbers, molecule_.numbers) > 7, most, 1.3)
    return bonded & (distance > 0) & ~np.logical_and.outer(molecule_.numbers == 1, molecule_.numbers == 1)


def test_water_and_methane_bend_one_angle_each():
    (water,) = good(candidates(system("H2O"), "angle", frames=10))
    assert water.type == "H-O-H"
    x = water.positions[:, water.atoms]
    r1, r2 = x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]
    cosine = (r1 * r2).sum(axis=1) / np.linalg.norm(r1, axis=1) / np.linalg.norm(r2, axis=1)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(np.linspace(75, 165, 10))
    assert water.lengths == pytest.approx(np.linalg.norm(r2[0]) * np.radians(np.linspace(75, 165, 10)))
    assert np.count_nonzero(water.fragment == 1) == 1
    assert types(candidates(system("CH4"), "angle")) == ["H-C-H"]
    assert candidates(system("H2O"), "torsion") == []


def test_the_angles_of_propane():
    """The skeleton once; at each carbon one of its equal hydrogens against its heaviest neighbor."""
    propane = system("C3H8")
    found = good(candidates(propane, "angle"))
    assert sorted(types(found)) == ["C-C-C", "C-C-H", "C-C-H", "C-C-H"]
    (skeleton,) = [candidate for candidate in found if candidate.type == "C-C-C"]
    assert np.count_nonzero(skeleton.fragment == 1) == 4  # a methyl group
    assert skeleton.lengths[0] == pytest.approx(1.53 * np.radians(75), rel=0.01)
    for candidate in found:
        end, center, moving = candidate.atoms
        assert candidate.fragment[moving] == 1
        assert candidate.fragment[[end, center]].tolist() == [-1, -1]


def test_ring_angles_and_ring_torsions_never():
    benzene = system("C6H6")
    assert set(types(good(candidates(benzene, "angle")))) == {"C-C-H"}
    assert len(candidates(benzene, "angle")) == 6
    assert candidates(benzene, "torsion") == []
    chain = molecule("C7NH5")  # benzonitrile: the bond to the linear C≡N divides, but has no torsion
    (linear,) = candidates(System(chain.numbers, chain.positions), "torsion")
    assert linear.exclusion.startswith("linear: atoms ")
    assert linear.positions.shape == (0, 13, 3)


def test_only_the_methyl_group_of_toluene_turns():
    x = np.random.default_rng(3).permutation(2.0 * np.argwhere(np.ones((3, 3, 2)))[:15])
    flat = System(np.array([6] * 7 + [1] * 8), x + 0.2 * np.random.default_rng(4).normal(size=(15, 3)))
    (found,) = candidates(flat, "torsion", bonds=TOLUENE)
    assert set(found.atoms[1:3]) == {0, 6}
    assert np.flatnonzero(found.fragment == 1).tolist() == [6, 7, 8, 9]


def test_three_atoms_in_line_have_no_plane():
    (linear,) = candidates(system("CO2"), "angle")
    assert linear.exclusion == (
        "linear: the angle of atoms 2 (O), 0 (C) and 1 (O) is 180.0° and has no plane"
    )
    assert len(linear.lengths) == 0


def test_a_double_bond_does_not_turn_and_one_inside_a_fragment_forbids_nothing():
    (ethene,) = candidates(system("C2H4"), "torsion")
    assert ethene.exclusion.startswith("multiple bond: atoms 0 (C) and 1 (C) are 1.33")
    # Acetaldehyde's C=O is shorter than 0.9 radii sums; no bond scan passes, its torsion does.
    (bond,) = candidates(system("CH3CHO"))
    assert bond.exclusion.startswith("clash: ")
    (turn,) = candidates(system("CH3CHO"), "torsion")
    assert (turn.type, turn.exclusion) == ("H-C-C-O", None)


def test_clashes_of_turns_count_pairs_that_come_closer_only():
    # 0 stays, 1–4 move; 1 is the last atom of the coordinate, 2 is bonded to it closer than allowed.
    numbers = np.array([6, 6, 8, 1, 6])
    rest = System(numbers, np.array([[0, 0, 0], [3.0, 0, 0], [3, 1.1, 0], [0, 5, 0], [0, 0, 1.2]]))
    moving = np.array([False, True, True, True, False])
    frames = np.repeat(rest.positions[None], 3, axis=0)
    frames[1, 1] = [1.0, 0, 0]  # the scanned pair may
    assert moving_clashes(rest, frames, moving, [0, 4, 1]) is None
    frames[2, 3] = [0, 0.9, 0]
    clash = moving_clashes(rest, frames, moving, [0, 4, 1])
    assert (clash.i, clash.j, clash.frame) == (0, 3, 2)
    assert (clash.distance, clash.limit) == (pytest.approx(0.9), pytest.approx(0.9 * 1.07))
    assert moving_clashes(rest, frames, moving, [0, 4, 1], factor=0.84) is None
    assert (
        clash.told(numbers)
        == "clash: atoms 0 (C) and 3 (H) are 0.900 Å apart in frame 2, closer than 0.963 Å"
    )
    assert CLASH_FACTOR * 1.52 > 1.2  # atoms 0 and 4 are 1.2 Å apart, too close, but both stay


def test_a_turn_into_another_group_is_excluded_with_the_pair():
    # H2N–NH2-like chain whose last atom sweeps a circle of 1.4 Å through an atom on the other side.
    x = [[1.4, 0, 0], [0, 0, 0], [0, 0, 1.4], [0, 1.4, 1.4], [0, -2.0, 0.2], [0, -1.4, 1.25]]
    chain = System(np.full(6, 7), np.array(x))
    bonds = [(0, 1), (1, 2), (2, 3), (1, 4), (4, 5)]
    (found,) = [c for c in candidates(chain, "torsion", bonds=bonds) if set(c.atoms[1:3]) == {1, 2}]
    assert found.exclusion.startswith("clash: atoms 3 (N) and 5 (N) are ")


@pytest.mark.parametrize("coordinate", ["bond", "angle", "torsion"])
def test_bad_molecules_are_the_same_errors_for_every_coordinate(coordinate):
    overlap = System(np.array([6, 6, 8]), np.array([[0, 0, 0], [0, 0, 1.5], [0, 0, 1.7]]))
    with pytest.raises(ValueError, match=r"1 \(C\) and 2 \(O\) overlap"):
        candidates(overlap, coordinate)
    with pytest.raises(ValueError, match=r"1 \(C\) and 2 \(O\) overlap"):
        candidates(overlap, coordinate, bonds=[(0, 1), (1, 2)])
    apart = System(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, 5]]))
    with pytest.raises(ValueError, match="2 pieces"):
        candidates(apart, coordinate)
    with pytest.raises(ValueError, match="two different atoms"):
        candidates(apart, coordinate, bonds=[(0, 2)])
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        candidates(system("H2O"), coordinate, frames=1)
    assert candidates(System(np.array([2]), np.zeros((1, 3))), coordinate) == []


def test_an_unknown_coordinate_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown coordinate 'torsions'; .*torsion"):
        candidates(system("H2O"), "torsions")


def test_types_that_are_not_wanted_are_excluded_by_name():
    found = candidates(system("C3H8"), "angle", types=("C-C-C",))
    told = {c.type: c.exclusion for c in found}
    assert told == {"C-C-C": None, "C-C-H": "angle type: C-C-H is not among C-C-C"}


def test_a_known_graph_overrides_the_geometry():
    # Two hydrogens of ethane pushed together look bonded, and would close a ring over the C–C bond.
    ethane = system("C2H6")
    x = ethane.positions.copy()
    x[2], x[5] = [0, 0.8, 0.3], [0, 0.8, -0.3]
    crushed = System(ethane.numbers, x)
    graph = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6), (1, 7)]
    assert candidates(crushed, "torsion") == []
    assert types(candidates(crushed, "torsion", bonds=graph)) == ["H-C-C-H"]


@st.composite
def trees(draw):
    """A random tree of carbon, nitrogen and hydrogen on a rough lattice: no overlaps, few straight lines."""
    n = draw(st.integers(4, 10))
    bonds = [(draw(st.integers(0, k - 1)), k) for k in range(1, n)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.permutation(2.0 * np.argwhere(np.ones((3, 3, 3))))[:n] + rng.uniform(-0.5, 0.5, (n, 3))
    return System(rng.choice([1, 6, 7], n), x), bonds


def distances(frames, chosen):
    x = frames[:, chosen]
    return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)


@given(trees(), st.sampled_from(["angle", "torsion"]))
@settings(max_examples=40, deadline=None)
def test_one_side_turns_as_a_rigid_body_and_the_coordinate_is_the_way_of_its_last_atom(tree, coordinate):
    molecule_, bonds = tree
    for candidate in candidates(molecule_, coordinate, bonds=bonds, frames=300):
        if not len(candidate.lengths):
            continue
        for side in (-1, 1):
            apart = distances(candidate.positions[::30], candidate.fragment == side)
            assert apart == pytest.approx(apart[:1].repeat(10, axis=0), abs=1e-12)
        assert (
            candidate.positions[:, candidate.fragment == -1] == molecule_.positions[candidate.fragment == -1]
        ).all()
        way = candidate.positions[:, candidate.atoms[-1]]
        assert candidate.fragment[candidate.atoms[-1]] == 1
        walked = np.concatenate([[0], np.linalg.norm(np.diff(way, axis=0), axis=1).cumsum()])
        turn = 2 * np.pi / 300 if coordinate == "torsion" else np.pi / 2 / 299
        # A chord is shorter than its arc by turn²/24: what is left must be rounding.
        assert walked / (1 - turn**2 / 24) == pytest.approx(
            candidate.lengths - candidate.lengths[0], abs=1e-6
        )
        crossing = [b for b in bonds if candidate.fragment[b[0]] != candidate.fragment[b[1]]]
        assert [set(b) for b in crossing] == [set(candidate.atoms[1:3].tolist())]
        lengths = distances(candidate.positions[::30], list(crossing[0]))
        assert lengths == pytest.approx(lengths[:1].repeat(10, axis=0), abs=1e-12)


@given(trees())
@settings(max_examples=40, deadline=None)
def test_no_angle_is_listed_twice_and_each_bridge_has_one_torsion(tree):
    molecule_, bonds = tree
    bends = [(c.atoms[1], frozenset(c.atoms[[0, 2]])) for c in candidates(molecule_, "angle", bonds=bonds)]
    assert len(set(bends)) == len(bends)
    assert all(molecule_.numbers[center] != 1 for center, _ in bends)
    twists = [
        tuple(sorted(c.atoms[-3:-1]))
        for c in candidates(molecule_, "torsion", bonds=bonds)
        if len(c.atoms) == 4
    ]
    assert len(set(twists)) == len(twists)
    assert set(twists) <= {(b.i, b.j) for b in bridge_bonds(len(molecule_), bonds)}


def harmonic(points, coordinate):
    """A stiff angle, or a threefold torsion, at four points, in eV."""
    if coordinate == "angle":
        return 2.0 * (angle(points[:3]) - 1.9) ** 2
    return 0.3 * (1 + np.cos(3 * torsion(points)))


@pytest.mark.parametrize("coordinate", ["angle", "torsion"])
def test_forces_times_steps_are_the_energy_along_the_arc(coordinate):
    butane = system("trans-butane")
    (scan,) = [c for c in candidates(butane, "torsion") if c.type == "C-C-C-C"]
    if coordinate == "angle":
        (scan, *_) = [c for c in candidates(butane, "angle") if c.type == "C-C-C"]
    others = [k for k in np.flatnonzero(butane.numbers == 6) if k not in scan.atoms]
    atoms = [*scan.atoms, *others]
    h, forces = 1e-5, np.zeros_like(scan.positions)
    for frame, x in enumerate(scan.positions):
        for atom in scan.atoms:
            for axis in range(3):
                up, down = x.copy(), x.copy()
                up[atom, axis] += h
                down[atom, axis] -= h
                change = harmonic(up[atoms], coordinate) - harmonic(down[atoms], coordinate)
                forces[frame, atom, axis] = -change / (2 * h)
    energy = np.array([harmonic(x[atoms], coordinate) for x in scan.positions])
    assert np.ptp(energy) > 0.5
    # The trapezoid along chords: what remains is of third order in the step and falls eightfold with half.
    residual = [work_energy_residual(energy[::k], forces[::k], scan.positions[::k], 0).full for k in (1, 2)]
    assert residual[0] < 1e-3
    assert residual[1] / residual[0] == pytest.approx(8, rel=0.15)
    # And the force along the tangent is −dE/ds: arc lengths are the right measure.
    tangent = np.gradient(scan.positions, scan.lengths, axis=0)
    slope = -(forces * tangent).sum(axis=(1, 2))
    assert slope[1:-1] == pytest.approx(np.gradient(energy, scan.lengths)[1:-1], abs=5e-3)


def test_neighboring_frames_differ_by_equal_steps():
    for coordinate in ("angle", "torsion"):
        for candidate in candidates(system("C3H8"), coordinate):
            steps = [b - a for a, b in pairwise(candidate.lengths)]
            assert np.ptp(steps) < 1e-12
