"""Energies and forces of an engine against the released labels, frame by frame.

    python benchmarks/engines_vs_released.py --out pyscf.jsonl
    python benchmarks/engines_vs_released.py --out psi4.jsonl --engine psi4 --scans N-O/19086 --frames 2

One JSON line per frame goes to --out; frames that are there are not computed again. Five frames of a scan are
strongly compressed, compressed, at the minimum, stretched, and at the end; fewer are taken from these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from cyclopts import App

from sfumato.datasets import named as datasets
from sfumato.potentials.engines import Engine, make_engine
from sfumato.systems import Scan
from sfumato.units import MEV

SCANS = ("N-O/19086", "N-O/4583", "C-O/21541")
ENERGY_LIMIT, FORCE_LIMIT = 1.0, 2.0
"""meV of one energy, and meV/Å of the mean absolute force component of one frame."""

app = App(help=__doc__, help_format="plaintext")


def spread_frames(scan: Scan, count: int) -> list[int]:
    """Return frames from the compressed wall over the minimum to the stretched end."""
    m, last = int(np.nanargmin(scan.energy)), len(scan) - 1
    frames = [m // 4, 3 * m // 4, m, (m + last) // 2, last]
    return [frames[k] for k in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def compare(engine: Engine, scan: Scan, frame: int) -> dict[str, Any]:
    """Label one frame and return its differences in meV and meV/Å."""
    label = engine.label(scan.system(frame))
    off = np.abs(label.forces - scan.forces[frame]) / MEV
    return {
        "identity": engine.identity,
        "engine": label.engine,
        "level": engine.level,
        "scan": scan.name,
        "frame": frame,
        "energy": (label.energy - scan.energy[frame]) / MEV,
        "force_mae": off.mean(),
        "force_max": off.max(),
        "seconds": label.seconds,
        "message": label.message,
    }


def shown(row: dict[str, Any]) -> str:
    """One line of the table."""
    good = abs(row["energy"]) <= ENERGY_LIMIT and row["force_mae"] <= FORCE_LIMIT
    return (
        f"{row['scan']:<10} {row['frame']:>5} {row['energy']:>+9.3f} {row['force_mae']:>9.3f} "
        f"{row['force_max']:>9.3f} {row['seconds']:>7.1f}  {'' if good else 'OUTSIDE '}{row['message']}"
    )


@app.default
def main(
    *,
    out: Path,
    data: str = "bsct-spice",
    engine: str = "pyscf",
    level: str = "wb97m-d3bj/def2-tzvppd",
    scans: tuple[str, ...] = SCANS,
    frames: int = 5,
) -> None:
    """Compute what is missing in `out` and print the table; exit code 1 if a frame is outside the limits."""
    made = make_engine(engine, level)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    done = {(row["identity"], row["scan"], row["frame"]): row for row in map(json.loads, lines)}
    print(f"{'scan':<10} {'frame':>5} {'ΔE meV':>9} {'MAE meV/Å':>9} {'max meV/Å':>9} {'s':>7}")
    rows = []
    for scan in [s for s in datasets.load(data) if s.name in scans]:
        for frame in spread_frames(scan, frames):
            row = done.get((made.identity, scan.name, frame))
            if row is None:
                row = compare(made, scan, frame)
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(shown(row), flush=True)
    wrong = [r for r in rows if not (abs(r["energy"]) <= ENERGY_LIMIT and r["force_mae"] <= FORCE_LIMIT)]
    raise SystemExit(f"{len(wrong)} of {len(rows)} frames are outside the limits" if wrong else 0)


if __name__ == "__main__":
    app()
