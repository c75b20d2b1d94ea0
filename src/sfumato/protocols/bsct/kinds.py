"""Words for the coordinate of a scan, its sides and its type, by kind of scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from sfumato.reference.scans import lever
from sfumato.systems import Scan

if TYPE_CHECKING:
    from sfumato.protocols.protocol import Run


@dataclass(frozen=True)
class Sides:
    """What the frames before and after the reference minimum are called.

    Args:
        before: short, in the title of a number.
        after: likewise.
        first: of the frames before, in a legend.
        last: of the frames after.
        start: what the first frame stands for, short.
        end: what the last frame stands for, short.
    """

    before: str
    after: str
    first: str
    last: str
    start: str
    end: str


BOND = Sides("compress", "stretch", "compressed", "stretched", "wall", "well depth")
_RISES = ("rise to first frame", "rise to last frame")
ANGLE = Sides("narrow", "wide", "narrower angles", "wider angles", *_RISES)
ANY = Sides("before min", "after min", "before the minimum", "after the minimum", *_RISES)


def sides_of(run: Run) -> Sides:
    """Return the words for the sides of a run's scans; words of bonds only where all are bonds."""
    return {"bond": BOND, "angle": ANGLE}.get(kind_of(run), ANY)


def kind_of(run: Run) -> str:
    """Return what is scanned: "bond", "angle", "torsion" or "site"; empty where scans differ."""
    kinds = {scan.kind for scan in run.data}
    return str(kinds.pop()) if len(kinds) == 1 else ""


def type_word(run: Run) -> str:
    """Return what the strata of a run are: "bond type" if all its scans are of bonds, and so on."""
    return f"{kind_of(run)} type".strip()


def coordinate_of(scan: Scan) -> tuple[str, str]:
    """Return the symbol of a scan's coordinate and the title of its axis, escaped."""
    kind = escape(scan.stratum, quote=False)
    if scan.kind == "bond":
        return "b", f"{kind} bond length b, Å"
    arm = lever(scan)
    if arm is None:
        return "s", f"displacement s of {kind} from the first frame, Å"
    return "s", f"{kind} {scan.kind}: arc length s, Å (1 Å is {math.degrees(1 / float(arm.mean())):.1f}°)"
