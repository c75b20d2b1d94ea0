"""BSCT from plan to result: analysis of hand-made records, resuming, failures, the published numbers."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sfumato.execution.records import RecordError, encode, failed, ok
from sfumato.io import write_scan_set
from sfumato.jobs.frames import Frame
from sfumato.jobs.perform import Way
from sfumato.metrics.smoothness import fsd
from sfumato.potentials.potential import Abilities, Potential
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.analysis import EVALUATE
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.run import load_run, plan, run
from sfumato.systems import Prediction, Scan, ScanSet, digest

DISTANCE = np.linspace(0.8, 3.0, 40)


def spring(b, k=5.0, r0=1.5):
    """Energy and force along the bond of a harmonic diatomic."""
    return 0.5 * k * (b - r0) ** 2, -k * (b - r0)


def diatomic(name="C-C/a", curve=spring, b=DISTANCE):
    positions = np.zeros((len(b), 2, 3))
    positions[:, 1, 2] = b
    energy, pull = curve(b)
    forces = np.zeros_like(positions)
    forces[:, 1, 2], forces[:, 0, 2] = pull, -pull
    return Scan(
        name=name,
        numbers=[6, 6],
        positions=positions,
        coordinate=b,
        energy=energy,
        forces=forces,
        atoms=[0, 1],
        fragment=[-1, 1],
        charge=0,
        multiplicity=1,
    )


def scan_set(*scans):
    return ScanSet("springs", "harmonic", "MIT", "analytic", scans or (diatomic(),))


@dataclass
class Spring(Potential):
    """The same spring with its own stiffness; can be told to fail, and counts its calls."""

    k: float = 5.0
    fail_below: float = 0.0
    name: str = "spring"
    batch: int = 1
    calls: int = 0

    @property
    def identity(self):
        return digest([self.name, np.array([self.k])])

    @property
    def abilities(self):
        return Abilities(batch=self.batch)

    def compute(self, batch):
        energy, forces = [], []
        for system in batch:
            self.calls += 1
            b = np.linalg.norm(system.positions[1] - system.positions[0])
            if b < self.fail_below:
                raise ArithmeticError("too close")
            e, pull = spring(b, self.k)
            energy.append(e)
            forces += [[0, 0, -pull], [0, 0, pull]]
        return Prediction(np.array(energy), np.array(forces))


def records_of(scan, energy, forces, identity="id"):
    keys = EVALUATE.subject(identity).keys(scan, scan.positions)
    return {
        key: ok(key, seconds=0.0, energy=float(e), forces=encode(f))
        for key, e, f in zip(keys, energy, forces, strict=True)
    }


def test_a_perfect_prediction_has_no_error_in_any_number():
    scan = diatomic()
    result = bsct.analyse(scan_set(scan), records_of(scan, scan.energy, scan.forces), "m", "id", Settings())
    assert result.coverage == (1, 1)
    values = result.scans["C-C/a"].values
    nowhere = {"fsd_position", "false_barrier_position", "false_well_position"}  # nan: there is none
    zero = [v for name, v in values.items() if not name.startswith("work_energy") and name not in nowhere]
    assert zero == pytest.approx([0.0] * len(zero), abs=1e-12)
    assert values["work_energy_residual_full"] < 1e-12


def test_values_agree_with_the_metrics_called_by_hand():
    scan = diatomic()
    energy, pull = spring(scan.coordinate, k=4.0)
    forces = np.array(scan.forces)
    forces[:, 1, 2], forces[:, 0, 2] = pull, -pull
    settings = Settings(floor=0.5, coordinate="alpha")
    values = bsct.scan_metrics(scan, energy + 7.0, forces, settings)
    expected = fsd(scan.coordinate, scan.energy, scan.forces, forces, settings=settings.fsd)
    assert values["fsd[floor=0.5,coordinate=alpha]_full"] == expected.full
    assert "fsd_full" not in values
    assert values["energy_mae_raw_full"] == pytest.approx(np.abs(energy + 7.0 - scan.energy).mean())
    m = scan.energy.argmin()
    aligned = energy - energy[m] - scan.energy + scan.energy[m]
    assert values["energy_mae_aligned_full"] == pytest.approx(np.abs(aligned).mean())
    assert values["force_mae_stretch"] == pytest.approx(np.abs(forces - scan.forces)[m:].mean())


@pytest.mark.parametrize("r0", [0.5, 4.0])
def test_a_minimum_at_a_scan_end_is_not_applicable_on_one_side(r0):
    scan = diatomic(curve=lambda b: spring(b, r0=r0))
    result = bsct.analyse(scan_set(scan), records_of(scan, scan.energy, scan.forces), "m", "id", Settings())
    side = "compress" if r0 < 1 else "stretch"
    assert np.isnan(result.scans["C-C/a"].values[f"fsd_{side}"])
    out = result.as_json()
    assert out["scans"]["C-C/a"][f"fsd_{side}"] is None
    assert out["coverage"] == [1, 1]
    assert out["counted"][f"fsd_{side}"] == 0
    json.dumps(out, allow_nan=False)


def test_one_failed_frame_excludes_the_scan_with_its_reason():
    good, bad = diatomic(), diatomic("C-N/b", b=np.linspace(0.81, 3.1, 40))
    records = records_of(good, good.energy, good.forces)
    lost = records_of(bad, bad.energy, bad.forces)
    key = EVALUATE.subject("id").keys(bad, bad.positions)[17]
    lost[key] = failed(key, "SCF not converged")
    result = bsct.analyse(scan_set(good, bad), records | lost, "m", "id", Settings())
    assert result.coverage == (1, 2)
    assert result.scans["C-N/b"].status == "failed"
    assert result.scans["C-N/b"].reason == "frame 17: SCF not converged"
    assert result.estimates["fsd_full"].total == 2


def test_a_missing_frame_makes_a_scan_incomplete():
    scan = diatomic()
    records = records_of(scan, scan.energy, scan.forces)
    del records[next(iter(records))]
    result = bsct.analyse(scan_set(scan), records, "m", "id", Settings())
    assert (result.scans["C-C/a"].status, result.scans["C-C/a"].reason) == (
        "incomplete",
        "39 of 40 frames evaluated",
    )
    assert result.as_json()["mean"] == {}


def test_records_of_other_weights_do_not_count():
    scan = diatomic()
    result = bsct.analyse(
        scan_set(scan), records_of(scan, scan.energy, scan.forces), "m", "other", Settings()
    )
    assert result.coverage == (0, 1)


def test_frames_without_reference_are_left_out_but_predicted():
    scan = diatomic()
    energy = np.array(scan.energy)
    energy[[3, 4]] = np.nan
    gappy = replace(scan, energy=energy)
    result = bsct.analyse(scan_set(gappy), records_of(gappy, scan.energy, scan.forces), "m", "id", Settings())
    assert result.coverage == (1, 1)
    assert result.scans["C-C/a"].values["fsd_full"] == pytest.approx(0.0, abs=1e-12)
    none = replace(scan, energy=np.full(40, np.nan))
    result = bsct.analyse(scan_set(none), records_of(none, scan.energy, scan.forces), "m", "id", Settings())
    assert result.scans["C-C/a"].reason == "the reference labels no frame of this scan"


@pytest.mark.parametrize("refine", [1, 2, 5])
def test_a_refined_path_goes_through_every_frame_in_equal_steps(refine):
    scan = diatomic()
    path = bsct.path_positions(scan, refine)
    assert len(path) == 39 * refine + 1
    assert np.array_equal(path[::refine], scan.positions)
    steps = np.diff(path[:, 1, 2])
    assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-9)


def test_refining_does_not_change_the_other_numbers_and_is_named(tmp_path):
    plain = run("bsct", [Spring(4.0)], scan_set(), out=tmp_path / "run")
    fine = run("bsct", [Spring(4.0)], scan_set(), out=tmp_path / "run", settings=Settings(refine=3))
    one, three = (run_.models["spring"].scans["C-C/a"].values for run_ in (plain, fine))
    assert three["fsd_full"] == one["fsd_full"]
    assert "work_energy_residual[refine=3]_full" in three
    assert "work_energy_residual_full" not in three


def test_a_run_resumes_by_content(tmp_path):
    model = Spring()
    run("bsct", [model], scan_set(), out=tmp_path / "run")
    assert model.calls == 40
    again = run("bsct", [model], scan_set(), out=tmp_path / "run")
    assert model.calls == 40
    refined = run("bsct", [model], scan_set(), out=tmp_path / "run", settings=Settings(refine=2))
    assert model.calls == 79
    assert again.models["spring"].coverage == refined.models["spring"].coverage == (1, 1)


def test_other_weights_under_the_same_name_are_refused(tmp_path):
    run("bsct", [Spring(5.0)], scan_set(), out=tmp_path / "run")
    with pytest.raises(RecordError, match="the model changed since"):
        run("bsct", [Spring(5.1)], scan_set(), out=tmp_path / "run")


def test_other_data_in_the_same_folder_is_refused(tmp_path):
    run("bsct", [Spring()], scan_set(), out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"another data .*--out"):
        run("bsct", [Spring()], scan_set(diatomic("C-C/b")), out=tmp_path / "run")


def test_models_of_one_name_must_be_told_apart(tmp_path):
    with pytest.raises(ValueError, match="NAME=SPEC"):
        run("bsct", [Spring(), Spring(6.0)], scan_set(), out=tmp_path / "run")


def test_a_failing_model_keeps_the_rest_and_is_retried_on_request(tmp_path):
    short = diatomic("C-C/short", b=np.linspace(0.5, 1.9, 20))
    data = scan_set(diatomic("C-C/long", b=np.linspace(0.9, 3.0, 20)), short)
    whole = run("bsct", [Spring(fail_below=0.8)], data, out=tmp_path / "run")
    result = whole.models["spring"]
    assert result.coverage == (1, 2)
    assert not whole.complete
    assert result.scans["C-C/short"].reason == "frame 0: ArithmeticError: too close"
    assert result.estimates["fsd_full"].n == 1
    still = run("bsct", [Spring()], data, out=tmp_path / "run")
    assert still.models["spring"].coverage == (1, 2)
    mended = run("bsct", [Spring()], data, out=tmp_path / "run", way=Way(retry_failed=True))
    assert mended.complete


class Broken(Spring):
    """Returns what no potential may return."""

    def compute(self, batch):
        good = super().compute(batch)
        if self.name == "nan":
            return Prediction(good.energy, good.forces * np.nan)
        return Prediction(good.energy, good.forces[:-1])


@pytest.mark.parametrize(
    ("name", "reason"), [("nan", "predicted forces is not finite"), ("short", "forces for 1 atoms")]
)
@pytest.mark.parametrize("batch", [1, 8])
def test_what_is_no_prediction_is_a_failure(tmp_path, name, reason, batch):
    result = run("bsct", [Broken(name=name, batch=batch)], scan_set(), out=tmp_path / "run")
    assert result.models[name].coverage == (0, 1)
    assert reason in result.models[name].scans["C-C/a"].reason


def test_a_batched_model_is_asked_in_batches_and_its_failures_are_single(tmp_path):
    model = Spring(fail_below=0.85, batch=16)
    result = run("bsct", [model], scan_set(), out=tmp_path / "run").models["spring"]
    assert result.scans["C-C/a"].reason == "frame 0: ArithmeticError: too close"
    lines = (tmp_path / "run" / "records" / "spring.evaluate.jsonl").read_text().splitlines()[1:]
    records = [json.loads(line) for line in lines]
    assert sum(record["status"] == "failed" for record in records) == 1


def test_a_run_is_read_back_from_its_folder_without_the_model(tmp_path):
    write_scan_set(tmp_path / "springs.h5", scan_set())
    result = run("bsct", [Spring(4.0)], tmp_path / "springs.h5", out=tmp_path / "run")
    again = load_run(tmp_path / "run")
    assert again.as_json() == result.as_json()
    write_scan_set(tmp_path / "springs.h5", scan_set(diatomic("C-C/b")))
    with pytest.raises(ValueError, match="has changed"):
        load_run(tmp_path / "run")


def test_planning_counts_what_is_done_and_writes_nothing(tmp_path):
    (before,) = plan("bsct", [Spring()], scan_set(), out=tmp_path / "run")
    assert (before.items, before.done) == (40, 0)
    assert before.seconds > 0
    assert not (tmp_path / "run").exists()
    run("bsct", [Spring()], scan_set(), out=tmp_path / "run")
    (after,) = plan("bsct", [Spring()], scan_set(), out=tmp_path / "run")
    assert (after.items, after.done, after.seconds) == (40, 40, 0)


def test_selection_takes_the_first_of_each_bond_type_in_order():
    scans = [diatomic(name) for name in ("C-C/1", "C-N/1", "C-C/2", "C-C/3", "C-N/2")]
    assert [s.name for s in bsct.select(scan_set(*scans), 2)] == ["C-C/1", "C-N/1", "C-C/2", "C-N/2"]
    assert len(bsct.select(scan_set(*scans), None)) == 5


def test_paired_comparison_uses_scans_both_finished():
    lengths = [np.linspace(0.8 + 0.01 * k, 3.0, 40) for k in range(4)]
    scans = [diatomic(f"C-C/{k}", b=b) for k, b in enumerate(lengths)]

    def scaled(factor, finished):
        records = {}
        for scan in finished:
            records |= records_of(scan, factor * scan.energy, factor * scan.forces)
        return bsct.analyse(scan_set(*scans), records, str(factor), "id", Settings())

    soft, stiff = scaled(0.9, scans[:3]), scaled(1.3, scans[1:])
    difference = bsct.compare(soft, stiff, "force_mae_full")
    both = [model.scans[f"C-C/{k}"].values["force_mae_full"] for model in (soft, stiff) for k in (1, 2)]
    assert difference.n == 2
    assert difference.mean == pytest.approx((both[0] + both[1] - both[2] - both[3]) / 2)
    with pytest.raises(ValueError, match="share no finished scan"):
        bsct.compare(scaled(0.9, scans[:1]), stiff, "force_mae_full")


def test_frames_travel_unchecked_and_are_checked_on_arrival():
    frame = Frame(np.array([6, 6]), np.array([[0, 0, 0], [0, 0, np.nan]]), 0, 1)
    with pytest.raises(ValueError, match="not finite"):
        frame.system()


def test_alpha_is_refused_where_one_part_moves_alone():
    long = diatomic()
    third = np.concatenate([long.positions, long.positions[:, :1] + [1.0, 0, 0]], axis=1)
    forces = np.concatenate([long.forces, np.zeros((40, 1, 3))], axis=1)
    angle = replace(
        long, numbers=[6, 6, 1], positions=third, forces=forces, atoms=[0, 1, 2], fragment=[-1, 1, 1]
    )
    with pytest.raises(ValueError, match="leave the setting at 'length'"):
        list(bsct.plan(scan_set(angle), Settings(coordinate="alpha")))
