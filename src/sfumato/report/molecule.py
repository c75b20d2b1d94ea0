"""The molecule of a scan as a drawing that a slider moves along the scan and a finger turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from sfumato.systems import Scan

COLOURS = {
    "H": "#e8e8e8",
    "C": "#5a5a5a",
    "N": "#0072b2",
    "O": "#d55e00",
    "P": "#e69f00",
    "S": "#f0e442",
    **dict.fromkeys(("F", "Cl", "Br", "I"), "#009e73"),
}
"""Close to what chemists expect, in colours that stay apart for the colour-blind; letters tell the rest."""


def scene(scan: Scan) -> dict[str, Any]:
    """Return what a drawing needs: along a scan atoms move on straight lines, so two frames are enough.

    The scanned bond lies along x, the widest spread across it along y, the middle of the bond at the origin.

    Args:
        scan: any scan.
    """
    i, j = scan.atoms
    centre = (scan.positions[0, i] + scan.positions[0, j]) / 2
    axis = scan.positions[-1, j] - scan.positions[-1, i]
    axis = axis / np.linalg.norm(axis)
    across = scan.positions[0] - centre
    across = across - np.outer(across @ axis, axis)
    # A molecule on one line has no spread across it: any direction will do, and SVD gives one.
    second = np.linalg.svd(np.vstack([across, 1e-6 * np.eye(3) - 1e-6 * np.outer(axis, axis)]))[2][0]
    frame = np.stack([axis, second, np.cross(axis, second)])
    ends = [np.round((scan.positions[k] - centre) @ frame.T, 4).tolist() for k in (0, -1)]
    symbols = [chemical_symbols[z] for z in scan.numbers]
    return {
        "symbols": symbols,
        "radii": [round(float(covalent_radii[z]), 3) for z in scan.numbers],
        "colours": [COLOURS.get(symbol, "#cc79a7") for symbol in symbols],
        "first": ends[0],
        "last": ends[1],
        "lengths": np.round(scan.coordinate, 4).tolist(),
        "bond": [int(i), int(j)],
        "start": int(np.nanargmin(scan.energy)) if scan.labelled.any() else 0,
    }


def viewer(scans: Mapping[str, Scan], select: str) -> str:
    """Return the drawing that follows a selector.

    Args:
        scans: by the selector's option values.
        select: the selector's element id.
    """
    scenes = json.dumps({key: scene(scan) for key, scan in scans.items()}).replace("<", "\\u003c")
    return (
        f'<figure class="molecule" data-select="{escape(select)}">'
        f'<script type="application/json">{scenes}</script>'
        '<canvas role="img" aria-label="The molecule at the chosen bond length"></canvas>'
        '<p class="pick"><label>Bond length <input type="range" min="0" step="1"></label> '
        "<output></output></p>"
        "<figcaption>Drag to turn. The dashed line is the scanned bond; sticks join atoms closer than 1.25 "
        "times the sum of their covalent radii.</figcaption></figure>"
    )
