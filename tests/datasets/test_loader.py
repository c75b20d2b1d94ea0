"""Batches: every frame once, the same for every reader, turned without a change of physics."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.datasets import loader as data
from sfumato.datasets.loader import (
    Loader,
    LoaderSettings,
    edge_counts,
    gather,
    orientations,
    pack,
    rows_of,
    share_out,
)
from sfumato.frames import Category, FrameSet
from sfumato.graph.neighbors import neighbor_pairs
from sfumato.io import write_frame_set
from sfumato.models.pair import LennardJones, PairPotential
from sfumato.systems import Batch, Floats, Ints, Prediction, System


def made(frames: int, seed: int = 0, crystals: bool = False) -> FrameSet:
    """Random structures of 1 to 9 atoms whose labels belong to them; energy k is that of frame k, exactly."""
    rng = np.random.default_rng(seed)
    systems = []
    for _ in range(frames):
        n = int(rng.integers(1, 10))
        cell = np.eye(3) * 5 + rng.normal(0, 0.3, (3, 3)) if crystals else np.zeros((3, 3))
        x = rng.uniform(0, 5, (n, 3)).astype(np.float32)
        systems.append(System(rng.choice([1, 6, 8], n), x, cell, [crystals] * 3))
    batch = Batch.of(systems)
    stress = rng.normal(size=(frames, 3, 3)) if crystals else None
    return FrameSet(
        name="made",
        level="none",
        licence="none",
        source="",
        batch=batch,
        labels=Prediction(np.arange(frames), rng.normal(size=(len(batch.numbers), 3)), stress),
        molecule=Category.of(map(str, range(frames))),
        subset=Category.of(["all"] * frames),
        split=Category.of("val" if k % 5 == 2 else "train" for k in range(frames)),
    )


def ids(loader: Loader, epoch: int, start: int = 0) -> list[list[int]]:
    """The frames of each batch, told by their energies."""
    return [labels.energy.astype(int).tolist() for _, labels in loader.batches(epoch, start)]


def flat(batches: list[list[int]]) -> list[int]:
    return [frame for batch in batches for frame in batch]


# --- order ---------------------------------------------------------------------------------------


@pytest.fixture(params=["set", "file"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FrameSet, Any]:
    frames = made(700)
    if request.param == "set":
        return frames, frames
    write_frame_set(tmp_path / "f.h5", frames)
    return frames, tmp_path / "f.h5"


@pytest.mark.parametrize(
    "limits",
    [
        {"structures": 7},
        {"atoms": 40},
        {"edges": 120, "cutoff": 3.0},
        {"structures": 7, "atoms": 30},
        {"structures": 3, "window": 256},
        {"structures": 3, "shuffle": False},
    ],
)
def test_every_frame_is_in_one_batch_of_every_epoch(source: Any, limits: dict[str, Any]) -> None:
    frames, where = source
    loader = Loader(where, "train", LoaderSettings(**limits))
    wanted = frames.split.where("train").tolist()
    first, second = ids(loader, 0), ids(loader, 1)
    assert sorted(flat(first)) == sorted(flat(second)) == wanted
    assert len(first) == loader.steps(0)
    assert (first == second) == (limits.get("shuffle") is False)
    if limits.get("shuffle") is False:
        assert flat(first) == wanted
    for batch, _ in loader.batches(0):
        assert len(batch) <= limits.get("structures", 10**9)
        assert len(batch.numbers) <= limits.get("atoms", 10**9)
        if "edges" in limits:
            assert len(neighbor_pairs(batch, limits["cutoff"])) <= limits["edges"]


def test_a_file_and_the_set_it_holds_give_the_same_batches(tmp_path: Path) -> None:
    frames = made(600, crystals=True)
    write_frame_set(tmp_path / "f.h5", frames)
    how = LoaderSettings(structures=9, window=300)
    pairs = zip(
        Loader(frames, "train", how).batches(3),
        Loader(tmp_path / "f.h5", "train", how).batches(3),
        strict=True,
    )
    for (a, p), (b, q) in pairs:
        for key in ("numbers", "positions", "index", "cell", "pbc", "charge", "multiplicity"):
            np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
        np.testing.assert_array_equal(p.energy, q.energy)
        np.testing.assert_array_equal(p.forces, q.forces)
        assert p.stress is not None
        assert q.stress is not None
        np.testing.assert_array_equal(p.stress, q.stress)


def test_resuming_from_a_step_goes_on_where_it_stopped(source: Any) -> None:
    _, where = source
    how = LoaderSettings(atoms=50, window=256, seed=3)
    whole = [(b.positions, p.forces) for b, p in Loader(where, "train", how).batches(5)]
    for start in (0, 1, len(whole) // 2, len(whole)):
        rest = list(Loader(where, "train", how).batches(5, start))
        assert len(rest) == len(whole) - start
        for (batch, labels), (x, f) in zip(rest, whole[start:], strict=True):
            np.testing.assert_array_equal(batch.positions, x)
            np.testing.assert_array_equal(labels.forces, f)
    loader = Loader(where, "train", how)
    assert ids(loader, 5)[4] == loader.numbers(5, 4).tolist()
    with pytest.raises(ValueError, match=r"epoch 5 has \d+ steps; there is no step 999"):
        next(loader.batches(5, 999))


def test_seeds_and_epochs_differ(source: Any) -> None:
    _, where = source
    orders = [
        flat(ids(Loader(where, "train", LoaderSettings(structures=8, seed=seed)), epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


def test_a_small_window_still_mixes_what_is_far_apart() -> None:
    frames = made(5000)
    batches = ids(Loader(frames, "train", LoaderSettings(structures=16, window=1024)), 0)
    spans = [max(batch) - min(batch) for batch in batches if len(batch) > 8]
    assert np.median(spans) > 1500


# --- ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("window", [256, 1 << 17])
def test_ranks_share_all_frames_in_equally_many_steps(ranks: int, window: int) -> None:
    frames = made(700)
    how = LoaderSettings(atoms=60, window=window)
    loaders = [Loader(frames, "train", how, rank=r, ranks=ranks) for r in range(ranks)]
    found = [ids(loader, 2) for loader in loaders]
    assert len({len(batches) for batches in found}) == 1
    assert {loader.steps(2) for loader in loaders} == {len(found[0])}
    assert sorted(flat(flat(found))) == frames.split.where("train").tolist()  # type: ignore[arg-type]
    assert all(batch for batches in found for batch in batches)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 12))
def test_sharing_halves_only_as_many_batches_as_it_must(sizes: list[int], ranks: int) -> None:
    stops = np.cumsum(sizes)
    batches = [np.arange(stop - size, stop) for size, stop in zip(sizes, stops)]
    need = -(-len(sizes) // ranks) * ranks
    if stops[-1] < need:
        with pytest.raises(ValueError, match=f"frames are too few for {ranks} ranks"):
            share_out(batches, ranks)
        return
    shared = share_out(batches, ranks)
    assert len(shared) == need
    assert sorted(np.concatenate(shared).tolist()) == list(range(stops[-1]))
    assert all(len(batch) for batch in shared)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=40), st.integers(9, 30))
def test_packing_is_greedy_and_within_every_limit(weights: list[tuple[int, int]], limit: int) -> None:
    a, b = np.array(weights, dtype=np.int64).reshape(-1, 2).T
    batches = pack([(a, limit), (b, 2 * limit)])
    assert np.concatenate([np.zeros(0, int), *batches]).tolist() == list(range(len(a)))
    for here, after in pairwise(batches):
        assert a[here].sum() <= limit
        assert b[here].sum() <= 2 * limit
        assert a[here].sum() + a[after[0]] > limit or b[here].sum() + b[after[0]] > 2 * limit


# --- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("crystals", [False, True])
def test_counted_edges_are_those_of_the_neighbor_list(crystals: bool, monkeypatch: Any) -> None:
    frames = made(40, crystals=crystals)
    rows = rows_of(frames)
    chosen = np.array([0, 3, 4, 17, 39])
    counts = edge_counts(rows, chosen, 4.0)
    expected = [len(neighbor_pairs(system, 4.0)) for system in frames.take(chosen).batch]
    assert counts.tolist() == expected
    monkeypatch.setattr(data, "DENSE", 0)
    assert edge_counts(rows, chosen, 4.0).tolist() == expected
    capped = edge_counts(rows, chosen, 4.0, neighbors=2)
    for count, system in zip(capped, frames.take(chosen).batch):
        pairs = neighbor_pairs(system, 4.0)
        assert count == np.minimum(np.bincount(pairs.i, minlength=len(system)), 2).sum()


# --- rotations -----------------------------------------------------------------------------------


def test_orientations_are_orthogonal_and_uniform() -> None:
    found = orientations(0, 0, np.arange(20_000))
    np.testing.assert_allclose(
        found @ np.swapaxes(found, 1, 2), np.broadcast_to(np.eye(3), found.shape), atol=1e-12
    )
    signs = np.linalg.det(found)
    np.testing.assert_allclose(np.abs(signs), 1, atol=1e-12)
    error = 1 / np.sqrt(len(found))
    assert abs(signs.mean()) < 4 * error
    assert np.abs(found.mean(axis=0)).max() < 4 * error
    # Of a uniformly turned vector every component has variance 1/3, and trace has mean square 1.
    np.testing.assert_allclose((found**2).mean(axis=0), np.full((3, 3), 1 / 3), atol=4 * error)
    assert abs((np.trace(found, axis1=1, axis2=2) ** 2).mean() - 1) < 6 * error


def test_a_rotation_belongs_to_the_frame_not_to_the_batch() -> None:
    frames = made(600)
    turned: dict[str, dict[int, Floats]] = {}
    for name, limits, rank in (
        ("few", {"structures": 3}, 0),
        ("many", {"structures": 31, "window": 256}, 0),
        ("atoms", {"atoms": 77, "shuffle": False}, 0),
        ("half", {"structures": 8}, 1),
    ):
        ranks = 2 if name == "half" else 1
        loader = Loader(frames, "train", LoaderSettings(**limits), rank=rank, ranks=ranks)
        for batch, labels in loader.batches(4):
            for system, energy in zip(batch, labels.energy):
                turned.setdefault(name, {})[int(energy)] = system.positions
    for name, found in turned.items():
        assert all(np.array_equal(x, turned["few"][k]) for k, x in found.items()), name
    expected = orientations(0, 4, np.array([599]))[0]
    np.testing.assert_allclose(
        turned["few"][599], frames.take([599]).batch.positions @ expected.T, atol=1e-12
    )
    assert not np.allclose(orientations(0, 5, np.array([599]))[0], expected)


def test_turned_labels_are_those_of_the_turned_structures() -> None:
    """Positions, cell, forces and stress turn together: the potential of the turned crystal says the same."""
    rng = np.random.default_rng(1)
    grid = 2.5 * np.stack(np.meshgrid(*[[0, 1]] * 3), axis=-1).reshape(-1, 3)
    potential = PairPotential("lj", LennardJones(0.1), cutoff=4.0, switch_from=3.0)
    systems = [
        System(
            [18] * 8,
            np.float32(grid + rng.normal(0, 0.1, (8, 3))),
            5 * np.eye(3) + rng.normal(0, 0.2, (3, 3)),
            [True] * 3,
        )
        for _ in range(40)
    ]
    batch = Batch.of(systems)
    frames = replace(
        made(40),
        batch=batch,
        labels=potential.predict(batch),
        split=Category.of(["train"] * 40),
    )
    scale = np.abs(frames.labels.forces).max()
    assert scale > 0.1
    for turned, labels in Loader(frames, "train", LoaderSettings(structures=7)).batches(0):
        again = potential.predict(turned)
        assert labels.stress is not None
        assert again.stress is not None
        np.testing.assert_allclose(again.energy, labels.energy, rtol=1e-9)
        np.testing.assert_allclose(again.forces, labels.forces, atol=1e-6 * scale)  # labels are float32
        np.testing.assert_allclose(again.stress, labels.stress, rtol=1e-9, atol=1e-12)


def test_without_rotation_frames_are_as_they_are(source: Any) -> None:
    frames, where = source
    for batch, labels in Loader(where, "val", LoaderSettings(structures=8, rotate=False)).batches(0):
        part = frames.take(labels.energy.astype(int))
        np.testing.assert_array_equal(batch.positions, part.batch.positions)
        np.testing.assert_array_equal(labels.forces, part.labels.forces)


def test_gathered_frames_come_in_the_order_asked_for(source: Any) -> None:
    frames, where = source
    wanted: Ints = np.array([650, 3, 3, 401])
    batch, labels = gather(rows_of(where), wanted)
    np.testing.assert_array_equal(labels.energy, wanted)
    np.testing.assert_array_equal(batch.positions, frames.take(wanted).batch.positions)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "split", "rank", "message"),
    [
        ({}, "train", 0, "give at least one limit of a batch: structures, atoms or edges"),
        ({"atoms": 5}, "train", 0, r"frame \d+ of 'made' has \d atoms, but a batch may have 5; raise"),
        ({"edges": 3}, "train", 0, r"has \d+ edges, but a batch may have 3"),
        ({"atoms": 50}, "test", 0, r"no frame is 'test'"),
        ({"atoms": 50}, "train", 2, "rank 2 of 2"),
    ],
)
def test_what_cannot_be_loaded_is_refused(how: dict[str, Any], split: str, rank: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loader(made(30), split, LoaderSettings(**how), rank=rank, ranks=2)


def test_too_many_ranks_and_unknown_settings_are_refused() -> None:
    loader = Loader(made(5), "train", LoaderSettings(structures=2), rank=0, ranks=9)
    with pytest.raises(ValueError, match="4 frames are too few for 9 ranks"):
        loader.steps(0)
    with pytest.raises(ValueError, match="structure"):
        LoaderSettings(structure=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="greater than 0"):
        LoaderSettings(structures=0)


def test_no_set_is_changed_by_reading_it() -> None:
    frames = made(50)
    before = frames.identity
    list(Loader(frames, "train", LoaderSettings(structures=8)).batches(0))
    assert replace(frames).identity == before
