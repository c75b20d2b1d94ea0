"""Trajectories as jobs: what a record holds, segments, kills at any moment, groups that stay together."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from sfumato.dynamics.state import freedoms, kinetic_energy
from sfumato.execution.folder import RunFolder
from sfumato.execution.runner import Item, Tally
from sfumato.io import from_ase, read_systems
from sfumato.io.trajectories import export_trajectory, read_segment, read_trajectory
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Task
from sfumato.jobs.models import Model
from sfumato.jobs.perform import Way, perform
from sfumato.jobs.relax import Relax, cell_contradiction
from sfumato.jobs.segments import Group, Progress, Pulse, followed, groups, in_words
from sfumato.jobs.trajectory import Start, Trajectory, seen_in
from sfumato.models.pair import PAIRS, LennardJones, PairPotential
from sfumato.potentials.potential import Session
from sfumato.systems import Batch, Prediction, System
from sfumato.units import KELVIN
from tests.dynamics.springs import at_rest

LJ = PAIRS["lj"]
NVE = Trajectory(timestep=2.0, steps=60, save=20.0)


def starts(seeds=(0, 1, 2), kelvin=300.0, system=None):
    system = system or at_rest(LJ)
    frame = Frame.of(system).__dict__
    return [Start(**frame, seed=seed, kelvin=kelvin) for seed in seeds]


def items(job, frames, identity="id"):
    return tuple(Item(Task(job, frame).key(identity), frame) for frame in frames)


def stripped(record):
    return {key: value for key, value in record.items() if key != "seconds"}


class Hopeless(PairPotential):
    """Lennard-Jones without an answer where the first atom of nine is farther right than it was."""

    def compute(self, batch):
        found = super().compute(batch)
        energy = found.energy.copy()
        for k, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:])):
            if b - a == 9 and batch.positions[a, 0] > at_rest(LJ, size=9).positions[0, 0] + 0.02:
                energy[k] = np.nan
        return Prediction(energy, found.forces)


HOPELESS = Hopeless("hopeless", LennardJones())


def test_a_record_holds_what_was_seen():
    (record,) = NVE.work(LJ, items(NVE, starts([7])))
    assert record["status"] == "ok"
    assert record["left"] is None
    assert record["atoms"] == 13
    assert record["free"] == 33
    steps, seen = seen_in(record)
    assert steps.tolist() == list(range(61))
    total = seen["potential"] + seen["kinetic"]
    assert np.ptp(total) < 1e-2 * np.ptp(seen["kinetic"])
    assert seen["kinetic"][0] == pytest.approx(0.5 * 33 * KELVIN * 300, rel=1e-9)
    assert len(seen["unexplained"]) == 61


def test_keys_depend_on_seed_temperature_and_settings_and_nothing_else():
    first = starts([0])[0]
    keys = {
        Task(job, frame).key("id")
        for job in (NVE, replace(NVE, timestep=1.0), replace(NVE, relax=Relax(force=0.1)))
        for frame in (first, replace(first, seed=1), replace(first, kelvin=301.0))
    }
    assert len(keys) == 9
    assert Task(NVE, replace(first)).key("id") in keys


def test_velocities_are_the_same_for_every_potential():
    a = starts([3])[0]
    assert a.stream == replace(a, positions=a.positions + 1).stream
    assert a.stream != replace(a, seed=4).stream
    assert a.stream != replace(a, kelvin=301.0).stream


def test_long_runs_are_sampled_now_and_then_with_the_extremes_between():
    job = Trajectory(timestep=1.0, steps=9000)
    assert job.every == 3
    job = Trajectory(timestep=2.0, steps=50)
    assert job.every == 1


def test_settling_is_at_its_own_temperature():
    job = Trajectory(timestep=2.0, steps=50, friction=200.0, settle=150, settle_kelvin=100.0)
    (record,) = job.work(LJ, items(job, starts([0], kelvin=600.0)))
    assert record["kelvin"] == 600.0
    seen = seen_in(record)[1]["kelvin"]
    assert 60 < seen[50:150].mean() < 150
    assert seen[-20:].mean() > 300


class Killed(BaseException):
    pass


def dying(monkeypatch, after):
    """Let the process die before the segment with this number is written; and count what was written."""
    write, count = Group.write, [0]

    def dies(self, number, arrays, facts):
        count[0] += 1
        if count[0] > after:
            raise Killed
        write(self, number, arrays, facts)

    monkeypatch.setattr(Group, "write", dies)


@pytest.mark.parametrize(
    "job",
    [NVE, Trajectory(timestep=2.0, steps=40, friction=5.0, settle=20, settle_kelvin=100.0, save=10.0)],
    ids=["nve", "langevin"],
)
@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_a_kill_costs_a_segment_and_no_bit(job, after, tmp_path, monkeypatch):
    """Replicas of two sizes, some of which leave on the way; killed once, then continued to the end."""
    monkeypatch.setattr("sfumato.jobs.trajectory.SEGMENT_ATOM_STEPS", 700)
    frames = starts([0, 1]) + starts([2, 3], system=at_rest(LJ, size=9))
    chunk = items(job, frames)
    whole = job.work(HOPELESS, chunk)
    assert {bool(record["left"]) for record in whole} == {True, False}
    with monkeypatch.context() as patch:
        dying(patch, after)
        with pytest.raises(Killed):
            job.work_in(HOPELESS, chunk, tmp_path)
    written = [group.count for group in groups(tmp_path / "segments")]
    assert written == ([after] if after else [])
    resumed = job.work_in(HOPELESS, chunk, tmp_path)
    assert list(map(stripped, resumed)) == list(map(stripped, whole))


def test_files_of_killed_and_whole_runs_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.jobs.trajectory.SEGMENT_ATOM_STEPS", 700)
    chunk = items(NVE, starts([0, 1]))
    for name in ("whole", "killed"):
        with monkeypatch.context() as patch:
            if name == "killed":
                dying(patch, 3)
                with pytest.raises(Killed):
                    NVE.work_in(LJ, chunk, tmp_path / name)
        NVE.work_in(LJ, chunk, tmp_path / name)
    one, other = (
        [read_trajectory(path) for path in sorted((tmp_path / name / "trajectories").iterdir())]
        for name in ("whole", "killed")
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.time, b.time)


def test_items_that_were_begun_together_stay_together(tmp_path, monkeypatch):
    """Asked for one by one after a kill, each still goes on in the batch in which it began."""
    monkeypatch.setattr("sfumato.jobs.trajectory.SEGMENT_ATOM_STEPS", 700)
    chunk = items(NVE, starts([0, 1, 2]))
    whole = NVE.work(LJ, chunk)
    with monkeypatch.context() as patch:
        dying(patch, 2)
        with pytest.raises(Killed):
            NVE.work_in(LJ, chunk, tmp_path)
    sizes = []
    compute = PairPotential.compute
    monkeypatch.setattr(
        PairPotential, "compute", lambda self, batch: sizes.append(len(batch)) or compute(self, batch)
    )
    single = [NVE.work_in(LJ, (item,), tmp_path)[0] for item in chunk[1:]]
    assert set(sizes) == {3}
    assert list(map(stripped, single)) == list(map(stripped, whole[1:]))


def test_a_damaged_segment_is_named_with_what_to_do(tmp_path, monkeypatch):
    chunk = items(NVE, starts([0]))
    with monkeypatch.context() as patch:
        dying(patch, 1)
        with pytest.raises(Killed):
            NVE.work_in(LJ, chunk, tmp_path)
    (group,) = groups(tmp_path / "segments")
    group.path(0).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"segment-000000.h5.*Remove .* to begin these items anew"):
        NVE.work_in(LJ, chunk, tmp_path)


def test_a_trajectory_file_is_readable_and_exported(tmp_path):
    (record,) = NVE.work_in(LJ, items(NVE, starts([0])), tmp_path)
    path = tmp_path / "trajectories" / record["trajectory"]
    motion = read_trajectory(path)
    assert motion.time.tolist() == [0, 20, 40, 60, 80, 100, 120]
    assert motion.positions.shape == (7, 13, 3)
    assert motion.facts["timestep"] == 2.0
    assert (motion.positions[0] == at_rest(LJ).positions).all()
    out = tmp_path / "out.xyz"
    assert export_trajectory(path, out, every=2) == 4
    systems = read_systems(out)
    assert (systems[-1].positions == motion.positions[-1]).all()
    assert "potential_eV" in out.read_text()
    with pytest.raises(ValueError, match="every: at least 1"):
        export_trajectory(path, out, every=0)
    with pytest.raises(ValueError, match="sfumato-segment"):
        read_segment(path)


def run_folder(tmp_path, name):
    folder = RunFolder(tmp_path / name)
    folder.begin(
        {
            "protocol": "toy",
            "version": 1,
            "data": {"identity": "d"},
            "models": {"lj": {}},
            "provenance": {},
        }
    )
    return folder


def test_relaxation_comes_first_and_its_failure_is_the_reason(tmp_path):
    relax = Relax(force=1e-3, steps=200)
    job = replace(NVE, relax=relax, steps=10)
    cluster = at_rest(LJ)
    off = replace(cluster, positions=1.1 * cluster.positions)
    bad = replace(cluster, numbers=[97] * 13)
    frames = starts([0, 1], system=off) + starts([0], system=bad)
    tasks = [Task(relax, frame.plain()) for frame in frames] + [Task(job, frame) for frame in frames]
    folder = run_folder(tmp_path, "run")
    records = perform(tasks, Model.of(LJ), folder, Way())
    done = [records[task.key(LJ.identity)] for task in tasks]
    assert [record["status"] for record in done] == ["ok", "ok", "failed"] * 2
    assert done[0]["force"] <= 1e-3
    assert "no parameters for Bk" in done[5]["reason"]
    assert seen_in(done[3])[1]["potential"][0] == pytest.approx(done[0]["energy"], abs=1e-9)
    assert not (folder.work_path("lj") / "segments").exists()
    assert len(list((folder.work_path("lj") / "trajectories").iterdir())) == 2
    again = perform(tasks, Model.of(LJ), folder, Way())
    assert again == records


def test_fresh_begins_anew_once_for_jobs_that_share_a_file(tmp_path):
    frames = starts([0])
    tasks = [Task(NVE.relax, frames[0].plain())]
    tasks += [Task(replace(NVE, steps=n, save=0.0), frames[0]) for n in (5, 10)]
    folder = run_folder(tmp_path, "run")
    for fresh in (False, True):
        records = perform(tasks, Model.of(LJ), folder, Way(fresh=fresh))
        assert all(task.key(LJ.identity) in records for task in tasks)
    assert len(list((folder.path / "records").glob("lj.trajectory.jsonl*"))) == 2


def test_a_structure_that_does_not_relax():
    off = replace(at_rest(LJ), positions=0.7 * at_rest(LJ).positions)
    job = Relax(force=1e-6, steps=2)
    (record,) = job.work(LJ, (Item("k", starts([0], system=off)[0]),))
    assert record["status"] == "failed"
    assert "does not relax: after 2 steps a force of" in record["reason"]
    (record,) = replace(job, most=1e9).work(LJ, (Item("k", starts([0], system=off)[0]),))
    assert record["status"] == "ok"


class NearestImage(PairPotential):
    """Of every pair of atoms only the nearest image: images go missing in a small cell."""

    def compute(self, batch):
        energy = np.zeros(len(batch))
        for k, system in enumerate(batch):
            vectors = system.positions[None] - system.positions[:, None]
            across = np.round(vectors @ np.linalg.inv(system.cell))
            r = np.linalg.norm(vectors - across @ system.cell, axis=-1)[np.triu_indices(len(system), 1)]
            z = np.full(len(r), system.numbers[0])
            phi, _ = self.form(r, z, z)
            energy[k] = (phi * self._switch(r)[0]).sum()
        return Prediction(energy, np.zeros((len(batch.numbers), 3)))


def test_a_cell_smaller_than_twice_the_reach():
    copper = from_ase(bulk("Cu", cubic=True) * (2, 2, 2))
    broken = NearestImage("nearest", LennardJones())
    words = cell_contradiction(broken, copper)
    assert "the cell is smaller than twice the reach of this potential: in 2×2×2 cells" in words
    assert cell_contradiction(LJ, copper) == ""
    (record,) = Relax().work(broken, (Item("k", starts([0], system=copper)[0]),))
    assert record["status"] == "failed"


def test_a_slab_is_repeated_in_its_plane_only():
    from ase.build import fcc111

    slab = from_ase(fcc111("Cu", (2, 2, 2), vacuum=6.0))
    assert cell_contradiction(LJ, slab) == ""
    assert "2×2×1" in cell_contradiction(NearestImage("nearest", LennardJones()), slab)


class Keeps(Session):
    """A session of its own kind, that keeps nothing wrong."""


class Stale(Session):
    """Keeps the energy of the first call for two more."""

    def __init__(self, potential, batch):
        super().__init__(potential, batch)
        self.calls, self.last = 0, None

    def predict(self, positions, cell=None):
        self.move(positions, cell)
        if self.calls % 3 == 0 or self.last is None:
            self.last = self.potential.predict(self.batch)
        self.calls += 1
        return self.last


class WithSession(PairPotential):
    kind = Keeps

    def session(self, batch, skin=0.3):
        return self.kind(self, batch)


class WithStale(WithSession):
    kind = Stale


def test_kept_neighbors_are_compared_with_fresh_ones():
    job = replace(NVE, compare=True, steps=20, save=0.0)
    chunk = items(job, starts([0]))
    (record,) = job.work(WithSession("fine", LennardJones()), chunk)
    assert not seen_in(record)[1]["kept_energy"].any()
    (record,) = job.work(WithStale("stale", LennardJones()), chunk)
    seen = seen_in(record)[1]
    assert seen["kept_energy"].max() > 1e-3
    total = seen["potential"] + seen["kinetic"]
    assert np.ptp(total) < 1e-2  # the atoms follow fresh ones
    (record,) = job.work(LJ, chunk)
    assert record["needless"] == "keeps no neighbors"


def test_a_precision_that_is_not_offered():
    job = replace(NVE, dtype="float64")
    (record,) = job.work(LJ, items(job, starts([0])))
    assert record["needless"] == "does not offer float64"


def test_another_surface_in_the_place_of_the_potential():
    job = replace(NVE, steps=5, surface="lj", save=0.0)
    (record,) = job.work(PAIRS["lj-direct-noise"], items(job, starts([0])))
    (same,) = replace(job, surface="").work(LJ, items(job, starts([0])))
    assert record["series"] == same["series"]


def test_the_cost_is_estimated_from_a_few_predictions():
    frames = starts(range(8))
    one = NVE.estimate(LJ, frames[:1])
    all_ = replace(NVE, steps=600).estimate(LJ, frames)
    assert one > 0
    assert all_ > 10 * one
    assert replace(NVE, compare=True).estimate(LJ, frames) == 0


def test_how_far_it_is_in_words():
    fast, slow = Progress(500, 1000, 50, 3, 4), Progress(100, 1000, 10, 4, 4)
    assert in_words([]) == ""
    assert in_words([fast, slow]) == "0.1 of 1 ps, 1.64e+04 ps/day, 7 of 8 replicas go on, 1 min 30 s left"


def test_progress_reaches_the_watcher(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.jobs.segments.LOOK_SECONDS", 0.05)
    notes = []
    with followed(tmp_path, lambda tally: notes.append(tally.note)) as shown:
        shown(Tally(1))
        group = Group.begun(tmp_path, ["a"])
        pulse = Pulse(group, total=1000.0, done=0.0)
        import time

        for k in range(8):
            time.sleep(0.05)
            pulse(100.0 * k, 1)
        pulse.end()
    assert any("of 1 ps" in note and "ps/day" in note for note in notes)
    assert not (group.folder / "progress.json").exists()
    assert json.loads((group.folder / "keys.json").read_text()) == ["a"]


def test_kinetic_energy_of_the_start_is_that_of_the_temperature():
    system = at_rest(LJ)
    batch = Batch.of([system])
    assert freedoms(batch)[0] == 33
    assert kinetic_energy(batch, np.zeros((13, 3)))[0] == 0
    assert isinstance(system, System)
