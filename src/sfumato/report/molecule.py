"""The molecule of a scan as a drawing that a slider moves along the scan and a finger turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from sfumato.systems import Floats, Scan

COLORS = {
    "H": "#e8e8e8",
    "C": "#5a5a5a",
    "N": "#0072b2",
    "O": "#d55e00",
    "P": "#e69f00",
    "S": "#f0e442",
    **dict.fromkeys(("F", "Cl", "Br", "I"), "#009e73"),
}
"""Close to what chemists expect, in colors that stay apart for the color-blind; letters tell the rest."""


STRAIGHT = 1e-3
"""Å; atoms that stray less from straight lines between the first and the last frame need no other frames."""

COORDINATE = {
    "site": "Displacement",
    "bond": "Bond length",
    "angle": "Angle (arc length)",
    "torsion": "Torsion (arc length)",
}
"""What the slider moves, by kind of scan."""

MARKS = {
    "site": "The atom with the thick rim moves",
    "bond": "The dashed line is the scanned bond",
    "angle": "Dashed lines join the atoms of the angle",
    "torsion": "Dashed lines join the atoms of the torsion",
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """A scan to draw.

    Args:
        scan: any scan.
        degrees: (F,) the angle or torsion of every frame; None for scans of lengths.
    """

    scan: Scan
    degrees: Floats | None = None


def scene(drawn: Drawn) -> dict[str, Any]:
    """Return what a drawing needs: two frames where atoms move on straight lines, otherwise all.

    The line through the scanned bond, the ends of the angle, the axis of the torsion or the path of the site
    lies along x, the widest spread across it along y, its middle at the origin.

    Args:
        drawn: the scan.
    """
    scan, turn = drawn.scan, drawn.degrees
    ends = _line(scan)
    center = ends[0].mean(axis=0)
    axis = ends[-1, 1] - ends[-1, 0]
    axis = axis / np.linalg.norm(axis)
    across = scan.positions[0] - center
    across = across - np.outer(across @ axis, axis)
    # A molecule on one line has no spread across it: any direction will do, and SVD gives one.
    second = np.linalg.svd(np.vstack([across, 1e-6 * np.eye(3) - 1e-6 * np.outer(axis, axis)]))[2][0]
    frame = np.stack([axis, second, np.cross(axis, second)])
    places = np.round((scan.positions - center) @ frame.T, 4)
    symbols = [chemical_symbols[z] for z in scan.numbers]
    return {
        "symbols": symbols,
        "radii": [round(float(covalent_radii[z]), 3) for z in scan.numbers],
        "colors": [COLORS.get(symbol, "#cc79a7") for symbol in symbols],
        "frames": (places[[0, -1]] if _straight(scan) else places).tolist(),
        "lengths": np.round(scan.coordinate, 4).tolist(),
        "degrees": None if turn is None else np.round(turn, 1).tolist(),
        "label": COORDINATE[scan.kind],
        "scanned": scan.atoms.tolist(),
        "start": int(np.nanargmin(scan.energy)) if scan.labeled.any() else 0,
    }


def _line(scan: Scan) -> Floats:
    """Return (F, 2, 3) Å, two points that the drawing turns into its horizontal."""
    x, atoms = scan.positions, scan.atoms
    if scan.kind == "site":
        return np.asarray(np.stack([np.broadcast_to(x[0, atoms[0]], x[:, 0].shape), x[:, atoms[0]]], axis=1))
    chosen = atoms[1:3] if scan.kind == "torsion" else atoms[[0, -1]]
    return np.asarray(x[:, chosen])


def _straight(scan: Scan) -> bool:
    first, last, b = scan.positions[0], scan.positions[-1], scan.coordinate
    share = ((b - b[0]) / (b[-1] - b[0]))[:, None, None]
    return bool(np.abs(first + share * (last - first) - scan.positions).max() < STRAIGHT)


def viewer(scans: Mapping[str, Drawn], select: str) -> str:
    """Return the drawing that follows a selector.

    Its slider also moves the shape called `figures.FRAME` of the figure that the selector shows.

    Args:
        scans: by the selector's option values.
        select: the selector's element id.
    """
    scenes = json.dumps({key: scene(drawn) for key, drawn in scans.items()}).replace("<", "\\u003c")
    kinds = [kind for kind in COORDINATE if kind in {drawn.scan.kind for drawn in scans.values()}]
    label = COORDINATE[kinds[0]] if len(kinds) == 1 else "Coordinate"
    marks = ". ".join(MARKS[kind] for kind in kinds)
    return (
        f'<figure class="molecule" data-select="{escape(select)}">'
        f'<script type="application/json">{scenes}</script>'
        f'<canvas role="img" aria-label="The molecule at the chosen {label.lower()}"></canvas>'
        f'<p class="pick"><label><span>{label}</span> <input type="range" min="0" step="1"></label> '
        "<output></output></p>"
        f"<figcaption>Drag to turn. {marks}; sticks join atoms closer than 1.25 "
        "times the sum of their covalent radii.</figcaption></figure>"
    )
