"""Another zero of energy, or another level of theory, is named, and a fit says what is left without it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfumato.metrics.errors import element_energies, fitted_errors
from sfumato.models.checkpoint import Facts, save
from sfumato.models.pair import PAIRS
from sfumato.potentials.potential import Abilities, Potential
from sfumato.protocols.errors import figures, training_facts
from sfumato.protocols.errors.page import errors_page
from sfumato.protocols.errors.tables import error_table, same_level, warnings
from sfumato.protocols.run import run
from sfumato.systems import Prediction
from tests.made_runs import shown
from tests.made_training import frame_set, molecules
from tests.tiny_models import model as tiny

ZERO = {1: -13.6, 6: -1030.0, 7: -1480.0, 8: -2040.0}


class Shifted(Potential):
    """Gives the labels with an error, from another zero of energy."""

    identity = "shifted"

    def __init__(self, name="shifted", zero=ZERO, noise=0.0, level=""):
        self.name, self.zero, self.noise = name, zero, noise
        self.abilities = Abilities(batch=64, level=level)

    def compute(self, batch):
        found = PAIRS["lj"].compute(batch)
        atoms = np.diff(batch.offsets)
        shift = np.array([sum(self.zero.get(z, 0.0) for z in system.numbers.tolist()) for system in batch])
        wave = self.noise * atoms * np.cos(1e3 * found.energy)
        return Prediction(found.energy + shift + wave, found.forces)


@pytest.fixture(scope="module")
def frames():
    """Frames of several compositions, labeled by a pair potential."""
    made = frame_set(molecules(30))
    labels = PAIRS["lj"].predict(made.batch).require()
    return replace(made, level="ωB97M-D3(BJ)/def2-TZVPPD", labels=labels)


def test_the_energies_of_elements_are_found_again():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (40, 3))
    energies = np.array([-13.6, -1030.0, -2040.0])
    off = counts @ energies
    np.testing.assert_allclose(element_energies(off, counts), energies, rtol=1e-10)
    above, below = fitted_errors(off, counts)["fitted_energy_mae"]
    assert below.sum() == 40
    assert above.max() < 1e-9
    off[3] = np.nan
    noise = 0.02 * counts.sum(axis=1) * rng.standard_normal(40)
    above, below = fitted_errors(off + noise, counts)["fitted_energy_mae"]
    assert below.sum() == 39
    assert above.sum() / below.sum() == pytest.approx(0.02 * np.sqrt(2 / np.pi), rel=0.3)


def test_a_fit_to_as_many_numbers_as_there_are_frames_is_none():
    counts = np.array([[2, 1], [4, 1], [6, 2]])
    assert np.isnan(element_energies([1.0, 2.0, 3.0], counts)).all()
    above, below = fitted_errors([1.0, 2.0, 3.0], counts)["fitted_energy_mae"]
    assert below.sum() == above.sum() == 0
    assert np.isnan(element_energies([np.nan], [[1]])).all()


def test_frames_of_one_composition_are_fitted_by_one_number():
    off = 5.0 + np.array([0.1, -0.1, 0.1, -0.1])
    above, below = fitted_errors(off, np.tile([2, 1], (4, 1)))["fitted_energy_mae"]
    assert above.sum() / below.sum() == pytest.approx(0.1 / 3)


def test_another_zero_of_energy_is_named_and_the_rest_has_a_number_of_its_own(frames, tmp_path):
    models = [Shifted(noise=0.004), Shifted("right", zero={}), Shifted("wrong", zero={}, noise=2.0)]
    done = run("errors", models, frames, settings={"split": "all", "turned": 0}, out=tmp_path / "run")
    numbers = done.models["shifted"].subsets["all"]
    assert numbers["energy_mae"].mean > 100
    assert numbers["fitted_energy_mae"].mean == pytest.approx(0.004 * 2 / np.pi, rel=0.4)
    (line,) = warnings(done)
    assert line.startswith("shifted: nearly all of its energy MAE of")
    assert "one energy for each element" in line
    assert "(fitted energy MAE)" in line
    text = " ".join(shown(error_table(done)).split())
    assert line in text
    assert "fitted energy MAE" in text
    assert line in "".join(errors_page([done]).body)
    fitted = done.as_json()["models"]["shifted"]["fitted_element_energies"]
    assert fitted["C"] == pytest.approx(ZERO[6], abs=0.2)
    drawn = figures.energy_parity(done)
    assert [trace.name for trace in drawn.data[1:]] == ["shifted (its zero taken off)", "right", "wrong"]
    assert np.abs(np.array(drawn.data[1].x) - np.array(drawn.data[1].y)).max() < 0.02


def test_an_offset_of_one_composition_is_named_too(frames, tmp_path):
    system = molecules(1)[0]
    moved = [replace(system, positions=np.float32(system.positions * (1 + 0.02 * k))) for k in range(7)]
    one = frame_set(moved, validation=1)
    one = replace(one, labels=PAIRS["lj"].predict(one.batch).require())
    done = run("errors", [Shifted()], one, settings={"split": "all", "turned": 0}, out=tmp_path / "run")
    (line,) = warnings(done)
    assert "one energy for each" in line


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("wB97M-D3(BJ)/def2-TZVPPD", "wb97m-d3bj/def2-tzvppd", True),
        ("GFN2-xTB", "gfn2-xtb", True),
        ("GFN2-xTB", "GFN1-xTB", False),
        ("PBE/def2-SVP", "PBE0/def2-SVP", False),
    ],
)
def test_levels_of_theory_are_compared_as_people_read_them(one, other, same):
    assert same_level(one, other) == same


def test_another_level_of_theory_is_named_where_both_are_stated(frames, tmp_path):
    models = [
        Shifted("engine", zero={}, level="GFN2-xTB"),
        Shifted("same", zero={}, level="ωb97m-d3bj/def2-tzvppd"),
        Shifted("silent", zero={}),
    ]
    done = run("errors", models, frames, settings={"split": "all", "turned": 0}, out=tmp_path / "run")
    (line,) = warnings(done)
    assert line.startswith("engine is of the level of theory GFN2-xTB, the labels are of ωB97M-D3(BJ)/def2-T")


def test_the_level_that_a_network_was_trained_at_is_known(frames, tmp_path):
    path = tmp_path / "trained.safetensors"
    save(
        path, tiny(torch.float32, elements=(1, 6, 7, 8)), Facts(dataset="a", dataset_sha256="b", level="PBE")
    )
    assert training_facts(str(path))["level"] == "PBE"
    done = run("errors", [str(path)], frames, settings={"split": "all", "turned": 0}, out=tmp_path / "run")
    assert any("trained is of the level of theory PBE" in line for line in warnings(done))
