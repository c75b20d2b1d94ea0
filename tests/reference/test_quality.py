"""Quality statements: a clean set passes, and each statement fails for the fault it is there for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfumato.datasets.named import DATASETS, import_, load
from sfumato.reference.quality import QualityReport, Statement, check_scans, discontinuity, energy_jumps
from sfumato.reference.scans import angle, candidates, torsion
from sfumato.systems import Scan, ScanSet, System
from tests.released_layout import RELEASED, needs_released

DEPTH, WIDTH, LENGTH = 4.0, 2.0, 1.4


def morse_scan(name: str = "C-O/1", frames: int = 100) -> Scan:
    """Return a Morse bond whose fragments move apart: D(1 − e^{−a(b−b₀)})², forces along the bond."""
    b = np.linspace(0.9, 2.84, frames)
    decay = np.exp(-WIDTH * (b - LENGTH))
    slope = 2 * DEPTH * WIDTH * (1 - decay) * decay
    fragment = np.array([-1, -1, 1, 1])
    start = np.array([[0, 1.0, 0], [0, 0, 0], [0, 0, 0], [0, -1.0, 0]])
    positions = start + 0.5 * b[:, None, None] * fragment[:, None] * [1.0, 0, 0]
    forces = np.zeros_like(positions)
    forces[:, 1, 0], forces[:, 2, 0] = slope, -slope
    return Scan(
        name=name,
        numbers=np.array([1, 6, 8, 1]),
        positions=positions,
        coordinate=b,
        energy=DEPTH * (1 - decay) ** 2,
        forces=forces,
        atoms=np.array([1, 2]),
        fragment=fragment,
        charge=0,
        multiplicity=1,
    )


def check(*scans: Scan, **options: dict[str, int]) -> QualityReport:
    return check_scans(ScanSet("mini", "Morse", "MIT", "the tests", scans), **options)


def statement(report: QualityReport, name: str) -> Statement:
    return next(s for s in report.statements if s.name == name)


def failed(report: QualityReport) -> list[str]:
    return [s.name for s in report.statements if not s.passed]


def with_jump(scan: Scan, frame: int, size: float) -> Scan:
    return replace(scan, energy=scan.energy + size * (np.arange(len(scan)) >= frame))


def test_a_clean_set_passes_and_is_described() -> None:
    report = check(morse_scan(), morse_scan("C-O/2"), expected={"C-O": 2})
    assert report.passed
    assert (report.scans, report.frames, report.counts) == (2, 200, {"C-O": 2})
    assert report.atoms == (4, 4.0, 4)
    assert report.elements == ("H", "C", "O")
    assert report.unlabeled == {}
    assert report.grid_deviation["C-O/1"] < 1e-14
    assert report.jumps == ()


def test_the_residual_is_the_error_of_the_trapezoid() -> None:
    """The trapezoid leaves h³|E'''|/12, most on the wall; E''' = 2Da³(x − 4x²) with x = e^{−a(b−b₀)}."""
    scan = morse_scan()
    h = scan.coordinate[1] - scan.coordinate[0]
    x = np.exp(-WIDTH * (scan.coordinate[0] + h / 2 - LENGTH))
    third = 2 * DEPTH * WIDTH**3 * (x - 4 * x**2)
    assert check(scan).work_energy["C-O/1"] == pytest.approx(abs(third) * h**3 / 12, rel=1e-3)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_coarse_grid_is_no_mismatch_of_energies_and_forces(stride: int) -> None:
    """A cubic spline leaves an error of fourth order, the trapezoid one of second."""
    report = check(morse_scan(frames=99 // stride + 1))
    assert report.passed
    assert report.unexplained["C-O/1"] < 0.1 * report.work_energy["C-O/1"]


def test_counts_that_differ_fail() -> None:
    report = check(morse_scan(), expected={"C-O": 1, "N-N": 2})
    assert failed(report) == ["counts"]
    assert (statement(report, "counts").value, statement(report, "counts").where) == (2, "N-N")


def test_a_torn_scan_fails_and_a_gap_does_not() -> None:
    scan = morse_scan()
    for missing, fails in ((2, []), (6, ["labels"])):
        energy = scan.energy.copy()
        energy[50 : 50 + missing] = np.nan
        report = check(replace(scan, energy=energy))
        assert failed(report) == fails
        assert report.unlabeled == {"C-O/1": tuple(range(50, 50 + missing))}
        assert statement(report, "labels").value == pytest.approx(missing / 100)


def test_a_scan_of_another_bond_fails() -> None:
    report = check(morse_scan("N-O/1"))
    assert failed(report) == ["types"]
    assert statement(report, "types").where == "N-O/1"
    assert check(morse_scan("O-C/1")).passed


def test_a_grid_that_is_off_fails() -> None:
    scan = morse_scan()
    report = check(replace(scan, coordinate=scan.coordinate + 2e-6))
    assert failed(report) == ["grid"]
    assert statement(report, "grid").value == pytest.approx(2e-6)


def test_a_net_force_fails() -> None:
    scan = morse_scan()
    forces = scan.forces + np.array([0.0, 0.03, 0.04])  # 4 atoms × 0.05 eV/Å, across the path: no work
    report = check(replace(scan, forces=forces))
    assert failed(report) == ["net force"]
    assert statement(report, "net force").value == pytest.approx(0.2)


def test_forces_of_another_energy_fail() -> None:
    scan = morse_scan()
    report = check(replace(scan, forces=1.3 * scan.forces))
    assert "work–energy" in failed(report)


@pytest.mark.parametrize("size", [0.03, -0.05])
@pytest.mark.parametrize("frame", [4, 50, 95])
def test_a_jump_is_found_where_it_is(size: float, frame: int) -> None:
    clean = morse_scan("C-O/2")
    report = check(with_jump(morse_scan(), frame, size), clean, morse_scan("C-O/3"))
    assert failed(report) == ["jumps"]
    (jump,) = report.jumps
    assert (jump.scan, jump.intervals) == ("C-O/1", 1)
    assert jump.size == pytest.approx(size, abs=1e-3)
    assert jump.coordinate == pytest.approx(clean.coordinate[frame - 1 : frame + 1].mean())


def test_what_is_below_the_floor_is_no_jump() -> None:
    assert check(with_jump(morse_scan(), 50, 0.009)).passed


@pytest.mark.parametrize("frames", [100, 50, 25, 12])
def test_a_coarse_grid_is_not_taken_for_a_jump(frames: int) -> None:
    assert not energy_jumps(morse_scan(frames=frames)).any()


def test_a_scan_with_too_few_labels_has_nothing_to_measure_and_fails() -> None:
    scan = morse_scan()
    empty = replace(scan, energy=np.full(100, np.nan))
    report = check(empty)
    assert math.isnan(report.work_energy["C-O/1"])
    assert {"labels", "work–energy", "net force"} <= set(failed(report))
    with pytest.raises(ValueError, match="C-O/1: 0 labeled frames; at least 4 are needed"):
        energy_jumps(empty)
    few = np.where(np.arange(100) < 3, scan.energy, np.nan)
    assert check(replace(scan, energy=few)).jumps == ()


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="scan set 'mini' has no scans to check"):
        check()


def test_the_report_is_json() -> None:
    report = check(morse_scan(), replace(morse_scan("C-O/2"), energy=np.full(100, np.nan)), expected={})
    back = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert back["passed"] is False
    assert back["work_energy"]["C-O/2"] is None
    assert back["atoms"] == [4, 4.0, 4]
    assert back["statements"][0]["name"] == "counts"


def check_noting(scans: tuple[Scan, ...], **notes: object) -> QualityReport:
    return check_scans(ScanSet("mini", "Morse", "MIT", "the tests", scans, dict(notes)))


def test_a_net_torque_fails_and_is_measured_about_the_center_of_mass() -> None:
    """Two equal forces F on H atoms 2 Å apart, in opposite directions across the bond, turn with 2F·1 Å."""
    scan = morse_scan()
    forces = scan.forces.copy()
    forces[:, 0, 2], forces[:, 3, 2] = 0.4, -0.4
    arms = scan.positions[:, 0] - scan.positions[:, 3]
    report = check(replace(scan, forces=forces))
    assert failed(report) == ["net torque"]
    widest = 0.4 * np.hypot(arms[:, 0], arms[:, 1]).max()
    assert report.net_torque["C-O/1"] == pytest.approx(widest)
    shifted = replace(scan, forces=forces, positions=scan.positions + np.array([50.0, -20, 7]))
    assert check(shifted).net_torque["C-O/1"] == pytest.approx(widest)
    assert check(scan).net_torque["C-O/1"] < 1e-12


def test_in_a_crystal_a_torque_means_nothing() -> None:
    crystal = replace(morse_scan(), cell=9 * np.eye(3), pbc=np.ones(3, dtype=bool))
    report = check(crystal)
    assert report.net_torque == {}
    assert "net torque" not in [s.name for s in report.statements]


def test_spin_contamination_is_judged_against_the_spin_asked_for() -> None:
    singlet, doublet = morse_scan(), replace(morse_scan("C-O/2"), multiplicity=2)
    noted = {"C-O/1": 0.0, "C-O/2": [0.75, None, 0.78]}
    report = check_noting((singlet, doublet), spin_squared=noted)
    assert report.passed
    assert report.spin == {"C-O/1": 0.0, "C-O/2": pytest.approx(0.03)}
    report = check_noting((singlet, doublet), spin_squared={**noted, "C-O/2": [0.75, 1.75, None]})
    assert failed(report) == ["spin"]
    assert statement(report, "spin").where == "C-O/2"
    assert statement(report, "spin").value == pytest.approx(1.0)
    assert "spin" not in [s.name for s in check(singlet).statements]  # nothing known, nothing claimed


def test_hysteresis_is_judged_where_it_was_measured() -> None:
    scans = (morse_scan(), morse_scan("C-O/2"))
    assert check_noting(scans, hysteresis={"C-O/1": 2e-7}).passed
    report = check_noting(scans, hysteresis={"C-O/1": 2e-7, "C-O/2": 0.2})
    assert failed(report) == ["hysteresis"]
    assert report.hysteresis == {"C-O/1": 2e-7, "C-O/2": 0.2}
    with pytest.raises(ValueError, match="hysteresis of the provenance"):
        check_noting(scans, hysteresis={"C-O/1": "much"})


def test_a_jump_is_told_with_size_place_and_cause() -> None:
    scan = with_jump(morse_scan(), 50, 0.12)
    (jump,) = check(scan).jumps
    low, high = scan.coordinate[49:51]
    assert jump.reason == (
        f"energy jumps by +0.120 eV between {low:.3f} and {high:.3f} Å, which the forces do not explain: "
        "another SCF solution"
    )
    assert discontinuity(scan) == jump.reason
    assert discontinuity(morse_scan()) is None
    back = discontinuity(with_jump(scan, 60, -0.1))
    assert back is not None
    assert back.endswith("another SCF solution (the largest of 2 such steps)")
    assert discontinuity(replace(scan, energy=np.full(100, np.nan))) is None


def turned_scan(coordinate: str, frames: int = 100) -> Scan:
    """Return a torsion or an angle of a chain of four carbons with a spring's energy and forces."""
    x = np.array([[1.4, 0.1, -0.5], [0, 0, 0], [0, 0, 1.5], [0.5, 1.3, 2.0]])
    rest = System(np.full(4, 6), x)
    found = candidates(rest, coordinate, bonds=[(0, 1), (1, 2), (2, 3)], frames=frames)
    scan = found[0]

    def energy(points: np.ndarray) -> float:
        if coordinate == "angle":
            return float(3.0 * (angle(points[scan.atoms]) - 1.9) ** 2)
        return float(0.2 * np.cos(3 * torsion(points[scan.atoms])))

    steps = 1e-5 * np.eye(12).reshape(12, 4, 3)
    forces = [[(energy(p - h) - energy(p + h)) / 2e-5 for h in steps] for p in scan.positions]
    return Scan(
        name=f"{scan.type}/1",
        numbers=rest.numbers,
        positions=scan.positions,
        coordinate=scan.lengths,
        energy=np.array([energy(p) for p in scan.positions]),
        forces=np.array(forces).reshape(frames, 4, 3),
        atoms=scan.atoms,
        fragment=scan.fragment,
        charge=0,
        multiplicity=1,
    )


@pytest.mark.parametrize("coordinate", ["angle", "torsion"])
def test_angles_and_torsions_are_judged_like_bonds(coordinate: str) -> None:
    scan = turned_scan(coordinate)
    report = check(scan)
    assert report.passed
    assert report.grid_deviation[scan.name] < 1e-12
    assert report.work_energy[scan.name] < 1e-3
    assert report.net_torque[scan.name] < 1e-5
    assert "jumps" in failed(check(with_jump(scan, 40, 0.03)))
    moved = scan.positions.copy()
    moved[7, scan.atoms[-1]] += 1e-5
    assert "grid" in failed(check(replace(scan, positions=moved)))
    whole_turns = replace(scan, coordinate=scan.coordinate + 1e-5)
    assert failed(check(whole_turns)) == ["grid"]
    elements = scan.stratum.split("-")
    wrong = "-".join(["N", *elements[1:]])
    assert failed(check(replace(scan, name=f"{wrong}/1"))) == ["types"]


@pytest.mark.parametrize("frames", [100, 50, 24, 12])
@pytest.mark.parametrize("coordinate", ["angle", "torsion"])
def test_a_coarse_arc_is_not_taken_for_a_jump(coordinate: str, frames: int) -> None:
    assert not energy_jumps(turned_scan(coordinate, frames)).any()


def test_a_site_is_measured_by_its_way() -> None:
    salt = System(
        np.array([11, 17]), [[0, 0, 0], [0, 0, 2.8]], cell=np.diag([8.0, 8, 5.6]), pbc=np.ones(3, dtype=bool)
    )
    site = next(c for c in candidates(salt, frames=30) if c.type == "Na")
    scan = Scan(
        name="Na/1",
        numbers=salt.numbers,
        positions=site.positions,
        coordinate=site.lengths,
        energy=np.zeros(30),
        forces=np.zeros((30, 2, 3)),
        atoms=site.atoms,
        fragment=site.fragment,
        charge=0,
        multiplicity=1,
        cell=salt.cell,
        pbc=salt.pbc,
    )
    assert check(scan).passed
    assert failed(check(replace(scan, coordinate=1.1 * scan.coordinate))) == ["grid"]
    assert failed(check(replace(scan, name="Cl/1"))) == ["types"]


@pytest.mark.slow
@needs_released
def test_the_published_set_is_as_good_as_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path))
    import_("bsct-spice", RELEASED)
    scans = load("bsct-spice")
    report = check_scans(scans, dict(DATASETS["bsct-spice"].counts))
    assert report.passed
    assert report.unlabeled == {"C-N/25729": (9, 10)}
    assert np.median(list(report.work_energy.values())) == pytest.approx(0.0069, abs=1e-4)
    assert statement(report, "work–energy").value == pytest.approx(0.00023, abs=2e-5)
    assert max(report.unexplained.values()) == pytest.approx(0.0025, abs=1e-4)
    assert statement(report, "net force").value == pytest.approx(0.0517, abs=1e-4)
    assert statement(report, "net force").where == "C-P/41478"
    assert statement(report, "net torque").value == pytest.approx(0.2671, abs=1e-4)
    assert statement(report, "net torque").where == "C-P/31756"
    assert statement(report, "grid").value < 2e-8
    assert max(report.work_energy, key=report.work_energy.__getitem__) == "C-N/25729"
    assert report.elements == ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
    every_third = [
        replace(
            s,
            positions=s.positions[::3],
            coordinate=s.coordinate[::3],
            energy=s.energy[::3],
            forces=s.forces[::3],
        )
        for s in scans
    ]
    assert not any(energy_jumps(scan).any() for scan in every_third)
