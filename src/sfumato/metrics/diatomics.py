"""Curves of two atoms: how often they turn back, and how far they are from a reference.

The numbers are those of Matbench-Discovery (`matbench_discovery/metrics/diatomics`), which has them from MLIP
Arena: tortuosity, energy jump, flips of the energy and of the force, within a window of distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sfumato.systems import Floats

ENERGY_FLAT = 1e-3
"""eV; a smaller change from one distance to the next has no direction."""

FORCE_FLAT = 1e-2
"""eV/Å; a smaller force has no direction."""

INSIDE, OUTSIDE = 0.9, 3.1
"""The window begins at so many covalent radii of one atom, and ends at so many van der Waals radii."""


def window(number: int, largest: float) -> tuple[float, float]:
    """Return the distances in Å between which the curve of two like atoms is judged.

    Args:
        number: atomic number.
        largest: Å, the largest distance there is.
    """
    from ase.data import covalent_radii, vdw_alvarez

    reach = float(vdw_alvarez.vdw_radii[number]) if number < len(vdw_alvarez.vdw_radii) else np.nan
    end = min(OUTSIDE * reach, largest) if np.isfinite(reach) else largest
    return INSIDE * float(covalent_radii[number]), end


def tortuosity(energy: ArrayLike) -> float:
    """Return Σ|ΔE| / (|E_first − E_min| + |E_last − E_min|): 1 for one well or a wall; nan for a flat curve.

    Args:
        energy: (P,) eV in the order of distance.
    """
    e = np.asarray(energy, dtype=float)
    direct = abs(e[0] - e.min()) + abs(e[-1] - e.min())
    return float(np.abs(np.diff(e)).sum() / direct) if direct > 0 else float("nan")


def energy_flips(energy: ArrayLike) -> int:
    """Return how often the energy turns from falling to rising or back; 1 for a well."""
    steps = _steps(energy)
    return int((np.diff(np.sign(steps)) != 0).sum())


def energy_jump(energy: ArrayLike) -> float:
    """Return eV, Σ over the turns of the energy of the steps before and after.

    Args:
        energy: (P,) eV in the order of distance. The number depends on the distances: it is about twice a
            step at the bottom of a single well, and grows with every other turn.
    """
    steps = _steps(energy)
    turn = np.diff(np.sign(steps)) != 0
    return float(np.abs(steps[:-1][turn]).sum() + np.abs(steps[1:][turn]).sum())


def _steps(energy: ArrayLike) -> Floats:
    steps: Floats = np.diff(np.asarray(energy, dtype=float))
    return steps[np.abs(steps) >= ENERGY_FLAT]


def force_flips(force: ArrayLike) -> int:
    """Return how often the force changes its direction; 1 for a well.

    Args:
        force: (P,) eV/Å on one atom along the line, in the order of distance.
    """
    f = np.asarray(force, dtype=float)
    return int((np.diff(np.sign(f[np.abs(f) >= FORCE_FLAT])) != 0).sum())


@dataclass(frozen=True)
class Well:
    """The minimum of a curve.

    Args:
        place: Å, by a parabola through the lowest point and its neighbors; nan without a well.
        depth: eV, from there to the largest distance.
    """

    place: float
    depth: float


def well(distances: ArrayLike, energy: ArrayLike) -> Well:
    """Return the minimum of a curve; nan where it is at an end.

    Args:
        distances: (P,) Å, rising.
        energy: (P,) eV.
    """
    r, e = np.asarray(distances, dtype=float), np.asarray(energy, dtype=float)
    k = int(np.argmin(e))
    if k in (0, len(e) - 1):
        return Well(float("nan"), float("nan"))
    x = r[k - 1 : k + 2] - r[k]
    a, b, c = np.polynomial.polynomial.polyfit(x, e[k - 1 : k + 2], 2)
    place = float(np.clip(-b / (2 * c), x[0], x[-1])) if c > 0 else 0.0
    return Well(float(r[k] + place), float(e[-1] - (a + b * place + c * place**2)))
