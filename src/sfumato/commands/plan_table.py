"""The table of what a run would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.text import Text

from sfumato.protocols.run import Cost
from sfumato.report.numbers import number
from sfumato.report.tables import plain_table
from sfumato.words import duration


def plan_table(costs: Sequence[Cost], unit: str, workers: int, effective: float) -> RenderableType:
    """Return what a run would take.

    Args:
        costs: one per model.
        unit: what is counted.
        workers: processes that were asked for.
        effective: how many of them the machine has cores for.
    """
    table = plain_table("Plan")
    table.add_column("model", overflow="fold")
    for title in (unit, "done", f"ms per {unit.removesuffix('s')}", "time left"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in costs:
        span = f"{number(1e3 * cost.fastest)} – {number(1e3 * cost.slowest)}"
        left = duration(cost.seconds / effective)
        table.add_row(Text(cost.model), str(cost.items), str(cost.done), span, left)
    if len(costs) > 1:
        items, done = sum(cost.items for cost in costs), sum(cost.done for cost in costs)
        left = duration(sum(cost.seconds for cost in costs) / effective)
        table.add_section()
        table.add_row("together", str(items), str(done), "", left)
    table.caption = f"{with_workers(workers, effective)}, from a few timed structures, small to large."
    return table


def battery_table(costs: Mapping[str, Cost | str], workers: int, effective: float) -> RenderableType:
    """Return what a battery would take.

    Args:
        costs: of each protocol, or why it cannot be run.
        workers: processes that were asked for.
        effective: how many of them the machine has cores for.
    """
    table = plain_table("Plan")
    table.add_column("protocol", no_wrap=True)
    for title in ("items", "done", "time left"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    known = [cost for cost in costs.values() if isinstance(cost, Cost)]
    for name, cost in costs.items():
        if isinstance(cost, Cost):
            table.add_row(name, str(cost.items), str(cost.done), duration(cost.seconds / effective), "")
        else:
            table.add_row(name, "", "", "", Text(cost, style="red"))
    table.add_section()
    seconds = sum(cost.seconds for cost in known)
    table.add_row("together", "", "", duration(seconds / effective), "")
    table.caption = f"{with_workers(workers, effective)}, from a few timed structures, small to large."
    return table


def with_workers(workers: int, effective: float, each: str = "") -> str:
    """Say who would do the work, and whether the machine has the cores for so many.

    Args:
        workers: processes that were asked for.
        effective: how many of them the machine has cores for.
        each: what more there is to say of them.
    """
    many = "1 worker" if workers == 1 else f"{workers} workers"
    short = (
        "" if effective >= workers else f" on the cores of this machine, which are enough for {effective:g}"
    )
    return f"With {many}{each}{short}"
