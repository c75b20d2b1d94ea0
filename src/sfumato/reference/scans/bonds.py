"""Bond scans: the two fragments of a molecule on straight lines, or one of a crystal's atoms or groups."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import ArrayLike

from sfumato.reference.scans.measure import type_name
from sfumato.reference.scans.network import Bridge
from sfumato.systems import Floats, System

SPAN = (0.5, 2.0)
"""First and last bond length of a scan, in sums of the two covalent radii."""


def bond_type(numbers: ArrayLike, bond: ArrayLike) -> str:
    """Name a bond by its two elements in alphabetical order.

    Args:
        numbers: (N,) atomic numbers.
        bond: (2,) the bonded atoms.

    Returns:
        For example "C-O".
    """
    return type_name(numbers, bond)


def displaced(positions: ArrayLike, fragment: ArrayLike, direction: ArrayLike, alpha: ArrayLike) -> Floats:
    """Move the two fragments of a molecule apart: x_i(α) = x_i + α h_i r̂.

    Args:
        positions: (N, 3) Å.
        fragment: (N,) ±1, the h_i.
        direction: (3,) the unit vector r̂.
        alpha: displacement of each fragment in Å, one number or (F,).

    Returns:
        (N, 3) or (F, N, 3) Å.

    Source: Liu et al. 2026, Eq. 1.
    """
    step = np.asarray(fragment, dtype=float)[:, None] * np.asarray(direction, dtype=float)
    moved: Floats = (
        np.asarray(positions, dtype=float) + np.asarray(alpha, dtype=float)[..., None, None] * step
    )
    return moved


def scan_lengths(numbers: ArrayLike, bond: ArrayLike, frames: int = 100) -> Floats:
    """Choose the bond lengths of a scan: evenly from 0.5 to 2 times the sum of covalent radii.

    Args:
        numbers: (N,) atomic numbers.
        bond: (2,) the bonded atoms.
        frames: number of frames F, at least 2.

    Returns:
        (F,) Å.

    Raises:
        ValueError: fewer than two frames.

    Source: Liu et al. 2026, App. A, step 2.
    """
    if frames < 2:
        raise ValueError(f"scan_lengths: a scan needs at least 2 frames, got {frames}")
    # The released ranges follow from the two-decimal radii; rounding removes the last bits of their sum.
    total = round(float(covalent_radii[np.asarray(numbers)[np.asarray(bond)]].sum()), 2)
    return np.linspace(SPAN[0] * total, SPAN[1] * total, frames)


def scan_positions(system: System, bridge: Bridge, lengths: ArrayLike) -> Floats:
    """Make the frames of a scan at given bond lengths.

    Args:
        system: the molecule.
        bridge: the bond to scan.
        lengths: (F,) bond lengths in Å.

    Returns:
        (F, N, 3) Å; the bond length changes by 2α, half of it on each side.

    Raises:
        ValueError: the two bonded atoms lie on one point.

    Source: Liu et al. 2026, Eq. 1.
    """
    r = system.positions[bridge.j] - system.positions[bridge.i]
    length = float(np.linalg.norm(r))
    if length == 0:
        raise ValueError(f"scan_positions: atoms {bridge.i} and {bridge.j} lie on one point")
    alpha = (np.asarray(lengths, dtype=float) - length) / 2
    return displaced(system.positions, bridge.fragment, r / length, alpha)
