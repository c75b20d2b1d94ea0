"""The model table for other programs and for papers: CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sfumato.metrics.stats import Estimate
from sfumato.protocols.run import BsctRun
from sfumato.report.tables import interval, metrics_of, number
from sfumato.words import nearest


def csv_table(run: BsctRun) -> str:
    """Return one line per model, bond type ("all" first) and metric: mean, interval, scans counted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("model", "bond", "metric", "mean", "low95", "high95", "scans", "of"))

    def write(model: str, bond: str, metric: str, e: Estimate) -> None:
        values = [repr(float(v)) if np.isfinite(v) else "" for v in (e.mean, e.low, e.high)]
        writer.writerow((model, bond, metric, *values, e.n, e.total))

    for model in run.models.values():
        for metric, estimate in model.estimates.items():
            write(model.name, "all", metric, estimate)
            for bond, part in model.by_bond[metric].items():
                write(model.name, bond, metric, part)
    return out.getvalue()


def markdown_table(run: BsctRun) -> str:
    """Return the headline numbers, mean [95 % interval], with coverage, as a Markdown table."""
    head, *rows = _headline(run)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines)


def latex_table(run: BsctRun) -> str:
    """Return the same as a LaTeX tabular (package booktabs)."""
    head, *rows = [[_latex(cell) for cell in row] for row in _headline(run)]
    body = "".join(f"{' & '.join(row)} \\\\\n" for row in rows)
    columns = "l" + "r" * (len(head) - 1)
    top = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{' & '.join(head)} \\\\\n\\midrule\n"
    return f"{top}{body}\\bottomrule\n\\end{{tabular}}\n"


FORMATS: dict[str, Callable[[BsctRun], str]] = {
    ".csv": csv_table,
    ".md": markdown_table,
    ".tex": latex_table,
}
"""By the ending of the file."""


def write_table(run: BsctRun, path: Path) -> None:
    """Write a run's table in the format that the file's ending names.

    Raises:
        ValueError: an ending that is none of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{path}: tables are written as {', '.join(FORMATS)}; {nearest(path.suffix, FORMATS)}"
        )
    path.write_text(FORMATS[path.suffix](run), encoding="utf-8")


def _headline(run: BsctRun) -> Sequence[list[str]]:
    metrics = metrics_of(run.settings)
    chosen = [metrics[word] for word in ("fsd", "fsd_compress", "fsd_stretch", "force", "work_stretch")]
    rows = [["model", *(f"{metric.title} ({metric.unit})" for metric in chosen), "scans"]]
    for model in run.models.values():
        n, total = model.coverage
        cells = [_cell(model.estimates.get(metric.key)) for metric in chosen]
        rows.append([model.name, *cells, f"{n}/{total}"])
    return rows


def _cell(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else f"{number(estimate.mean)} {interval(estimate)}"


def _latex(text: str) -> str:
    text = re.sub(r"([&%$#_{}])", r"\\\1", text)
    return text.replace("Å", r"\AA{}").replace("–", "--").replace("−", "$-$")
