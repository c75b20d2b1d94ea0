"""Graphs put together equal those of the batch; batches depend on seed, epoch and step alone."""

import numpy as np
import pytest
import torch

from sfumato.datasets.loader import Loader, orientations
from sfumato.graph.layout import GraphSettings, differentiable_stage
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import evaluate
from sfumato.systems import Batch, System
from sfumato.training.batches import Batches, Whole, ahead, as_sample, displace_batch
from sfumato.training.graphs import Graphs, joined
from sfumato.training.losses import Counts
from sfumato.training.stages import Denoising
from tests import made_training as made


def tensors(batch):
    return torch.from_numpy(batch.positions.copy()), torch.from_numpy(batch.cell.copy())


@pytest.mark.parametrize("mode", ["mutual", "out"])
@pytest.mark.parametrize("rank", ["compact", "sigmoid"])
@pytest.mark.parametrize("kind", ["molecules", "crystals"])
def test_joined_graphs_give_the_energy_of_the_batch(mode, rank, kind):
    graph = GraphSettings(k=4, cutoff=4.0, mode=mode, rank=rank)
    systems = [*getattr(made, kind)(4), System([8], [[0.0, 0, 0]], np.eye(3) * 9, [kind == "crystals"] * 3)]
    batch, frames = Batch.of(systems), np.arange(5)
    kept, whole = Graphs(graph, 0.0, keep=True), Graphs(graph, 0.0, keep=False)
    model = MinDScAIP(made.settings("x").model.model_copy(update={"graph": graph}), dtype=torch.float64)
    one, other = (evaluate(model, graphs.of(frames, batch), *tensors(batch)) for graphs in (kept, whole))
    torch.testing.assert_close(one.energy, other.energy, rtol=0, atol=1e-12)
    torch.testing.assert_close(one.forces, other.forces, rtol=0, atol=1e-12)


def test_joined_graphs_have_the_same_edges():
    graph = GraphSettings(k=4, cutoff=4.0)
    batch = Batch.of(made.crystals(3))
    kept = Graphs(graph, 0.0, keep=True).of(np.arange(3), batch)
    whole = Graphs(graph, 0.0, keep=False).of(np.arange(3), batch)
    places = [differentiable_stage(t, *tensors(batch), graph) for t in (kept, whole)]
    for name in ("vector", "bias"):
        rows = [getattr(place, name).reshape(len(kept.reverse), -1) for place in places]
        ends = [torch.stack([t.source, t.target], 1) for t in (kept, whole)]
        one, other = (
            sorted(torch.cat([e, r.round(decimals=9)], 1).tolist()) for e, r in zip(ends, rows, strict=True)
        )
        assert one == other
    assert torch.equal(kept.reverse[kept.reverse], torch.arange(len(kept.reverse)))


def test_one_graph_is_joined_to_itself():
    graphs = Graphs(GraphSettings(), 0.0, keep=False)
    only = graphs.of(np.arange(2), Batch.of(made.molecules(2)))
    assert joined([only]) is only


def batches_of(tmp_path, stage=None, **changes):
    path = made.written(tmp_path / "set.h5")
    settings = made.settings(
        path, {"name": "s", "epochs": 2, "batch": 5, "lr": 1e-3} | (stage or {}), **changes
    )
    return Batches(Loader(path, "train", settings.loader(settings.stages[0])), settings, settings.stages[0])


DENOISING = {"objective": "direct", "denoising": {"probability": 0.5, "share": 0.6}}


@pytest.mark.parametrize("stage", [{}, DENOISING])
def test_an_epoch_taken_up_in_the_middle_goes_on_the_same(tmp_path, stage):
    whole = list(batches_of(tmp_path, stage, rotate=True).epoch(1))
    fresh = batches_of(tmp_path, stage, rotate=True)
    rest = list(fresh.epoch(1, 2))
    assert len(rest) == len(whole) - 2
    for one, other in zip(whole[2:], rest, strict=True):
        assert one.frames.tolist() == other.frames.tolist()
        a, b = fresh.sample(one, torch.float64), fresh.sample(other, torch.float64)
        assert torch.equal(a.positions, b.positions)
        assert torch.equal(a.targets.forces.nan_to_num(7.0), b.targets.forces.nan_to_num(7.0))


def test_shares_cover_the_batch_and_keep_its_counts(tmp_path):
    whole = next(batches_of(tmp_path).epoch(0))
    for ranks in (1, 2, 3, 7):
        shares = [whole.share(rank, ranks) for rank in range(ranks)]
        assert sorted(np.concatenate([s.frames for s in shares]).tolist()) == sorted(whole.frames.tolist())
        assert {s.counts for s in shares} == {whole.counts}
        sizes = [len(s) for s in shares]
        assert max(sizes) - min(sizes) <= 1
        for share in shares:
            for k, frame in enumerate(share.frames.tolist()):
                there = whole.frames.tolist().index(frame)
                assert list(share.batch)[k].identity == list(whole.batch)[there].identity
                assert share.labels.energy[k] == whole.labels.energy[there]


def test_turning_changes_neither_lengths_nor_what_forces_do(tmp_path):
    turned, still = (batches_of(tmp_path, rotate=rotate) for rotate in (True, False))
    a, b = (x.sample(next(x.epoch(0)), torch.float64) for x in (turned, still))
    assert not torch.allclose(a.positions, b.positions)
    work = [(s.positions * s.targets.forces).sum() for s in (a, b)]
    torch.testing.assert_close(*work)
    torch.testing.assert_close(torch.pdist(a.positions[:3]), torch.pdist(b.positions[:3]))
    assert torch.equal(a.topology.pair_source, b.topology.pair_source)


def whole_of(systems, turn, denoising=None):
    """A batch with everything in it that has a direction."""
    batch, rng = Batch.of(systems), np.random.default_rng(3)
    labels = made.PAIRS["morse"].predict(batch)
    noise = known = None
    if denoising is not None:
        batch, labels, noise, known = displace_batch(batch, labels, denoising, [1])
    stretch = rng.normal(size=batch.positions.shape)
    counts = Counts(len(batch), len(batch.numbers))
    return Whole(np.arange(len(batch)), batch, labels, turn, noise, known, stretch, counts)


@pytest.mark.parametrize("denoising", [None, Denoising(probability=1.0, sigma=0.1, share=0.5)])
def test_everything_that_has_a_direction_is_turned(denoising):
    """Vectors as R v, rows of the cell as a R^T, stress as R s R^T, with R of each structure by hand."""
    systems = made.crystals(4)
    turn = orientations(0, 5, np.arange(4))
    graphs = Graphs(GraphSettings(k=4, cutoff=4.0), 0.0, keep=False)
    whole = whole_of(systems, turn, denoising)
    found = as_sample(whole, graphs, torch.float64)
    still = as_sample(whole_of(systems, None, denoising), graphs, torch.float64)
    pairs = [(found.positions, still.positions), (found.stretch, still.stretch)]
    pairs += [(found.targets.forces, still.targets.forces)]
    if denoising is not None:
        pairs += [(found.known_forces, still.known_forces), (found.targets.noise, still.targets.noise)]
    for one, other in pairs:
        for atom, structure in enumerate(whole.batch.index):
            by_hand = turn[structure] @ other[atom].numpy()
            np.testing.assert_allclose(one[atom], by_hand, rtol=0, atol=1e-12)
    for k, r in enumerate(turn):
        np.testing.assert_allclose(found.cell[k], still.cell[k].numpy() @ r.T, rtol=0, atol=1e-12)
        by_hand = r @ still.targets.stress[k].numpy() @ r.T
        np.testing.assert_allclose(found.targets.stress[k], by_hand, rtol=0, atol=1e-12)
    assert torch.equal(found.targets.energy, still.targets.energy)
    assert np.linalg.det(turn).min() == pytest.approx(-1)  # mirrored, too
    assert np.linalg.det(turn).max() == pytest.approx(1)


def test_displaced_atoms_show_their_forces_and_ask_for_the_displacement():
    batch = Batch.of(made.molecules(20))
    labels = made.PAIRS["morse"].predict(batch)
    settings = Denoising(probability=1.0, sigma=0.2, share=0.5)
    moved, asked, noise, known = displace_batch(batch, labels, settings, [1])
    went = np.isfinite(noise).all(axis=1)
    assert 0.3 < went.mean() < 0.7
    np.testing.assert_allclose(moved.positions - batch.positions, 0.2 * np.nan_to_num(noise), atol=1e-12)
    assert np.array_equal(known[went], labels.forces[went])
    assert not known[~went].any()  # else the answer would be in the question
    assert np.isnan(asked.forces[went]).all()
    assert np.array_equal(asked.forces[~went], labels.forces[~went])
    assert np.array_equal(asked.energy, labels.energy)
    assert noise[went].std() == pytest.approx(1.0, rel=0.2)
    assert displace_batch(batch, labels, Denoising(probability=0.0), [1]) is None


def test_atoms_without_forces_are_not_displaced():
    batch = Batch.of(made.molecules(3))
    labels = made.frame_set(made.molecules(3), validation=1, hidden=[0]).labels
    _, _, noise, _ = displace_batch(batch, labels, Denoising(probability=1.0), [1])
    assert np.isnan(noise[batch.index == 0]).all()
    assert np.isfinite(noise[batch.index > 0]).all()


def test_ahead_yields_everything_in_order_and_passes_errors_on():
    assert list(ahead(iter(range(1, 6)))) == [1, 2, 3, 4, 5]

    def failing():
        yield 1
        raise ValueError("as expected")

    found = ahead(failing())
    assert next(found) == 1
    with pytest.raises(ValueError, match="as expected"):
        next(found)
