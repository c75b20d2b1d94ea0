"""Settings of runs: what fits together, what is refused, and with which words; the recipes that ship."""

import pytest
import yaml

from sfumato.config import read_settings
from sfumato.datasets.sources import SourceSettings
from sfumato.models.mindscaip.config import PRESETS
from sfumato.training.optim import rate
from sfumato.training.settings import TrainSettings, read_run
from sfumato.training.stages import Stage
from tests import ROOT
from tests import made_training as made

RECIPES = sorted((ROOT / "examples" / "configs").glob("*.yaml"))

STAGE = {"name": "one", "steps": 10, "batch": 4}


def settings(*stages, **changes):
    given = {"model": "nano", "data": {"path": "set.h5"}, "stages": stages or [STAGE]}
    return TrainSettings(**(given | changes))


def refused(match, *stages, **changes):
    with pytest.raises(ValueError, match=match):
        settings(*stages, **changes)


def test_models_by_name_with_changes_and_whole():
    assert settings().model == PRESETS["nano"]
    changed = settings(model={"preset": "nano", "width": 96, "graph": {"k": 20}}).model
    assert (changed.width, changed.layers) == (96, 3)
    assert (changed.graph.k, changed.graph.cutoff) == (20, PRESETS["nano"].graph.cutoff)
    assert settings(model={"width": 32, "heads": 2}).model.layers == 8
    refused("did you mean 'nano'", model="nanno")
    refused("did you mean 'width'", model={"preset": "nano", "wdth": 9})
    refused("did you mean 'cutoff'", model={"preset": "nano", "graph": {"cuttoff": 9}})


def test_a_misspelt_key_is_named_at_any_depth(tmp_path):
    refused("unknown key 'lrr'; did you mean 'lr'", STAGE | {"lrr": 1})
    refused("unknown key 'sigmaa'; did you mean 'sigma'", STAGE | {"denoising": {"sigmaa": 1}})
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"model": "nano", "data": {"paht": "x"}, "stages": [STAGE]}))
    with pytest.raises(ValueError, match="did you mean 'path'"):
        read_settings(TrainSettings, path)


@pytest.mark.parametrize("read", [read_run, lambda path: read_settings(SourceSettings, path)])
def test_a_file_that_is_no_text_is_named(tmp_path, read):
    path = tmp_path / "run.yaml"
    path.write_bytes("name: café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"run\.yaml: cannot be read as YAML: 'utf-8' codec"):
        read(path)


def test_what_is_missing_is_named_and_not_what_is_there(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"model": "nano", "stages": [STAGE]}))
    with pytest.raises(ValueError, match=r"run\.yaml: data: is missing$"):
        read_run(path)
    path.write_text("{name: a, layout: extxyz, licence: MIT}")
    with pytest.raises(ValueError, match=r"run\.yaml: level: is missing$"):
        read_settings(SourceSettings, path)
    path.write_text("{name: a, layout: extxyz, level: b, licence: MIT, units: {stres: GPa}}")
    with pytest.raises(ValueError, match=r"units: unknown key 'stres'; did you mean 'stress'\?$"):
        read_settings(SourceSettings, path)


def test_what_does_not_fit_together_is_refused():
    refused("either epochs or steps", STAGE | {"epochs": 3})
    refused("either epochs or steps", {"name": "one", "batch": 4})
    refused("denoising needs objective: direct", STAGE | {"denoising": {}})
    refused("too noisy in bf16", STAGE | {"precision": "bf16"})
    refused("smoothness needs", STAGE | {"smoothness": {"weight": 1}, "gradient": "finite_difference"})
    refused("give structures, atoms or edges", STAGE | {"batch": {}})
    refused("called the same", STAGE, STAGE)
    refused("all weights of the loss are 0", STAGE | {"loss": {"energy": 0, "forces": 0}})
    settings(STAGE | {"objective": "direct", "denoising": {}, "loss": {"energy": 0, "forces": 0}})
    refused("warmup = 10 steps, but the stage has only 10", STAGE | {"warmup": 10})
    epochs = {"name": "one", "epochs": 1, "batch": 4}
    refused("warmup = 1000 epochs, but the stage has only 1;", epochs | {"warmup": 1000})
    settings(epochs | {"warmup": 0.5}, STAGE | {"name": "two", "warmup": 9.5})
    refused("train and validation are both 'val'.*validation: null", data={"path": "x", "train": "val"})
    refused(r"betas.0\n.*less than 1", betas=[2, 3])
    refused(r"betas.1\n.*greater than or equal to 0", betas=[0.9, -0.1])
    refused("validation split", patience=2, data={"path": "x", "validation": None})


def test_a_number_is_a_batch_of_so_many_structures():
    assert settings().stages[0].batch.structures == 4


def test_heads_follow_from_the_stage():
    direct = STAGE | {"name": "pre", "objective": "direct", "denoising": {}, "loss": {"stress": 1}}
    run = settings(direct, STAGE)
    first, second = (run.network(stage) for stage in run.stages)
    assert (first.direct_forces, first.direct_stress, first.denoising) == (True, True, True)
    assert (second.direct_forces, second.direct_stress, second.denoising) == (False, False, False)


def test_rotations_are_for_models_that_do_not_know_them():
    assert not settings().rotates
    assert settings(model={"preset": "nano", "directional": "harmonics"}).rotates
    assert settings(rotate=True).rotates


def test_the_identity_is_of_what_decides_the_weights():
    run = settings()
    same = {"log_steps": 7, "devices": 2, "threads": 4, "data": {"path": "elsewhere.h5"}}
    assert settings(**same).identity == run.identity
    for other in ({"seed": 1}, {"ema": 0.99}, {"evaluate_steps": 5}, {"model": "small"}):
        assert settings(**other).identity != run.identity
    assert settings(STAGE | {"lr": 1e-4}).identity != run.identity


def test_the_learning_rate_by_hand():
    stage = Stage(**STAGE, lr=1.0, warmup=2, warmup_factor=0.2, final_factor=0.1)
    assert [rate(stage, x) for x in (0, 1, 2)] == pytest.approx([0.2, 0.6, 1.0])
    assert rate(stage, 6) == pytest.approx(0.1 + 0.9 / 2)  # half of the cosine
    assert rate(stage, 10) == pytest.approx(0.1)
    constant = Stage(**STAGE, lr=1.0, final_factor=1.0)
    assert [rate(constant, x) for x in (0, 5, 10)] == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid(path):
    read_settings(TrainSettings, path)


# Table 7 of Liu et al. 2026, as printed: C, heads, γ, τ, weight decay, batches and epochs of the stages.
SPICE = {
    "direct-force": (512, 32, 1, 1, 1e-3),
    "hard-knn": (512, 32, 1, 1, 1e-3),
    "diff-knn": (512, 32, 1, 1, 1e-3),
    "small": (128, 8, 1, 1, 1e-3),
    "medium": (256, 16, 1, 1, 1e-3),
    "large": (512, 32, 1, 1, 1e-3),
    "weight-decay": (512, 32, 1, 1, 5e-2),
    "smearing": (512, 32, 5, 1, 5e-2),
    "temperature": (512, 32, 1, 10, 5e-2),
    "smearing-temperature": (512, 32, 5, 10, 5e-2),
}
MPTRJ = {
    "weak": (256, 16, 1, 1, 1e-3, 256),
    "medium": (256, 16, 5, 5, 1e-2, 256),
    "strong": (256, 16, 10, 10, 5e-2, 256),
    "final": (512, 32, 10, 10, 1e-2, 128),
}


def recipe(name):
    (path,) = [path for path in RECIPES if path.stem == name]
    return read_settings(TrainSettings, path)


def common(run):
    m = run.model
    assert (m.layers, m.hidden_factor, m.radial, m.l_max, m.directional) == (8, 2, 128, 5, "harmonics")
    assert (m.graph.k, m.graph.cutoff, m.graph.d0, m.graph.beta) == (30, 6.0, 0.2, 10.0)
    assert (run.ema, run.clip) == (0.999, 100)
    return m.width, m.heads, m.smearing, m.temperature, run.weight_decay


@pytest.mark.parametrize("name", SPICE)
def test_spice_recipes_are_table_7(name):
    run = recipe(f"spice-{name}")
    assert common(run) == SPICE[name]
    (stage,) = run.stages
    assert (stage.epochs, stage.batch.structures) == (100, 128)
    assert (stage.warmup, stage.warmup_factor) == (1, 0.2)
    assert stage.loss.model_dump() == {"energy": 1, "forces": 2, "stress": 0}
    assert stage.objective == ("direct" if name == "direct-force" else "conservative")
    hard = name in ("direct-force", "hard-knn")
    assert run.model.graph.rank == ("hard" if hard else "sigmoid")


@pytest.mark.parametrize("name", MPTRJ)
def test_mptrj_recipes_are_table_7(name):
    run = recipe(f"mptrj-{name}")
    *expected, batch = MPTRJ[name]
    assert common(run) == tuple(expected)
    first, second = run.stages
    assert (first.objective, second.objective) == ("direct", "conservative")
    assert first.denoising is not None
    assert (first.epochs, second.epochs) == (60, 40)
    assert (first.batch.structures, second.batch.structures) == (batch, 256)
    assert (first.warmup_factor, second.warmup_factor) == (0.2, 0.0)
    assert (first.warmup, second.warmup) == (1, 1)
    assert first.loss.model_dump() == {"energy": 1, "forces": 2, "stress": 10}
    assert second.loss.model_dump() == {"energy": 1, "forces": 4, "stress": 10}
    assert run.model.graph.rank == "sigmoid"


@pytest.mark.parametrize(
    "value", ["{1: 2}", "[&a [*a]]", "{a: 1, a: 2}", "[" * 5000, "!!python/name:os.system"]
)
def test_a_value_on_the_command_line_is_as_bounded_as_a_file(tmp_path, value):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(made.settings("f.h5").model_dump(mode="json")))
    with pytest.raises(ValueError, match=r"--set model=.*: the value: "):
        read_run(path, [f"model={value}"])
