"""Tables about reference data: its quality, what was left out, what a campaign would take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.commands.plan_table import with_workers
from sfumato.io import Exclusion
from sfumato.report.numbers import number
from sfumato.report.tables import plain_table, reason_cell, shorten
from sfumato.words import duration

if TYPE_CHECKING:
    from sfumato.campaigns.scans import Geometry
    from sfumato.datasets.check import FrameReport
    from sfumato.reference.quality import QualityReport, Statement


def quality_table(quality: QualityReport) -> RenderableType:
    """Return the contents of a set of scans and its quality statements: claim, measured value, limit."""
    low, mean, high = quality.atoms
    contents = Text(
        f"{quality.name} · {quality.level}\n{quality.scans} scans, {quality.frames} frames, "
        f"{low} to {high} atoms (mean {mean:.1f}) of {' '.join(quality.elements)}\n"
        + _counts(quality.counts)
        + "\n"
    )
    return Group(contents, _statements(quality.statements))


def frames_table(found: FrameReport) -> RenderableType:
    """Return the contents of a set of frames, its statements, and what could not be tested."""
    low, mean, high = found.atoms
    contents = Text(
        f"{found.name} · {found.level}\n{found.frames} frames of {found.molecules} molecules, "
        f"{low} to {high} atoms (mean {mean:.1f}) of {' '.join(found.elements)}\n"
        f"{_counts(found.splits)}\n{_counts(found.subsets)}\n"
        f"forces: {number(found.force_scale)} eV/Å root mean square\n"
    )
    hints = [Text(f"{s.name}: {s.hint}") for s in found.statements if s.hint and not s.passed]
    notes = [Text(f"note: {note}") for note in found.notes]
    return Group(contents, _statements(found.statements), *hints, *notes)


def _counts(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{name} {count}" for name, count in counts.items())


def _statements(statements: Iterable[Statement]) -> RenderableType:
    table = plain_table(None)
    table.add_column("", no_wrap=True)
    table.add_column("statement", overflow="fold")
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("worst", overflow="fold")
    for statement in statements:
        values = (f"{number(value)} {statement.unit}".strip() for value in (statement.value, statement.limit))
        mark = Text("pass", style="green") if statement.passed else Text("FAIL", style="bold red")
        table.add_row(mark, Text(statement.claim), *values, Text(statement.where))
    return table


def exclusion_table(excluded: Iterable[Exclusion]) -> RenderableType:
    """Return what was left out, by kind of reason with the first as an example; the most frequent first."""
    groups: dict[str, list[Exclusion]] = {}
    for exclusion in excluded:
        reason = re.sub(r"^atoms [\d-]+: ", "", exclusion.reason)
        kind = re.match(r"clash|force|jump|line|record|structure", reason)
        groups.setdefault(kind[0] if kind else reason, []).append(Exclusion(exclusion.name, reason))
    table = plain_table("Left out")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("names", overflow="fold")
    for alike in sorted(groups.values(), key=lambda group: -len(group)):
        reasons = {exclusion.reason for exclusion in alike}
        reason = alike[0].reason if len(reasons) == 1 else f"for example {alike[0].reason}"
        names = dict.fromkeys(exclusion.name for exclusion in alike)
        table.add_row(str(len(alike)), reason_cell(reason), shorten(list(names)))
    return table


def campaign_table(
    geometry: Geometry, seconds: float, workers: int, threads: int, effective: float
) -> RenderableType:
    """Return what a campaign would take.

    Args:
        geometry: its scans.
        seconds: that a point takes on average.
        workers: processes that were asked for.
        threads: of each.
        effective: how many of the processes there are cores for.
    """
    points = len(geometry.frames)
    table = plain_table("Plan")
    table.add_column("type", overflow="fold")
    for title in ("scans", "points", "core-hours", "time"):
        table.add_column(title, justify="right", no_wrap=True)

    def row(name: str, scans: int, points: int) -> None:
        total = seconds * points
        hours, left = number(total * threads / 3600), duration(total / effective)
        table.add_row(Text(name), str(scans), str(points), hours, left)

    for stratum in sorted({scan.stratum for scan in geometry.scans}):
        members = [scan for scan in geometry.scans if scan.stratum == stratum]
        row(stratum, len(members), sum(map(len, members)))
    table.add_section()
    row("together", len(geometry.scans), points)
    each = "1 thread" if threads == 1 else f"{threads} threads"
    crew = with_workers(workers, effective, f" of {each}")
    table.caption = f"{crew}, from a few timed points: {number(seconds)} s each."
    return table
