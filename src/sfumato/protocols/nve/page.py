"""The HTML page about energy conservation."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.nve import figures as plots
from sfumato.protocols.nve.tables import METRICS, SHOWN_ELSEWHERE, each, facts, failures
from sfumato.protocols.simulated import provenance, whole_cell
from sfumato.report.html import (
    Page,
    coverage_cell,
    estimate_cell,
    failure_list,
    figure_block,
    heading,
    metric_definitions,
    metric_heading,
    number_cell,
    table,
    words_cell,
)
from sfumato.report.numbers import number
from sfumato.report.tables import settings_note
from sfumato.words import count

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

Figures = list[tuple[str, "Figure"]]

TERMS = (
    (
        "culprit",
        "Who is to blame where energy is not conserved. neighbors: those that are kept from step to step "
        "differ from fresh ones. surface: the energy jumps. forces: they are not the gradient. precision: "
        "the energy is noisy, and not in double precision. integrator: the step is too long. none: what is "
        "left is what velocity Verlet leaves on a smooth surface.",
    ),
    (
        "interval",
        "95 %, from a bootstrap of ten blocks of each run: how well the drift of these structures is known "
        "from runs of this length.",
    ),
)


def nve_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    titles = [f"{run.data.name} ({run.folder.name})" if len(runs) > 1 else run.data.name for run in runs]
    figures: Figures = []
    sections = [_section(run, f"nve{k}", title, figures) for k, (run, title) in enumerate(zip(runs, titles))]
    return Page(
        f"Energy conservation: {', '.join(titles)}",
        "Dynamics at constant energy, written by Sfumato",
        sections,
        heading="Does dynamics conserve the energy?",
        figures=figures,
    )


def _section(run: Run, key: str, title: str, figures: Figures) -> str:
    measured = any(model.done for model in run.models.values())
    parts = [
        f'<section id="{key}"><h2>{escape(title)}</h2>',
        f'<div class="lead"><ul>{"".join(f"<li>{escape(line)}</li>" for line in summary(run))}</ul></div>',
        "<h3>Models</h3>",
        _models(run),
        "<h3>Structures that do not count</h3>",
        _failures(run),
    ]
    if measured:
        parts += [_figures(run, key, figures), "<h3>Every structure</h3>", _structures(run, key)]
    parts += ["<h3>What the numbers mean</h3>", metric_definitions(METRICS, TERMS)]
    parts += ["<h3>Data, settings and provenance</h3>", provenance(run), "</section>"]
    return "\n".join(parts)


def summary(run: Run) -> list[str]:
    """Return in plain words what was simulated and what came out."""
    said = [
        f"{count(len(run.data), 'structure')} relaxed, given velocities, and moved by velocity Verlet for "
        f"{facts(run)[-1]} each."
    ]
    for name, model in run.models.items():
        if not model.done:
            said.append(f"{name} has no result.")
            continue
        culprit, names, reason = model.blame
        drift = model.estimates["drift"]
        words = f"{name}: drift {number(drift.mean)} meV/atom/ps"
        who = f" in {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}" if names else ""
        said.append(
            f"{words}, nothing to blame."
            if culprit == "none"
            else f"{words}; to blame: {culprit}{who}, {reason}."
        )
    return said


def _models(run: Run) -> str:
    head = [heading("model", words=True), heading("structures"), *map(metric_heading, METRICS)]
    head.append(heading("culprit", words=True))
    rows = []
    for name, model in run.models.items():
        done = model.coverage[0]
        cells = "".join(estimate_cell(metric.of(model.estimates), done) for metric in METRICS)
        culprit = model.blame[0] if model.done else "n/a"
        rows.append(f"<th>{escape(name)}</th>{coverage_cell(*model.coverage)}{cells}{words_cell(culprit)}")
    note = "Mean over structures, below it the 95 % interval, of the drift from blocks of the runs."
    return table(head, rows, f"{note} {settings_note(run.settings, SHOWN_ELSEWHERE)}".strip())


def _figures(run: Run, key: str, figures: Figures) -> str:
    drawn = [
        ("error", plots.error_figure(run), "Thick: mean over structures. Thin: each structure."),
        ("drift", plots.drift_figure(run), "Bars are 95 % intervals from blocks of the run."),
        (
            "halving",
            plots.halving_figure(run),
            "Each line is a structure, at half and a quarter of the step. A line that stays up is what no "
            "step cures: jumps, forces that are not the gradient, or noise.",
        ),
    ]
    figures += [(f"{run.folder.name}-{name}", figure) for name, figure, _ in drawn]
    return "\n".join(figure_block(f"{key}-{name}-figure", figure, note) for name, figure, note in drawn)


def _structures(run: Run, key: str) -> str:
    head = [heading("structure", words=True), heading("model", words=True), heading("atoms"), heading("ps")]
    head += [metric_heading(metric) for metric in METRICS]
    head += [heading("culprit", words=True), heading("why", words=True)]
    rows = []
    for structure, name, one, drift in each(run):
        base = one.tracks["base"]
        cells = [f"<th>{escape(structure)}</th>", words_cell(name), whole_cell(base.atoms)]
        cells += [number_cell(float(base.time[-1])), estimate_cell(drift)]
        cells += [number_cell(one.values[metric.key]) for metric in METRICS[1:]]
        culprit = one.blame.culprit if one.blame else "n/a"
        reason = base.left or (one.blame.reason if one.blame else "")
        rows.append("".join([*cells, words_cell(culprit), words_cell(reason)]))
    shown = table(head, rows, "Drifts with their sign. Headings sort.")
    return f'<div id="{key}-drift">{shown}</div>'


def _failures(run: Run) -> str:
    groups = failures(run)
    return failure_list(groups, "structure") if groups else "<p>None: every model moved every structure.</p>"
