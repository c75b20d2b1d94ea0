"""Every number of one predicted scan, and what of its reference they all need.

Every number is defined in docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.metrics.arrays import Sides
from sfumato.metrics.curves import full_turn
from sfumato.metrics.extrema import Extremum
from sfumato.metrics.forces import mean_errors
from sfumato.metrics.shape import Shape, ShapeReference, shape_numbers, shape_reference
from sfumato.metrics.smoothness import FSDNumbers, FSDReference, fsd_numbers, fsd_reference
from sfumato.metrics.work import Steps, steps_of, work_numbers
from sfumato.protocols.bsct.settings import Settings
from sfumato.reference.scans import lever
from sfumato.systems import Bools, Floats, Scan

Values = dict[str, float]


def path_positions(scan: Scan, refine: int) -> Floats:
    """Return the frames with refine − 1 more between each two, ((F − 1)·refine + 1, N, 3) Å.

    Linear interpolation is exact for bonds and sites, whose atoms move on straight lines; of an arc it
    follows the chords.
    """
    fine = np.arange((len(scan) - 1) * refine + 1)
    before = fine // refine
    after = np.minimum(before + 1, len(scan) - 1)
    weight = (fine % refine / refine)[:, None, None]
    path: Floats = scan.positions[before] * (1 - weight) + scan.positions[after] * weight
    return path


def scan_metrics(scan: Scan, energy: Floats, forces: Floats, settings: Settings) -> Values:
    """Return every per-scan number of one prediction.

    Args:
        scan: the reference.
        energy: (P,) eV, on the path refined as `settings.refine` says.
        forces: (P, N, 3) eV/Å.
        settings: see Settings.
    """
    prepared = reference(scan, path_positions(scan, settings.refine), settings)
    return measure(prepared, energy, forces, settings)[0]


@dataclass(frozen=True, eq=False)
class Reference:
    """What the numbers of a scan need of its reference, the same for every model.

    Args:
        scan: itself.
        use: (F,) the labeled frames.
        steps: of the refined path.
        energy: (f,) eV of the labeled frames.
        forces: (f, N, 3) eV/Å.
        minimum: the lowest of them.
        fsd: of them.
        shape: of them.
    """

    scan: Scan
    use: Bools
    steps: Steps
    energy: Floats
    forces: Floats
    minimum: int
    fsd: FSDReference
    shape: ShapeReference


def reference(scan: Scan, path: Floats, settings: Settings) -> Reference:
    """Prepare a scan for the predictions of many models.

    Args:
        scan: with at least one labeled frame.
        path: (P, N, 3) Å, `path_positions`.
        settings: see Settings.
    """
    use = scan.labeled
    b, energy, forces = scan.coordinate[use], scan.energy[use], scan.forces[use]
    arm = lever(scan) if scan.kind == "torsion" else None
    period = None if arm is None else full_turn(scan.coordinate, float(arm.mean()))
    return Reference(
        scan,
        use,
        steps_of(path),
        energy,
        forces,
        int(np.argmin(energy)),
        fsd_reference(b, energy, forces, settings.fsd),
        shape_reference(b, energy, period=period),
    )


def measure(
    reference: Reference, energy: Floats, forces: Floats, settings: Settings
) -> tuple[Values, Values]:
    """Return every per-scan number of one prediction, and what the search for false extrema rests on.

    Args:
        reference: of the scan.
        energy: (P,) eV, on the path refined as `settings.refine` says.
        forces: (P, N, 3) eV/Å.
        settings: see Settings.
    """
    frames, minimum = slice(None, None, settings.refine), reference.minimum
    e, f = energy[frames][reference.use], forces[frames][reference.use]
    shape = shape_numbers(reference.shape, e)
    errors = mean_errors(reference.energy, reference.forces, e, f, minimum)
    values = {
        **_smoothness(fsd_numbers(reference.fsd, f, e), settings.fsd.name),
        **_sides("force_mae", errors.force),
        **_sides("energy_mae_aligned", errors.energy_aligned),
        **_sides("energy_mae_raw", errors.energy_raw),
        **_work(reference, energy, forces, settings),
        **_shape(shape),
    }
    return values, {"energy_noise": shape.false.noise, "extrema_threshold": shape.false.threshold}


def _smoothness(found: FSDNumbers, name: str) -> Values:
    """Name the FSD as published, without the surroundings of the minimum, and where it is read."""
    return {
        **_sides(name, found.whole),
        **_sides(name.replace("fsd", "fsd_outside", 1), found.outside),
        name.replace("fsd", "fsd_position", 1): found.position,
    }


def _work(reference: Reference, energy: Floats, forces: Floats, settings: Settings) -> Values:
    """Return the work–energy residual of the path, how fast it falls, and the excess that no step explains.

    Args:
        reference: of the scan.
        energy: (P,) eV on the refined path.
        forces: (P, N, 3) eV/Å.
        settings: see Settings.
    """
    frame = int(np.flatnonzero(reference.use)[reference.minimum])
    found = work_numbers(reference.steps, energy, forces, frame * settings.refine)
    name = residual_name(settings)
    return {
        **_sides(name, found.residual),
        **_sides(name.replace("residual", "order"), found.order.order),
        name.replace("residual", "excess"): found.excess.height,
    }


def _shape(found: Shape) -> Values:
    """Name what is wrong with the shape of an energy curve."""
    false, spurious, well = found.false, found.spurious, found.well
    return {
        "false_barrier": false.false_barrier,
        "false_barrier_position": _position(false.barriers),
        "false_barriers": len(false.barriers),
        "false_well": false.false_well,
        "false_well_position": _position(false.wells),
        "false_wells": len(false.wells),
        "excess_variation": found.variation,
        "spurious_minima": spurious.minima,
        "spurious_maxima": spurious.maxima,
        "spurious_inflections": spurious.inflections,
        "well_position_error": well.position,
        "well_depth_error": well.depth,
        "wall_error": well.wall,
    }


def _position(extrema: tuple[Extremum, ...]) -> float:
    """Return where the largest is on the coordinate, Å; nan where there is none."""
    return extrema[0].position if extrema else float("nan")


def residual_name(settings: Settings) -> str:
    """Return what the work–energy residual is called: its grid belongs to its name."""
    return "work_energy_residual" + ("" if settings.refine == 1 else f"[refine={settings.refine}]")


def _sides(name: str, sides: Sides) -> Values:
    return {f"{name}_{side}": value for side, value in sides._asdict().items()}
