"""Tables for a terminal 80 columns wide. No mean without its interval and its coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.execution.progress import duration
from sfumato.metrics.stats import Estimate
from sfumato.protocols import bsct
from sfumato.protocols.run import BsctRun, Cost
from sfumato.protocols.scan_build import Exclusion
from sfumato.reference.quality import QualityReport


def number(value: float, digits: int = 3) -> str:
    """Return a number to a few significant digits; "n/a" for nan."""
    if not np.isfinite(value):
        return "n/a"
    magnitude = abs(value)
    if magnitude >= 10**digits or (value and magnitude < 1e-3):
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e+")
    return f"{value:#.{digits}g}".rstrip(".")


def with_interval(estimate: Estimate, form: str) -> str:
    """Return the mean, and below it the interval if there is one, for one table cell."""
    mean, low, high = (
        format(value, form) if np.isfinite(value) else "n/a"
        for value in (estimate.mean, estimate.low, estimate.high)
    )
    return f"{mean}\n[dim]{low}…{high}[/dim]" if np.isfinite(estimate.low) else mean


def _table(title: str, *columns: str, caption: str = "") -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, caption=caption, padding=(0, 1, 0, 0), show_edge=False)
    table.title_justify = table.caption_justify = "left"
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 else "right", no_wrap=True)
    return table


def _wrapping(table: Table, *columns: int) -> Table:
    """Let columns of words wrap, left-aligned."""
    for k in columns:
        table.columns[k].no_wrap, table.columns[k].justify = False, "left"
        table.columns[k].overflow = "fold"
    return table


def model_table(run: BsctRun) -> Table:
    """Return one row per model: FSD and its sides, force error, work–energy residual, coverage."""
    fsd = run.settings.fsd.name
    table = _table(
        f"bsct v{bsct.VERSION} · {run.scan_set.name} · {run.scan_set.level}",
        "model",
        "FSD\n1/Å",
        "compress\n1/Å",
        "stretch\n1/Å",
        "force MAE\neV/Å",
        "work–energy\neV",
        "scans\nok",
        caption=f"{fsd}. Mean over scans, below it the 95 % interval. Lower is smoother.\n"
        "Work–energy: residual on the stretched side. All numbers: docs/metrics.md",
    )
    columns = (
        (f"{fsd}_full", ".1f"),
        (f"{fsd}_compress", ".1f"),
        (f"{fsd}_stretch", ".1f"),
        ("force_mae_full", ".3g"),
        (f"{bsct.residual_name(run.settings)}_stretch", ".1g"),
    )
    for name, model in run.models.items():
        n, total = model.coverage
        cells = [
            with_interval(model.estimates[metric], form) if metric in model.estimates else "n/a"
            for metric, form in columns
        ]
        table.add_row(name, *cells, f"{n}/{total}")
    return table


def comparison_table(run: BsctRun, metric: str) -> Table:
    """Return one row per pair of models: the paired difference of a metric.

    Raises:
        ValueError: fewer than two models, or an unknown metric.
    """
    from sfumato.config import nearest

    if len(run.models) < 2:
        raise ValueError(
            f"{run.folder}: a comparison needs at least two models, this run has {len(run.models)}"
        )
    known = {name: None for model in run.models.values() for name in model.estimates}
    if metric not in known:
        raise ValueError(f"unknown metric {metric!r}; {nearest(metric, known)}")
    table = _table(
        f"{metric}: first − second on the same scans",
        "first",
        "second",
        "difference\n95 % interval",
        "first is lower",
        "p",
        "scans",
        caption="p: two-sided sign-flip test of no difference.",
    )
    for first, second in combinations(run.models.values(), 2):
        try:
            d = bsct.compare(first, second, metric)
        except ValueError:
            table.add_row(first.name, second.name, "n/a", "n/a", "n/a", "0")
            continue
        interval = f"{number(d.mean)}\n[dim]{number(d.low)}…{number(d.high)}[/dim]"
        table.add_row(
            first.name, second.name, interval, f"{d.fraction_lower:.0%}", number(d.p_value, 2), str(d.n)
        )
    return table


def failure_table(run: BsctRun, most: int = 12) -> Table:
    """Return the scans that do not count, with their reasons, and how many more there are."""
    table = _table("Scans that do not count", "model", "scan", "status", "reason")
    _wrapping(table, 0, 1, 2, 3)
    rows = [
        (model.name, name, scan.status, scan.reason)
        for model in run.models.values()
        for name, scan in model.scans.items()
        if scan.status != "ok"
    ]
    for row in rows[:most]:
        table.add_row(*row)
    if len(rows) > most:
        table.add_row("…", f"and {len(rows) - most} more", "", "see the report")
    return table


def exclusion_table(excluded: Iterable[Exclusion]) -> Table:
    """Return what gave no scan, counted by reason."""
    table = _wrapping(_table("Left out", "reason", "count", "for example"), 0, 2)
    excluded = list(excluded)
    counts = Counter(exclusion.reason for exclusion in excluded)
    for reason, count in counts.most_common(20):
        table.add_row(reason, str(count), next(e.name for e in excluded if e.reason == reason))
    return table


def plan_table(costs: Sequence[Cost], workers: int) -> Table:
    """Return one row per model: frames, done already, time per frame, estimated time left."""
    many = "1 worker" if workers == 1 else f"{workers} workers"
    table = _table(
        "Plan",
        "model",
        "frames",
        "done",
        "s/frame",
        f"left with {many}",
        caption="From a few timed frames of small to large molecules.",
    )
    for cost in costs:
        span = f"{number(cost.fastest, 2)} – {number(cost.slowest, 2)}"
        left = duration(cost.seconds / max(workers, 1))
        table.add_row(cost.model, str(cost.frames), str(cost.done), span, left)
    return table


def quality_table(report: QualityReport) -> Table:
    """Return the quality statements of a data set: claim, measured value, limit."""
    table = _wrapping(_table(f"Quality of {report.name}", "statement", "measured", "limit", "worst", ""), 0)
    for statement in report.statements:
        unit = f" {statement.unit}" if statement.unit else ""
        mark = "[green]pass[/green]" if statement.passed else "[bold red]FAIL[/bold red]"
        table.add_row(
            statement.claim,
            number(statement.value) + unit,
            number(statement.limit) + unit,
            statement.where,
            mark,
        )
    return table


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a plain table of words."""
    table = _table("", *columns)
    table.title = None
    _wrapping(table, *range(1, len(columns)))
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table
