"""The HTML page about errors on migrating atoms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.rare_events import figures as plots
from sfumato.protocols.rare_events.data import is_published
from sfumato.protocols.rare_events.released import RELEASED
from sfumato.protocols.rare_events.tables import (
    HEADLINE,
    METRICS,
    SHOWN_ELSEWHERE,
    TITLES,
    content_of,
    defects_of,
    failures,
    floor_of,
    of_defect,
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
    number_cell,
    provenance_block,
    table,
    warning_lines,
    words_cell,
)
from sfumato.report.tables import settings_by_model, settings_note

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

Figures = list[tuple[str, "Figure"]]

MORE = (
    (
        "migrating atom",
        "An atom in the middle of a hop from one site to another, as the data set marks it.",
    ),
    (
        "DFT K1, K2",
        "The same DFT with the Γ point alone, or 2×2×2 k-points, in place of 4×4×4: smaller errors are "
        "within what the choice of k-points changes.",
    ),
)


def rare_events_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    figures: Figures = []
    body: list[str] = []
    for k, run in enumerate(runs):
        head = f"<h2>{escape(run.data.name)}</h2>" if len(runs) > 1 else ""
        section = "\n".join(_section(run, f"{run.protocol.name}{k}", figures))
        body.append(f'<section id="{run.protocol.name}{k}">{head}{section}</section>')
    title = "Forces on migrating atoms"
    return Page(title, f"{runs[0].data.level}; written by Sfumato", body, figures=figures)


def _section(run: Run, key: str, figures: Figures) -> list[str]:
    scored = any(model.coverage[0] for model in run.models.values())
    groups = failures(run)
    return [
        warning_lines(run.remarks),
        *(_defect(run, name) for name in defects_of(run)),
        *(_overview(run, key, figures) if scored else []),
        *([_released(run)] if is_published(run.data) else []),
        "<h2>Snapshots that do not count</h2>",
        failure_list(groups, "snapshot") if groups else "<p>None: every model predicted every snapshot.</p>",
        *(_details(run, key, figures) if scored else []),
        "<h2>What the numbers mean</h2>",
        metric_definitions(METRICS, MORE),
        "<h2>Data, settings and provenance</h2>",
        _provenance(run),
    ]


def _defect(run: Run, name: str) -> str:
    """The table of one defect: models, then other levels of theory."""
    scored = of_defect(run, name)
    head = [
        heading("model", words=True),
        heading("snapshots"),
        *(metric_heading(TITLES[k]) for k in HEADLINE),
    ]
    rows = []
    for title, found in scored.items():
        cells = "".join(estimate_cell(TITLES[key].of(found.numbers)) for key in HEADLINE)
        predicted = int((found.energy == found.energy).sum())
        rows.append(f"<th>{escape(title)}</th>{coverage_cell(predicted, len(found.data))}{cells}")
    for title, found in floor_of(run, name).items():
        cells = "".join(estimate_cell(TITLES[key].of(found.numbers)) for key in HEADLINE)
        rows.append(f"<th>{escape(title)}</th>{NOT_APPLICABLE}{cells}")
    note = "Mean, below it the 95 % interval; snapshots are resampled. Rows of DFT: with fewer k-points. "
    note += settings_note(run.settings, SHOWN_ELSEWHERE)
    first = next(iter(scored.values()))
    return f"<h2>{escape(name.capitalize())}</h2><p>{content_of(first)}.</p>{table(head, rows, note.strip())}"


def _overview(run: Run, key: str, figures: Figures) -> list[str]:
    shown = [
        *(
            (
                f"{score}",
                plots.score_figure(run, score),
                "Vertical lines: DFT with fewer k-points, in the color of the defect.",
            )
            for score in ("err_M", "err_A")
        ),
    ]
    for name in defects_of(run):
        shown += [
            (f"{name}-magnitude", plots.magnitude_cdf(run, name), "Black: DFT with fewer k-points."),
            (f"{name}-angle", plots.angle_cdf(run, name), "Black: DFT with fewer k-points."),
        ]
    return _blocks(run, key, figures, shown)


def _details(run: Run, key: str, figures: Figures) -> list[str]:
    shown = []
    note = "The first point are the migrating atoms; what is farther than 5 Å is one bin."
    for name in defects_of(run):
        shown.append((f"{name}-r", plots.distance_figure(run, name, "r"), note))
        if any(one.by_r_v for one in of_defect(run, name).values()):
            shown.append((f"{name}-rv", plots.distance_figure(run, name, "r_v"), "Middles of bins."))
    parts = ["<h2>Where forces are wrong</h2>", *_blocks(run, key, figures, shown)]
    parts.append(_worst(run))
    for k, (title, model) in enumerate(run.models.items()):
        drawn = [
            (
                f"worst-{k}-{name}",
                plots.atom_figure(title, one, one.worst[0]),
                "Drag to turn. Lines: the force that the atom has by the reference, and by the model.",
            )
            for name, one in model.sets.items()
            if one.worst
        ]
        if drawn:
            parts.append(
                folded(f"The worst atoms of {title} in 3-D", "".join(_blocks(run, key, figures, drawn)))
            )
    for name in defects_of(run):
        parts.append(folded(f"Every number: {name}", _every_number(run, name)))
    return parts


def _blocks(run: Run, key: str, figures: Figures, shown: Sequence[tuple[str, Figure, str]]) -> list[str]:
    figures += [(f"{run.folder.name}-{name}", figure) for name, figure, _ in shown]
    return [figure_block(f"{key}-{name}", figure, note) for name, figure, note in shown]


def _worst(run: Run) -> str:
    head = [heading(title, words=True) for title in ("model", "set")]
    head += [heading("snapshot"), heading("atom")]
    head += [heading("error", "eV/Å"), heading("angle", "°"), heading("reference", "eV/Å")]
    rows = []
    for title, model in run.models.items():
        for name, one in model.sets.items():
            for worst in one.worst:
                size = sum(part**2 for part in worst.reference) ** 0.5
                cells = "".join(
                    map(number_cell, (worst.snapshot, worst.atom, worst.error, worst.angle, size))
                )
                rows.append(f"<th>{escape(title)}</th>{words_cell(name)}{cells}")
    return folded("Migrating atoms with the largest errors", table(head, rows, "Headings sort."))


def _every_number(run: Run, name: str) -> str:
    columns = {**of_defect(run, name), **floor_of(run, name)}
    head = [heading("", words=True), *(heading(title) for title in columns)]
    rows = []
    for metric in METRICS:
        unit = f' <span class="unit">{escape(metric.unit)}</span>' if metric.unit else ""
        cells = "".join(estimate_cell(metric.of(found.numbers)) for found in columns.values())
        rows.append(f'<th title="{escape(metric.meaning)}">{escape(metric.title)}{unit}</th>{cells}')
    return table(head, rows, "")


def _released(run: Run) -> str:
    names = defects_of(run)
    head = [heading("potential", words=True)]
    head += [heading(f"{name} {score}") for name in names for score in ("err_M", "err_A")]
    rows = []
    for row in RELEASED:
        values = [row.of(name) or (math.nan, math.nan) for name in names]
        cells = "".join(number_cell(value) for pair in values for value in pair)
        rows.append(f"<th>{escape(row.name)}</th>{cells}")
    note = "Liu & Mo 2024. Medians are of a hundred models of that type and training set."
    return f"<h2>Published potentials on the same atoms</h2>{table(head, rows, note)}"


def _provenance(run: Run) -> str:
    protocol = run.protocol
    each = {name: protocol.settings_json(settings) for name, settings in run.settings.items()}
    first = next(iter(run.models.values()), None)
    content = (
        "" if first is None else ", ".join(f"{len(one.data)} {name}" for name, one in first.sets.items())
    )
    return provenance_block(
        run.data,
        f"snapshots: {content}",
        run.manifest,
        run.folder,
        {"protocol": protocol.name, "version": protocol.version} | settings_by_model(each),
        {name: model.identity for name, model in run.models.items()},
    )
