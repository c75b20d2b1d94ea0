"""The trained eSEN in the package: what its card says is what it does."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from sfumato import load
from sfumato.datasets.named import load_frames
from sfumato.models.checkpoint import load_model
from sfumato.protocols.run import run
from sfumato.systems import Batch
from sfumato.testing import check
from sfumato.testing.bench import Settings
from sfumato.training.settings import read_run
from tests import ROOT
from tests.tiny_models import molecule, moved

CARD = (ROOT / "docs" / "esen-nano.md").read_text(encoding="utf-8")
FILE = Path(str(files("sfumato") / "data" / "esen-nano.safetensors"))


def row(start, count):
    """Return the first numbers in the row of the card that starts so, without intervals."""
    (line,) = (line for line in CARD.splitlines() if line.startswith(f"| {start} |"))
    return [float(re.sub(r"\[.*?\]|,", "", cell)) for cell in line.strip("| ").split("|")[1 : count + 1]]


def test_it_is_small_and_says_what_it_was_trained_on():
    assert FILE.stat().st_size < 8e5
    network, facts = load_model(FILE)
    frames = load_frames("organic-mini")
    assert network.config.architecture == "esen"
    assert (facts.dataset, facts.dataset_sha256) == ("organic-mini", frames.identity)
    assert facts.level == frames.level == "GFN2-xTB"


def test_its_recipe_is_the_example_and_its_log_is_whole():
    _, facts = load_model(FILE)
    recipe = read_run(ROOT / "examples" / "configs" / "esen-nano-organic-mini.yaml")
    ran = facts.notes["settings"]
    ran["model"].pop("elements")  # those of the data
    settings = recipe.model_dump(mode="json", exclude={"model": {"elements"}})
    assert ran == {name: settings[name] for name in ran}  # a later setting was not there
    lines = [json.loads(line) for line in FILE.with_suffix(".log").read_text().splitlines()]
    assert lines[-1]["event"] == "end"
    assert facts.notes["step"] <= lines[-1]["step"]


@pytest.mark.parametrize(
    "split", [*(pytest.param(s, marks=pytest.mark.slow) for s in ("train", "val")), "test"]
)
def test_errors_are_those_of_its_card(split):
    measured = run("errors", ["esen-nano"], "organic-mini", settings={"split": split})
    errors = measured.models["esen-nano"].subsets["all"]
    frames, energy, relative, forces, cosine = row(split, 5)
    assert errors["force_mae"].n == frames
    assert 1e3 * errors["energy_mae"].mean == pytest.approx(energy, rel=0.01)
    assert 1e3 * errors["relative_energy_mae"].mean == pytest.approx(relative, rel=0.01)
    assert 1e3 * errors["force_mae"].mean == pytest.approx(forces, rel=0.01)
    assert errors["force_cosine"].mean == pytest.approx(cosine, abs=0.001)


@pytest.mark.parametrize("data", ["bsct-mini", "bsct-mini-gfn2"])
def test_smoothness_is_that_of_its_card(data):
    estimates = run("bsct", ["esen-nano"], data).models["esen-nano"].estimates
    shown = [estimates[f"fsd_{part}"].mean for part in ("full", "compress", "stretch")]
    assert shown == pytest.approx(row(f"`{data}`", 3), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("quick", [True, False])
def test_it_keeps_the_contract(quick):
    report = check(load("esen-nano"), settings=Settings(quick=quick))
    assert report.passed, report


def test_mirror_images_have_the_same_energy():
    system = molecule()
    both = Batch.of([system, moved(system, -system.positions)])
    energy = load("esen-nano", dtype="float64").predict(both).energy
    assert energy[0] == pytest.approx(energy[1], abs=1e-8)
