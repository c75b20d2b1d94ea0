"""The HTML page about hot dynamics."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.heat import figures as plots
from sfumato.protocols.heat.analysis import Hot, ModelHeat, Share
from sfumato.protocols.heat.tables import (
    JUMP,
    SHOWN_ELSEWHERE,
    TERMS,
    each,
    facts,
    failures,
    reasons,
    run_of,
    shares,
    temperatures,
)
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

WORST = 40
"""Trajectories in the table of the worst."""


def heat_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    titles = [f"{run.data.name} ({run.folder.name})" if len(runs) > 1 else run.data.name for run in runs]
    figures: Figures = []
    sections = [_section(run, f"heat{k}", title, figures) for k, (run, title) in enumerate(zip(runs, titles))]
    return Page(
        f"Hot dynamics: {', '.join(titles)}",
        "Langevin dynamics far above room temperature, written by Sfumato",
        sections,
        heading="Does it survive the heat?",
        figures=figures,
    )


def _section(run: Run, key: str, title: str, figures: Figures) -> str:
    measured = any(model.coverage[0] for model in run.models.values())
    parts = [
        f'<section id="{key}"><h2>{escape(title)}</h2>',
        f'<div class="lead"><ul>{"".join(f"<li>{escape(line)}</li>" for line in summary(run))}</ul></div>',
        "<h3>Models</h3>",
        _models(run),
        "<h3>Trajectories that do not count</h3>",
        _failures(run),
    ]
    if measured:
        parts += [_figures(run, key, figures), "<h3>The worst trajectories</h3>", _worst(run, key)]
    parts += ["<h3>What the numbers mean</h3>", metric_definitions([JUMP], TERMS)]
    parts += ["<h3>Data, settings and provenance</h3>", provenance(run), "</section>"]
    return "\n".join(parts)


def summary(run: Run) -> list[str]:
    """Return in plain words what was simulated and what came out."""
    hot = ", ".join(f"{kelvin:g}" for kelvin in temperatures(run))
    _, structures, seeds, time = facts(run)
    said = [
        f"{structures} relaxed, equilibrated, and moved by Langevin dynamics at {hot} K for {time} each, "
        f"with {seeds}."
    ]
    for name, model in run.models.items():
        if not model.coverage[0]:
            said.append(f"{name} has no result.")
            continue
        parts = [_at(model, kelvin) for kelvin in model.temperatures]
        said.append(f"{name}: {'; '.join(parts)}.")
    return said


def _at(model: ModelHeat, kelvin: float) -> str:
    survived, spiked, _ = shares(model, kelvin)
    why = reasons(model, kelvin)
    spikes = f", {count(spiked.k, 'spike')}" if spiked.k else ""
    left = f" ({why})" if why else ""
    jump = f"largest jump {number(model.jumps[kelvin].mean)} K"
    return f"{survived.k} of {survived.n} survive {kelvin:g} K{left}{spikes}, {jump}"


def _models(run: Run) -> str:
    head = [heading("model", words=True), heading("K"), heading("trajectories"), metric_heading(JUMP)]
    head += [heading(title, "%") for title in ("survived", "spikes", "intact")]
    head.append(heading("left because", words=True))
    rows = []
    for name, model, kelvin in each(run):
        done = len(model.done(kelvin))
        cells = "".join(map(_share_cell, shares(model, kelvin)))
        why = words_cell(reasons(model, kelvin) or "none left")
        rows.append(
            f"<th>{escape(name)}</th>{number_cell(kelvin)}{coverage_cell(done, run_of(model, kelvin))}"
            f"{estimate_cell(model.jumps[kelvin], done)}{cells}{why}"
        )
    note = "Of a mean and of a part, below it the 95 % interval."
    return table(head, rows, f"{note} {settings_note(run.settings, SHOWN_ELSEWHERE)}".strip())


def _share_cell(share: Share) -> str:
    low, high = share.interval
    spread = f'<span class="spread">[{number(100 * low)}, {number(100 * high)}]</span>' if share.n else ""
    return number_cell(100 * share.part, spread)


def _figures(run: Run, key: str, figures: Figures) -> str:
    drawn = [
        (
            "survival",
            plots.survival_figure(run),
            "Solid: trajectories that go on. Dotted: those in which all bonds of the start hold, too; bonds "
            "do break in such heat.",
        ),
        ("temperature", plots.temperature_figure(run), "Each line is a trajectory. A bath makes no spikes."),
        ("jumps", plots.jump_figure(run), "Mean over trajectories; bars are 95 % intervals."),
    ]
    figures += [(f"{run.folder.name}-{name}", figure) for name, figure, _ in drawn]
    return "\n".join(
        f'<div id="{key}-{name}">{figure_block(f"{key}-{name}-figure", figure, note)}</div>'
        for name, figure, note in drawn
    )


def _worst(run: Run, key: str) -> str:
    """Return those that left, then those with the largest jumps for their temperature."""
    every = [
        (one, name)
        for name, model in run.models.items()
        for one in model.trajectories.values()
        if one.status == "ok"
    ]
    every.sort(key=lambda pair: (not pair[0].left, -pair[0].jump / pair[0].limit))
    titles = ("structure", "model", "K", "seed")
    head = [heading(title, words=k < 2) for k, title in enumerate(titles)]
    head += [metric_heading(JUMP), heading("a bath allows", "K"), heading("left at", "ps")]
    head += [heading("why", words=True), heading("first bond broken", words=True)]
    rows = []
    for one, name in every[:WORST]:
        cells = [f"<th>{escape(one.structure)}</th>", words_cell(name)]
        cells += [number_cell(one.kelvin), whole_cell(one.seed)]
        cells += map(number_cell, (one.jump, one.limit, one.left_at))
        cells += [words_cell(one.left or "reached its end"), words_cell(_broke(one))]
        rows.append("".join(cells))
    rest = f" The worst {WORST} of {len(every)}." if len(every) > WORST else ""
    return table(head, rows, f"Headings sort.{rest}")


def _broke(one: Hot) -> str:
    return f"{one.broke} at {number(one.broke_at)} ps" if one.broke else "none"


def _failures(run: Run) -> str:
    groups = failures(run)
    return failure_list(groups, "trajectory") if groups else "<p>None: every structure was moved.</p>"
