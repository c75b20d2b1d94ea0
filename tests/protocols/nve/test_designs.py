"""One network, one choice changed: energy holds with a compact rank and a gradient, and not without."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from sfumato.datasets.structures import load_structures
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import evaluate, prepare
from sfumato.potentials.network import NetworkPotential
from sfumato.potentials.specs import ModelSpec
from sfumato.protocols.nve import NVE
from sfumato.protocols.run import run
from sfumato.systems import Batch

KELVIN = (490, 494, 498, 502, 506, 510)
"""Replicas of aspirin; each temperature draws other velocities."""

LONG = {"size": "dev", "time": 0.5, "repeat": 40}


def nano():
    return ModelSpec("mindscaip-nano", "", "").resolve()


def changed(**choices):
    """The network of mindscaip-nano with its weights and another configuration."""
    first = nano().network
    made = MinDScAIP(first.config.model_copy(update=choices), torch.Generator().manual_seed(0), first.dtype)
    missing, unexpected = made.load_state_dict(first.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("heads.forces") for name in missing)
    return made


def with_a_head(steps=250, batch=8):
    """The same with a force head that learns the forces of the gradient around aspirin.

    Returns:
        The network and its mean absolute error in eV/Å on the last batch.
    """
    teacher, made = nano(), changed(direct_forces=True)
    (setup,) = load_structures("aspirin", "dev")
    rng = np.random.default_rng(0)
    for name, weight in made.named_parameters():
        weight.requires_grad_(name.startswith("heads.forces"))
    learner = torch.optim.Adam(made.heads["forces"].parameters(), 3e-3)
    for _ in range(steps):
        moves = rng.normal(scale=0.06, size=(batch, len(setup.system), 3))
        structures = Batch.of([replace(setup.system, positions=setup.system.positions + m) for m in moves])
        ready = prepare(made, structures)
        found = evaluate(made, ready.topology, ready.positions, ready.cell, create_graph=True)
        truth = torch.tensor(teacher.predict(structures).forces)
        loss = (found.forces - truth).abs().mean()
        learner.zero_grad()
        loss.backward()
        learner.step()
    return made, float(loss.detach())


def replicas(path, temperatures):
    """Write aspirin several times, each with a temperature of its own."""
    (setup,) = load_structures("aspirin", "dev")
    atoms = [Atoms(setup.system.numbers, setup.system.positions) for _ in temperatures]
    for one, kelvin in zip(atoms, temperatures):
        one.info = {"name": f"aspirin {kelvin}", "kelvin": kelvin}
    write(path, atoms)
    return path


def measured(tmp_path, settings=LONG, temperatures=KELVIN, **networks):
    """What energy conservation says of each network, by name."""
    models = [NetworkPotential(network, name) for name, network in networks.items()]
    data = replicas(tmp_path / "aspirin.xyz", temperatures)
    found = run(NVE(), models, data, settings=settings, out=tmp_path / "run").models
    for name, one in found.items():
        numbers = {key: one.estimates[key] for key in ("drift", "end_error", "step_jump")}
        shown = {key: f"{e.mean:.3g} [{e.low:.3g}, {e.high:.3g}]" for key, e in numbers.items()}
        errors = sorted(each.values["end_error"] for each in one.done.values())
        print(name, one.coverage, shown, one.blame, errors, {each.reason for each in one.structures.values()})
    return found


def assert_apart(good, bad):
    """Each replica's error, the mean drift and the largest step, with their intervals."""
    assert max(one.values["end_error"] for one in good.done.values()) < min(
        one.values["end_error"] for one in bad.done.values()
    )
    for key in ("drift", "step_jump"):
        assert good.estimates[key].high < bad.estimates[key].low


@pytest.mark.slow
def test_a_hard_rank_loses_the_energy_that_a_compact_one_conserves(tmp_path):
    given = nano().network
    assert given.config.graph.rank == "compact"
    hard = changed(graph=replace(given.config.graph, rank="hard"))
    found = measured(tmp_path, compact=given, hard=hard)
    assert_apart(found["compact"], found["hard"])
    assert [found[name].blame[0] for name in ("compact", "hard")] == ["none", "surface"]


@pytest.mark.slow
def test_a_head_for_forces_loses_the_energy_that_a_gradient_conserves(tmp_path):
    head, error = with_a_head()
    print(f"force error of the head: {error:.3f} eV/Å")
    # What it takes for a minimum is far from one, and nothing lasts long.
    settings = LONG | {"time": 0.1, "force": 5.0}
    found = measured(tmp_path, settings, (490, 502), gradient=nano().network, direct=head)
    assert found["direct"].done
    assert max(one.values["end_error"] for one in found["gradient"].done.values()) < min(
        one.values["end_error"] for one in found["direct"].done.values()
    )
    assert [found[name].blame[0] for name in ("gradient", "direct")] == ["none", "forces"]
