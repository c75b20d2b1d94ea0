"""Errors on labeled structures: every number by hand, and runs that resume and fail as they should."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfumato.execution.records import RecordError, encode, failed, ok
from sfumato.frames import Category, FrameSet
from sfumato.graph import GraphSettings
from sfumato.io import write_frame_set, write_systems
from sfumato.jobs.perform import Way
from sfumato.metrics.errors import by_magnitude, energy_errors, force_errors, pooled
from sfumato.models.checkpoint import Facts, save
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.pair import PAIRS
from sfumato.potentials.potential import Potential
from sfumato.protocols.errors import analysis as protocol
from sfumato.protocols.errors import seen
from sfumato.protocols.errors.data import read_frames
from sfumato.protocols.errors.page import errors_page
from sfumato.protocols.errors.settings import Settings
from sfumato.protocols.errors.tables import METRICS, error_table
from sfumato.protocols.run import load_run
from sfumato.protocols.run import run as run_protocol
from sfumato.systems import Batch, Prediction, System
from tests import made_runs
from tests import made_training as made

NONE = Settings(turned=0)
ALL = Settings(turned=0, split="all")


def run_eval(models, data, *, out, settings=NONE, **changes):
    """Measure errors into a folder."""
    return run_protocol("errors", models, data, out=out, settings=settings.model_copy(update=changes))


def value(table, name):
    above, below = table[name]
    return above.sum() / below.sum()


def test_energy_errors_by_hand():
    """Two frames of one composition, off by 1 and 3 eV, one of another, off by −4 eV, one not predicted."""
    found = energy_errors([1.0, 3.0, -4.0, np.nan], [2, 2, 4, 4], [0, 0, 1, 1])
    assert value(found, "total_energy_mae") == pytest.approx((1 + 3 + 4) / 3)
    assert value(found, "total_energy_rmse") == pytest.approx((1 + 9 + 16) / 3)  # the root comes with pooling
    assert value(found, "energy_mae") == pytest.approx((0.5 + 1.5 + 1.0) / 3)
    assert value(found, "energy_rmse") == pytest.approx((0.25 + 2.25 + 1.0) / 3)
    assert value(found, "relative_energy_mae") == pytest.approx(0.5)  # ±1 eV from their mean, over two atoms
    assert found["relative_energy_mae"][1].tolist() == [1, 1, 0, 0]


def test_force_errors_by_hand():
    reference = [[3.0, 0, 0], [0, 4.0, 0], [0, 0, 0.005], [np.nan] * 3]
    predicted = [[3.0, 4.0, 0], [0, 0, 0], [0, 0, -0.005], [1.0, 1, 1]]
    found = force_errors(predicted, reference, np.array([0, 0, 1, 1]), 2)
    assert found["force_mae"][0] == pytest.approx([4 + 4, 0.01])
    assert found["force_rmse"][0] == pytest.approx([16 + 16, 1e-4])
    assert found["force_mae"][1].tolist() == [6, 3]
    assert found["force_cosine"][0] == pytest.approx(
        [3 / 5 + 0, 0]
    )  # nothing predicted counts as a right angle
    assert found["force_cosine"][1].tolist() == [2, 0]  # the third force is too small to have a direction


def test_errors_by_the_size_of_the_force_by_hand():
    reference = [[0.05, 0, 0], [0, 0.15, 0], [0.15, 0, 0], [30.0, 0, 0], [np.nan] * 3]
    predicted = [[0.05, 0.3, 0], [0, 0.15, 0], [0.15, 0, 0.6], [0, 0, 0], [0, 0, 0]]
    found = by_magnitude(predicted, reference)
    expected = [(0.0, 0.1, 0.1, 1), (0.1, 0.2, 0.1, 2), (10.0, np.inf, 10.0, 1)]
    assert found == [pytest.approx(row) for row in expected]


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_another_zero_of_energy_does_not_count_among_relative_energies(off, first, second):
    moved = np.array(off) + np.array([first, first, second, second])
    tables = [energy_errors(x, [3, 3, 5, 5], [0, 0, 1, 1]) for x in (off, moved)]
    one, two = (value(table, "relative_energy_mae") for table in tables)
    assert two == pytest.approx(one, abs=1e-9)


@given(st.integers(0, 1000))
def test_force_errors_do_not_depend_on_orientation(seed):
    rng = np.random.default_rng(seed)
    r = Rotation.from_quat(rng.standard_normal(4)).as_matrix()
    f, g = rng.standard_normal((2, 6, 3))
    one, two = (force_errors(f @ m, g @ m, np.zeros(6, dtype=int), 1) for m in (np.eye(3), r))
    for name in ("force_rmse", "force_cosine"):
        assert value(two, name) == pytest.approx(value(one, name), abs=1e-12)


def test_pooling_by_hand():
    table = {
        "a_mae": (np.array([1.0, 5, 0, 2]), np.array([1.0, 3, 0, 2])),
        "a_rmse": (np.full(4, 9.0), np.ones(4)),
    }
    found = pooled(table, np.array([0, 1, 2, 3]), 0)
    a = found["a_mae"]
    assert a.mean == pytest.approx(8 / 6)
    assert (a.n, a.total) == (3, 4)
    assert a.low < a.mean < a.high
    rmse = found["a_rmse"]
    assert (rmse.mean, rmse.low, rmse.high) == pytest.approx((3, 3, 3))
    alone = pooled(table, np.zeros(4, dtype=int), 0)["a_mae"]
    assert alone.mean == a.mean
    assert np.isnan([alone.low, alone.high]).all()


def test_copies_of_a_molecule_do_not_narrow_the_interval():
    errors = np.random.default_rng(0).uniform(0, 1, 20)
    once = pooled({"x": (errors, np.ones(20))}, np.arange(20), 0)["x"]
    copied = pooled({"x": (np.tile(errors, 9), np.ones(180))}, np.tile(np.arange(20), 9), 0)["x"]
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert once.high - once.low == pytest.approx(2 * 1.96 * errors.std() / 20**0.5, rel=0.1)


def records_of(frames, energy, forces, settings=ALL):
    """Records of a model that says the reference plus what is given."""
    keys = [task.key("id") for task in protocol.plan(frames, settings)]
    parts = np.split(frames.labels.forces + forces, frames.batch.offsets[1:-1])
    rows = zip(keys, frames.labels.energy + energy, parts, strict=True)
    return {key: ok(key, seconds=0, energy=float(e), forces=encode(f)) for key, e, f in rows}


def test_analysis_of_records_by_hand():
    frames = made.frame_set(made.molecules(5), validation=2, hidden=[3])
    records = records_of(frames, [0.1, -0.2, 0.3, 0.4, 0.5], [0.0, 0.3, 0.0])
    keys = [task.key("id") for task in protocol.plan(frames, ALL)]
    records[keys[1]] = failed(keys[1], "no parameters for Xe")
    del records[keys[4]]
    found = protocol.analyse(frames, records, "m", "id", ALL)
    numbers, atoms = found.subsets["all"], np.diff(frames.batch.offsets)
    assert found.coverage == (3, 5)
    assert found.failed == ((1, "no parameters for Xe"),)
    assert found.missing == 1
    assert numbers["energy_mae"].mean == pytest.approx(np.mean([0.1, 0.3, 0.4] / atoms[[0, 2, 3]]))
    assert numbers["total_energy_mae"].mean == pytest.approx(0.8 / 3)
    assert numbers["total_energy_rmse"].mean == pytest.approx(((0.01 + 0.09 + 0.16) / 3) ** 0.5)
    assert (numbers["energy_mae"].n, numbers["energy_mae"].total) == (3, 5)
    assert numbers["force_mae"].mean == pytest.approx(0.1)
    assert numbers["force_rmse"].mean == pytest.approx((0.09 / 3) ** 0.5)
    assert numbers["force_mae"].n == 2  # the labels of one have no forces
    assert numbers["rotation_energy"].n == 0
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": "1.0"}, "'energy' is not a finite number"),
        ({"energy": True}, "'energy' is not a finite number"),
        ({"forces": encode(np.zeros((99, 3)))}, r"'forces' has the shape \(99, 3\)"),
        ({"forces": None}, "'forces' is not an array"),
    ],
)
def test_records_of_another_form_are_refused(changes, message):
    frames = made.frame_set(made.molecules(5), validation=2)
    records = records_of(frames, 0.0, 0.0)
    key = next(iter(records))
    records[key] = records[key] | changes
    with pytest.raises(RecordError, match=message):
        protocol.analyse(frames, records, "m", "id", ALL)


@dataclass(frozen=True)
class Field(Potential):
    """Atoms in a field: E = −Σ f·x, which depends on orientation as no model should."""

    name: str = "field"
    identity: str = "field"
    pull: tuple = (0.3, 0.0, -0.4)

    def compute(self, batch):
        energy = -np.bincount(batch.index, batch.positions @ self.pull, len(batch))
        return Prediction(energy, np.tile(self.pull, (len(batch.numbers), 1)))


@pytest.mark.parametrize("kind", [made.molecules, made.crystals])
def test_the_rotational_error_by_hand(tmp_path, kind):
    frames = made.frame_set(kind(7))
    settings = Settings(turned=3, seed=5)
    found = run_eval([Field()], frames, out=tmp_path / "r", settings=settings).models["field"].subsets["all"]
    chosen = protocol.turned(frames.take(frames.split.where("val")), settings)
    assert [turn.row for turn in chosen] == [0, 2, 5]
    held = list(frames.take(frames.split.where("val")).batch)
    pull, energy, force = np.array(Field().pull), [], []
    for turn in chosen:
        system, r = held[turn.row], turn.rotation
        np.testing.assert_allclose(turn.frame.positions, (r @ system.positions.T).T, atol=1e-12)
        np.testing.assert_allclose(turn.frame.cell, (r @ system.cell.T).T, atol=1e-12)
        energy.append(abs(((turn.frame.positions - system.positions) @ pull).sum()) / len(system))
        force += [np.abs(r.T @ pull - pull).mean()] * len(system)
    assert found["rotation_energy"].mean == pytest.approx(np.mean(energy))
    assert found["rotation_force"].mean == pytest.approx(np.mean(force))
    assert (found["rotation_force"].n, found["rotation_force"].total) == (3, 6)


def test_the_method_that_made_the_labels_has_no_error_and_another_its_own(tmp_path):
    frames = made.frame_set(made.molecules(9))
    run = run_eval(["morse", "lj"], frames, out=tmp_path / "run", settings=NONE)
    assert run.complete
    held = frames.take(frames.split.where("val"))
    assert run.models["morse"].frames.identity == held.identity
    numbers = run.models["morse"].subsets["all"]
    assert numbers["energy_mae"].mean < 1e-12
    assert numbers["force_mae"].mean < 1e-6  # labels are float32
    assert numbers["force_cosine"].mean == pytest.approx(1)
    said = PAIRS["lj"].predict(held.batch)
    other = run.models["lj"].subsets["all"]
    assert other["total_energy_mae"].mean == pytest.approx(np.abs(said.energy - held.labels.energy).mean())
    assert other["force_mae"].mean == pytest.approx(np.abs(said.forces - held.labels.forces).mean())
    assert other["rotation_force"].n == 0


def test_a_run_goes_on_from_its_records_and_is_read_again(tmp_path):
    path = made.written(tmp_path / "set.h5")
    go = {"out": tmp_path / "run", "settings": Settings(turned=2)}
    first = run_eval(["lj"], path, **go)
    before = (tmp_path / "run" / "records" / "lj.evaluate.jsonl").read_text()
    assert before.count("\n") == 1 + 6 + 2
    cut = before[: before.rindex("\n", 0, -1) + 1 + 40]  # as if it had died within the last line
    (tmp_path / "run" / "records" / "lj.evaluate.jsonl").write_text(cut)
    counts = []
    again = run_protocol("errors", ["lj"], path, **go, way=Way(watch=lambda name: Watched(counts)))
    assert counts[-1] == (7, 1)
    for run in (again, load_run(tmp_path / "run")):
        assert run.as_json() == first.as_json()
    other = made.written(tmp_path / "other.h5", made.molecules(30, seed=1))
    with pytest.raises(ValueError, match="another data"):
        run_eval(["lj"], other, out=tmp_path / "run")
    made.written(path, made.molecules(30, seed=1))
    with pytest.raises(ValueError, match="has changed since"):
        load_run(tmp_path / "run")


def trained(path, frames, split="train", validation="val"):
    """Save a model that says it was trained on frames."""
    config = MinDScAIPConfig(**made.MODEL | {"elements": (6, 7, 8), "graph": GraphSettings(k=4, cutoff=4.0)})
    notes = {"settings": {"data": {"train": split, "validation": validation}}}
    facts = Facts(dataset=frames.name, dataset_sha256=frames.identity, level=frames.level, notes=notes)
    save(path, MinDScAIP(config, torch.Generator().manual_seed(0)), facts)
    return str(path)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("train", "was trained on these frames"),
        ("val", "was chosen by its errors on these frames"),
        (None, "was chosen by its errors on these frames"),
        ("all", "was trained on some of these frames"),
        ("test", ""),
    ],
)
def test_a_split_is_named_and_what_a_model_had_of_it_in_training_is_said(tmp_path, split, said):
    frames = made.frame_set(made.molecules(6), validation=4)
    if split == "test":
        frames = replace(frames, split=Category(("train", "val", "test"), np.array([0, 0, 1, 1, 2, 2])))
    write_frame_set(tmp_path / "set.h5", frames)
    model = trained(tmp_path / "m.safetensors", frames)
    run_eval(["lj", f"mine={model}"], tmp_path / "set.h5", out=tmp_path / "r", split=split)
    run, named = load_run(tmp_path / "r"), split or "val"
    assert run.models["mine"].split == named
    manifest = json.loads((tmp_path / "r" / "run.json").read_text())
    assert manifest["models"]["mine"]["settings"]["split"] == named
    assert run.as_json()["settings"]["split"] == named
    assert run.as_json()["models"]["mine"]["seen"] == (said or None)
    assert run.as_json()["models"]["lj"]["seen"] is None
    table, page = made_runs.shown(error_table(run)), str(errors_page([run]))
    assert f"split {named}" in table.splitlines()[0]
    assert f"<h1>Errors on made, split {named}</h1>" in page
    for text in (" ".join(table.split()), page):
        assert (f"mine {said} (split {named})" in text) == bool(said)
        assert "lj was" not in text


def test_a_model_of_other_data_has_seen_none(tmp_path):
    path, others = made.written(tmp_path / "set.h5"), made.frame_set(made.molecules(8, seed=1))
    model = trained(tmp_path / "m.safetensors", others)
    run = run_eval([model], path, out=tmp_path / "r", split="train", limit_per_subset=2)
    assert seen(run) == {}


def test_a_model_that_only_bears_the_name_of_a_folder_was_not_trained_there(tmp_path, monkeypatch):
    frames = made.frame_set(made.molecules(6), validation=4)
    for folder in (tmp_path, tmp_path / "lj"):
        folder.mkdir(exist_ok=True)
        trained(folder / "model.safetensors", frames)
    monkeypatch.chdir(tmp_path)
    assert seen(run_eval(["lj", Field()], frames, out=tmp_path / "r")) == {}
    assert seen(run_eval([f"run={tmp_path}"], frames, out=tmp_path / "s")).keys() == {"run"}


@pytest.mark.parametrize("limit", [0, -2])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(ValueError, match=rf"limit_per_subset = {limit}: .* greater than or equal to 1"):
        run_protocol("errors", ["lj"], "organic-mini", settings={"limit_per_subset": limit})


class Watched:
    def __init__(self, counts):
        self.counts = counts

    def __enter__(self):
        return lambda tally: self.counts.append((tally.skipped, tally.done))

    def __exit__(self, *_):
        pass


def test_selection_by_split_and_subset():
    frames = made.frame_set(made.molecules(10), validation=4)
    subsets = Category(("a", "b"), np.array([0, 1] * 5))
    frames = replace(frames, subset=subsets)
    assert protocol.chosen_split(frames, None) == "val"
    assert protocol.chosen_split(frames.take(range(6)), None) == "all"
    assert protocol.chosen_split(frames, "train") == "train"
    assert protocol.select(frames, "val", None).tolist() == [6, 7, 8, 9]
    assert protocol.select(frames, "train", 1).tolist() == [0, 1]
    assert len(protocol.select(frames, "all", None)) == 10
    with pytest.raises(ValueError, match="no frame is 'test'"):
        protocol.select(frames, "test", None)
    energy = np.where(subsets.codes == 0, 0.5, 1.5)
    records = records_of(frames, energy, 0.0)
    found = protocol.analyse(frames, records, "m", "id", ALL).subsets
    assert [*found] == ["all", "a", "b"]
    assert [found[name]["total_energy_mae"].mean for name in found] == pytest.approx([1.0, 0.5, 1.5])


def test_structures_with_declared_labels(tmp_path):
    systems = made.molecules(4)
    said = PAIRS["morse"].predict(Batch.of(systems))
    write_systems(tmp_path / "a.extxyz", systems, Prediction(said.energy, said.forces))
    lines = ["layout: extxyz", "name: mine", "level: Morse", "licence: CC0-1.0", "molecule: frame"]
    lines += ["keys: {energy: energy, forces: forces}", "absent: [stress]"]
    lines += ["units: {energy: eV, length: Å, forces: eV/Å}"]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    declared = {"turned": 0, "source": tmp_path / "a.yaml"}
    run = run_protocol("errors", ["morse"], tmp_path / "a.extxyz", out=tmp_path / "r", settings=declared)
    assert len(run.models["morse"].frames) == 4
    assert run.models["morse"].subsets["all"]["force_mae"].mean < 1e-6
    assert load_run(tmp_path / "r").as_json() == run.as_json()
    with pytest.raises(ValueError, match=r"--source FILE\.yaml"):
        read_frames(tmp_path / "a.extxyz")
    (tmp_path / "a.yaml").write_text("\n".join(lines).replace("forces: forces", "forces: force"))
    with pytest.raises(ValueError, match="there is no 'force'"):
        run_protocol("errors", ["morse"], tmp_path / "a.extxyz", settings=declared)
    with pytest.raises(ValueError, match="did you mean 'organic-mini'"):
        read_frames("organic-mimi")


def test_scans_are_frames_too():
    frames = read_frames("bsct-mini")
    assert len(frames) == 900
    assert frames.subset.counts()["C-O"] == 100
    assert frames.split.names == ("test",)


def shown_run(tmp_path):
    frames = made.frame_set(made.molecules(12))
    subset = Category(("minimum", made_runs.HOSTILE), np.array([0, 1] * 6))
    frames = replace(frames, subset=subset, name=made_runs.HOSTILE)
    return run_eval(
        ["lj", f"{'long-' * 5}name=morse", Lacking()], frames, out=tmp_path / "run", settings=Settings()
    )


@dataclass(frozen=True)
class Lacking(Potential):
    """Fails for structures of an even number of atoms."""

    name: str = "lacking"
    identity: str = "lacking"

    def compute(self, batch):
        if len(batch.numbers) % 2 == 0:
            raise ValueError("no pairs")
        return PAIRS["morse"].compute(batch)


def test_tables_fit_and_say_what_does_not_count(tmp_path):
    run = shown_run(tmp_path)
    text = made_runs.shown(error_table(run))
    assert max(map(len, text.splitlines())) <= 80
    assert not run.complete
    assert "no pairs" in text
    one = made_runs.shown(error_table(replace(run, models={"lj": run.models["lj"]})))
    assert all(shown.title in one for shown in METRICS)
    numbers = run.models["lj"].subsets["all"]
    assert f"{1e3 * numbers['force_mae'].mean:.0f} [" in one


def test_eight_models_fit_on_one_line_each(tmp_path):
    run = run_eval(["lj"], made.frame_set(made.molecules(12)), out=tmp_path / "run", settings=Settings())
    names = [f"lj-neighbor-c{k:02}" for k in range(8)]
    many = replace(
        run,
        models={name: replace(run.models["lj"], name=name) for name in names},
        settings=dict.fromkeys(names, run.settings["lj"]),
        manifest=run.manifest | {"models": dict.fromkeys(names, run.manifest["models"]["lj"])},
    )
    lines = made_runs.shown(error_table(many)).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.count("[") == line.count("]") for line in lines)
    rows = math.ceil(len(METRICS) / 3)
    assert all(sum(line.startswith(f"{name} ") for line in lines) == rows for name in names)
    body = " ".join(" ".join(lines).split())
    assert all(shown.title in body for shown in METRICS)


def test_the_page_asks_for_nothing_and_escapes_names(tmp_path):
    run = shown_run(tmp_path)
    page = str(errors_page([run]))
    assert made_runs.HOSTILE not in page
    body = page[page.index("<body>") :]
    assert "<img" not in body
    assert all(shown.title in body for shown in METRICS)
    assert page == str(errors_page([run]))


def test_a_system_alone_and_nothing_predicted(tmp_path):
    frames = made.frame_set([System([6, 6], [[0, 0, 0], [0, 0, 1.5]])] * 2, validation=1)
    frames = replace(frames, split=Category(("test",), np.zeros(2, dtype=int)))
    run = run_eval([Broken()], frames, out=tmp_path / "r")
    assert run.models["broken"].coverage == (0, 2)
    assert "n/a" in made_runs.shown(error_table(run))
    assert "<figure" not in str(errors_page([run]))


@dataclass(frozen=True)
class Broken(Potential):
    name: str = "broken"
    identity: str = "broken"

    def compute(self, batch):
        return Prediction(np.full(len(batch), np.nan), np.zeros((len(batch.numbers), 3)))


def test_a_set_without_forces_has_energies_only(tmp_path):
    systems = made.molecules(4)
    frames = made.frame_set(systems, validation=2, hidden=range(4))
    assert isinstance(frames, FrameSet)
    numbers = run_eval(["lj"], frames, out=tmp_path / "r", settings=NONE).models["lj"].subsets["all"]
    assert numbers["energy_mae"].n == 2
    assert numbers["force_mae"].n == 0
    assert np.isnan(numbers["force_mae"].mean)
