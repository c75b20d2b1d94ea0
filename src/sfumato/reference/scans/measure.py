"""What the coordinate of a scan is called, and its value in any frame."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import ArrayLike

from sfumato.systems import Floats, Scan


def type_name(numbers: ArrayLike, atoms: ArrayLike) -> str:
    """Name a site, bond, angle or torsion by its elements, read in the direction that sorts first.

    Args:
        numbers: (N,) atomic numbers.
        atoms: (1 to 4,) its atoms.

    Returns:
        For example "Na", "C-O", "C-C-O" or "C-C-C-O".
    """
    symbols = [chemical_symbols[z] for z in np.asarray(numbers)[np.asarray(atoms)]]
    return "-".join(min(symbols, symbols[::-1]))


def angle(ends: Floats) -> Floats:
    """Return angles in rad, exact also near 0 and π.

    Args:
        ends: (…, 3, 3) Å, three points; the angle is at the second.
    """
    a, b = ends[..., 0, :] - ends[..., 1, :], ends[..., 2, :] - ends[..., 1, :]
    return np.asarray(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))


def torsion(ends: Floats) -> Floats:
    """Return torsion angles in rad, in (−π, π], 0 for cis, positive for clockwise (IUPAC).

    Args:
        ends: (…, 4, 3) Å, four points.
    """
    first, axis, last = (ends[..., n + 1, :] - ends[..., n, :] for n in range(3))
    one, other = np.cross(first, axis), np.cross(axis, last)
    across = (np.cross(one, other) * axis).sum(axis=-1) / np.linalg.norm(axis, axis=-1)
    return np.asarray(np.arctan2(across, (one * other).sum(axis=-1)))


def distance_to_axis(ends: Floats) -> Floats:
    """Return (…,) Å, the distance of the last point from the line through the two before it."""
    axis, last = ends[..., -2, :] - ends[..., -3, :], ends[..., -1, :] - ends[..., -2, :]
    return np.asarray(np.linalg.norm(np.cross(axis, last), axis=-1) / np.linalg.norm(axis, axis=-1))


def lever(scan: Scan) -> Floats | None:
    """Return (F,) Å of arc per rad of an angle or torsion scan; None for sites and bonds."""
    ends = scan.positions[:, scan.atoms]
    if scan.kind == "angle":
        return np.asarray(np.linalg.norm(ends[:, 2] - ends[:, 1], axis=1))
    return distance_to_axis(ends) if scan.kind == "torsion" else None


def degrees(scan: Scan) -> Floats | None:
    """Return (F,) the angle or torsion of every frame in degrees, torsions in (−180, 180]; else None."""
    ends = scan.positions[:, scan.atoms]
    if scan.kind in ("site", "bond"):
        return None
    return np.asarray(np.degrees(angle(ends) if scan.kind == "angle" else torsion(ends)))


def measured(scan: Scan) -> Floats:
    """Return the coordinate of a scan as its positions have it.

    Args:
        scan: in a crystal the images of `atoms` must be the neighboring ones, as `candidates` lays them out.

    Returns:
        (F,) Å: the bond length; r·θ of an angle, r the length of its second bond; ρ·φ of a torsion, ρ the
        distance of its last atom from the axis, by whole turns next to `scan.coordinate`; the way that the
        atom of a site has come since the first frame.
    """
    ends = scan.positions[:, scan.atoms]
    if scan.kind == "site":
        steps = np.linalg.norm(np.diff(ends[:, 0], axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])[: len(scan)]
    if scan.kind == "bond":
        return np.asarray(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1))
    arm = lever(scan)
    assert arm is not None
    if scan.kind == "angle":
        return np.asarray(arm * angle(ends))
    turn = torsion(ends)
    whole = np.round((scan.coordinate / arm - turn) / (2 * np.pi))
    return np.asarray(arm * (turn + 2 * np.pi * whole))
