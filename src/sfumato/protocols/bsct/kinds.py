"""Words for the coordinate of a scan and for its type, by kind of scan."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from sfumato.reference.scans import lever
from sfumato.systems import Scan

if TYPE_CHECKING:
    from sfumato.protocols.protocol import Run


def type_word(run: Run) -> str:
    """Return what the strata of a run are: "bond type" if all its scans are of bonds, and so on."""
    kinds = {scan.kind for scan in run.data}
    return f"{kinds.pop()} type" if len(kinds) == 1 else "type"


def coordinate_of(scan: Scan) -> tuple[str, str]:
    """Return the symbol of a scan's coordinate and the title of its axis, escaped."""
    kind = escape(scan.stratum, quote=False)
    if scan.kind == "bond":
        return "b", f"{kind} bond length b, Å"
    arm = lever(scan)
    if arm is None:
        return "s", f"displacement s of {kind} from the first frame, Å"
    return "s", f"{kind} {scan.kind}: arc length s, Å (1 Å is {math.degrees(1 / float(arm.mean())):.1f}°)"
