"""Tables of the energies and barriers of point defects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.report.numbers import number
from sfumato.report.tables import Failures, estimate_cell, group_failures, plain_table, settings_note
from sfumato.report.tables import failure_table as failures_by_reason

if TYPE_CHECKING:
    from sfumato.protocols.diffusion.analysis import ModelDefects
    from sfumato.protocols.protocol import Run


def columns(run: Run) -> list[tuple[str, str, str]]:
    """Return (kind of number, kind of defect, title) of everything that any model has."""
    models: list[ModelDefects] = list(run.models.values())
    formed = list(dict.fromkeys(one.kind for model in models for one in model.defects))
    hops = list(dict.fromkeys(one.kind for model in models for one in model.paths))
    return [
        *(("formation", kind, f"{kind} formation") for kind in formed),
        *(("barrier", kind, f"{kind} barrier") for kind in hops),
    ]


def value_of(model: ModelDefects, number_: str, kind: str) -> float:
    """Return a number in eV; NaN where there is none."""
    if number_ == "formation":
        defect = model.defect(kind)
        return defect.formation if defect else math.nan
    path = model.path(kind)
    return path.barrier if path else math.nan


def defect_tables(run: Run) -> RenderableType:
    """Return formation energies and barriers of every model."""
    protocol = run.protocol
    head = Text(f"{protocol.name} v{protocol.version} · {run.data.name}\n", style="bold")
    table = plain_table("Point defects, eV")
    table.add_column("model", overflow="fold")
    table.add_column("lattice, Å", justify="right")
    for _, _, title in columns(run):
        table.add_column(title, justify="right")
    for model in run.models.values():
        values = [value_of(model, what, kind) for what, kind, _ in columns(run)]
        table.add_row(Text(model.name), number(model.edge, 4), *map(number, values))
    table.caption = Text(f"At each potential's own lattice constant. {settings_note(run.settings)}".strip())
    parts: list[RenderableType] = [head, table]
    if any(model.wandering for model in run.models.values()):
        parts += [Text(), _wandering(run)]
    if not run.complete:
        totals = {model.name: model.coverage[1] for model in run.models.values()}
        parts += [Text(), failures_by_reason(failures(run), "defects", totals)]
    return Group(*parts)


def _wandering(run: Run) -> RenderableType:
    """The diffusivity of a vacancy, and its activation energy beside the barrier of the path."""
    table = plain_table("Vacancy: diffusivity of all atoms together, Å²/ps")
    table.add_column("model", overflow="fold")
    for title in ("kelvin", "ps", "hops", "D", "activation, eV", "barrier, eV"):
        table.add_column(title, justify="right")
    for model in run.models.values():
        activation = model.activation
        energy = estimate_cell(activation.energy if activation else None)
        barrier = number(value_of(model, "barrier", "vacancy"))
        for k, one in enumerate(model.wandering):
            words = f"{one.kelvin:g}", f"{one.picoseconds:g}", str(one.hops)
            last = (Text(), Text()) if k else (energy, Text(barrier))
            table.add_row(Text("" if k else model.name), *words, estimate_cell(one.diffusivity), *last)
    table.caption = Text("Mean over blocks [95 %, Student]; activation [95 %, blocks resampled].")
    return table


def failures(run: Run) -> list[Failures]:
    """Return what has no result by model and reason."""
    models: list[ModelDefects] = list(run.models.values())
    groups = group_failures((m.name, reason, what) for m in models for what, reason in m.failed)
    return groups + [Failures(m.name, "not computed yet", unnamed=m.missing) for m in models if m.missing]
