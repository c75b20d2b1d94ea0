"""A network of one's own, added without a change under src: the recipe in CONTRIBUTING.md, word for word."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from torch import nn

from sfumato import load
from sfumato.cli import main
from sfumato.graph.layout import differentiable_stage
from sfumato.graph.settings import GraphSettings
from sfumato.models import families
from sfumato.models.checkpoint import load_model, save, weights_digest
from sfumato.models.config import ELEMENTS, NetworkConfig
from sfumato.models.families import Family, build, read_config
from sfumato.models.network import Network, Output, per_structure, predict, strained
from sfumato.potentials.network import NetworkPotential
from sfumato.systems import Batch, System
from sfumato.testing.bench import Settings
from sfumato.testing.contract import check
from sfumato.training.log import read_log
from sfumato.training.settings import TrainSettings
from tests import made_training as made

# 1. Settings: a class of `NetworkConfig` with `architecture`, `graph`, `elements` and what else there is.


class ToyConfig(NetworkConfig):
    """An embedding and a pair energy.

    Args:
        width: of the embedding.
    """

    architecture: ClassVar[str] = "toy"

    width: int = 8
    graph: GraphSettings = GraphSettings(k=6, cutoff=4.0)
    elements: tuple[int, ...] | None = None

    @property
    def rotation_invariant(self):
        return True


# 2. The network: a class of `Network` with `forward` and the two declarations of memory.


class Toy(Network):
    """Σ over edges of an envelope times a function of the elements and the distance."""

    def __init__(self, config, generator, dtype):
        super().__init__(config)
        width = config.width
        self.embedding = nn.Embedding(ELEMENTS + 1, width)
        self.pair = nn.Sequential(nn.Linear(width + 1, width), nn.SiLU(), nn.Linear(width, 1))
        for weight in self.parameters():
            weight.data.normal_(0, 0.5, generator=generator)
        self.to(dtype)

    @property
    def numbers_per_edge(self):
        return 8 * self.config.width

    @property
    def numbers_per_atom(self):
        return 2 * self.config.width

    def forward(self, topology, positions, cell, strain=None, known_forces=None):
        if strain is not None:
            positions, cell = strained(topology, positions, cell, strain)
        edges = differentiable_stage(topology, positions, cell, self.config.graph)
        source, target = topology.numbers[topology.source], topology.numbers[topology.target]
        elements = self.embedding(source) + self.embedding(target)
        seen = torch.cat([elements, edges.distance[:, None].to(self.dtype)], dim=1)
        pairs = self.pair(seen)[:, 0] * edges.bias.exp().to(self.dtype)
        atoms = pairs.new_zeros(len(positions)).index_add(0, topology.source, pairs)
        return Output(per_structure(topology, self.in_units(topology, atoms)))


# 3. One row in `FAMILIES`.


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    row = Family(lambda: ToyConfig, lambda: Toy, lambda: {"tiny": ToyConfig(width=4)})
    monkeypatch.setitem(families.FAMILIES, "toy", row)


# 4. `sfumato train` with `model: {architecture: toy, …}`; then `sfumato check` on its model file.


def exit_code(words):
    """Return how the program ends when a person types these words."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


CONFIG = {
    "model": {"architecture": "toy", "width": 6},
    "data": {"path": "set.h5", "allow": ["large forces", "shared molecules"]},
    "stages": [{"name": "only", "steps": 30, "batch": 4, "lr": 1e-2}],
    "evaluate_steps": 10,
    "log_steps": 10,
    "accelerator": "cpu",
    "threads": 1,
    "ema": 0.5,
}


@pytest.fixture
def trained(tmp_path, monkeypatch, capsys):
    """The folder of a finished run."""
    monkeypatch.chdir(tmp_path)
    made.written(tmp_path / "set.h5")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    assert exit_code(["train", "toy.yaml", "--out", "run"]) == 0, capsys.readouterr().err
    return tmp_path / "run"


def test_it_is_trained_saved_loaded_checked_and_used(trained):
    held_out = [line for line in read_log(trained) if line["event"] == "validation"]
    assert held_out[-1]["forces"] < held_out[0]["forces"]
    assert json.loads((trained / "settings.json").read_text())["model"]["architecture"] == "toy"

    potential = load(trained / "model.safetensors")
    assert isinstance(potential.network, Toy)
    assert potential.network.config == ToyConfig(width=6, elements=(6, 7, 8))
    assert load(trained, dtype="float64").abilities.elements == {6, 7, 8}

    batch = Batch.of(made.molecules(3))
    atoms = Atoms(batch.numbers[: batch.offsets[1]], batch.positions[: batch.offsets[1]])
    atoms.calc = potential.calculator()
    found = potential.predict(batch)
    assert atoms.get_potential_energy() == pytest.approx(found.energy[0], abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces(), found.forces[: len(atoms)], atol=1e-6)

    report = check(load(trained, dtype="float64"), settings=Settings(quick=True))
    assert report.passed, [result for result in report.results if result.breaks]


def test_a_run_of_it_goes_on(trained, capsys):
    before = (trained / "log.jsonl").read_text()
    assert exit_code(["train", "toy.yaml", "--out", "run"]) == 0
    assert (trained / "log.jsonl").read_text() == before
    assert "30 steps done, finished" in capsys.readouterr().out


def test_what_is_read_is_what_was_written(tmp_path):
    network = build(ToyConfig(elements=(1, 8)))
    network.scale.fill_(2.5)
    network.reference[8] = -2041.123456789
    save(tmp_path / "toy.safetensors", network)
    found, _ = load_model(tmp_path / "toy.safetensors")
    assert weights_digest(found) == weights_digest(network)
    batch = Batch.of([System([8, 1], [[0, 0, 0], [0, 0, 1.0]])])
    assert torch.equal(predict(found, batch).energy, predict(network, batch).energy)
    assert weights_digest(build(ToyConfig(elements=(1, 8)))) != weights_digest(network)


def test_its_memory_decides_how_batches_are_cut():
    network = build(ToyConfig())
    batch = Batch.of(made.molecules(6))
    whole, parts = NetworkPotential(network), NetworkPotential(network, memory_limit=1)
    np.testing.assert_allclose(whole.predict(batch).energy, parts.predict(batch).energy, atol=1e-5)


def settings(model, **stage):
    stages = [{"name": "s", "steps": 1, "batch": 1} | stage]
    return TrainSettings(model=model, data={"path": "x"}, stages=stages)


def test_settings_are_told_apart_by_their_architecture():
    run = settings({"architecture": "toy", "preset": "tiny", "graph": {"k": 9}})
    assert run.model == ToyConfig(width=4, graph=GraphSettings(k=9, cutoff=4.0))
    assert TrainSettings(**json.loads(run.model_dump_json())) == run
    assert not run.rotates
    assert settings("nano").model == settings({"architecture": "mindscaip", "preset": "nano"}).model
    assert "architecture" not in settings("nano").model_dump()["model"]
    assert settings({"architecture": "toy"}).identity != run.identity


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"architecture": "toi"}, "architecture 'toi' is unknown; did you mean 'toy'"),
        ({"architecture": "toy", "wdth": 3}, "unknown setting 'wdth'; did you mean 'width'"),
        ({"preset": None}, "preset: is empty; name one, or leave the line out"),
        ({"architecture": None}, "architecture: is empty; name one"),
        ({"architecture": "toy", "preset": "tinny"}, "toy has no preset 'tinny'; did you mean 'tiny'"),
        ({"architecture": "toy", "graph": {"kk": 3}}, "graph: unknown key 'kk'"),
        ({"architecture": "toy", "width": "wide"}, "width = 'wide': input should be a valid integer"),
        ({"architecture": "toy", "elements": [0]}, "elements = .*expected atomic numbers from 1 to 100"),
    ],
)
def test_settings_that_are_wrong_are_named(model, message):
    with pytest.raises(ValueError, match=message):
        read_config(model)


def test_a_head_that_a_family_does_not_have_is_refused_before_training():
    message = "stage 's': architecture 'toy' has no head for direct forces and denoising; .*conservative"
    with pytest.raises(ValueError, match=message):
        settings({"architecture": "toy"}, objective="direct", denoising={})
