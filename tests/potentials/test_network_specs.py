"""Networks as models to choose: presets with random weights, files, folders, factories, and the contract."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch

from sfumato import load
from sfumato.models.checkpoint import save
from sfumato.potentials import network as module
from sfumato.potentials import specs
from sfumato.potentials.network import NetworkPotential, untrained
from sfumato.potentials.specs import describe, resolve
from sfumato.systems import Batch
from sfumato.testing import structures
from sfumato.testing.bench import Bench, Settings
from sfumato.testing.contract import check
from sfumato.testing.robustness import accepted
from sfumato.testing.smoothness import neighbor_swap
from tests import ROOT
from tests.potentials.test_network import (
    network,
    potential,
)


@pytest.mark.parametrize("size", ["nano", "small", pytest.param("medium", marks=pytest.mark.slow)])
def test_random_weights_give_forces_of_a_physical_size_always_the_same(size):
    one = resolve(f"mindscaip:{size}")
    assert one.name == f"mindscaip-{size}-random"
    assert one.identity == untrained(size).identity
    systems = [structures.molecule((1, 6, 7, 8)), structures.crystal((1, 6, 7, 8), np.random.default_rng(1))]
    force = one.predict(Batch.of(systems)).forces
    assert 0.25 < np.sqrt((force**2).mean()) < 4


def test_the_hard_rank_is_the_same_weights_with_jumps():
    soft, hard = resolve("mindscaip:nano"), resolve("mindscaip:nano:hard")
    assert hard.name == "mindscaip-nano-random-hard"
    assert hard.network.config.graph == dataclasses.replace(soft.network.config.graph, rank="hard")
    assert all(
        torch.equal(a, b) for a, b in zip(soft.network.parameters(), hard.network.parameters(), strict=True)
    )
    assert hard.identity != soft.identity


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mindscaip", r"write --model mindscaip:PRESET\[:RANK\]"),
        ("mindscaip:nanoo", "no preset 'nanoo'; did you mean 'nano'"),
        ("mindscaip:nano:hrad", "rank: 'hrad' is unknown; did you mean 'hard'"),
        ("absent.safetensors", "absent.safetensors: there is no such file"),
    ],
)
def test_specs_that_name_nothing_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve(spec)


def test_a_file_is_a_spec_and_the_list_says_so(tmp_path):
    save(tmp_path / "mine.safetensors", network())
    found = load(tmp_path / "mine.safetensors", dtype="float64")
    assert found.name == "mine"
    assert found.identity == potential().identity
    assert load(str(tmp_path / "mine.safetensors")).abilities.dtype == "float32"


def test_the_folder_of_a_training_run_is_its_model(tmp_path):
    with pytest.raises(ValueError, match="not the folder of a training run"):
        load(tmp_path)
    save(tmp_path / "model.safetensors", network())
    assert load(tmp_path).identity == load(tmp_path / "model.safetensors").identity


def test_the_model_of_a_training_run_is_named_after_the_run(tmp_path):
    for name in ("wide", "deep"):
        folder = tmp_path / name
        folder.mkdir()
        save(folder / "model.safetensors", network())
        assert load(folder / "model.safetensors").name == "model"  # it lies there alone
        (folder / "settings.json").write_text("{}")
        assert load(folder).name == load(folder / "model.safetensors").name == name
        assert load(folder, dtype="float64").name == name
    save(tmp_path / "wide" / "other.safetensors", network())
    assert load(tmp_path / "wide" / "other.safetensors").name == "other"


def test_the_list_of_models_speaks_of_networks_of_any_family():
    words = {spec: what for spec, what, _ in describe()}
    assert words["FILE.safetensors, RUN"].startswith("a trained network")


def test_a_users_factory_offers_what_its_model_offers(tmp_path):
    save(tmp_path / "mine.safetensors", network())
    code = f"from sfumato import load\ndef make():\n    return load({str(tmp_path / 'mine.safetensors')!r})\n"
    (tmp_path / "model.py").write_text(code)
    found = copy.deepcopy(load(f"{tmp_path / 'model.py'}:make"))
    assert found.abilities.elements == {1, 8}
    double = found.to(dtype="float64")
    assert double.abilities.dtype == "float64"
    assert double.identity not in (found.identity, double.made.identity)
    (tmp_path / "old.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="is a pickle"):
        load(tmp_path / "old.pt")
    assert {"mindscaip:PRESET[:RANK]", "FILE.safetensors, RUN"} <= {row[0] for row in describe()}


def test_models_of_the_package_are_files_in_its_data(tmp_path, monkeypatch):
    assert all((specs.DATA / f"{name}.safetensors").is_file() for name in specs.BUNDLED)
    save(tmp_path / "mindscaip-tiny.safetensors", network())
    monkeypatch.setattr(specs, "DATA", tmp_path)
    monkeypatch.setitem(specs.NAMED, "mindscaip-tiny", specs.Named(specs._bundled("mindscaip-tiny"), "tiny"))
    assert load("mindscaip-tiny", dtype="float64").identity == potential().identity


def test_models_with_a_precision_of_their_own_do_not_ignore_another():
    assert load("lj").name == "lj"
    for chosen in ({"dtype": "float64"}, {"device": "cuda"}):
        with pytest.raises(ValueError, match=r"lj has a (device|precision) of its own|is not there"):
            load("lj", **chosen)


def test_the_examples_of_the_docs_run(tmp_path, monkeypatch):
    pytest.importorskip("torch_sim", reason="the extra torchsim is not installed")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "models.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert names["facts"].notes == {"why": "random weights"}


def test_crystals_without_a_finite_stress_break_the_contract(monkeypatch):
    def evaluate(*inputs, stress):
        found = module_evaluate(*inputs, stress=stress)
        return (
            dataclasses.replace(found, stress=torch.full_like(found.stress, torch.nan)) if stress else found
        )

    module_evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", evaluate)
    refused = [m.where for m in accepted(Bench(NetworkPotential(network()), Settings())) if not m.passed]
    assert len(refused) == 2  # in single and in double precision
    assert all(where.startswith("crystal: ") and "stress is not finite" in where for where in refused)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_random_weights_pass_the_contract(dtype):
    report = check(load("mindscaip:nano", dtype=dtype))
    assert report.passed, [result for result in report.results if result.breaks]


@pytest.mark.slow
def test_the_hard_rank_fails_the_contract_where_neighbors_swap():
    bench = Bench(load("mindscaip:nano:hard", dtype="float64"), Settings())
    assert not all(measured.passed for measured in neighbor_swap(bench))
