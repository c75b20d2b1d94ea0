"""All numbers of a scan at once are those that the public functions give one by one."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from sfumato.datasets.named import load
from sfumato.metrics.curves import excess_variation, spurious_points, well_and_wall
from sfumato.metrics.extrema import false_extrema
from sfumato.metrics.forces import energy_mae_aligned, energy_mae_raw, force_mae
from sfumato.metrics.shape import shape_numbers, shape_reference
from sfumato.metrics.smoothness import (
    fsd,
    fsd_outside,
    fsd_position,
    work_energy_order,
    work_energy_residual,
)
from sfumato.metrics.work import work_energy_excess
from sfumato.protocols.bsct.analysis import ModelResult, ScanResult
from sfumato.protocols.bsct.measure import measure, path_positions, reference
from sfumato.protocols.bsct.settings import Settings


def predicted(scan, refine, kind, seed=0):
    """Energies and forces on the refined path, smooth, rippled, or noisy."""
    rng = np.random.default_rng(seed)
    path = path_positions(scan, refine)
    labeled = np.flatnonzero(scan.labeled)
    at = np.arange(len(path)) / refine
    energy = np.interp(at, labeled, scan.energy[labeled])
    forces = np.array(scan.forces[labeled][np.clip(np.searchsorted(labeled, at), 0, len(labeled) - 1)])
    b = np.interp(at, np.arange(len(scan)), scan.coordinate)
    if kind == "rippled":
        energy = energy + 0.05 * np.sin(9 * b)
    elif kind == "noisy":
        energy = energy + 2e-3 * rng.normal(size=len(path))
    return energy - 7.0, forces * 1.02 + 0.3 * np.sin(5 * b)[:, None, None] * rng.normal(
        size=forces.shape[1:]
    )


def one_by_one(scan, energy, forces, settings):
    """The numbers by the public functions."""
    use, step = scan.labeled, settings.refine
    b, E, F = scan.coordinate[use], scan.energy[use], scan.forces[use]
    e, f = energy[::step][use], forces[::step][use]
    m, path = int(E.argmin()), path_positions(scan, step)
    frame = int(np.flatnonzero(use)[m]) * step
    odd = len(path) - (len(path) + 1) % 2
    how = {"settings": settings.fsd, "energy": e}
    name, work = settings.fsd.name, "" if step == 1 else f"[refine={step}]"
    order = work_energy_order(energy[:odd], forces[:odd], path[:odd], min(frame // 2, odd // 2)).order
    false = false_extrema(b, E, e)
    spurious, well = spurious_points(b, E, e), well_and_wall(b, E, e)
    sides = {
        name: fsd(b, E, F, f, **how),
        name.replace("fsd", "fsd_outside", 1): fsd_outside(b, E, F, f, **how),
        "force_mae": force_mae(F, f, m),
        "energy_mae_aligned": energy_mae_aligned(E, e, m),
        "energy_mae_raw": energy_mae_raw(E, e, m),
        f"work_energy_residual{work}": work_energy_residual(energy, forces, path, frame),
        f"work_energy_order{work}": order,
    }
    found = {f"{key}_{side}": v for key, s in sides.items() for side, v in s._asdict().items()}
    return found | {
        name.replace("fsd", "fsd_position", 1): fsd_position(b, E, F, f, **how),
        f"work_energy_excess{work}": work_energy_excess(energy, forces, path).height,
        "false_barrier": false.false_barrier,
        "false_barrier_position": false.barriers[0].position if false.barriers else math.nan,
        "false_barriers": len(false.barriers),
        "false_well": false.false_well,
        "false_well_position": false.wells[0].position if false.wells else math.nan,
        "false_wells": len(false.wells),
        "excess_variation": excess_variation(b, E, e),
        "spurious_minima": spurious.minima,
        "spurious_maxima": spurious.maxima,
        "spurious_inflections": spurious.inflections,
        "well_position_error": well.position,
        "well_depth_error": well.depth,
        "wall_error": well.wall,
    }


def gappy(scan):
    """A scan some of whose frames have no labels."""
    energy, forces = np.array(scan.energy), np.array(scan.forces)
    energy[[3, 40, 41]], forces[[3, 40, 41]] = np.nan, np.nan
    return replace(scan, energy=energy, forces=forces)


SETTINGS = {
    "default": Settings(),
    "refined": Settings(refine=2),
    "own minimum, stride": Settings(minimum="own", stride=3, floor=0.5),
    "alpha": Settings(coordinate="alpha"),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("kind", ["smooth", "rippled", "noisy"])
@pytest.mark.parametrize("change", [lambda scan: scan, gappy], ids=["whole", "gappy"])
def test_all_numbers_at_once_are_those_one_by_one(settings, kind, change):
    seen = set()
    for scan in map(change, list(load("bsct-mini"))[::3]):
        energy, forces = predicted(scan, settings.refine, kind)
        prepared = reference(scan, path_positions(scan, settings.refine), settings)
        values, limits = measure(prepared, energy, forces, settings)
        expected = one_by_one(scan, energy, forces, settings)
        assert values.keys() == expected.keys()
        for name, value in expected.items():
            assert values[name] == value or (math.isnan(value) and math.isnan(values[name])), name
        assert limits["extrema_threshold"] >= 1e-3
        seen |= {name for name, value in values.items() if value and not math.isnan(value)}
    assert "force_mae_full" in seen
    assert "spurious_inflections" in seen or kind == "smooth"
    assert "false_barrier" in seen or kind != "rippled"


def test_the_json_has_what_the_search_for_false_extrema_rests_on():
    scan, settings = next(iter(load("bsct-mini"))), Settings()
    energy, forces = predicted(scan, 1, "noisy")
    values, limits = measure(reference(scan, path_positions(scan, 1), settings), energy, forces, settings)
    result = ModelResult("m", "id", {scan.name: ScanResult("ok", "", values, energy, forces, limits)}, 0)
    written = json.loads(json.dumps(result.as_json()))["scans"][scan.name]
    assert written["energy_noise"] == pytest.approx(2e-3, rel=0.4)
    assert written["extrema_threshold"] == 5e-3  # five times the noise, at most 5 meV


@pytest.mark.parametrize("repeated", [False, True])
def test_the_shape_of_a_closed_path_likewise(repeated):
    phi = 2 * np.pi * np.arange(72 + repeated) / 72
    true, turned = 0.1 * np.cos(3 * phi), 0.1 * np.cos(3 * phi - 0.2) + 0.03 * np.cos(8 * phi)
    turn = {"period": 2 * np.pi}
    found = shape_numbers(shape_reference(phi, true, **turn), turned)
    assert found.false == false_extrema(phi, true, turned, **turn)
    assert found.spurious == spurious_points(phi, true, turned, **turn)
    assert found.variation == excess_variation(phi, true, turned, **turn)
    assert found.well == well_and_wall(phi, true, turned)
    assert found.false.barriers
    assert found.spurious.minima
