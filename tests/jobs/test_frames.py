"""What records hold is what protocols get, or an error that says what is wrong with which record."""

import numpy as np
import pytest

from sfumato.execution.records import RecordError, encode, ok
from sfumato.jobs.frames import Frame, Subject, energies_and_forces


def record(energy=-1.5, forces=encode(np.ones((4, 3)))):  # noqa: B008 (never changed)
    return ok("k", seconds=1.0, energy=energy, forces=forces)


def test_energies_and_forces_come_in_order():
    energies, forces = energies_and_forces([record(1.0), record(2, encode(np.zeros((4, 3))))])
    assert energies.tolist() == [1.0, 2.0]
    assert forces.shape == (2, 4, 3)
    assert forces[:, 0, 0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record("1.0"), "'energy' is not a finite number"),
        (record(True), "'energy' is not a finite number"),
        (record(encode(np.ones((4, 3))), -1.5), "'energy' is not a finite number"),
        (record(forces=-1.5), "'forces' is not an array"),
        (record(forces=encode(np.ones((5, 3)))), r"'forces' has the shape \(5, 3\), not \(4, 3\)"),
        (record(forces=encode(np.ones((3, 4)))), r"'forces' has the shape \(3, 4\)"),
        (record(forces=encode(np.ones(12))), r"'forces' has the shape \(12,\)"),
    ],
)
def test_records_of_other_types_and_shapes_are_refused(bad, message):
    with pytest.raises(RecordError, match=f"damaged record k: {message}"):
        energies_and_forces([record(), bad])


def test_records_of_another_number_of_atoms_are_refused():
    with pytest.raises(RecordError, match=r"'forces' has the shape \(4, 3\), not \(5, 3\)"):
        energies_and_forces([record(), record()], 5)


def test_many_keys_at_once_are_those_of_one_after_the_other():
    rng = np.random.default_rng(0)
    water, methane = np.array([8, 1, 1]), np.array([6, 1, 1, 1, 1])
    box, slab = 10 * np.eye(3), np.array([True, True, False])
    frames = [
        Frame(numbers, rng.normal(size=(len(numbers), 3)), *more)
        for numbers in (water, methane, water.copy(), water)
        for more in ((0, 1), (1, 2), (0, 1, box, slab), (0, 1, 2 * box, slab), (0, 1, box, ~slab), (0, 1))
        for _ in range(2)
    ]
    subject = Subject("evaluate", 1, "abc")
    assert subject.keys_of(frames) == [subject.key(frame) for frame in frames]
    assert subject.keys_of(frame for frame in frames) == subject.keys_of(frames)
    assert len(set(subject.keys_of(frames))) == len(frames)
    assert subject.keys_of([]) == []
