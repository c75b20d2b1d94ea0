"""Tables for a terminal 80 columns wide. Functions return rich renderables; nothing is printed here.

No mean appears without its 95 % interval and the number of scans it rests on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sfumato.commands.progress import duration
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.kinds import type_word
from sfumato.words import nearest

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate, PairedDifference
    from sfumato.protocols.run import BsctRun, Cost

MODELS_PER_BOND_TABLE = 3
"""As many as fit beside the type."""

NAMES_SHOWN = 3
"""Scans named in a group of failures before the rest is only counted; the HTML report names all."""


@dataclass(frozen=True)
class Metric:
    """How a number is presented.

    Args:
        key: its name in results.
        title: for people.
        unit: empty for counts.
        meaning: one or two sentences.
    """

    key: str
    title: str
    unit: str
    meaning: str

    @property
    def heading(self) -> str:
        """Title with unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


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

_METRICS = (
    ("fsd", "{fsd}_full", "{FSD}", "1/Å", _ROUGH),
    ("fsd_compress", "{fsd}_compress", "{FSD} compress", "1/Å", _SHORTER),
    ("fsd_stretch", "{fsd}_stretch", "{FSD} stretch", "1/Å", _LONGER),
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


def metrics_of(settings: bsct.Settings) -> dict[str, Metric]:
    """Return how the numbers of a run are presented, by a short word that does not depend on its settings.

    Args:
        settings: of the run; one that differs from its default is part of a number's key and title.
    """
    fsd = settings.fsd.name
    names = {"fsd": fsd, "FSD": fsd.replace("fsd", "FSD"), "work": bsct.residual_name(settings)}
    return {
        word: Metric(key.format(**names), title.format(**names), unit, meaning)
        for word, key, title, unit, meaning in _METRICS
    }


def number(value: float, decimals: int | None = None) -> str:
    """Return a number with three significant digits, or with `decimals`; "n/a" for nan."""
    if not math.isfinite(value):
        return "n/a"
    if decimals is None:
        decimals = decimals_of(value)
    if decimals < 0:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:.{decimals}f}"
    return text if float(text) else text.removeprefix("-")


def decimals_of(value: float) -> int:
    """Return the decimals that show three significant digits; −1 asks for powers of ten."""
    size = abs(value)
    if size == 0 or not math.isfinite(size):
        return 0
    return max(0, 2 - math.floor(math.log10(size))) if 1e-2 <= size < 1e5 else -1


def interval(estimate: Estimate | PairedDifference) -> str:
    """Return "[low, high]" with as many decimals as the mean; "[n/a]" where one scan gives none."""
    if math.isnan(estimate.low):
        return "[n/a]"
    decimals = decimals_of(estimate.mean) if estimate.mean else None
    return f"[{number(estimate.low, decimals)}, {number(estimate.high, decimals)}]"


def p_value(value: float) -> str:
    """Return a p-value, never as zero."""
    if math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def ranked(run: BsctRun) -> list[bsct.ModelResult]:
    """Return the models of a run by mean FSD, smoothest first; those without a finished scan come last."""
    key = metrics_of(run.settings)["fsd"].key

    def mean(model: bsct.ModelResult) -> float:
        estimate = model.estimates.get(key)
        return math.inf if estimate is None or math.isnan(estimate.mean) else estimate.mean

    return sorted(run.models.values(), key=mean)


Pair = tuple[bsct.ModelResult, bsct.ModelResult, "PairedDifference | None"]


def comparisons(run: BsctRun, metric: str) -> list[Pair]:
    """Return every pair of models, smoothest first, with their difference; None if they share no scan."""

    def compare(first: bsct.ModelResult, second: bsct.ModelResult) -> PairedDifference | None:
        try:
            difference: PairedDifference = bsct.compare(first, second, metric)
        except ValueError:
            return None
        return difference

    return [(first, second, compare(first, second)) for first, second in combinations(ranked(run), 2)]


def failures(run: BsctRun) -> list[tuple[str, str, list[str]]]:
    """Return (model, reason, scans) of everything that does not count, the most frequent first.

    Reasons that differ only in the frame, or in how many frames are left, are one.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for model in run.models.values():
        for name, result in model.scans.items():
            reason = re.sub(r"^frame [\d.]+: ", "", result.reason)
            if result.status == "incomplete":
                reason = "not all frames evaluated yet"
            if result.status != "ok":
                groups.setdefault((model.name, reason), []).append(name)
    rows = [(model, reason, names) for (model, reason), names in groups.items()]
    return sorted(rows, key=lambda row: -len(row[2]))


def model_table(run: BsctRun) -> RenderableType:
    """Return two tables with a row per model, smoothest first: FSD by side, and errors."""
    metrics = metrics_of(run.settings)
    parts = (
        (metrics["fsd"].heading, {"full": "fsd", "compress": "fsd_compress", "stretch": "fsd_stretch"}),
        ("Errors", {metrics[word].heading: word for word in ("force", "work_stretch")}),
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
            cells = [_cell(model.estimates.get(metrics[w].key), model.coverage[0]) for w in columns.values()]
            table.add_row(Text(model.name), _coverage(*model.coverage), *cells)
        tables.append(table)
    tables[
        -1
    ].caption = (
        "Mean over scans [95 % interval]; the lower, the better. docs/metrics.md defines every number."
    )
    head = Text(f"bsct v{bsct.VERSION} · {run.scan_set.name} · {run.scan_set.level}\n", style="bold")
    return Group(head, *tables)


def bond_table(run: BsctRun, metric: str | None = None) -> RenderableType:
    """Return a number per type of scan, three models to a table.

    Args:
        run: any number of models.
        metric: its key in results; by default the FSD of whole scans.

    Raises:
        ValueError: no model has this metric.
    """
    metric = check_metric(run, metric)
    tables, models, what = [], ranked(run), type_word(run)
    for start in range(0, len(models), MODELS_PER_BOND_TABLE):
        group = models[start : start + MODELS_PER_BOND_TABLE]
        table = plain_table(f"{heading_of(run, metric)} by {what}")
        table.add_column(what.removesuffix(" type"), no_wrap=True)
        table.add_column("scans", justify="right", no_wrap=True)
        for model in group:
            table.add_column(Text(model.name), justify="right")
        for bond, total in bond_counts(run).items():
            cells = [_cell(model.by_bond.get(metric, {}).get(bond), total) for model in group]
            table.add_row(Text(bond), str(total), *cells)
        tables.append(table)
    return Group(*tables)


def comparison_table(run: BsctRun, metric: str | None = None) -> RenderableType:
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
    metric = check_metric(run, metric)
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
        cells: list[str | Text] = ["n/a", "n/a", "n/a", _coverage(0, total)]
        if d is not None:
            cells = [_cell(d, d.n), f"{d.fraction_lower:.0%}", p_value(d.p_value), _coverage(d.n, total)]
        table.add_row(Text(first.name), Text(second.name), *cells)
    table.caption = comparison_note(len(pairs))
    return table


def comparison_note(pairs: int) -> str:
    """Return what a reader of `pairs` paired comparisons must know."""
    several = f" No correction is made for looking at {pairs} pairs." if pairs > 1 else ""
    return f"Mean [95 % interval]; p: two-sided sign-flip test of no difference.{several}"


def failure_table(run: BsctRun, most: int = 12) -> RenderableType:
    """Return what does not count and why, by model and reason; one line if everything does.

    Args:
        run: any number of models.
        most: rows shown; the rest is counted.
    """
    rows = failures(run)
    if not rows:
        return Text("every model finished every scan")
    table = plain_table("Scans that do not count")
    table.add_column("model", overflow="fold")
    table.add_column("scans", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("which", overflow="fold")
    for model, reason, names in rows[:most]:
        share = f"{len(names)}/{len(run.models[model].scans)}"
        table.add_row(Text(model), share, Text(reason), some(names))
    if len(rows) > most:
        table.caption = f"and {len(rows) - most} more reasons; the HTML report lists every scan"
    return table


def plan_table(costs: Sequence[Cost], workers: int = 1) -> RenderableType:
    """Return what a run would take.

    Args:
        costs: one per model.
        workers: processes that share the time.
    """
    table = plain_table("Plan")
    table.add_column("model", overflow="fold")
    for title in ("frames", "done", "ms per frame", "time left"):
        table.add_column(title, justify="right", no_wrap=True)
    for cost in costs:
        span = f"{number(1e3 * cost.fastest)} – {number(1e3 * cost.slowest)}"
        left = duration(cost.seconds / max(workers, 1))
        table.add_row(Text(cost.model), str(cost.frames), str(cost.done), span, left)
    if len(costs) > 1:
        frames, done = sum(cost.frames for cost in costs), sum(cost.done for cost in costs)
        left = duration(sum(cost.seconds for cost in costs) / max(workers, 1))
        table.add_section()
        table.add_row("together", str(frames), str(done), "", left)
    many = "1 worker" if workers == 1 else f"{workers} workers"
    table.caption = f"With {many}, from a few timed frames of small to large molecules."
    return table


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """Return plain rows of words.

    Args:
        columns: headings.
        rows: a word for every column.

    Raises:
        ValueError: a row of another length.
    """
    table = plain_table(None)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"row {list(row)}: expected {len(columns)} words, got {len(row)}")
        table.add_row(*map(Text, row))
    return table


def check_metric(run: BsctRun, metric: str | None) -> str:
    """Return the key of a metric, the FSD of whole scans if None.

    Raises:
        ValueError: no finished scan of the run has it.
    """
    if metric is None:
        return metrics_of(run.settings)["fsd"].key
    known = dict.fromkeys(key for model in run.models.values() for key in model.estimates)
    if known and metric not in known:
        raise ValueError(f"unknown metric {metric!r}; {nearest(metric, known)}")
    return metric


def heading_of(run: BsctRun, metric: str) -> str:
    """Return a metric's title and unit; its key where it has no title."""
    return next((m.heading for m in metrics_of(run.settings).values() if m.key == metric), metric)


def bond_counts(run: BsctRun) -> dict[str, int]:
    """Return how many scans of each type the run covers, in the order of the data."""
    counts: dict[str, int] = {}
    for name in next(iter(run.models.values())).scans:
        bond = name.split("/")[0]
        counts[bond] = counts.get(bond, 0) + 1
    return counts


def plain_table(title: str | None) -> Table:
    return Table(
        title=None if title is None else Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _coverage(n: int, total: int) -> Text:
    return Text(f"{n}/{total}", style="" if n == total else "bold red")


def _cell(estimate: Estimate | PairedDifference | None, expected: int) -> Text:
    """Mean and interval, and on how many scans they rest where these are not the `expected` ones."""
    if estimate is None or not estimate.n:
        return Text("n/a", style="dim")
    text = Text.assemble(number(estimate.mean), " ", (interval(estimate), "dim"))
    return text if estimate.n == expected else text.append(f" n={estimate.n}", "bold")


def some(names: Sequence[str]) -> Text:
    rest = len(names) - NAMES_SHOWN
    return Text(", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else ""))
