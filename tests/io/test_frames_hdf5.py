"""Labeled frames: what is written reads back, slices are parts of the whole, what is wrong is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato.frames import SPLITS, Category, FrameSet, split_by_molecule
from sfumato.io import frames_hdf5
from sfumato.io.frames_hdf5 import FrameFile, FrameWriter, read_frame_set, write_frame_set, writing_frames
from sfumato.systems import Batch, Prediction, System, digest

coordinate = st.floats(-100, 100, width=32)


def make(
    systems: list[System], rng: np.random.Generator, splits: tuple[str, ...] = SPLITS, stress: bool = False
) -> FrameSet:
    """Frames with random labels; frame k is of molecule k mod 3 and has that one's split."""
    batch = Batch.of(systems)
    molecule = [f"m{k % 3}" for k in range(len(systems))]
    return FrameSet(
        name="made",
        level="none",
        licence="CC0-1.0",
        source="a test",
        batch=batch,
        labels=Prediction(
            rng.normal(size=len(batch)),
            rng.normal(size=(len(batch.numbers), 3)),
            rng.normal(size=(len(batch), 3, 3)) if stress else None,
        ),
        molecule=Category.of(molecule),
        subset=Category.of("cold" if k < 2 else "hot" for k in range(len(systems))),
        split=Category.of(splits[k % len(splits)] for k in range(len(systems))),
        provenance={"why": ["because"]},
    )


def water(shift: float = 0.0) -> System:
    return System([8, 1, 1], np.float32([[0, 0, shift], [0, 0.76, 0.59], [0, -0.76, 0.59]]))


def crystal() -> System:
    return System([11, 17], np.float32([[0, 0, 0], [2.8, 0, 0]]), 5.6 * np.eye(3) / 3, [True, True, False])


@st.composite
def systems(draw: st.DrawFn) -> System:
    n = draw(st.integers(0, 4))
    pbc = draw(hnp.arrays(bool, 3))
    return System(
        numbers=draw(hnp.arrays(np.int64, n, elements=st.integers(1, 118))),
        positions=draw(hnp.arrays(np.float32, (n, 3), elements=coordinate)),
        cell=np.diag(draw(hnp.arrays(float, 3, elements=st.floats(1.0, 50.0)))) * pbc.any(),
        pbc=pbc,
        charge=draw(st.integers(-3, 3)),
        multiplicity=draw(st.integers(1, 5)),
    )


# --- categories ----------------------------------------------------------------------------------


def test_a_category_gives_its_words_back() -> None:
    category = Category.of(["b", "a", "b", "c"])
    assert category.names == ("b", "a", "c")
    assert list(category) == ["b", "a", "b", "c"]
    assert category.counts() == {"b": 2, "a": 1, "c": 1}
    assert category.where("b").tolist() == [0, 2]
    assert list(category.take([3, 1])) == ["c", "a"]


def test_a_wrong_category_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Category(("a", "a"), np.array([0]))
    with pytest.raises(ValueError, match="codes must lie in 0…1"):
        Category(("a", "b"), np.array([0, 2]))
    with pytest.raises(ValueError, match=r"no frame is 'trian'.*train"):
        Category.of(["train", "test"]).where("trian")


# --- frame sets ----------------------------------------------------------------------------------


def test_labels_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    good = make([water(), water(1)], rng)
    with pytest.raises(ValueError, match="1 energies and 6 force vectors for 2 frames with 6 atoms"):
        replace(good, labels=Prediction(np.zeros(1), np.zeros((6, 3))))
    bad = np.zeros((6, 3))
    bad[4, 1] = np.nan
    with pytest.raises(ValueError, match="frame 1 has a label that is not finite"):
        replace(good, labels=Prediction(np.zeros(2), bad))
    with pytest.raises(ValueError, match="frame 0 has a label that is not finite"):
        replace(good, labels=Prediction(np.array([np.inf, 0]), np.zeros((6, 3))))
    stress = np.zeros((2, 3, 3))
    stress[1, 2, 2] = np.nan
    with pytest.raises(ValueError, match="frame 1 has a label that is not finite"):
        replace(good, labels=Prediction(np.zeros(2), np.zeros((6, 3)), stress))
    with pytest.raises(ValueError, match="1 words of subset for 2 frames"):
        replace(good, subset=Category.of(["x"]))
    with pytest.raises(ValueError, match="licence must not be empty"):
        replace(good, licence="")


def test_positions_that_would_change_when_stored_are_refused() -> None:
    batch = Batch.of([water(), System([1], [[0.1, 0, 0]])])
    good = make([water(), System([1], [[0.5, 0, 0]])], np.random.default_rng(0))
    with pytest.raises(ValueError, match="positions of frame 1 are not float32 numbers"):
        replace(good, batch=batch)


def test_a_molecule_in_two_splits_or_an_unknown_split_is_refused() -> None:
    good = make([water(k) for k in range(6)], np.random.default_rng(0))
    with pytest.raises(ValueError, match="'m1' is in two splits"):
        replace(good, split=Category.of(["train", "val", "test", "train", "train", "test"]))
    with pytest.raises(ValueError, match=r"unknown split 'valid'.*val"):
        replace(good, split=Category.of(["train", "valid", "test"] * 2))


def test_a_label_may_lack_only_where_it_is_declared_and_only_in_whole_frames() -> None:
    good = make([water(), crystal(), water(2)], np.random.default_rng(0), stress=True)
    assert good.labels.stress is not None
    forces, stress = good.labels.forces.copy(), good.labels.stress.copy()
    forces[3:5], stress[2] = np.nan, np.nan
    labels = Prediction(good.labels.energy, forces, stress)
    lacking = replace(good, labels=labels, absent=("forces", "stress"))
    assert lacking.has("forces").tolist() == [True, False, True]
    assert lacking.has("stress").tolist() == [True, True, False]
    assert make([water()], np.random.default_rng(0)).has("stress").tolist() == [False]
    with pytest.raises(ValueError, match="frame 1 has a label that is not finite"):
        replace(good, labels=labels, absent=("stress",))
    with pytest.raises(ValueError, match="frame 2 has a label that is not finite"):
        replace(good, labels=labels, absent=("forces",))
    forces[3] = 0  # half of frame 1
    with pytest.raises(ValueError, match="frame 1 has a label that is not finite"):
        replace(lacking, labels=Prediction(good.labels.energy, forces, stress))
    forces[3:5] = np.inf
    with pytest.raises(ValueError, match="frame 1 has a label that is not finite"):
        replace(lacking, labels=Prediction(good.labels.energy, forces, stress))
    with pytest.raises(ValueError, match=r"'force' cannot be absent.*forces"):
        replace(good, absent=("force",))


def test_frames_that_are_each_their_own_molecule_are_divided_exactly() -> None:
    words = Category.of(f"frame {k}" for k in range(500))
    split = split_by_molecule(words, (0.9, 0.1, 0.0))
    assert split.counts() == {"train": 450, "val": 50}
    assert list(split) != list(split_by_molecule(words, (0.9, 0.1, 0.0), seed=1))
    assert list(split) == list(split_by_molecule(words, (0.9, 0.1, 0.0)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=16, max_size=60), st.integers(0, 9))
def test_molecules_stay_together_and_shares_are_kept(sizes: list[int], seed: int) -> None:
    words = Category.of(f"m{k}" for k, size in enumerate(sizes) for _ in range(size))
    fractions = (0.5, 0.25, 0.25)
    split = split_by_molecule(words, fractions, seed)
    of: dict[str, set[str]] = {}
    for molecule, name in zip(words, split):
        of.setdefault(molecule, set()).add(name)
    assert all(len(names) == 1 for names in of.values())
    for name, share in zip(SPLITS, fractions):
        assert abs(split.counts()[name] - share * sum(sizes)) <= max(sizes)


def test_a_division_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1 molecules cannot be divided.*'val' would be empty"):
        split_by_molecule(Category.of(["a"] * 9), (0.8, 0.1, 0.1))
    with pytest.raises(ValueError, match="must sum to 1"):
        split_by_molecule(Category.of(["a"] * 9), (0.8, 0.1, 0.0))


def test_a_part_of_a_set_holds_its_frames_in_order() -> None:
    rng = np.random.default_rng(1)
    found = [water(), crystal(), water(2), System([6], [[0, 0, 0]]), water(3)]
    frames = make(found, rng, stress=True)
    part = frames.take([3, 1, 4])
    assert [s.identity for s in part.batch] == [found[k].identity for k in (3, 1, 4)]
    np.testing.assert_array_equal(part.labels.energy, frames.labels.energy[[3, 1, 4]])
    np.testing.assert_array_equal(
        part.labels.forces,
        np.concatenate([np.split(frames.labels.forces, [3, 5, 8, 9])[k] for k in (3, 1, 4)]),
    )
    assert part.labels.stress is not None
    assert frames.labels.stress is not None
    np.testing.assert_array_equal(part.labels.stress, frames.labels.stress[[3, 1, 4]])
    assert list(part.molecule) == ["m0", "m1", "m1"]
    assert len(frames.take([])) == 0


def test_the_identity_follows_everything_that_is_learned_from() -> None:
    base = make([water(), crystal(), water(2)], np.random.default_rng(2))
    energy = base.labels.energy.copy()
    energy[1] += 1e-9
    others = [
        replace(base, level="other"),
        replace(base, labels=Prediction(energy, base.labels.forces)),
        replace(base, labels=Prediction(base.labels.energy, -base.labels.forces)),
        replace(base, split=Category.of(["train"] * 3)),
        replace(base, subset=Category.of(["hot"] * 3)),
        replace(base, labels=Prediction(base.labels.energy, base.labels.forces, np.zeros((3, 3, 3)))),
        base.take([2, 1, 0]),
    ]
    assert len({base.identity, *(other.identity for other in others)}) == 1 + len(others)
    assert replace(base, name="renamed", provenance={}).identity == base.identity


def test_the_identity_is_the_digest_of_the_arrays() -> None:
    frames = make([water(), crystal()], np.random.default_rng(3))
    batch, labels = frames.batch, frames.labels
    parts = [
        "none",
        batch.numbers,
        batch.positions.astype(np.float32),
        batch.offsets,
        batch.cell,
        batch.pbc,
        batch.charge,
        batch.multiplicity,
        labels.energy,
        labels.forces.astype(np.float32),
        "no stress",
    ]
    for category in (frames.molecule, frames.subset, frames.split):
        parts += [*category.names, category.codes]
    assert frames.identity == digest(parts)


# --- files ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(systems(), min_size=1, max_size=6), st.booleans(), st.integers(0, 99))
def test_frames_survive_a_file_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, found: list[System], stress: bool, seed: int
) -> None:
    frames = make(found, np.random.default_rng(seed), stress=stress)
    path = tmp_path_factory.mktemp("frames") / "f.h5"
    write_frame_set(path, frames)
    back = read_frame_set(path)
    assert back.identity == frames.identity
    assert [s.identity for s in back.batch] == [s.identity for s in found]
    assert (back.name, back.level, back.licence, back.source) == ("made", "none", "CC0-1.0", "a test")
    assert back.provenance == frames.provenance
    assert (back.labels.stress is not None) == stress
    start, stop = sorted(np.random.default_rng(seed).integers(0, len(found) + 1, 2).tolist())
    with FrameFile(path) as file:
        batch, labels = file.read(start, stop)
        part = frames.take(np.arange(start, stop))
        assert [s.identity for s in batch] == [s.identity for s in part.batch]
        np.testing.assert_array_equal(labels.energy, part.labels.energy)
        np.testing.assert_array_equal(labels.forces, part.labels.forces)
        np.testing.assert_array_equal(file.counts, [len(s) for s in found])
        assert list(file.split) == list(frames.split)


@settings(max_examples=20, deadline=None)
@given(st.lists(systems(), min_size=1, max_size=8), st.booleans(), st.integers(0, 99))
def test_a_set_written_in_pieces_is_the_set_written_at_once(
    tmp_path_factory: pytest.TempPathFactory, found: list[System], stress: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frames = make(found, rng, stress=stress)
    path = tmp_path_factory.mktemp("frames") / "f.h5"
    cuts = [0, *np.sort(rng.integers(0, len(frames) + 1, 3)).tolist(), len(frames)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_hdf5, "HASHED_ROWS", 3)
        with writing_frames(path, name="made", level="none", licence="CC0-1.0", source="") as writer:
            for start, stop in pairwise(cuts):
                part = frames.take(np.arange(start, stop))
                writer.append(part.batch, part.labels)
            writer.finish(frames.molecule, frames.subset, frames.split, frames.provenance)
        with FrameFile(path) as file:
            assert file.identity == frames.identity
            file.verify()
    assert read_frame_set(path).identity == frames.identity


def test_absent_labels_survive_a_file(tmp_path: Path) -> None:
    frames = make([water(), crystal()], np.random.default_rng(0))
    labels = Prediction(frames.labels.energy, np.full((5, 3), np.nan))
    frames = replace(frames, labels=labels, absent=("forces",))
    write_frame_set(tmp_path / "f.h5", frames)
    back = read_frame_set(tmp_path / "f.h5")
    assert back.absent == ("forces",)
    assert back.identity == frames.identity
    assert not back.has("forces").any()


def append_with_and_without_stress(writer: FrameWriter, frames: FrameSet) -> None:
    writer.append(frames.batch, frames.labels)
    stress = np.zeros((len(frames), 3, 3))
    writer.append(frames.batch, Prediction(frames.labels.energy, frames.labels.forces, stress))


def test_half_a_set_is_no_file(tmp_path: Path) -> None:
    frames = make([water(), water(1)], np.random.default_rng(0))
    facts = {"name": "made", "level": "none", "licence": "CC0-1.0", "source": ""}
    with (
        pytest.raises(ValueError, match=r"finish\(\) was not called"),
        writing_frames(tmp_path / "f.h5", **facts) as writer,
    ):
        writer.append(frames.batch, frames.labels)
    with (
        pytest.raises(ValueError, match="a stress must be appended with all frames or with none"),
        writing_frames(tmp_path / "f.h5", **facts) as writer,
    ):
        append_with_and_without_stress(writer, frames)
    with (
        pytest.raises(ValueError, match="2 words of molecule for 0 frames"),
        writing_frames(tmp_path / "f.h5", **facts) as writer,
    ):
        writer.finish(frames.molecule, frames.subset, frames.split, {})
    with (
        pytest.raises(ValueError, match="level must not be empty"),
        writing_frames(tmp_path / "f.h5", **{**facts, "level": ""}),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_is_verified_without_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    write_frame_set(path, make([water(k) for k in range(3)], np.random.default_rng(0)))
    with h5py.File(path, "r+") as file:
        file["atom/forces"][2, 1] += 1
    with FrameFile(path) as frames, pytest.raises(ValueError, match="not those that were written"):
        frames.verify()


def test_a_slice_outside_the_file_is_refused(tmp_path: Path) -> None:
    write_frame_set(tmp_path / "f.h5", make([water()], np.random.default_rng(0)))
    with FrameFile(tmp_path / "f.h5") as file, pytest.raises(ValueError, match="frames 0 to 2 of 1 do not"):
        file.read(0, 2)


def test_a_long_provenance_fits(tmp_path: Path) -> None:
    long = {"excluded": [[f"molecule {k}", "no conformer found"] for k in range(5000)]}
    frames = replace(make([water()], np.random.default_rng(0)), provenance=long)
    write_frame_set(tmp_path / "f.h5", frames)
    assert read_frame_set(tmp_path / "f.h5").provenance == long


def test_provenance_that_is_no_json_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    frames = make([water()], np.random.default_rng(0))
    with pytest.raises(ValueError, match="provenance is not JSON"):
        write_frame_set(tmp_path / "f.h5", replace(frames, provenance={"x": float("nan")}))
    with pytest.raises(ValueError, match="does not exist"):
        write_frame_set(tmp_path / "no" / "f.h5", frames)
    assert not list(tmp_path.iterdir())


def damage(path: Path, what: str) -> None:
    """Spoil a written file in one of the ways of the test below."""
    with h5py.File(path, "r+") as file:
        if what == "format":
            file.attrs["format"] = "sfumato-scans"
        elif what == "future":
            file.attrs["schema"] = 2
        elif what == "missing":
            del file["atom/forces"]
        elif what == "energy":
            file["frame/energy"][0] += 1.0
        elif what == "offset":
            file["frame/offset"][1] = 999
        elif what == "codes":
            file["split/codes"][0] = 7


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("format", "format is 'sfumato-scans', expected 'sfumato-frames'"),
        ("future", "schema 2 cannot be read.*upgrade"),
        ("missing", "a part is missing: .*forces"),
        ("energy", "the contents are not those that were written"),
        ("offset", "frame/offset does not divide the 9 rows"),
        ("codes", "codes must lie in"),
    ],
)
def test_a_damaged_file_says_how(tmp_path: Path, what: str, message: str) -> None:
    path = tmp_path / "f.h5"
    write_frame_set(path, make([water(k) for k in range(3)], np.random.default_rng(0)))
    damage(path, what)
    with pytest.raises(ValueError, match=f"f\\.h5: .*{message}"):
        read_frame_set(path)


def test_no_file_no_hdf5_and_half_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        read_frame_set(tmp_path / "f.h5")
    (tmp_path / "f.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match="not an HDF5 file"):
        read_frame_set(tmp_path / "f.h5")
    write_frame_set(tmp_path / "f.h5", make([water(k) for k in range(3)], np.random.default_rng(0)))
    whole = (tmp_path / "f.h5").read_bytes()
    (tmp_path / "f.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_frame_set(tmp_path / "f.h5")
