"""Hot dynamics as a protocol: what it plans, what it says of who survives and who does not."""

import io
import json
import math

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from sfumato.cli import build
from sfumato.commands.options import given
from sfumato.datasets.structures import load_structures
from sfumato.dynamics.state import hottest
from sfumato.jobs.perform import Way
from sfumato.models.pair import PAIRS
from sfumato.protocols.heat import Heat
from sfumato.protocols.heat.analysis import Hot, ModelHeat, Share, each_of, plan, surviving, task_of
from sfumato.protocols.heat.page import heat_page
from sfumato.protocols.heat.settings import Settings
from sfumato.protocols.heat.verdict import answers
from sfumato.protocols.run import load_run, run
from sfumato.report.html import report_text
from tests.planted import Around, hole

QUICK = {
    "size": "dev",
    "settle": 0.02,
    "time": 0.3,
    "seeds": 2,
    "friction": 30.0,
    "temperatures": (2000, 4000),
}
HOLE = Around("hole", hole(2.6, 0.4, 30.0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Lennard-Jones and one with a hole in its wall, on copper."""
    out = tmp_path_factory.mktemp("heat") / "run"
    return run(Heat(), [PAIRS["lj"], HOLE], "Cu", settings=QUICK, out=out)


def hot(swing=(500.0, 600.0), kelvin=2000.0, seed=0, **facts):
    """A made-up trajectory of 1 ps."""
    time = np.linspace(0.5, 1.0, len(swing)) if len(swing) else np.zeros(0)
    temperature = np.full(len(swing), facts.pop("temperature", kelvin))
    usual = {"free": 27, "steps": 1000}
    return Hot("ok", "", "ethanol", kelvin, seed, time, temperature, np.array(swing), **(usual | facts))


def model(*ones):
    return ModelHeat("made", "id", {f"{k}": one for k, one in enumerate(ones)}, 0, 1.0)


def test_a_plan_has_every_structure_temperature_and_seed_and_one_relaxation():
    data, settings = load_structures("small", "dev"), Settings(size="dev").settled()
    tasks = list(plan(data, settings))
    assert len(tasks) == 3 + 3 * 3 * 2
    assert len({task.key("id") for task in tasks}) == len(tasks)
    job = tasks[-1].job
    assert (job.settle, job.steps, job.timestep, job.friction) == (200, 1000, 1.0, 5.0)
    streams = {task.frame.stream for task in tasks[3:]}
    assert len(streams) == 18
    assert len(list(each_of(data, settings))) == 18


def test_the_published_amount_is_the_standard_size():
    settings = Settings(size="standard").settled()
    assert (settings.settle, settings.seeds, settings.friction) == (10.0, 10, 1.0)
    assert settings.temperatures == (2000.0, 3000.0, 5000.0)
    assert Settings(size="dev", settle=0.0).settled().settle == 0
    setup = load_structures("Cu", "dev").setups[0]
    assert task_of(setup, 2000.0, 0, Settings(size="dev", settle=0.0).settled()).job.settle == 0


def test_who_survives_and_who_does_not(finished):
    smooth, broken = finished.models.values()
    assert smooth.coverage == broken.coverage == (4, 4)
    assert smooth.survived(2000.0) == Share(2, 2)
    assert smooth.spiked(2000.0).k == 0
    assert smooth.warmth(2000.0) == pytest.approx(2000, rel=0.25)
    assert broken.survived(2000.0).k == 0
    assert broken.reasons(2000.0)
    assert finished.verdict("lj").answer("survives") == "yes"
    said = finished.verdict("hole")
    assert said.answer("survives") == "no"
    assert "2 of 2 trajectories at 2000 K do not survive" in said.in_words()
    assert not said.broken  # that is for those who look at the surface itself to say


def test_json_has_jumps_intervals_and_survival(finished):
    found = json.loads(json.dumps(finished.as_json(), allow_nan=False))
    for name, survivors in (("lj", 2), ("hole", 0)):
        one = found["models"][name]
        assert one["mean"]["max_jump_2000K"] > 0
        assert one["temperatures"]["2000"]["survived"]["count"] == survivors
        assert len(one["temperatures"]["4000"]["survived"]["interval95"]) == 2
    assert found["models"]["hole"]["trajectories"]["Cu, 2000 K, seed 0"]["left"]["kind"]


def test_a_run_is_read_again_and_continued_without_work(finished):
    assert load_run(finished.folder).as_json()["models"] == finished.as_json()["models"]
    counted = []

    class Watch:
        def __enter__(self):
            return lambda tally: counted.append(tally.done)

        def __exit__(self, *_):
            return None

    way = Way(watch=lambda name: Watch())
    run(Heat(), [PAIRS["lj"], HOLE], "Cu", settings=QUICK, out=finished.folder, way=way)
    assert not any(counted)


def test_the_page_shows_survival_temperature_and_jumps(finished):
    text = report_text([heat_page([finished])])
    for part in ("heat0", "heat0-survival", "heat0-temperature", "heat0-jumps"):
        assert f'id="{part}"' in text
    assert "2 of 2 survive 2000 K" in text
    assert "0 of 2 survive 2000 K" in text
    assert str(heat_page([finished])) == str(heat_page([load_run(finished.folder)]))
    _, survival = heat_page([finished]).figures[0]
    assert [axis.title.text for axis in survival.select_yaxes()] == [
        "going on at 2000 K, %",
        "going on at 4000 K, %",
    ]


def test_the_tables_fit_a_terminal(finished):
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(Heat().tables(finished))
    text = console.export_text()
    assert "0/2" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_does_not_count_is_named(tmp_path):
    path = tmp_path / "mine.xyz"
    argon = Atoms("Ar4", [[0, 0, 0], [2.1, 0, 0], [1.05, 1.82, 0], [1.05, 0.6, 1.7]])
    write(path, [argon, Atoms("BkAr", [[0, 0, 0], [2.4, 0, 0]])])
    quick = QUICK | {"temperatures": (300,), "seeds": 1, "time": 0.05}
    found = run(Heat(), [PAIRS["lj"]], path, settings=quick, out=tmp_path / "run")
    assert found.models["lj"].coverage == (1, 2)
    assert "1 of 2 trajectories have no result" in found.verdict("lj").in_words()
    assert "no parameters for Bk" in report_text([heat_page([found])])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperatures": ()}, "at least one temperature"),
        ({"temperatures": (0,)}, "temperatures"),
        ({"seeds": 0}, "seeds"),
        ({"friction": 0}, "friction"),
        ({"settle": -1}, "settle"),
    ],
)
def test_settings_without_sense_are_refused(settings, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        run(Heat(), [PAIRS["lj"]], "ethanol", settings=settings, out=tmp_path)


def test_temperatures_are_typed_with_commas_between():
    words = ["run", "heat", "--model", "lj", "--temperatures", "3000,2000"]
    _, bound, _ = build([]).parse_args(words, exit_on_error=False, print_error=False)
    asked = given(bound.kwargs["options"], Settings)
    assert Settings(**asked).temperatures == (2000.0, 3000.0)
    with pytest.raises(ValueError, match="valid number"):
        Settings(temperatures="2000,warm")


def test_a_spike_is_what_no_bath_does():
    assert not hot().spiked
    assert hot((500.0, 9000.0)).spiked
    chance = 1e-6 / 1000
    sample = 2000 * np.random.default_rng(0).chisquare(27, 100_000) / 27
    assert sample.max() < hot().limit
    assert np.mean(sample > hottest(np.array([2000.0]), np.array([27]), 1e-2)) == pytest.approx(
        1e-2, rel=0.15
    )
    assert hot().limit == pytest.approx(hottest(np.array([2000.0]), np.array([27]), chance)[0])


def test_a_spike_alone_is_a_no_and_a_broken_bond_is_none():
    (found,) = answers(model(hot((500.0, 9000.0)), hot()))
    assert found.answer == "no"
    assert "1 of 2 trajectories at 2000 K do not survive (spike)" in found.fault
    (found,) = answers(model(hot(broke="the bond of C0 and C1", broke_at=0.2), hot()))
    assert found.answer == "yes"


def test_only_the_coolest_temperature_is_judged():
    exploded = hot(kelvin=5000.0, left="ran away", kind="exploded", left_at=0.7)
    (found,) = answers(model(hot(), exploded))
    assert found.answer == "yes"
    assert "0 of 1 reach the end at 5000 K" in [piece.what for piece in found.evidence]


def test_what_never_became_hot_says_nothing():
    (found,) = answers(model(hot(temperature=900.0), hot(temperature=1000.0)))
    assert found.answer == "unknown"
    assert "heated to no more than 950 K" in found.evidence[0].what
    empty = np.zeros(0)
    (found,) = answers(model(Hot("failed", "why", "ethanol", 2000.0, 0, empty, empty, empty)))
    assert found.answer == "unknown"
    assert found.lacking


def test_one_that_left_before_the_heat_did_not_survive():
    early = hot((50.0, 8000.0), left="ran away", kind="exploded", left_at=-0.1)
    assert early.jump == 8000.0
    (found,) = answers(model(early))
    assert found.answer == "no"


def test_survival_falls_when_someone_leaves():
    ones = [hot()] * 4
    x, y = surviving(ones, [0.5, -0.1, math.inf, 0.25], 1.0)
    assert x.tolist() == [0.0, 0.0, 0.25, 0.5, 1.0]
    assert y.tolist() == [1.0, 0.75, 0.5, 0.25, 0.25]


def test_parts_have_the_intervals_of_wilson():
    low, high = Share(9, 10).interval
    assert (low, high) == (pytest.approx(0.5958, abs=2e-4), pytest.approx(0.9821, abs=2e-4))
    assert Share(10, 10).interval[1] == 1.0
    assert math.isnan(Share(0, 0).part)
