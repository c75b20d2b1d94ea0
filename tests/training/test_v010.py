"""Runs and models of version 0.1.0: they go on, and keep the identity that records are keyed by."""

import shutil

import pytest

from sfumato import load
from sfumato.training import state
from sfumato.training.distributed import alone
from sfumato.training.log import read_log
from sfumato.training.loop import train
from sfumato.training.settings import read_run
from tests import ROOT

OLD = ROOT / "tests" / "v010"

IDENTITIES = {
    "mindscaip-nano": "9d1308c3d6c04829178554c2b5566f2e30ee26bcd55ebc26c6db0d6bfdf0bd4a",
    "mindscaip:nano": "015ccb3a14dc7ce79fd7ac5f44da4a56c94e7d93a96969e3c975cd35e0f7aea0",
    str(OLD / "train"): "504db406b46cb657da883f01beaefc0ac5b2b0e61eecab4930cf53235ade5d52",
}
"""Of potentials, as 0.1.0 computed them."""

SETTINGS = "a90a0339cc9e85b693d7b60df5363eb24aab80cbdde712812fc72e97e10b427a"
"""Identity of the settings of the run."""


@pytest.mark.parametrize("spec", IDENTITIES)
def test_models_keep_their_identity(spec):
    assert load(spec).identity == IDENTITIES[spec]


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(OLD / "train", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_goes_on_where_it_was(folder):
    settings = read_run(OLD / "train.yaml")
    assert settings.identity == SETTINGS
    before = state.content(folder / state.NAME)
    found = train(settings, folder, alone(settings), stop=lambda: True, inexact=True)
    assert (found.steps, found.errors.frames) == (22, 611)
    after = state.content(folder / state.NAME)
    place, progress = before["place"], after["progress"]
    assert (progress["total"], progress["best"]) == (22, place["best"])
    assert progress["tally"]["counts"]["forces"] == place["counts"]["forces"] + 1
    assert progress["seconds"] > place["seconds"]
    (steps,) = {float(moments["step"]) for moments in after["optimizer"]["state"].values()}
    assert steps == 22
    assert [line["step"] for line in read_log(folder)][-3:] == [21, 21, 22]


def test_a_run_that_would_not_go_on_exactly_says_how_to_go_on_all_the_same(folder, monkeypatch):
    settings = read_run(OLD / "train.yaml")
    monkeypatch.setattr(state, "version", lambda name: "9.9")
    with pytest.raises(ValueError, match=r"sfumato was '0\.1\.0', now '9\.9'.*--inexact"):
        train(settings, folder, alone(settings))
