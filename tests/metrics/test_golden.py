"""The released data: the reference package's own numbers from its own arrays, and a real run against them."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from typing import NamedTuple

import numpy as np
import pytest

from sfumato.datasets import named as datasets
from sfumato.execution.pool import PoolSettings
from sfumato.jobs.perform import Way
from sfumato.metrics.curves import StationaryPoints, spurious_points, stationary_points
from sfumato.metrics.extrema import false_extrema
from sfumato.metrics.forces import energy_mae_raw, force_mae
from sfumato.metrics.smoothness import fsd, work_energy_residual
from sfumato.potentials.potential import Batch
from sfumato.potentials.specs import load as load_potential
from sfumato.protocols.run import run
from sfumato.systems import ScanSet, System
from tests import SHARED

DATA = SHARED / "data"
CALCULATORS = ("gfn2-xtb", "sevennet-0", "chgnet-0.3.0")


class Reference(NamedTuple):
    coordinate: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    positions: np.ndarray


def golden_rows(calculator: str) -> list[dict]:
    return json.loads((DATA / "golden-bsct" / f"{calculator}.json").read_text())["scans"]


@functools.cache
def golden_scans() -> dict[str, Reference]:
    """The nine reference scans, straight out of the released archive."""
    archive = DATA / "bsct-spice.tar.zst"
    if not archive.exists() or not (DATA / "golden-bsct").exists():
        pytest.skip("the released reference data is not beside this checkout (../shared/data)")
    import zstandard
    from ase.io import read

    names = {f"{row['bond']}/{row['id']}" for row in golden_rows("gfn2-xtb")}
    files: dict[str, dict[str, bytes]] = {name: {} for name in names}
    with (
        archive.open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as stream,
        tarfile.open(fileobj=stream, mode="r|") as tar,
    ):
        for member in tar:
            scan, _, file = member.name.removeprefix("bsct_spice/").rpartition("/")
            if scan in names and (content := tar.extractfile(member)) is not None:
                files[scan][file] = content.read()
    scans = {}
    for name, content in files.items():
        low, high, n = np.load(io.BytesIO(content["partition.npz"]))["perturb_range"]
        frames = [
            read(io.StringIO(content[f"atoms_{i}.xyz"].decode()), format="extxyz") for i in range(int(n))
        ]
        scans[name] = Reference(
            np.linspace(low, high, int(n)),
            np.array([atoms.get_potential_energy() for atoms in frames]),
            np.array([atoms.get_forces() for atoms in frames]),
            np.array([atoms.positions for atoms in frames]),
        )
    return scans


@pytest.mark.parametrize("calculator", CALCULATORS)
def test_golden_all_nine_metrics_of_every_scan(calculator):
    scans = golden_scans()
    with np.load(DATA / "golden-bsct" / f"{calculator}.npz") as predicted:
        for row in golden_rows(calculator):
            name = f"{row['bond']}/{row['id']}"
            b, E, F, _ = scans[name]
            energy, forces, m = predicted[f"{name}/energy"], predicted[f"{name}/forces"], int(np.argmin(E))
            ours = {
                "smoothness": fsd(b, E, F, forces),
                "energy_mae": energy_mae_raw(E, energy, m),
                "forces_mae": force_mae(F, forces, m),
            }
            for metric, sides in ours.items():
                for side, value in sides._asdict().items():
                    # Observed 4e-16; the reference package prints these from the same arrays.
                    assert value == pytest.approx(row[f"{side}_{metric}"], rel=1e-9), (name, side, metric)


def test_golden_data_set_means():
    scans, means = golden_scans(), []
    for calculator in CALCULATORS:
        with np.load(DATA / "golden-bsct" / f"{calculator}.npz") as p:
            means.append(
                np.mean([fsd(b, E, F, p[f"{name}/forces"]) for name, (b, E, F, _) in scans.items()], axis=0)
            )
    published = [(33.208, 33.157, 25.034), (46.183, 46.183, 32.613), (76.940, 76.940, 33.136)]
    np.testing.assert_allclose(means, published, atol=6e-4)


def test_the_reference_curves_have_one_well_one_inflection_and_follow_their_forces():
    for name, (b, E, F, x) in golden_scans().items():
        assert stationary_points(b, E) == StationaryPoints(1, 0, 1), name
        # Trapezoid error of the steep wall at this grid; an SCF jump would be tens of meV or more.
        assert work_energy_residual(E, F, x, int(np.argmin(E))).full < 0.03, name


def test_known_defects_of_real_potentials_are_counted():
    scans = golden_scans()
    spurious = {}
    for calculator in CALCULATORS:
        with np.load(DATA / "golden-bsct" / f"{calculator}.npz") as p:
            spurious[calculator] = {
                name: spurious_points(b, E, p[f"{name}/energy"]) for name, (b, E, _, _) in scans.items()
            }
    assert set(spurious["gfn2-xtb"].values()) == {(0, 0, 0)}
    assert spurious["sevennet-0"]["O-P/1720"] == StationaryPoints(1, 1, 2)  # a second well at 1.70 Å
    assert spurious["chgnet-0.3.0"]["N-O/3040"].maxima == 1  # its wall turns over at 0.73 Å
    assert spurious["chgnet-0.3.0"]["C-O/64"].maxima == 1


def test_false_barriers_and_wells_of_real_potentials():
    scans = golden_scans()
    found = {}
    for calculator in CALCULATORS:
        with np.load(DATA / "golden-bsct" / f"{calculator}.npz") as p:
            found[calculator] = {
                name: false_extrema(b, E, p[f"{name}/energy"]) for name, (b, E, _, _) in scans.items()
            }
            for name, (b, E, _, _) in scans.items():
                # The reference, judged by a potential that is smooth: no bend of it is taken for false.
                if calculator == "gfn2-xtb":
                    assert false_extrema(b, p[f"{name}/energy"], E)[:2] == ((), ()), name
    assert all(one[:2] == ((), ()) for one in found["gfn2-xtb"].values())
    well = found["sevennet-0"]["O-P/1720"]
    assert well.false_barrier == pytest.approx(0.0153, abs=1e-3)
    wall = found["chgnet-0.3.0"]["N-O/3040"]
    assert wall.barriers[0] == pytest.approx((0.727, 3.491), abs=1e-3)
    assert sum(one.false_barrier > 0 for one in found["chgnet-0.3.0"].values()) == 4


@pytest.mark.slow
def test_gfn2_has_no_false_extremum_on_ninety_scans_of_nine_bond_types():
    pytest.importorskip("tblite", reason="needs the extra xtb")
    golden_scans()
    whole = datasets.load(DATA / "bsct-spice.tar.zst")
    rng = np.random.default_rng(13)
    types = sorted({scan.stratum for scan in whole})
    names = [
        str(name)
        for kind in types
        for name in rng.choice(sorted(s.name for s in whole if s.stratum == kind), 10, replace=False)
    ]
    scans = {scan.name: scan for scan in whole}
    potential = load_potential("gfn2-xtb")
    planted = 0
    for name in names:
        scan = scans[name]
        batch = Batch.of([System(scan.numbers, x) for x in scan.positions])
        energy = np.asarray(potential.predict(batch).require().energy, dtype=float)
        reference = np.where(scan.labeled, scan.energy, np.nan)
        assert false_extrema(scan.coordinate, reference, energy)[:2] == ((), ()), name
        keep = scan.labeled
        assert false_extrema(scan.coordinate[keep], energy[keep], scan.energy[keep])[:2] == ((), ()), name
        bump = 0.2 * np.exp(-0.5 * ((scan.coordinate - 1.5 * scan.coordinate[energy.argmin()]) / 0.06) ** 2)
        planted += false_extrema(scan.coordinate, reference, energy + bump).false_barrier > 0.1
    assert planted >= 85  # it would have been seen


@pytest.mark.slow
def test_a_real_run_of_gfn2_reproduces_the_published_force_smoothness_deviation(tmp_path):
    pytest.importorskip("tblite", reason="needs the extra xtb")
    names = set(golden_scans())
    whole = datasets.load(DATA / "bsct-spice.tar.zst")
    nine = ScanSet("nine", whole.level, whole.licence, whole.source, [s for s in whole if s.name in names])
    finished = run("bsct", ["gfn2-xtb"], nine, out=tmp_path, way=Way(PoolSettings(2)))
    model = finished.models["gfn2-xtb"]
    assert model.coverage == (9, 9)
    assert model.estimates["fsd_full"].mean == pytest.approx(33.208, rel=1e-3)
    for row in golden_rows("gfn2-xtb"):
        values = model.scans[f"{row['bond']}/{row['id']}"].values
        assert values["fsd_full"] == pytest.approx(row["full_smoothness"], rel=2e-3)
        assert values["force_mae_full"] == pytest.approx(row["full_forces_mae"], rel=1e-4)
