"""Compiled graphs of the whole gradient: batches filled up to a shape, and what they must not lose."""

import copy
from dataclasses import fields

import numpy as np
import pytest
import torch

from sfumato.models.families import build, preset
from sfumato.models.mindscaip import traced
from sfumato.models.mindscaip.padded import STEPS, Shape, filled, rounded_up, topology_of
from sfumato.models.network import TorchTape, evaluate, prepare
from sfumato.training.distributed import alone
from sfumato.training.log import read_log
from sfumato.training.loop import train
from tests import made_training as training
from tests.models.mindscaip.test_native import VARIANTS, both, crystals, gradient, made, molecules, off


@pytest.fixture
def _as_recorded(monkeypatch):
    """Everything but the last step, which takes minutes."""
    monkeypatch.setattr(traced, "to_machine_code", lambda graph: graph)


def network(name="angles", **changes):
    _, double = both(made(**(VARIANTS[name] | changes)))
    double.method = "traced"
    return double


def inputs(model, batch, stress=False):
    ready = prepare(model, batch)
    return ready.topology, ready.positions, ready.cell, stress


@pytest.mark.parametrize("name", VARIANTS)
def test_what_fills_a_batch_changes_nothing(name):
    """Without recording anything: energies, forces and stress of the filled batch in plain operations."""
    model, rng = network(name), np.random.default_rng(1)
    for batch in (molecules(rng), crystals(rng)):
        topology, positions, cell, _ = inputs(model, batch)
        own = Shape.of(topology)
        shape = own.rounded()
        assert all(getattr(shape, field.name) >= getattr(own, field.name) for field in fields(Shape))
        graph = model.config.graph
        full = filled(topology, positions, cell, shape, graph.cutoff, model.dtype)
        padded = topology_of(full, shape, graph.mode == "mutual")
        stress = bool(batch.pbc.all())
        expected = evaluate(model, topology, positions, cell, stress=stress)
        found = evaluate(model, padded, full.positions, full.cell, stress=stress)
        n, g = own.atoms, own.structures
        assert off(found.energy[:g], expected.energy) < 1e-12
        assert off(found.forces[:n], expected.forces) < 1e-11
        assert not found.forces[n:].any()
        if stress:
            assert off(found.stress[:g], expected.stress) < 1e-11


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 17, 100, 1000, 12345])
def test_sizes_are_rounded_up_by_an_eighth_at_most(n):
    found = rounded_up(n)
    assert n <= found <= n + max(0, n // STEPS + 1)
    assert rounded_up(found) == found


def agree(name, periodic):
    """Compare a compiled tape with one of single operations."""
    rng = np.random.default_rng(3)
    model = network(name)
    plain = copy.deepcopy(model)
    batch = crystals(rng) if periodic else molecules(rng)
    asked = inputs(model, batch, periodic)
    ours, theirs = model.tape(*asked), TorchTape(plain, *asked)
    assert isinstance(ours, traced.GraphTape)
    assert off(ours.output.energy, theirs.output.energy) < 1e-12
    assert off(ours.output.forces, theirs.output.forces) < 1e-10
    draw = [
        torch.from_numpy(rng.normal(size=part.shape)) for part in (ours.output.energy, ours.output.forces)
    ]
    pull = torch.from_numpy(rng.normal(size=(len(batch), 3, 3))) if periodic else None
    if periodic:
        assert off(ours.output.stress, theirs.output.stress) < 1e-10
    for tape in (ours, theirs):
        tape.backward(*draw, pull)
    assert off(gradient(model), gradient(plain)) < 1e-9


@pytest.mark.usefixtures("_as_recorded")
def test_the_gradient_is_that_of_single_operations():
    agree("angles", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A", "harmonics, out", "repulsion", "temperature"])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.usefixtures("_as_recorded")
def test_the_gradient_of_other_variants(name, periodic):
    agree(name, periodic)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own imports
def test_machine_code_has_the_same_gradient():
    agree("one layer", False)


@pytest.mark.slow
@pytest.mark.usefixtures("_as_recorded")
def test_one_graph_serves_batches_of_like_size_and_weights_that_change():
    rng, model = np.random.default_rng(4), network()
    first = molecules(rng, count=4, most=8)
    model.tape(*inputs(model, first))
    (made_once,) = model.graphs._made.values()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)), alpha=0.01)
    # The same molecules out of shape, and fewer of them.
    moved = first.take([0, 1, 2, 3])
    for batch in (moved, first.take([1, 0, 3, 2])):
        asked = inputs(model, batch)
        found, expected = model.tape(*asked).output, evaluate(model, *asked[:3])
        assert off(found.forces, expected.forces) < 1e-10
    assert [*model.graphs._made.values()] == [made_once]
    assert copy.deepcopy(model).graphs._made == {}


@pytest.mark.usefixtures("_as_recorded")
def test_a_gradient_that_lost_a_part_is_refused(monkeypatch):
    """Where the marks of constants stay in, nothing fails by itself."""
    monkeypatch.setattr(traced, "without_marks", lambda graph: graph)
    model = network()
    with pytest.raises(RuntimeError, match=r"compiled gradient of .* is off by .*train without compile"):
        model.tape(*inputs(model, molecules(np.random.default_rng(5))))


def test_marks_are_taken_out():
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = traced.without_marks(make_fx(lambda x: (x.detach() * x).sum())(torch.ones(3)))
    assert not any("detach" in str(node.target) for node in graph.graph.nodes)
    x = torch.ones(3, requires_grad=True)
    assert torch.autograd.grad(graph(x), x)[0].tolist() == [2, 2, 2]


@pytest.mark.slow
def test_a_run_that_compiles_learns_what_one_that_does_not_learns(tmp_path, monkeypatch):
    recorded = []
    monkeypatch.setattr(traced, "to_machine_code", lambda graph: recorded.append(graph) or graph)
    data = training.written(tmp_path / "set.h5")
    stage = {"name": "a", "steps": 2, "batch": 24, "lr": 1e-3}
    losses = []
    for compiled in (False, True):
        settings = training.settings(data, stage, log_steps=1).model_copy(update={"compile": compiled})
        train(settings, tmp_path / str(compiled), alone(settings))
        lines = [line for line in read_log(tmp_path / str(compiled)) if line["event"] == "train"]
        losses.append([(line["energy"], line["forces"]) for line in lines])
        assert bool(recorded) == compiled
    assert np.allclose(*losses, rtol=1e-4)
    assert len(losses[0]) == 2


def test_what_cannot_be_compiled_says_so():
    with pytest.raises(ValueError, match=r"compile: .* heads for forces"):
        build(made(direct_forces=True)).compile_gradient()
    with pytest.raises(ValueError, match="compile: esen has no gradient"):
        build(preset("nano", "esen")).compile_gradient()
