"""Errors on migrating atoms: the published row of DFT to its digits, hand-made runs, pages, bad input."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from sfumato.cli import main
from sfumato.frames import Category
from sfumato.io import write_frame_set
from sfumato.io.silicon import read_published
from sfumato.potentials.potential import Potential
from sfumato.protocols.rare_events import RareEventErrors
from sfumato.protocols.rare_events.analysis import score
from sfumato.protocols.rare_events.data import is_published, read_events, used
from sfumato.protocols.rare_events.page import rare_events_page
from sfumato.protocols.rare_events.settings import Settings
from sfumato.protocols.run import load_run, run
from sfumato.systems import Batch, Failure, Prediction
from tests.silicon_layout import REAL, lay_out, needs_real

PROTOCOL = RareEventErrors()


class Table(Potential):
    """Says of structures that it knows what it is told to, and fails for others."""

    def __init__(self, name, data, forces, energy=None):
        self.name = self.identity = name
        self._known = {
            system.positions.tobytes(): (forces[a:b], (data.energy if energy is None else energy)[k])
            for k, (system, a, b) in enumerate(zip(data.batch, data.batch.offsets, data.batch.offsets[1:]))
        }

    def compute(self, batch):
        found = []
        for system in batch:
            if system.positions.tobytes() not in self._known:
                one = Batch.of([system])
                found.append(Prediction.failed(one, Failure("unknown structure")))
            else:
                forces, energy = self._known[system.positions.tobytes()]
                found.append(Prediction(np.array([energy]), forces))
        return Prediction.join(found)


@pytest.fixture
def events(tmp_path):
    return read_published(lay_out(tmp_path / "data"))


def means(found, name):
    return {key: e.mean for key, e in found.models[name].sets["vacancy"].numbers.items()}


# --- the published numbers -------------------------------------------------------------------------------


@needs_real
def test_the_released_row_of_dft_with_the_gamma_point():
    """err_M and err_A to six digits, the root of the mean of δF² to eight."""
    found = read_events(REAL)
    released = {
        "interstitial": (0.195261, 0.224259, 0.24781591),
        "vacancy": (0.125664, 0.146981, 0.17377232),
    }
    assert is_published(found)
    for one in found.sets:
        numbers = score(one, *one.others["DFT_K1"], Settings()).numbers
        row = tuple(numbers[key].mean for key in ("err_M", "err_A", "rms_dF"))
        expected = released[one.name]
        assert (round(row[0], 6), round(row[1], 6), round(row[2], 8)) == expected
        assert numbers["force_rmse"].mean == pytest.approx({"i": 0.129, "v": 0.110}[one.name[0]], abs=5e-4)
        assert numbers["err_M"].low < row[0] < numbers["err_M"].high
        assert (numbers["err_M"].n, numbers["force_rmse"].n) == ({"i": 99, "v": 62}[one.name[0]], 100)
        assert numbers["energy_rmse"].n == 0  # the Γ point has no energies
        k2 = score(one, *one.others["DFT_K2"], Settings()).numbers
        assert 1e3 * k2["energy_rmse"].mean == pytest.approx(0.58, abs=0.1)
        assert k2["err_M"].mean == pytest.approx({"i": 0.034, "v": 0.0270}[one.name[0]], abs=5e-4)


# --- runs ------------------------------------------------------------------------------------------------


def test_the_truth_and_nothing(tmp_path, events):
    (one,) = events.sets
    right = Table("right", one, one.forces)
    still = Table("still", one, 0 * one.forces, one.energy + 7.0)
    found = run(PROTOCOL, [right, still], events, out=tmp_path / "run")
    assert all(value == pytest.approx(0, abs=1e-12) for value in means(found, "right").values())
    bad = means(found, "still")
    size = np.linalg.norm(one.forces[0])
    assert bad["rms_dF"] == pytest.approx(size)
    assert bad["err_A"] == 1.0  # a right angle is beyond 60 degrees
    assert bad["migrating_force_rmse"] == pytest.approx(size / np.sqrt(3))
    assert bad["force_rmse"] == pytest.approx(np.sqrt((one.forces**2).mean()))
    assert (bad["energy_rmse"], bad["relative_energy_rmse"]) == pytest.approx((1.0, 0.0))  # 7 eV on 7 atoms
    assert [worst.atom for worst in found.models["still"].sets["vacancy"].worst] == [0]
    assert found.models["still"].coverage == (2, 2)
    assert list(found.models["still"].floor["vacancy"]) == ["DFT_K1", "DFT_K2"]


def test_the_exact_integral(tmp_path, events):
    (one,) = events.sets
    forces = one.forces.copy()
    forces[0] *= 1 + 0.25 / np.linalg.norm(forces[0])
    found = run(PROTOCOL, [Table("a", one, forces)], events, settings={"exact": True}, out=tmp_path / "run")
    assert means(found, "a")["err_M"] == pytest.approx(0.25)
    again = run(PROTOCOL, [Table("a", one, forces)], events, out=tmp_path / "other")
    assert means(again, "a")["err_M"] == pytest.approx(
        12.5 / 49
    )  # 0.25 lies between points 12 and 13 of 0…49


def test_what_is_not_predicted_is_counted(tmp_path, events):
    (one,) = events.sets
    half = Table("half", one.take(np.array([1])), one.forces[7:])
    found = run(PROTOCOL, [half], events, out=tmp_path / "run")
    model = found.models["half"]
    assert model.coverage == (1, 2)
    assert model.failed == (("vacancy 0", "unknown structure"),)
    assert model.sets["vacancy"].numbers["err_M"].n == 0  # the other snapshot has no migrating atom
    assert model.as_json()["sets"]["vacancy"]["err_M"]["value"] is None
    text = str(rare_events_page([found]))
    assert "unknown structure" in text
    shown(found)


def shown(found):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(PROTOCOL.tables(found))
    return console.export_text()


def test_tables_and_page(tmp_path, events):
    (one,) = events.sets
    rng = np.random.default_rng(0)
    off = Table("<off>", one, one.forces + rng.normal(size=one.forces.shape))
    found = run(PROTOCOL, [off], events, out=tmp_path / "run")
    table = shown(found)
    for words in (
        "<off>",
        "DFT K1",
        "1 migrating atom in 1 of 2 snapshots",
        "err_M",
        "force MAE, migrating",
    ):
        assert words in table
    page = rare_events_page([found])
    names = [name for name, _ in page.figures]
    assert any("magnitude" in name for name in names)
    assert any("worst" in name for name in names)
    for name, figure in page.figures:
        if "worst" not in name:
            assert figure.layout.xaxis.title.text, name
    text = str(page)
    assert 'id="rare-events0"' in text
    assert "&lt;off&gt;" in text
    assert "<off>" not in text.replace("\\u003coff>", "")
    assert "Published potentials" not in text  # these are not the published sets
    assert found.models["<off>"].rows()[0]["set"] == "vacancy"
    assert PROTOCOL.figure(found).data


def test_settings_choose(events):
    assert [len(one) for one in used(events, Settings(limit=1))] == [1]
    with pytest.raises(ValueError, match="has no set 'vacancies'; did you mean 'vacancy'"):
        used(events, Settings(only="vacancies"))


def test_snapshots_of_the_training_are_left_out(tmp_path, events):
    (one,) = events.sets
    frames = events.as_frames()
    trained = replace(frames, split=Category.of(["test", "train"]))
    write_frame_set(tmp_path / "trained.h5", trained)
    (left,) = used(events, Settings(without=str(tmp_path / "trained.h5")))
    assert left.batch.positions.tolist() == one.batch.positions[:7].tolist()
    write_frame_set(tmp_path / "all.h5", replace(frames, split=Category.of(["val", "train"])))
    with pytest.raises(ValueError, match="without: every snapshot of vacancy is in"):
        used(events, Settings(without=str(tmp_path / "all.h5")))


def command(*words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "sets")
    asked = ["run", "rare-events", "--model", "lj", "--data", "sets", "--json", "x.json"]
    assert command(*asked, "--only", "vacancy", "--limit", "1") == 0
    scored = json.loads((tmp_path / "x.json").read_text())["models"]["lj"]["sets"]["vacancy"]
    for key in ("err_M", "err_A", "rms_dF", "force_rmse"):
        low, high = scored[key]["interval95"]
        assert (scored[key]["value"] is not None, low, high) == (
            True,
            None,
            None,
        )  # one snapshot: no interval
    assert scored["floor"]["DFT_K1"]["err_M"]["value"] > 0
    assert "vacancy: 1 migrating atom in 1 of 1 snapshot" in capsys.readouterr().out
    again = load_run(tmp_path / "runs" / "rare-events-sets")
    assert again.models["lj"].coverage == (1, 1)
    assert command(*asked, "--only", "hop") == 2
    assert "has no set 'hop'" in capsys.readouterr().err
    assert command(*asked[:5], "nowhere") == 2
    assert "'nowhere' is neither a named data set nor an existing path" in capsys.readouterr().err
