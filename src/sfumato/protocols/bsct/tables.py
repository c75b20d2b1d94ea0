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
from sfumato.protocols.bsct.kinds import type_word
from sfumato.protocols.bsct.measure import residual_name
from sfumato.protocols.bsct.settings import Settings
from sfumato.report.numbers import Metric, number, p_value
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
    from sfumato.metrics.stats import Estimate, PairedDifference
    from sfumato.protocols.protocol import Run

FEW = 5
"""Scans of a type below which its mean says little."""

MODELS_PER_BOND_TABLE = 3
"""As many as fit beside the type."""

_ROUGH = (
    "Force Smoothness Deviation: along a scan, the steepest change per Å of bond or arc length of the "
    "logarithm of the model's squared force change over the reference's. A kink or ripple that the reference "
    "does not have makes it large; the reference itself has 0."
)
_SHORTER = "Over the frames up to the reference minimum; for bonds, the compressed side."
_LONGER = "Over the frames from the reference minimum on; for bonds, the stretched side."
_WORK = (
    "Work–energy residual: the largest mismatch between an energy step of the model and the work of its own "
    "forces. Large where the energy jumps or the force is not its gradient."
)

_FALSE = (
    "Height of the largest {} of the energy that the reference does not have, 0 where there is none; more "
    "than 25 meV, kT at room temperature, changes what happens in a simulation."
)

_METRICS = (
    ("fsd", "{fsd}_full", "{FSD}", "1/Å", _ROUGH),
    ("fsd_compress", "{fsd}_compress", "{FSD} compress", "1/Å", _SHORTER),
    ("fsd_stretch", "{fsd}_stretch", "{FSD} stretch", "1/Å", _LONGER),
    (
        "outside",
        "{outside}_full",
        "{OUTSIDE}",
        "1/Å",
        "The FSD without the 0.1 Å on either side of the reference minimum, where it mostly reads how well "
        "the place of the minimum agrees.",
    ),
    ("barrier", "false_barrier", "false barrier", "eV", _FALSE.format("barrier")),
    ("well", "false_well", "false well", "eV", _FALSE.format("well")),
    (
        "variation",
        "excess_variation",
        "excess variation",
        "eV",
        "How far the energy goes up and down beyond what one well and the reference need.",
    ),
    (
        "order",
        "{order}_full",
        "work–energy order",
        "",
        "How fast the work–energy residual falls when the step is halved: 3 where energy and force are "
        "smooth, 1 where the force jumps or is not a gradient, 0 where the energy jumps; the worst interval.",
    ),
    ("force", "force_mae_full", "force MAE", "eV/Å", "Mean absolute error of the force components."),
    (
        "energy",
        "energy_mae_aligned_full",
        "energy MAE",
        "eV",
        "Mean absolute error of energies, each measured from the frame of the reference minimum.",
    ),
    ("work", "{work}_full", "work–energy", "eV", _WORK),
    (
        "work_stretch",
        "{work}_stretch",
        "work–energy stretch",
        "eV",
        "The same on the stretched side, where the coarse grid on the repulsive wall adds little.",
    ),
    ("minima", "spurious_minima", "extra minima", "", "Minima of the energy beyond those of the reference."),
    ("maxima", "spurious_maxima", "extra maxima", "", "Maxima of the energy beyond those of the reference."),
    (
        "inflections",
        "spurious_inflections",
        "extra inflections",
        "",
        "Inflections of the energy beyond those of the reference.",
    ),
    (
        "position",
        "well_position_error",
        "well position",
        "Å",
        "Model − reference: coordinate at the minimum.",
    ),
    (
        "depth",
        "well_depth_error",
        "well depth",
        "eV",
        "Model − reference: rise from the minimum to the last frame.",
    ),
    ("wall", "wall_error", "wall", "eV", "Model − reference: rise from the minimum to the first frame."),
)

FSD = "fsd"
"""The word of the FSD over whole scans, by which models are ranked."""


def metrics_of(settings: Settings) -> dict[str, Metric]:
    """Return how numbers are presented, by a short word that does not depend on settings.

    Args:
        settings: of a model; one that differs from its default is part of a number's key and title.
    """
    fsd, work = settings.fsd.name, residual_name(settings)
    outside = fsd.replace("fsd", "fsd_outside", 1)
    names = {"fsd": fsd, "FSD": fsd.replace("fsd", "FSD"), "work": work, "outside": outside}
    names |= {"OUTSIDE": fsd.replace("fsd", "FSD outside", 1), "order": work.replace("residual", "order")}
    return {
        word: Metric(key.format(**names), title.format(**names), unit, meaning)
        for word, key, title, unit, meaning in _METRICS
    }


def settings_of(run: Run, model: str) -> Settings:
    """Return the settings that a model was measured with."""
    settings: Settings = run.settings[model]
    return settings


def shared_metrics(run: Run) -> dict[str, Metric]:
    """Return how numbers are presented to all models at once; titles that differ are the default ones."""
    each = [metrics_of(settings_of(run, name)) for name in run.models]
    return {
        word: each[0][word] if each and all(one[word] == each[0][word] for one in each) else usual
        for word, usual in metrics_of(Settings()).items()
    }


def key_of(run: Run, model: str, word: str = FSD) -> str:
    """Return what a number is called in a model's results."""
    return metrics_of(settings_of(run, model))[word].key


def estimate_of(run: Run, model: bsct.ModelResult, word: str = FSD) -> Estimate | None:
    """Return the mean of a number over a model's scans; None where there is none."""
    return model.estimates.get(key_of(run, model.name, word))


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
    key, other = ((metric or key_of(run, model.name)) for model in (first, second))
    if key != other or not all(key in model.estimates for model in (first, second)):
        return None
    try:
        found: PairedDifference = bsct.compare(first, second, key)
    except ValueError:
        return None
    return found


def comparisons(run: Run, metric: str | None = None) -> list[Pair]:
    """Return every pair of models, lowest FSD first, with their difference; None if they share no scan.

    The p-values are corrected for the number of pairs that are looked at together (Holm).
    """
    pairs = [
        (first, second, difference(run, first, second, metric))
        for first, second in combinations(ranked(run), 2)
    ]
    adjusted = holm([math.nan if d is None else d.p_value for _, _, d in pairs])
    return [
        (first, second, None if d is None else replace(d, p_value=float(p)))
        for (first, second, d), p in zip(pairs, adjusted, strict=True)
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
    metrics = shared_metrics(run)
    parts = (
        (metrics[FSD].heading, {"full": FSD, "compress": "fsd_compress", "stretch": "fsd_stretch"}),
        ("Errors", {metrics[word].heading: word for word in ("outside", "force", "order")}),
    )
    tables = []
    for title, columns in parts:
        table = plain_table(title)
        table.padding = (0, 0)  # eight models with names of 16 letters fit
        table.add_column("model", overflow="fold")
        table.add_column("scans", justify="right", no_wrap=True)
        for heading in columns:
            table.add_column(heading, justify="right")
        for model in ranked(run):
            done = model.coverage[0]
            cells = [estimate_cell(estimate_of(run, model, word), done) for word in columns.values()]
            table.add_row(Text(model.name), coverage_cell(*model.coverage), *cells)
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
    table.add_column("first", overflow="fold")
    table.add_column("second", overflow="fold")
    table.add_column("difference", justify="right")
    table.add_column("first lower", justify="right")
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
    known = [m for name in run.models for m in metrics_of(settings_of(run, name)).values()]
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
