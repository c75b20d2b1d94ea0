"""Scan geometry: hand-checked molecules, rigid-body properties, and the released scans."""

import tarfile
from io import BytesIO
from itertools import islice

import numpy as np
import pytest
import zstandard
from ase.build import molecule
from ase.data import atomic_numbers, covalent_radii
from ase.io import read
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.io import read_scan_set
from sfumato.reference.scans import (
    BOND_TYPES,
    Bridge,
    bond_type,
    bonds,
    bridge_bonds,
    candidate_scans,
    clashes,
    displaced,
    scan_lengths,
    scan_positions,
)
from sfumato.systems import System
from tests import ROOT, SHARED

DATA = SHARED / "data"
ARCHIVE = DATA / "bsct-spice.tar.zst"
MINI = ROOT / "src" / "sfumato" / "data" / "bsct-mini.extxyz"


def system(name):
    atoms = molecule(name)
    return System(atoms.numbers, atoms.positions)


# Carbon skeletons with hydrogens, bonds by hand: toluene = ring 0-5, methyl 6; biphenyl = rings 0-5, 6-11.
RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)]
TOLUENE = [*RING, (0, 6), (6, 7), (6, 8), (6, 9), *((c, 9 + c) for c in range(1, 6))]
BIPHENYL = [
    *RING,
    *((i + 6, j + 6) for i, j in RING),
    (0, 6),
    *((c, 11 + c) for c in range(1, 6)),
    *((6 + c, 16 + c) for c in range(1, 6)),
]


def found(n_atoms, pairs):
    return [(b.i, b.j) for b in bridge_bonds(n_atoms, pairs)]


def test_bonds_of_ethane_are_the_seven_of_its_formula():
    assert bonds(system("C2H6")).tolist() == [[0, 1], [0, 2], [0, 3], [0, 4], [1, 5], [1, 6], [1, 7]]


def test_bonds_lie_below_one_and_a_quarter_radii_sums():
    limit = 1.25 * 2 * covalent_radii[6]
    near = System(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, limit - 1e-6]]))
    far = System(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, limit + 1e-6]]))
    assert bonds(near).tolist() == [[0, 1]]
    assert bonds(far).shape == (0, 2)


def test_overlapping_atoms_are_an_error_that_names_them():
    close = System(np.array([1, 6, 8]), np.array([[0, 0, 3], [0, 0, 0], [0, 0, 0.3]]))
    with pytest.raises(ValueError, match=r"1 \(C\) and 2 \(O\) overlap"):
        bonds(close)


def test_periodic_systems_are_refused():
    crystal = System(np.array([14]), np.zeros((1, 3)), cell=5 * np.eye(3), pbc=np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="periodic"):
        bonds(crystal)


def test_ethane_has_one_bridge_and_its_methyl_groups_are_the_fragments():
    (bridge,) = bridge_bonds(8, bonds(system("C2H6")))
    assert (bridge.i, bridge.j) == (0, 1)
    assert bridge.fragment.tolist() == [-1, 1, -1, -1, -1, 1, 1, 1]


def test_ring_bonds_are_never_bridges_and_the_methyl_bond_of_toluene_is():
    assert found(15, TOLUENE) == [(0, 6)]
    (bridge,) = bridge_bonds(15, TOLUENE)
    assert np.flatnonzero(bridge.fragment == 1).tolist() == [6, 7, 8, 9]


def test_biphenyl_breaks_only_between_its_rings():
    assert found(22, BIPHENYL) == [(0, 6)]


def test_bonds_to_terminal_atoms_are_never_bridges():
    water, methane, ethyne_like = [(0, 1), (0, 2)], [(0, k) for k in range(1, 5)], [(0, 1), (1, 2), (2, 3)]
    assert found(3, water) == []
    assert found(5, methane) == []
    assert found(4, ethyne_like) == [(1, 2)]


def test_benzene_has_no_bridge_from_its_geometry():
    assert candidate_scans(system("C6H6")) == []


def test_the_order_of_bonds_and_atoms_does_not_matter():
    shuffled = [(j, i) for i, j in reversed(TOLUENE)]
    assert found(15, [*shuffled, (6, 0)]) == [(0, 6)]


def test_a_molecule_in_pieces_is_an_error():
    with pytest.raises(ValueError, match="2 pieces"):
        bridge_bonds(6, [(0, 1), (0, 2), (3, 4), (3, 5)])


@pytest.mark.parametrize("bad", [(0, 3), (-1, 0), (1, 1)])
def test_a_bond_of_impossible_atoms_is_an_error(bad):
    with pytest.raises(ValueError, match="two different atoms"):
        bridge_bonds(3, [(0, 1), (1, 2), bad])


@pytest.mark.parametrize(
    ("elements", "first", "last", "kind"),
    [
        ((6, 6), 0.76, 3.04, "C-C"),
        ((7, 6), 0.735, 2.94, "C-N"),
        ((8, 6), 0.71, 2.84, "C-O"),
        ((15, 6), 0.915, 3.66, "C-P"),
        ((16, 6), 0.905, 3.62, "C-S"),
        ((7, 7), 0.71, 2.84, "N-N"),
        ((8, 7), 0.685, 2.74, "N-O"),
        ((15, 7), 0.89, 3.56, "N-P"),
        ((15, 8), 0.865, 3.46, "O-P"),
    ],
)
def test_ranges_and_names_of_the_published_bond_types(elements, first, last, kind):
    lengths = scan_lengths(elements, (0, 1))
    assert len(lengths) == 100
    assert lengths[0] == pytest.approx(first, abs=1e-12)
    assert lengths[-1] == pytest.approx(last, abs=1e-12)
    assert np.ptp(np.diff(lengths)) < 1e-12
    assert bond_type(elements, (0, 1)) == bond_type(elements, (1, 0)) == kind
    assert kind in BOND_TYPES


def test_a_scan_of_one_frame_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        scan_lengths((6, 6), (0, 1), frames=1)


def test_equation_one_by_hand():
    moved = displaced([[0, 0, 0], [0, 0, 1]], [-1, 1], [0, 0, 1], [0.25, -0.1])
    assert moved.tolist() == [[[0, 0, -0.25], [0, 0, 1.25]], [[0, 0, 0.1], [0, 0, 0.9]]]
    assert displaced([[0, 0, 0], [0, 0, 1]], [-1, 1], [0, 0, 1], 0.25).shape == (2, 3)


def test_two_bonded_atoms_on_one_point_have_no_direction():
    here = System(np.array([6, 6]), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one point"):
        scan_positions(here, Bridge(0, 1, np.array([-1, 1])), [1.0])


@st.composite
def trees(draw):
    """A random tree of 4 to 12 atoms at random positions with one of its inner bonds, if it has one."""
    n = draw(st.integers(4, 12))
    pairs = [(draw(st.integers(0, k - 1)), k) for k in range(1, n)]
    seed = draw(st.integers(0, 2**32 - 1))
    positions = np.random.default_rng(seed).uniform(-5, 5, (n, 3))
    return n, pairs, positions


@given(trees(), st.lists(st.floats(0.1, 8), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_every_scan_has_the_asked_lengths_and_rigid_fragments(tree, lengths):
    n, pairs, positions = tree
    molecule_ = System(np.full(n, 6), positions)
    for bridge in bridge_bonds(n, pairs):
        frames = scan_positions(molecule_, bridge, lengths)
        r = frames[:, bridge.j] - frames[:, bridge.i]
        np.testing.assert_allclose(np.linalg.norm(r, axis=1), lengths, rtol=0, atol=1e-12)
        r0 = positions[bridge.j] - positions[bridge.i]
        unit = r0 / np.linalg.norm(r0)
        np.testing.assert_allclose(np.cross(r, unit), 0, atol=1e-12)
        for side in (-1, 1):
            moves = (frames - positions)[:, bridge.fragment == side]
            np.testing.assert_allclose(moves, moves[:, :1].repeat(moves.shape[1], axis=1), atol=1e-13)
        # Both sides move by the same amount: the middle of the bond stays where it is.
        middle = frames[:, [bridge.i, bridge.j]].mean(axis=1)
        np.testing.assert_allclose(
            middle - positions[[bridge.i, bridge.j]].mean(axis=0), np.zeros((len(lengths), 3)), atol=1e-13
        )


@given(trees())
@settings(max_examples=60, deadline=None)
def test_bridges_of_a_tree_are_its_inner_bonds(tree):
    n, pairs, _ = tree
    degree = np.bincount(np.ravel(pairs), minlength=n)
    inner = sorted(tuple(sorted(p)) for p in pairs if degree[p[0]] > 1 and degree[p[1]] > 1)
    bridges = bridge_bonds(n, pairs)
    assert [(b.i, b.j) for b in bridges] == inner
    for b in bridges:
        assert b.fragment[b.i] == -1
        assert b.fragment[b.j] == 1
        crossing = [p for p in pairs if b.fragment[p[0]] != b.fragment[p[1]]]
        assert [tuple(sorted(p)) for p in crossing] == [(b.i, b.j)]


def test_a_closed_ring_takes_its_bonds_out_of_the_bridges():
    chain = [(k, k + 1) for k in range(7)]
    assert found(8, chain) == [(k, k + 1) for k in range(1, 6)]
    assert found(8, [*chain, (2, 5)]) == [(1, 2), (5, 6)]


def test_clashes_name_the_pair_and_frame_and_leave_out_the_scanned_bond():
    # C–C scanned along z; the hydrogen rides on atom 0 and meets atom 1 at 0.9 × 1.07 = 0.963 Å.
    numbers = np.array([6, 6, 1, 1])
    frames = np.array(
        [
            [[0, 0, 0], [0, 0, z], [0, 1.1, 0], [0, -1.1 - 0.2, z]]
            for z in (1.5, 0.5)  # 0.5 Å between the scanned atoms counts nothing
        ]
    )
    assert clashes(numbers, frames, (0, 1)) is None
    frames[1, 2] = [0, 0.9, 0.5]
    clash = clashes(numbers, frames, (1, 0))
    assert (clash.i, clash.j, clash.frame) == (1, 2, 1)
    assert clash.distance == pytest.approx(0.9)
    assert clash.limit == pytest.approx(0.963)
    assert clashes(numbers, frames, (0, 1), factor=0.84) is None


def test_a_short_bond_inside_a_fragment_is_a_clash_as_in_the_source():
    # Acetaldehyde's C=O (1.21 Å) is shorter than 0.9 × 1.42 Å at rest.
    (candidate,) = candidate_scans(system("CH3CHO"))
    assert candidate.bond_type == "C-C"
    assert candidate.exclusion.startswith("clash: atoms 0 (O) and 1 (C)")


def test_hydroxylamine_has_one_scan():
    x = [[0, 0, 0], [1.45, 0, 0], [-0.35, 0.95, 0], [-0.35, -0.45, 0.83], [1.75, 0.91, 0]]
    (candidate,) = candidate_scans(System(np.array([7, 8, 1, 1, 1]), np.array(x)))
    assert (candidate.bond_type, candidate.exclusion) == ("N-O", None)
    assert candidate.bridge.fragment.tolist() == [-1, 1, -1, -1, 1]


def test_other_bond_types_are_excluded_by_name_or_wanted_on_request():
    disilane = system("Si2H6")
    (excluded,) = candidate_scans(disilane)
    assert excluded.exclusion.startswith("bond type: Si-Si is not among C-C")
    (wanted,) = candidate_scans(disilane, bond_types=None)
    assert wanted.exclusion is None


def xyz(text):
    """Return atomic numbers and positions of a file of the released layout."""
    rows = [line.split() for line in text.decode().splitlines()[2:]]
    return np.array([atomic_numbers[row[0]] for row in rows]), np.array(
        [row[1:4] for row in rows], dtype=float
    )


def released_scans():
    """Yield bond type, unperturbed molecule, partition and {frame: positions} of the released scans."""
    if not ARCHIVE.exists():
        pytest.skip(f"the released data are not at {ARCHIVE}")
    wanted = {"partition.npz", "unperturbed.xyz", "atoms_0.xyz", "atoms_49.xyz", "atoms_99.xyz"}
    parts = {}
    with (
        ARCHIVE.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            leaf = member.name.rpartition("/")[2]
            if leaf not in wanted:
                continue
            parts[leaf] = archive.extractfile(member).read()
            if len(parts) == len(wanted):
                kind = member.name.split("/")[-3]
                frames = {k: xyz(parts[f"atoms_{k}.xyz"])[1] for k in (0, 49, 99)}
                yield (
                    kind,
                    System(*xyz(parts["unperturbed.xyz"])),
                    np.load(BytesIO(parts["partition.npz"])),
                    frames,
                )
                parts = {}


def check_released(kind, unperturbed, partition, frames):
    """Check one released scan: range, bridge, fragments, frames, and that the clash filter lets it pass."""
    bond, labels = partition["bond_index"], partition["labels"]
    lengths = scan_lengths(unperturbed.numbers, bond)
    first, last, count = partition["perturb_range"]
    np.testing.assert_allclose(lengths, np.linspace(first, last, int(count)), rtol=0, atol=1e-12)
    candidates = {(c.bridge.i, c.bridge.j): c for c in candidate_scans(unperturbed)}
    candidate = candidates[tuple(bond.tolist())]
    assert (candidate.bond_type, candidate.exclusion) == (kind, None)
    assert ((candidate.bridge.fragment == 1) == (labels == labels[bond[1]])).all()
    made = scan_positions(unperturbed, candidate.bridge, lengths)
    for k, expected in frames.items():
        np.testing.assert_allclose(made[k], expected, rtol=0, atol=1e-7)


def test_released_scans_are_reproduced_from_their_unperturbed_molecules():
    for scan in islice(released_scans(), 5):
        check_released(*scan)


@pytest.mark.slow
def test_all_485_released_scans_are_reproduced_and_pass_the_clash_filter():
    kinds = []
    for scan in released_scans():
        check_released(*scan)
        kinds.append(scan[0])
    assert len(kinds) == 485
    assert set(kinds) == set(BOND_TYPES)


def test_bundled_molecules_give_one_scan_each_of_the_type_in_their_name():
    found_types = []
    for atoms in read(MINI, ":"):
        molecule_ = System(atoms.numbers, atoms.positions, charge=atoms.info["charge"])
        (candidate,) = candidate_scans(molecule_)
        assert candidate.exclusion is None
        assert candidate.bond_type == atoms.info["name"].split("/")[0]
        found_types.append(candidate.bond_type)
    assert sorted(found_types) == list(BOND_TYPES)


def test_bundled_scans_are_those_of_the_bundled_molecules():
    scan_set = read_scan_set(MINI.with_suffix(".h5"))
    atoms_of = {atoms.info["name"]: atoms for atoms in read(MINI, ":")}
    assert {scan.name for scan in scan_set} == set(atoms_of)
    for scan in scan_set:
        atoms = atoms_of[scan.name]
        (candidate,) = candidate_scans(System(atoms.numbers, atoms.positions))
        made = scan_positions(System(atoms.numbers, atoms.positions), candidate.bridge, scan.coordinate)
        np.testing.assert_allclose(made, scan.positions, rtol=0, atol=1e-9)
        np.testing.assert_allclose(scan.coordinate, candidate.lengths, rtol=0, atol=1e-12)
        assert scan.labeled.all()
        assert scan.smiles == atoms.info["smiles"]
        assert 0 < scan.energy.argmin() < len(scan) - 1
    assert MINI.with_suffix(".h5").stat().st_size < 1_000_000
