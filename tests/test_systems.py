"""The containers refuse what cannot be, and stay what they were when made."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.systems import Batch, Prediction, Scan, ScanSet, System, digest, symbols

WATER = {"numbers": [8, 1, 1], "positions": [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]}


def scan(name="C-C/1", **changes):
    values = {
        "numbers": [6, 6],
        "positions": np.tile([[0, 0, 0], [0, 0, 1]], (3, 1, 1)),
        "coordinate": [1.0, 1.1, 1.2],
        "energy": [0.0, 1.0, np.nan],
        "forces": np.zeros((3, 2, 3)),
        "atoms": [0, 1],
        "fragment": [-1, 1],
        "charge": 0,
        "multiplicity": 1,
    }
    return Scan(name=name, **(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": [8, 1]}, r"positions: expected shape \(2, 3\), got \(3, 3\)"),
        ({"numbers": [8, 1, 0]}, "0 is not an atomic number"),
        ({"numbers": [8, 1, 119]}, "119 is not an atomic number"),
        ({"numbers": "OHH"}, "numbers: cannot be read as an array"),
        ({"positions": [[0, 0, np.nan], [0, 0, 1], [0, 1, 0]]}, r"positions: value nan at index \(0, 2\)"),
        ({"multiplicity": 0}, "multiplicity: 2S"),
        ({"pbc": [True, False, False]}, "zero lattice vector"),
        ({"pbc": [True] * 3, "cell": np.ones((3, 3))}, "zero volume"),
        ({"cell": np.eye(2)}, "cell: expected shape"),
    ],
)
def test_an_impossible_system_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        System(**(WATER | changes))


def test_arrays_are_copies_that_cannot_be_written():
    positions = np.array(WATER["positions"])
    system = System(WATER["numbers"], positions)
    positions[0] = 9
    assert system.positions[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        system.positions[0] = 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**31))
def test_a_batch_gives_back_its_systems(sizes, seed):
    rng = np.random.default_rng(seed)
    systems = [
        System(
            rng.integers(1, 20, n),
            rng.normal(size=(n, 3)),
            cell=np.eye(3) * rng.uniform(1, 9),
            pbc=rng.integers(0, 2, 3).astype(bool),
            charge=int(rng.integers(-2, 3)),
            multiplicity=int(rng.integers(1, 4)),
        )
        for n in sizes
    ]
    batch = Batch.of(systems)
    assert len(batch) == len(sizes)
    assert [system.identity for system in batch] == [system.identity for system in systems]


@pytest.mark.parametrize("index", [[1, 0, 0], [0, 0, 2], [-1, 0, 0]])
def test_a_batch_wants_its_atoms_in_order(index):
    with pytest.raises(ValueError, match="non-decreasing"):
        Batch(
            WATER["numbers"],
            WATER["positions"],
            index,
            np.zeros((2, 3, 3)),
            np.zeros((2, 3), bool),
            [0, 0],
            [1, 1],
        )


@pytest.mark.parametrize("number", [0, -1, 119])
def test_a_batch_wants_atomic_numbers(number):
    batch = Batch.of([System(**WATER)])
    with pytest.raises(ValueError, match=f"numbers: {number} is not an atomic number"):
        dataclasses.replace(batch, numbers=[8, 1, number])


def test_elements_are_written_short():
    assert symbols([8, 1, 6, 6, 7]) == "H, C, N, O"
    assert symbols(range(1, 97)) == "H to Cm"
    assert symbols([1, *range(5, 9), 119, 0]) == "0, H, B to O, 119"
    assert symbols([]) == ""


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Batch.of([])


def test_a_prediction_may_hold_nan_but_no_wrong_shape():
    assert np.isnan(Prediction([np.nan], [[0, 0, np.nan]]).energy[0])
    with pytest.raises(ValueError, match="forces: expected shape"):
        Prediction([0.0], [0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="stress: expected shape"):
        Prediction([0.0], [[0.0] * 3], stress=np.zeros((2, 3, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coordinate": [1.0, 1.0, 1.2]}, "must increase"),
        ({"coordinate": [1.0, np.nan, 1.2]}, "coordinate: value nan .* is not finite"),
        ({"coordinate": [1.0, 1.1, np.inf]}, "coordinate: value inf .* is not finite"),
        ({"atoms": [1, 1]}, r"atoms \[1, 1\] name one outside 0…1 or twice"),
        ({"atoms": [0, 2]}, "outside 0…1"),
        ({"atoms": []}, "1 to 4 atoms, got 0"),
        ({"atoms": [0, 1, 0, 1, 0]}, "1 to 4 atoms, got 5"),
        ({"cell": np.eye(2)}, "cell: expected shape"),
        ({"fragment": [0, 1]}, "−1 or"),
        ({"forces": np.zeros((2, 2, 3))}, "scan C-C/1: forces: expected shape"),
        ({"name": "ethane"}, "type/id"),
    ],
)
def test_an_impossible_scan_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        scan(**changes)


def test_a_frame_counts_as_labeled_only_with_energy_and_all_forces():
    forces = np.zeros((3, 2, 3))
    forces[1, 1, 2] = np.nan
    assert scan(forces=forces).labeled.tolist() == [True, False, False]


def test_a_scan_set_needs_its_facts_and_unique_names():
    with pytest.raises(ValueError, match="licence must not be empty"):
        ScanSet("x", "GFN2-xTB", "", "here", (scan(),))
    with pytest.raises(ValueError, match="two scans are called 'C-C/1'"):
        ScanSet("x", "GFN2-xTB", "MIT", "here", (scan(), scan()))


def test_identity_sees_every_part():
    parts = {
        "numbers": [6, 7],
        "coordinate": [1.0, 1.1, 1.3],
        "energy": [0.0, 1.0, 2.0],
        "atoms": [1, 0],
        "fragment": [1, -1],
        "charge": 1,
        "multiplicity": 3,
        "name": "C-C/2",
        "pbc": [True, False, False],
    }
    identities = {scan().identity} | {scan(**{key: value}).identity for key, value in parts.items()}
    assert len(identities) == len(parts) + 1
    assert scan().identity == scan().identity


@pytest.mark.parametrize(("atoms", "kind"), [([0], "site"), ([0, 1], "bond"), ([0, 1, 2], "angle")])
def test_the_number_of_atoms_tells_the_kind_of_scan(atoms, kind):
    three = {"numbers": [6] * 3, "positions": np.zeros((3, 3, 3)), "forces": np.zeros((3, 3, 3))}
    assert scan(atoms=atoms, fragment=[-1, 1, 1], **three).kind == kind


def test_a_frame_of_a_periodic_scan_is_periodic():
    frame = scan(cell=4 * np.eye(3), pbc=[True, True, False]).system(1)
    assert frame.cell[2, 2] == 4
    assert frame.pbc.tolist() == [True, True, False]


def test_digest_tells_types_shapes_and_boundaries_apart():
    different = [
        ["ab", "c"],
        ["a", "bc"],
        [np.zeros(4)],
        [np.zeros((2, 2))],
        [np.zeros(4, np.float32)],
        [np.zeros(2), np.zeros(2)],
    ]
    assert len({digest(parts) for parts in different}) == len(different)
    assert digest([np.arange(3, dtype=">i8")]) == digest([np.arange(3, dtype="<i8")])
    assert digest([np.zeros((2, 3)).T]) == digest([np.zeros((3, 2))])
