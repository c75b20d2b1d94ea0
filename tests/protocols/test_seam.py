"""The seam of protocols and jobs: a toy of each, defined here, works with every command."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field
from rich.text import Text

from sfumato.cli import main
from sfumato.config import Settings
from sfumato.execution.records import ok
from sfumato.io import write_scan_set
from sfumato.jobs.evaluate import Evaluate
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Job, Task
from sfumato.jobs.perform import Way
from sfumato.models.pair import PAIRS
from sfumato.potentials.potential import Abilities, Potential
from sfumato.protocols.bsct.tables import model_table
from sfumato.protocols.protocol import Protocol, Result
from sfumato.protocols.run import load_run, plan, run
from sfumato.protocols.table import PROTOCOLS, find_protocol
from sfumato.report.html import Page
from sfumato.systems import Batch, Prediction, System, digest
from tests import ROOT, made_runs

# --- one of each


@dataclass(frozen=True)
class Largest(Job):
    """The largest force component, in units of one's own choice."""

    unit: float = 1.0
    name: ClassVar[str] = "largest"
    version: ClassVar[int] = 1

    def work(self, potential, chunk):
        found = potential.predict(Batch.of([item.payload.system() for item in chunk])).require()
        parts = np.split(np.abs(found.forces), np.cumsum([len(i.payload.numbers) for i in chunk])[:-1])
        return [
            ok(item.key, seconds=0.0, value=float(part.max() / self.unit))
            for item, part in zip(chunk, parts, strict=True)
        ]


class ToySettings(Settings):
    """What decides the number.

    Args:
        count: dimers to look at.
        unit: eV/Å that the number is given in.
    """

    count: int = Field(default=3, ge=1)
    unit: float = Field(default=1.0, gt=0)


class Dimers:
    name, identity, level = "dimers", digest(["dimers"]), "none"


@dataclass(frozen=True)
class ToyResult(Result):
    values: tuple[float, ...]
    total: int

    @property
    def coverage(self):
        return len(self.values), self.total

    def as_json(self):
        return {"largest": max(self.values, default=None), "coverage": list(self.coverage)}


class Toy(Protocol):
    """The largest force in a few dimers."""

    name = "toy"
    version = 1
    summary = "The largest force in a few dimers."
    settings = ToySettings
    data = "dimers"

    def read(self, data, settings):
        return Dimers()

    def plan(self, data, settings):
        for k in range(settings.count):
            system = System([6, 6], [[0, 0, 0], [0, 0, 1.2 + 0.1 * k]])
            yield Task(Largest(settings.unit), Frame.of(system))

    def analyse(self, data, records, name, identity, settings):
        tasks = list(self.plan(data, settings))
        rows = [records.get(task.key(identity)) for task in tasks]
        values = tuple(row["value"] for row in rows if row is not None and row["status"] == "ok")
        return ToyResult(values, len(tasks))

    def tables(self, run):
        return Text("\n".join(f"{name}: {max(m.values):.3f}" for name, m in run.models.items()))

    def page(self, runs):
        words = "".join(f"<p>{name}</p>" for run in runs for name in run.models)
        return Page("Toy", "the largest force", [words])


class Counting(Potential):
    """Lennard-Jones that counts the structures it is asked about."""

    name, identity = "counting", "counting"
    abilities = Abilities(batch=4)

    def __init__(self):
        self.asked = 0

    def compute(self, batch):
        self.asked += len(batch)
        return PAIRS["lj"].compute(batch)


@pytest.fixture
def toy(monkeypatch, tmp_path):
    monkeypatch.setitem(PROTOCOLS, "toy", Toy())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sfumato(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return ended.value.code


# --- the command line


def test_a_toy_protocol_has_every_command(toy, capsys):
    assert sfumato("plan", "toy", "--model", "lj", "--count", 2) == 0
    assert "lj" in capsys.readouterr().out
    assert not (toy / "runs").exists()
    assert sfumato("run", "toy", "--model", "lj", "--model", "morse", "--count", 2, "--json", "r.json") == 0
    assert "lj: " in capsys.readouterr().out
    written = json.loads((toy / "r.json").read_text())
    expected = PAIRS["lj"].predict(Batch.of([System([6, 6], [[0, 0, 0], [0, 0, 1.2]])])).forces
    assert written["models"]["lj"]["largest"] == np.abs(expected).max()
    assert written["settings"] == {"count": 2, "unit": 1.0, "protocol": "toy", "version": 1}
    assert sfumato("report", "runs") == 0
    assert "lj: " in capsys.readouterr().out
    page = (toy / "runs" / "report.html").read_text()
    assert "<p>lj</p><p>morse</p>" in page
    assert sfumato("compare", "runs/toy-dimers") == 2
    assert "no paired comparison" in capsys.readouterr().err


def test_bad_settings_of_a_toy_protocol_are_named(toy, capsys):
    assert sfumato("run", "toy", "--model", "lj", "--count", 0) == 2
    assert "count" in capsys.readouterr().err
    (toy / "s.yaml").write_text("counts: 3\n")
    assert sfumato("run", "toy", "--model", "lj", "--config", "s.yaml") == 2
    assert "did you mean 'count'" in capsys.readouterr().err


def test_a_protocol_in_a_file_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.protocols.test_seam import Toy\n"
    )
    command = [sys.executable, "-c", "from sfumato.cli import main; main()", "run", "mine.py:Toy"]
    done = subprocess.run(
        [*command, "--model", "lj", "--count", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "lj: " in done.stdout
    assert (tmp_path / "runs" / "toy-dimers" / "run.json").exists()


def test_an_unknown_protocol_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'bsct'"):
        find_protocol("bsxt")
    with pytest.raises(ValueError, match="expected a Protocol, got a"):
        find_protocol("platform:python_version")


# --- records that protocols share


class Again(Toy):
    """Another protocol that needs the same job on the same dimers."""

    name = "again"
    summary = "The same."


def test_two_protocols_share_what_one_has_computed(tmp_path):
    model = Counting()
    first = run(Toy(), [model], out=tmp_path / "toy")
    assert model.asked == 3
    second = run(Again(), [model], out=tmp_path / "again")
    assert model.asked == 3
    assert second.models["counting"] == first.models["counting"]
    more = run(Again(), [model], out=tmp_path / "again", settings={"count": 5})
    assert model.asked == 5
    assert more.models["counting"].coverage == (5, 5)
    elsewhere = tmp_path / "other" / "again"
    run(Again(), [model], out=elsewhere)  # no run beside it to take from
    assert model.asked == 8


def test_settings_of_a_job_are_part_of_its_key(tmp_path):
    model = Counting()
    plain = run(Toy(), [model], out=tmp_path / "toy")
    halved = run(Toy(), [model], out=tmp_path / "toy", settings={"unit": 2.0})
    assert model.asked == 6
    assert halved.models["counting"].values == tuple(v / 2 for v in plain.models["counting"].values)


def test_the_key_of_a_job_does_not_know_who_asked():
    """By hand: SHA-256 of job/version/identity/charge/multiplicity, numbers, positions."""
    import hashlib

    frame = Frame.of(System([6, 8], [[0, 0, 0], [0, 0, 1.1]]))
    sha = hashlib.sha256(b"evaluate/1/abc/0/1")
    sha.update(np.array([6, 8], dtype="<i8").tobytes() + frame.positions.astype("<f8").tobytes())
    assert Task(Evaluate(), frame).key("abc") == sha.hexdigest()
    assert Task(Largest(), frame).key("abc") != Task(Largest(2.0), frame).key("abc")


# --- each model's own settings


def test_a_second_call_with_other_settings_leaves_the_first_model_as_it_was(tmp_path):
    scans = [made_runs.diatomic(f"C-O/{k}", 1.4 + 0.02 * k) for k in range(3)]
    data = tmp_path / "scans.h5"
    write_scan_set(data, made_runs.ScanSet("scans", "Morse", "CC0-1.0", "made by hand", scans))
    first = run("bsct", ["lj"], data, out=tmp_path / "run")
    run("bsct", ["morse"], data, out=tmp_path / "run", settings={"refine": 2})
    both = load_run(tmp_path / "run")
    assert both.complete
    assert {name: settings.refine for name, settings in both.settings.items()} == {"lj": 1, "morse": 2}
    written = both.as_json()
    assert written["models"]["lj"] == first.as_json()["models"]["lj"]
    assert written["models"]["morse"]["settings"]["refine"] == 2
    assert "refine" not in written["settings"]
    assert "work_energy_residual_full" in written["models"]["lj"]["mean"]
    assert "work_energy_residual[refine=2]_full" in written["models"]["morse"]["mean"]
    text = made_runs.shown(model_table(both))
    assert "3/3" in made_runs.row_of(text, "lj")
    assert "3/3" in made_runs.row_of(text, "morse")
    assert "morse: refine=2" in " ".join(text.split())
    page = both.protocol.page([both])
    assert "refine" in "".join(page.body)


def test_a_plan_counts_what_is_done(tmp_path):
    (cost,) = plan(Toy(), ["lj"], out=tmp_path / "r")
    assert (cost.items, cost.done) == (3, 0)
    run(Toy(), ["lj"], out=tmp_path / "r", settings={"count": 2})
    (cost,) = plan(Toy(), ["lj"], out=tmp_path / "r")
    assert (cost.items, cost.done) == (3, 2)


def test_a_fresh_run_sets_the_old_records_aside(tmp_path):
    class Changed(Counting):
        identity = "changed"

    run(Toy(), [Counting()], out=tmp_path / "r")
    with pytest.raises(ValueError, match="--fresh starts anew"):
        run(Toy(), [Changed()], out=tmp_path / "r")
    anew = Changed()
    run(Toy(), [anew], out=tmp_path / "r", way=Way(fresh=True))
    assert anew.asked == 3
    assert load_run(tmp_path / "r", Toy()).models["counting"].coverage == (3, 3)


# --- one failure among many


class Fragile(Potential):
    """A model that cannot stand gold."""

    name, identity = "fragile", "fragile"
    abilities = Abilities(batch=64)

    def compute(self, batch):
        if (batch.numbers == 79).any():
            raise MemoryError("too heavy")
        return Prediction(np.zeros(len(batch)), np.zeros((len(batch.numbers), 3)))


def test_one_structure_that_fails_costs_a_job_only_its_own_record():
    from sfumato.execution.runner import Item

    systems = [System([z, 6], [[0, 0, 0], [0, 0, 2.0]]) for z in (6, 79, 8)]
    items = tuple(Item(str(k), Frame.of(system)) for k, system in enumerate(systems))
    records = Evaluate().work(Fragile(), items)
    assert [record["status"] for record in records] == ["ok", "failed", "ok"]
    assert records[1]["reason"] == "out of memory: too heavy"
