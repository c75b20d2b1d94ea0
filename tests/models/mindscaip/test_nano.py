"""The trained model in the package: what its card says is what it does."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from sfumato import load
from sfumato.datasets.named import load_frames
from sfumato.models.checkpoint import load_model
from sfumato.protocols.run import run
from sfumato.testing import check
from sfumato.testing.bench import Settings
from sfumato.training.settings import read_run
from tests import ROOT

CARD = (ROOT / "docs" / "mindscaip-nano.md").read_text(encoding="utf-8")
FILE = Path(str(files("sfumato") / "data" / "mindscaip-nano.safetensors"))


def row(start):
    """Return the numbers in the row of the card that starts so, without intervals."""
    (line,) = (line for line in CARD.splitlines() if line.startswith(f"| {start} |"))
    return [float(re.sub(r"\[.*?\]|,", "", cell)) for cell in line.strip("| ").split("|")[1:]]


def test_it_is_small_and_says_what_it_was_trained_on():
    assert FILE.stat().st_size < 3e6
    _, facts = load_model(FILE)
    frames = load_frames("organic-mini")
    assert (facts.dataset, facts.dataset_sha256) == ("organic-mini", frames.identity)
    assert facts.level == frames.level == "GFN2-xTB"


def test_its_recipe_is_the_example_and_its_log_is_whole():
    _, facts = load_model(FILE)
    recipe = read_run(ROOT / "examples" / "configs" / "nano-organic-mini.yaml")
    ran = facts.notes["settings"]
    ran["model"].pop("elements")  # those of the data
    assert {"compile": False} | ran | {"threads": None} == recipe.model_dump(
        mode="json", exclude={"model": {"elements"}}
    )
    lines = [json.loads(line) for line in FILE.with_suffix(".log").read_text().splitlines()]
    assert lines[-1]["event"] == "end"
    assert lines[-1]["step"] == facts.notes["step"]


@pytest.mark.parametrize("split", [pytest.param("train", marks=pytest.mark.slow), "val", "test"])
def test_errors_are_those_of_its_card(split):
    measured = run("errors", ["mindscaip-nano"], "organic-mini", settings={"split": split})
    errors = measured.models["mindscaip-nano"].subsets["all"]
    frames, energy, relative, forces, cosine = row(split)
    assert errors["force_mae"].n == frames
    assert 1e3 * errors["energy_mae"].mean == pytest.approx(energy, rel=0.01)
    assert 1e3 * errors["relative_energy_mae"].mean == pytest.approx(relative, rel=0.01)
    assert 1e3 * errors["force_mae"].mean == pytest.approx(forces, rel=0.01)
    assert errors["force_cosine"].mean == pytest.approx(cosine, abs=0.001)


@pytest.mark.parametrize("data", ["bsct-mini", "bsct-mini-gfn2"])
def test_smoothness_is_that_of_its_card(data):
    estimates = run("bsct", ["mindscaip-nano"], data).models["mindscaip-nano"].estimates
    shown = [estimates[f"fsd_{part}"].mean for part in ("full", "compress", "stretch")]
    assert shown == pytest.approx(row(f"`{data}`")[:3], rel=0.01)


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_keeps_the_contract(quick):
    report = check(load("mindscaip-nano"), settings=Settings(quick=quick))
    assert report.passed, report
