"""The energy-conservation test as a protocol: what it plans, what it says, what bad input gets."""

import io
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from sfumato.datasets.structures import load_structures
from sfumato.jobs.perform import Way
from sfumato.models.pair import PAIRS
from sfumato.protocols.nve import NVE
from sfumato.protocols.nve.analysis import OPTIONAL, REQUIRED, plan, runs_of
from sfumato.protocols.nve.page import nve_page
from sfumato.protocols.nve.settings import Settings
from sfumato.protocols.run import load_run, run
from sfumato.report.html import report_text
from tests.planted import FAULTS

QUICK = {"size": "dev", "time": 0.2, "repeat": 60}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Lennard-Jones and one with a noisy force, on copper."""
    out = tmp_path_factory.mktemp("nve") / "run"
    models = [PAIRS["lj"], PAIRS["lj-direct-noise"]]
    return run(NVE(), models, "Cu", settings=QUICK, out=out)


def test_every_structure_is_repeated_in_every_way():
    settings = Settings(**QUICK).settled()
    data = load_structures("Cu,ethanol", "dev")
    tasks = list(plan(data, settings))
    runs = runs_of(data.setups[0], settings)
    assert set(runs) == {*REQUIRED, *OPTIONAL}
    assert {name: task.job.timestep for name, task in runs.items()} == {
        "base": 5.0,
        "half": 2.5,
        "quarter": 1.25,
        "double": 1.25,
        "kept": 5.0,
    }
    assert len(tasks) == 3 + 2 * 5 + 3
    assert len({task.key("id") for task in tasks}) == len(tasks)


def test_the_size_decides_time_and_repeats():
    assert Settings(size="standard").settled().time == 100
    assert Settings(size="dev").settled().repeat == 150
    assert Settings(size="dev", time=3).settled().time == 3


def test_drift_and_culprit_of_a_smooth_and_a_broken_model(finished):
    smooth, broken = finished.models.values()
    assert smooth.coverage == broken.coverage == (1, 1)
    assert smooth.blame[0] == "none"
    assert broken.blame[0] == "forces"
    assert smooth.driver.blame.culprit == "none"
    assert finished.verdict("lj").answer("gradient") == "yes"
    assert finished.verdict("lj").answer("continuous") == "yes"
    said = finished.verdict("lj-direct-noise")
    assert said.answer("gradient") == said.answer("conserves") == "no"
    assert said.broken


def test_json_has_drift_interval_and_culprit(finished):
    found = json.loads(json.dumps(finished.as_json(), allow_nan=False))
    for name, culprit in (("lj", "none"), ("lj-direct-noise", "forces")):
        model = found["models"][name]
        assert isinstance(model["mean"]["drift"], float)
        low, high = model["interval95"]["drift"]
        assert low <= model["mean"]["drift"] <= high
        assert model["culprit"] == culprit
        numbers = model["structures"]["Cu"]["numbers"]
        assert numbers["fall"] > 0
    assert found["settings"]["protocol"] == "nve"


def test_a_run_is_read_again_and_continued_without_work(finished):
    again = load_run(finished.folder)
    assert again.as_json()["models"] == finished.as_json()["models"]
    counted = []

    class Watch:
        def __enter__(self):
            return lambda tally: counted.append(tally.done)

        def __exit__(self, *_):
            return None

    models = [PAIRS["lj"], PAIRS["lj-direct-noise"]]
    run(NVE(), models, "Cu", settings=QUICK, out=finished.folder, way=Way(watch=lambda name: Watch()))
    assert not any(counted)


def test_the_page_shows_it(finished):
    text = report_text([nve_page([finished])])
    assert 'id="nve0"' in text
    assert 'id="nve0-drift"' in text
    assert "to blame: forces" in text
    assert "meV/atom/ps" in text
    assert str(nve_page([finished])) == str(nve_page([load_run(finished.folder)]))


def test_the_tables_fit_a_terminal(finished):
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(NVE().tables(finished))
    text = console.export_text()
    assert "forces" in text
    assert max(map(len, text.splitlines())) <= 80


def one(tmp_path, atoms, model=PAIRS["lj"], **settings):
    path = tmp_path / "mine.xyz"
    write(path, atoms)
    return run(NVE(), [model], path, settings=QUICK | settings, out=tmp_path / "run")


def test_a_model_without_an_element_leaves_out_that_structure_alone(tmp_path):
    argon = Atoms("Ar4", [[0, 0, 0], [2.1, 0, 0], [1.05, 1.82, 0], [1.05, 0.6, 1.7]])
    unknown = Atoms("BkAr", [[0, 0, 0], [2.4, 0, 0]])
    found = one(tmp_path, [argon, unknown], timestep=2.0)
    model = found.models["lj"]
    assert model.coverage == (1, 2)
    assert "no parameters for Bk" in model.structures["1"].reason
    assert model.structures["0"].status == "ok"
    assert "1 of 2 structures have no result" in found.verdict("lj").in_words()


def test_a_structure_that_does_not_relax_is_named(tmp_path):
    squeezed = molecule("CH3CH2OH")
    squeezed.positions *= 0.6
    found = one(tmp_path, squeezed, relax_steps=1)
    assert "does not relax: after 1 steps" in found.models["lj"].structures["0"].reason
    assert found.models["lj"].coverage == (0, 1)
    assert found.models["lj"].as_json()["culprit"] is None
    assert found.verdict("lj").answer("conserves") == "unknown"
    str(nve_page([found]))


def test_a_step_too_long_is_said_to_be(tmp_path):
    found = one(tmp_path, bulk("Cu", cubic=True) * (2, 2, 2), timestep=45.0, temperature=1500.0)
    culprit, _, reason = found.models["lj"].blame
    assert culprit == "integrator"
    assert "the step of 45 fs is too long" in reason


def test_a_cell_smaller_than_twice_the_reach_is_excluded_by_name(tmp_path):
    found = one(tmp_path, bulk("Cu", cubic=True), FAULTS["missing periodic image"])
    (reason,) = [one.reason for one in next(iter(found.models.values())).structures.values()]
    assert "the cell is smaller than twice the reach of this potential" in reason


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"timestep": -1.0}, "timestep"),
        ({"time": 0.0}, "time"),
        ({"repeat": 3}, "repeat"),
        ({"size": "huge"}, "size"),
    ],
)
def test_settings_without_sense_are_refused(settings, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        run(NVE(), [PAIRS["lj"]], "Cu", settings=settings, out=tmp_path)


def test_an_unknown_structure_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="unknown structures 'Cuu'"):
        run(NVE(), [PAIRS["lj"]], "Cuu", settings=QUICK, out=tmp_path)


def test_seeds_give_other_velocities(tmp_path):
    runs = [runs_of(load_structures("Cu", "dev").setups[0], Settings(seed=seed).settled()) for seed in (0, 1)]
    a, b = (found["base"].frame for found in runs)
    assert a.stream != b.stream
    assert np.array_equal(a.positions, b.positions)
