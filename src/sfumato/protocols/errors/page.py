"""The HTML page about errors on labeled structures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.errors import figures as plots
from sfumato.protocols.errors.tables import (
    METRICS,
    SHOWN_ELSEWHERE,
    failures,
    frames_of,
    split_of,
    subsets_of,
    warnings,
)
from sfumato.report.html import (
    NOT_APPLICABLE,
    Page,
    coverage_cell,
    estimate_cell,
    failure_list,
    figure_block,
    folded,
    heading,
    metric_definitions,
    metric_heading,
    provenance_block,
    table,
    warning_lines,
    words_cell,
)
from sfumato.report.tables import settings_by_model, settings_note

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

SHOWN = ("energy_mae", "relative_energy_mae", "force_mae", "force_cosine")
"""In the table by subset."""


def errors_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    titles = [f"Errors on {run.data.name}, split {split_of(run)}" for run in runs]
    figures: list[tuple[str, Figure]] = []
    if len(runs) == 1:
        body = _run_section(runs[0], "errors0", figures)
        return Page(titles[0], f"{runs[0].data.level}; written by Sfumato", body, figures=figures)
    links = "".join(f'<li><a href="#errors{k}">{escape(title)}</a></li>' for k, title in enumerate(titles))
    body = [f"<nav><ul>{links}</ul></nav>"]
    for k, (run, title) in enumerate(zip(runs, titles)):
        head = f'<h2>{escape(title)}</h2><p class="soft">{escape(run.data.level)}</p>'
        section = "\n".join(_run_section(run, f"errors{k}", figures))
        body.append(f'<section id="errors{k}">{head}{section}</section>')
    heading = "Errors on labeled structures"
    return Page(", ".join(titles), "written by Sfumato", body, heading=heading, figures=figures)


def _run_section(run: Run, key: str, figures: list[tuple[str, Figure]]) -> list[str]:
    names = subsets_of(run)
    by_subset = ["<h2>By subset</h2>", _by_subset(run, names)] if len(names) > 1 else []
    return [
        warning_lines([*warnings(run), *run.remarks]),
        "<h2>All frames</h2>",
        _all_frames(run) if run.models else "",
        "<h2>Frames that do not count</h2>",
        _failures(run),
        *by_subset,
        *(folded(f"Every number: {name}", _all_frames(run, name)) for name in names[1:]),
        *_figures(run, key, figures),
        "<h2>What the numbers mean</h2>",
        metric_definitions(METRICS),
        "<h2>Data, settings and provenance</h2>",
        _provenance(run),
    ]


def _figures(run: Run, key: str, figures: list[tuple[str, Figure]]) -> list[str]:
    if not any(model.coverage[0] for model in run.models.values()):
        return []
    drawn = "At most {} {} of each model, drawn at random."
    bins = "Mean over components of the atoms in a bin; hover for their number."
    shown = [
        ("force-parity", plots.force_parity(run), drawn.format(plots.MOST, "points")),
        ("force-magnitude", plots.magnitude_figure(run), bins),
        ("energy-parity", plots.energy_parity(run), drawn.format(plots.MOST, "frames")),
    ]
    figures += [(f"{run.folder.name}-{name}", figure) for name, figure, _ in shown]
    return [figure_block(f"{key}-{name}", figure, note) for name, figure, note in shown]


def _all_frames(run: Run, subset: str = "all") -> str:
    """Every number over the frames of a subset, a column for each model."""
    head = [heading("", words=True), *(heading(name) for name in run.models)]
    rows = []
    for metric in METRICS:
        unit = f' <span class="unit">{escape(metric.unit)}</span>' if metric.unit else ""
        cells = "".join(
            estimate_cell(metric.of(model.subsets[subset])) if subset in model.subsets else NOT_APPLICABLE
            for model in run.models.values()
        )
        rows.append(f'<th title="{escape(metric.meaning)}">{escape(metric.title)}{unit}</th>{cells}')
    note = "Mean over frames, below it the 95 % interval; n where it rests on fewer frames."
    return table(head, rows, f"{note} {settings_note(run.settings, SHOWN_ELSEWHERE)}".strip())


def _by_subset(run: Run, names: Sequence[str]) -> str:
    shown = [metric for metric in METRICS if metric.key in SHOWN]
    head = [heading("subset", words=True), heading("model", words=True), heading("frames")]
    rows = []
    for subset in names:
        for model in run.models.values():
            if subset not in model.subsets:
                continue
            numbers = model.subsets[subset]
            e = numbers["energy_mae"]
            cells = "".join(estimate_cell(metric.of(numbers)) for metric in shown)
            words = f"<th>{escape(subset)}</th>{words_cell(model.name)}"
            rows.append(f"{words}{coverage_cell(e.n, e.total)}{cells}")
    return table([*head, *map(metric_heading, shown)], rows, "Headings sort.")


def _failures(run: Run) -> str:
    groups = failures(run)
    return failure_list(groups, "frame") if groups else "<p>None: every model predicted every frame.</p>"


def _provenance(run: Run) -> str:
    protocol = run.protocol
    each = {name: protocol.settings_json(settings) for name, settings in run.settings.items()}
    return provenance_block(
        run.data,
        f"{frames_of(run)} of {len(run.data)}, split {split_of(run)}",
        run.manifest,
        run.folder,
        {"protocol": protocol.name, "version": protocol.version} | settings_by_model(each),
        {name: model.identity for name, model in run.models.items()},
    )
