"""The model table for other programs and for papers: CSV, Markdown, LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.files import write_text
from sfumato.protocols.bsct.kinds import kind_of
from sfumato.protocols.bsct.numbers import estimate_of, shared_metrics
from sfumato.report.export import csv_text, latex_text, markdown_text
from sfumato.report.numbers import interval, mean
from sfumato.report.tables import settings_note
from sfumato.words import nearest

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate
    from sfumato.protocols.protocol import Run

HEADLINE = ("fsd", "fsd_compress", "fsd_stretch", "force", "work_stretch")


def csv_table(run: Run) -> str:
    """Return one line per model, type of scan ("all" first) and metric: mean, interval, scans counted.

    The column of types has the name of what is scanned: "bond", "angle" and so on, "type" where these differ.
    """

    def line(model: str, bond: str, metric: str, e: Estimate) -> list[Any]:
        values = [repr(float(v)) if math.isfinite(v) else "" for v in (e.mean, e.low, e.high)]
        return [model, bond, metric, *values, e.n, e.total]

    rows = []
    for model in run.models.values():
        for metric, estimate in model.estimates.items():
            rows.append(line(model.name, "all", metric, estimate))
            rows += [line(model.name, bond, metric, e) for bond, e in model.by_bond[metric].items()]
    return csv_text(
        ("model", kind_of(run) or "type", "metric", "mean", "low95", "high95", "scans", "of"), rows
    )


def markdown_table(run: Run) -> str:
    """Return the headline numbers, mean [95 % interval], with coverage, as a Markdown table."""
    return markdown_text(*_headline(run), settings_note(run.settings))


def latex_table(run: Run) -> str:
    """Return the same as a LaTeX tabular (package booktabs)."""
    return latex_text(*_headline(run), settings_note(run.settings))


FORMATS: dict[str, Callable[[Run], str]] = {
    ".csv": csv_table,
    ".md": markdown_table,
    ".tex": latex_table,
}
"""By the ending of the file."""


def write_table(run: Run, path: Path) -> None:
    """Write a run's table in the format that the file's ending names; replaces the file whole.

    Raises:
        ValueError: an ending that is none of `FORMATS`.
        OSError: the file cannot be written; names it.
    """
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{path}: tables are written as {', '.join(FORMATS)}; {nearest(path.suffix, FORMATS)}"
        )
    write_text(path, FORMATS[path.suffix](run))


def _headline(run: Run) -> tuple[list[str], list[list[str]]]:
    metrics = shared_metrics(run)
    chosen = [metrics[word] for word in HEADLINE]
    head = ["model", *(f"{metric.title} ({metric.unit})" for metric in chosen), "scans"]
    rows = []
    for model in run.models.values():
        n, total = model.coverage
        cells = [_cell(estimate_of(run, model, word)) for word in HEADLINE]
        rows.append([model.name, *cells, f"{n}/{total}"])
    return head, rows


def _cell(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else f"{mean(estimate)} {interval(estimate)}"
