"""Trained with direct forces and denoising, then by the gradient of its energy, and used from its file."""

import yaml

from sfumato import load
from sfumato.systems import Batch
from sfumato.training.launch import run
from sfumato.training.log import read_log
from tests import made_training as made

CONFIG = {
    "model": {"architecture": "esen", "preset": "nano", "width": 8, "hidden": 8, "edge_width": 8},
    "data": {"path": "set.h5", "allow": ["large forces", "shared molecules"]},
    "stages": [
        {"name": "direct", "objective": "direct", "denoising": {}, "steps": 4, "batch": 4, "lr": 1e-3},
        {"name": "conservative", "steps": 4, "batch": 4, "lr": 1e-3},
    ],
    "evaluate_steps": 4,
    "accelerator": "cpu",
    "threads": 1,
}


def test_in_two_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made.written(tmp_path / "set.h5")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    run("run.yaml", "run")
    held_out = [line for line in read_log(tmp_path / "run") if line["event"] == "validation"]
    assert held_out[-1]["step"] == 8
    potential = load("run", dtype="float64")
    assert potential.network.config.architecture == "esen"
    assert not potential.network.direct
    assert not potential.predict(Batch.of(made.molecules(2))).failures
