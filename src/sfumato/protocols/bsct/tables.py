"""Tables of the Bond Smoothness Characterization Test for a terminal 80 columns wide.

Models of one run may be measured with different settings. Some settings are part of a number's name; a column
shows the number of that kind that each model has, and a line below says whose settings differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.metrics.stats import holm
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.kinds import sides_of, type_word
from sfumato.protocols.bsct.numbers import FSD, estimate_of, key_of, metrics_of, settings_of, shared_metrics
from sfumato.report.numbers import number, p_value
from sfumato.report.tables import (
    Failures,
    coverage_cell,
    estimate_cell,
    group_failures,
    plain_table,
    settings_note,
)
from sfumato.report.tables import failure_table as failures_by_reason
from sfumato.words import nearest

if TYPE_CHECKING:
    from rich.table import Table

    from sfumato.metrics.stats import PairedDifference
    from sfumato.protocols.protocol import Run

FEW = 5
"""Scans of a type below which its mean says little."""

MODELS_PER_BOND_TABLE = 3
"""As many as fit beside the type."""


def ranked(run: Run) -> list[bsct.ModelResult]:
    """Return the models of a run by mean FSD, lowest first; those without a finished scan come last."""

    def mean(model: bsct.ModelResult) -> float:
        estimate = estimate_of(run, model)
        return math.inf if estimate is None or math.isnan(estimate.mean) else estimate.mean

    return sorted(run.models.values(), key=mean)


Pair = tuple[bsct.ModelResult, bsct.ModelResult, "PairedDifference | None"]


def difference(
    run: Run, first: bsct.ModelResult, second: bsct.ModelResult, metric: str | None = None
) -> PairedDifference | None:
    """Return the paired difference of two models.

    Args:
        run: of both.
        first: a model.
        second: another.
        metric: its key in results; by default the FSD of whole scans.

    Returns:
        None if they share no finished scan, or were measured with settings that make it another number.
    """
    return differences(run, [(first, second)], metric)[0]


def differences(
    run: Run, pairs: Sequence[tuple[bsct.ModelResult, bsct.ModelResult]], metric: str | None = None
) -> list[PairedDifference | None]:
    """Return what `difference` returns for each of many pairs."""
    alike: dict[str, list[int]] = {}
    for k, pair in enumerate(pairs):
        key, other = ((metric or key_of(run, model.name)) for model in pair)
        if key == other and all(key in model.estimates for model in pair):
            alike.setdefault(key, []).append(k)
    found: list[PairedDifference | None] = [None] * len(pairs)
    for key, places in alike.items():
        for k, d in zip(places, bsct.differences([pairs[k] for k in places], key), strict=True):
            found[k] = d
    return found


def comparisons(run: Run, metric: str | None = None) -> list[Pair]:
    """Return every pair of models, lowest FSD first, with their difference; None if they share no scan.

    The p-values are corrected for the number of pairs that are looked at together (Holm).
    """
    pairs = list(combinations(ranked(run), 2))
    found = differences(run, pairs, metric)
    adjusted = holm([math.nan if d is None else d.p_value for d in found])
    return [
        (first, second, None if d is None else replace(d, p_value=float(p)))
        for (first, second), d, p in zip(pairs, found, adjusted, strict=True)
    ]


def failures(run: Run) -> list[Failures]:
    """Return what does not count by model and reason, the most frequent first.

    Reasons that differ only in the frame, or in how many frames are left, are one.
    """

    def reason(result: bsct.ScanResult) -> str:
        if result.status == "incomplete":
            return "not all frames evaluated yet"
        return re.sub(r"^frame [\d.]+: ", "", result.reason)

    return group_failures(
        (model.name, reason(result), name)
        for model in run.models.values()
        for name, result in model.scans.items()
        if result.status != "ok"
    )


def run_tables(run: Run) -> RenderableType:
    """Return what a terminal shows of a run; numbers by type only where a type has enough scans."""
    parts = [model_table(run), extrema_table(run)]
    if not run.complete:
        parts.append(failure_table(run))
    if max(bond_counts(run).values(), default=0) >= FEW:
        parts.append(bond_table(run))
    return Group(*parts)


def model_table(run: Run) -> RenderableType:
    """Return two tables with a row per model, lowest FSD first: FSD by side, and what else counts."""
    metrics, sides = shared_metrics(run), sides_of(run)
    parts = (
        (metrics[FSD].heading, {"full": FSD, sides.before: "fsd_compress", sides.after: "fsd_stretch"}),
        ("Errors", {metrics[word].heading: word for word in ("outside", "force", "order")}),
    )
    tables: list[Table] = []
    for title, columns in parts:
        table = plain_table(title)
        table.padding = (0, 0)  # eight models with names of 16 letters fit
        table.add_column("model", overflow="fold")
        if not tables:  # the second has the same models
            table.add_column("scans", justify="right", no_wrap=True)
        for heading in columns:
            table.add_column(heading, justify="right")
        for model in ranked(run):
            done = model.coverage[0]
            covered = [] if tables else [coverage_cell(*model.coverage)]
            cells = [estimate_cell(estimate_of(run, model, word), done) for word in columns.values()]
            table.add_row(Text(model.name), *covered, *cells)
        tables.append(table)
    note = settings_note(run.settings)
    tables[-1].caption = Text(
        "Mean over scans [95 % interval]; the lower, the better, but an order of 3 is smooth. "
        "docs/metrics.md defines every number." + (f"\n{note}" if note else "")
    )
    facts = f"{run.protocol.name} v{run.protocol.version} · {run.data.name} · {run.data.level}\n"
    return Group(Text(facts, style="bold"), *tables)


def extrema_table(run: Run) -> RenderableType:
    """Return in how many scans each model has false barriers and wells, lowest FSD first."""
    table = plain_table("False extrema of the energy")
    table.add_column("model", overflow="fold")
    for what in ("barrier", "well"):
        table.add_column(f"scans with false {what}s", justify="right")
    for model in ranked(run):
        table.add_row(Text(model.name), *(extrema_words(model, what) for what in ("barrier", "well")))
    table.caption = "And the height of the largest."
    return table


def extrema_words(model: bsct.ModelResult, what: str) -> str:
    """Return in how many scans there are false barriers or wells, and the height of the largest."""
    heights = [scan.values[f"false_{what}"] for scan in model.scans.values() if scan.status == "ok"]
    some = sum(height > 0 for height in heights)
    if not heights:
        return "n/a"
    return f"{some}/{len(heights)}" + (f" ≤ {number(max(heights))} eV" if some else "")


def bond_table(run: Run, metric: str | None = None) -> RenderableType:
    """Return a number per type of scan, three models to a table.

    Args:
        run: any number of models.
        metric: its key in results; by default the FSD of whole scans.

    Raises:
        ValueError: no model has this metric.
    """
    check_metric(run, metric)
    tables, models, what = [], ranked(run), type_word(run)
    for start in range(0, len(models), MODELS_PER_BOND_TABLE):
        group = models[start : start + MODELS_PER_BOND_TABLE]
        table = plain_table(f"{heading_of(run, metric)} by {what}")
        table.add_column(what.removesuffix(" type"), no_wrap=True)
        table.add_column("scans", justify="right", no_wrap=True)
        for model in group:
            table.add_column(Text(model.name), justify="right")
        for bond, total in bond_counts(run).items():
            found = [model.by_bond.get(metric or key_of(run, model.name), {}).get(bond) for model in group]
            table.add_row(Text(bond), str(total), *(estimate_cell(estimate, total) for estimate in found))
        tables.append(table)
    return Group(*tables)


def comparison_table(run: Run, metric: str | None = None) -> RenderableType:
    """Return the paired differences between all models of a run.

    Args:
        run: at least two models.
        metric: its key in results; by default the FSD of whole scans.

    Raises:
        ValueError: fewer than two models, or no model has this metric.
    """
    if len(run.models) < 2:
        raise ValueError(
            f"{run.folder}: a comparison needs at least two models, this run has {len(run.models)}"
        )
    check_metric(run, metric)
    table = plain_table(f"{heading_of(run, metric)}: first − second on the scans that both finished")
    table.padding = (0, 0)
    table.add_column("first", overflow="fold")
    table.add_column("second", overflow="fold")
    table.add_column("difference", justify="right")
    table.add_column("first\nlower", justify="right")
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("scans", justify="right", no_wrap=True)
    pairs = comparisons(run, metric)
    for first, second, d in pairs:
        total = len(first.scans)
        cells: list[str | Text] = ["n/a", "n/a", "n/a", coverage_cell(0, total)]
        if d is not None:
            lower = f"{d.fraction_lower:.0%}"
            cells = [estimate_cell(d, d.n), lower, p_value(d.p_value), coverage_cell(d.n, total)]
        table.add_row(Text(first.name), Text(second.name), *cells)
    table.caption = Text(comparison_note(run, pairs))
    return table


def comparison_note(run: Run, pairs: Sequence[Pair]) -> str:
    """Return what a reader of paired comparisons must know."""
    several = f", corrected for {len(pairs)} pairs (Holm)" if len(pairs) > 1 else ""
    note = settings_note(run.settings)
    note = (
        f" {note} Numbers of other settings are not compared." if note.startswith("Settings differ") else ""
    )
    return f"Mean [95 % interval]; p: two-sided bootstrap test of no difference{several}.{note}"


def failure_table(run: Run, most: int = 12) -> RenderableType:
    """Return what does not count and why, by model and reason; one line if everything does.

    Args:
        run: any number of models.
        most: rows shown; the rest is counted.
    """
    groups = failures(run)
    if not groups:
        return Text("every model finished every scan")
    return failures_by_reason(groups, "scans", {m.name: len(m.scans) for m in run.models.values()}, most)


def check_metric(run: Run, metric: str | None) -> None:
    """Check that a metric can be shown; None is the FSD of whole scans, which every run has.

    Raises:
        ValueError: no finished scan of the run has it.
    """
    known = dict.fromkeys(key for model in run.models.values() for key in model.estimates)
    if metric is not None and known and metric not in known:
        raise ValueError(f"unknown metric {metric!r}; {nearest(metric, known)}")


def heading_of(run: Run, metric: str | None) -> str:
    """Return a metric's title and unit; its key where it has no title."""
    if metric is None:
        return shared_metrics(run)[FSD].heading
    known = [m for name in run.models for m in metrics_of(settings_of(run, name), sides_of(run)).values()]
    return next((m.heading for m in known if m.key == metric), metric)


def bond_counts(run: Run) -> dict[str, int]:
    """Return how many scans of each type the run covers, in the order of the data."""
    counts: dict[str, int] = {}
    for name in scan_names(run):
        bond = name.split("/")[0]
        counts[bond] = counts.get(bond, 0) + 1
    return counts


def scan_names(run: Run) -> list[str]:
    """Return the scans that any model of a run was asked for, in the order of the data."""
    asked = {name for model in run.models.values() for name in model.scans}
    return [scan.name for scan in run.data if scan.name in asked]
