"""A model in a file: what comes back, and every way in which a file can be wrong."""

import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sfumato.graph import GraphSettings
from sfumato.models.checkpoint import ENTRY, SCHEMA, Facts, load_model, save, weights_digest
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import predict
from sfumato.systems import Batch, System

SMALL = {"width": 8, "heads": 2, "layers": 1, "radial": 6, "graph": GraphSettings(k=4, cutoff=3.0)}
WATER = Batch.of([System([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])])
FACTS = Facts(dataset="organic-mini", dataset_sha256="ab12", level="GFN2-xTB", notes={"steps": 100})


def make(dtype=torch.float32, seed=1, **changes):
    settings = {"elements": (1, 8), **SMALL, **changes}
    model = MinDScAIP(MinDScAIPConfig(**settings), torch.Generator().manual_seed(seed), dtype)
    model.scale.fill_(1.0758)
    model.reference[1], model.reference[8] = -16.385123456789012, -2048.17
    return model


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "model.safetensors", make(), FACTS)
    return tmp_path / "model.safetensors"


def rewrite(path, header=None, tensors=None, metadata=None):
    """Write a file again with another header or other tensors, as by hand."""
    with safe_open(path, framework="pt") as file:
        old = json.loads(file.metadata()[ENTRY])
    kept = tensors(load_file(path)) if tensors else load_file(path)
    text = json.dumps(header(old) if header else old)
    save_file(kept, path, metadata={ENTRY: text} if metadata is None else metadata)


def set_to(**changes):
    return lambda header: header | changes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("directional", ["harmonics", "angular_bias"])
def test_what_is_read_is_what_was_written(tmp_path, dtype, directional):
    model = make(dtype, directional=directional, direct_forces=True, denoising=True)
    save(tmp_path / "a.safetensors", model, FACTS)
    found, facts = load_model(tmp_path / "a.safetensors")
    assert facts == FACTS
    assert found.config == model.config
    assert found.dtype == dtype
    before, after = model.state_dict(), found.state_dict()
    assert before.keys() == after.keys()
    assert all(
        torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before
    )
    assert torch.equal(predict(model, WATER).energy, predict(found, WATER).energy)
    assert weights_digest(model) == weights_digest(found)


def test_units_and_atom_energies_are_there_for_people_to_read(path):
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[ENTRY])
        assert list(file.metadata()) == [ENTRY]
    assert header["schema_version"] == SCHEMA
    assert header["atom_energies"] == {"H": -16.385123456789012, "O": -2048.17}
    assert (header["scale"], header["energy_unit"], header["length_unit"]) == (1.0758, "eV", "Å")
    assert header["config"]["elements"] == [1, 8]
    assert header["facts"]["dataset_sha256"] == "ab12"


def test_the_same_model_makes_the_same_file(path, tmp_path):
    model, facts = load_model(path)
    save(tmp_path / "again.safetensors", model, facts)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@settings(max_examples=15, deadline=None)
@given(energy=st.floats(-1e6, 1e6), scale=st.floats(1e-6, 1e6))
def test_numbers_in_the_header_keep_every_digit(tmp_path_factory, energy, scale):
    model = make()
    model.reference[1], model.scale[...] = energy, scale
    path = tmp_path_factory.mktemp("digits") / "a.safetensors"
    save(path, model)
    found, _ = load_model(path)
    assert (found.reference[1].item(), found.scale.item()) == (energy, scale)


def test_the_digest_knows_everything_that_decides_a_prediction():
    digests = {
        weights_digest(model)
        for model in (
            make(),
            make(seed=2),
            make(torch.float64),
            make(graph=GraphSettings(k=4, cutoff=3.0, rank="hard")),
            make(temperature=2.0),
            make(elements=(1, 6, 8)),
        )
    }
    scaled, shifted = make(), make()
    scaled.scale.fill_(1.1)
    shifted.reference[8] += 1e-9
    assert len(digests | {weights_digest(scaled), weights_digest(shifted)}) == 8
    assert weights_digest(make()) in digests


def test_a_file_is_replaced_whole_or_not_at_all(path, monkeypatch):
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(path, make(seed=2))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# --- what is refused when writing


def test_a_trained_model_must_say_which_elements_it_knows(tmp_path):
    with pytest.raises(ValueError, match="trained on organic-mini but claims to know all elements; set"):
        save(tmp_path / "a.safetensors", make(elements=None), FACTS)
    save(tmp_path / "a.safetensors", make(elements=None))  # weights that were not trained may


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    model = make()
    model.mix.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 of \d+ tensors hold NaN or infinity, first 'mix.weight'"):
        save(tmp_path / "a.safetensors", model)
    model = make()
    model.reference[8] = np.inf
    with pytest.raises(ValueError, match=r"atom_energies.O: Input should be a finite number"):
        save(tmp_path / "a.safetensors", model)
    assert not list(tmp_path.iterdir())


def test_other_suffixes_precisions_and_notes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a model is saved as .safetensors"):
        save(tmp_path / "model.pt", make())
    with pytest.raises(ValueError, match="dtype: Input should be 'float32' or 'float64'"):
        save(tmp_path / "a.safetensors", make(torch.bfloat16))
    with pytest.raises(ValueError, match=r"facts.notes: cannot be written as JSON"):
        save(tmp_path / "a.safetensors", make(), Facts(notes={"x": object()}))


# --- what is refused when reading


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            set_to(schema_version=SCHEMA + 1, new_field=1),
            r"newer Sfumato \(schema 2; .* up to 1\).*--upgrade",
        ),
        (set_to(schema_version="one"), "states no schema version"),
        (set_to(architecture="mindscape"), "'mindscape' is unknown; did you mean 'mindscaip'"),
        (set_to(length_unit="bohr"), "length_unit: Input should be 'Å'"),
        (set_to(dtype="float16"), "dtype: Input should be 'float32' or 'float64'"),
        (set_to(author="me"), "author: Extra inputs are not permitted"),
        (set_to(scale="big"), "scale: Input should be a valid number"),
        (set_to(scale=float("nan")), "scale: Input should be a finite number"),
        (set_to(atom_energies={"Xx": 1.0}), "atom_energies: Value error, 'Xx' is not an element"),
        (
            lambda h: h | {"config": h["config"] | {"wdith": 9}},
            "config: Value error, unknown setting 'wdith'; did you mean 'width'",
        ),
        (lambda h: h | {"config": h["config"] | {"heads": 3}}, "3 heads do not divide 8"),
        (lambda h: h | {"config": h["config"] | {"layers": 2}}, r"lacks \d+ of \d+ tensors, first 'layers.1"),
        (
            lambda h: h | {"config": h["config"] | {"layers": 10**9}},
            "its settings ask for 1000000000 or more",
        ),
        (lambda h: h | {"config": h["config"] | {"width": 2**20}}, "its settings ask for"),
        (lambda h: h | {"config": h["config"] | {"zbl": True, "elements": [55]}}, "make no model.*cutoff"),
        (lambda h: h | {"facts": {"data": 1}}, "facts.data: Extra inputs"),
        (lambda h: h | {"scale": 2.0}, "changed after it was written.*get it again"),
        (lambda h: [h], "states no schema version"),
    ],
)
def test_a_header_that_is_wrong_is_refused(path, changes, message):
    rewrite(path, header=changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def without(tensors):
    return {key: value for key, value in tensors.items() if key != "mix.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (without, r"lacks 1 of \d+ tensors, first 'mix.bias'"),
        (lambda t: t | {"extra": torch.zeros(2)}, "has in excess 1 of .* first 'extra'"),
        (
            lambda t: t | {"mix.bias": torch.zeros(9)},
            r"mix.bias has shape \(9,\); its settings ask for \(8,\)",
        ),
        (lambda t: t | {"mix.bias": torch.zeros(8).double()}, "mix.bias is torch.float64; .* says float32"),
        (lambda t: t | {"mix.bias": torch.full((8,), np.nan)}, "hold NaN or infinity.*earlier checkpoint"),
        (lambda t: t | {"mix.bias": torch.ones(8)}, "changed after it was written"),
    ],
)
def test_weights_that_do_not_belong_are_refused(path, changes, message):
    rewrite(path, tensors=changes)
    with pytest.raises(ValueError, match=message):
        load_model(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_file_that_was_cut_short_is_refused(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="may be cut short: copy or download it again"):
        load_model(path)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("bits")
    save(folder / "a.safetensors", make(), FACTS)
    data = bytearray((folder / "a.safetensors").read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (folder / "a.safetensors").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"a.safetensors: "):
        load_model(folder / "a.safetensors")


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trap",))


def test_pickles_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raw.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"model": Trap()}, "zipped.pt")
    Path("renamed.safetensors").write_bytes(Path("zipped.pt").read_bytes())
    for name in ("raw.pt", "zipped.pt", "renamed.safetensors"):
        with pytest.raises(ValueError, match=r"is a pickle .* is refused; .*checkpoint.save as .safetensors"):
            load_model(name)
    assert not Path("trap").exists()


def test_a_header_whose_length_begins_like_a_pickle_is_none(tmp_path):
    model, file = make(), tmp_path / "model.safetensors"
    for letters in range(0, 256, 8):
        save(file, model, Facts(notes={"padding": "x" * letters}))
        if file.read_bytes()[:1] == b"\x80":
            break
    assert file.read_bytes()[:1] == b"\x80"
    assert load_model(file)[1].notes["padding"] == "x" * letters


def test_files_of_others_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        load_model(tmp_path / "absent.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="holds tensors but no model of Sfumato"):
        load_model(other)
    other.write_text("numbers: 1 2 3, no tensors at all")
    with pytest.raises(ValueError, match=r"cannot be read as .safetensors"):
        load_model(other)
    other.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(ValueError, match=r"cannot be read as .safetensors"):
        load_model(other)
    save_file({"weight": torch.zeros(3)}, other, metadata={ENTRY: "{not json"})
    with pytest.raises(ValueError, match="its header is not JSON"):
        load_model(other)
