"""The HTML page about probes, for any number of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.probes import figures as plots
from sfumato.protocols.probes.jumps import ORDERS, UNITS
from sfumato.protocols.probes.tables import (
    CHECKS,
    CURVES,
    SHOWN_ELSEWHERE,
    below,
    exclusions,
    facts,
    failures,
    mean_of,
    percent,
)
from sfumato.protocols.probes.walls import RATES
from sfumato.report.html import (
    NOT_APPLICABLE,
    Page,
    coverage_cell,
    definitions,
    embedded,
    failure_list,
    figure_block,
    folded,
    folded_if_long,
    heading,
    metric_definitions,
    metric_heading,
    number_cell,
    provenance_block,
    table,
    take_title,
    words_cell,
)
from sfumato.report.numbers import number
from sfumato.report.tables import settings_by_model, settings_note
from sfumato.words import count

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.metrics.stats import Estimate
    from sfumato.protocols.probes.forces import Level
    from sfumato.protocols.probes.walls import Walls
    from sfumato.protocols.protocol import Run

Figures = list[tuple[str, "Figure"]]

OPEN_ROWS = 40
"""Longer lists start folded."""

TERMS = (
    (
        "jump",
        "What is left of a change of the energy, the force or the curvature (the slope of the force) when "
        "the interval around it is made ever narrower. Every interval in which the work of the force does "
        "not explain the energy is halved until it does, or is narrower than a millionth of an Å.",
    ),
    (
        "what changes",
        "The distance at which two atoms alone jump, or that jumps on several paths share; or two neighbors "
        "of an atom that exchange their order of distance exactly there.",
    ),
    (
        "compression",
        "Two atoms at thirty distances from 0.30 to 0.03 Å (Geng et al. 2026): the energy rises from each to "
        "the next, so does the repulsion, and the last distance is repulsive. Intervals are Wilson's, for as "
        "many independent pairs as there are molecules where all come out alike.",
    ),
    (
        "hole",
        "The largest fall of the energy as two atoms come closer, from where they begin to repel each other "
        "down to 0.03 Å, and the height of the barrier before it.",
    ),
    ("mismatch", "|dE/du + F·u| over |dE/du|, over all elements and components of a structure."),
    ("closed loops", "Work of the force on closed loops in random planes over the absolute work on them."),
    ("asymmetry", "‖J − Jᵀ‖ / 2‖J‖ of the Jacobian J of the force, from random vectors; 0 for a gradient."),
    (
        "noise",
        "Measured from the scatter of energies and forces under displacements of 5e-5 Å; ten standard "
        "deviations of it, as they enter a number, are no finding: the table then says “<”.",
    ),
)


def probes_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    titles = [f"{run.data.name}, {facts(run)} ({run.folder.name})" for run in runs]
    links = "".join(f'<li><a href="#probes{k}">{escape(title)}</a></li>' for k, title in enumerate(titles))
    figures: Figures = []
    sections = [
        _run_section(run, f"probes{k}", title, figures) for k, (run, title) in enumerate(zip(runs, titles))
    ]
    return Page(
        f"Probes: {', '.join(run.data.name for run in runs)}",
        "Where a surface jumps, where its wall has holes, whether forces are right; written by Sfumato",
        [f"<nav><ul>{links}</ul></nav>" if len(runs) > 1 else "", *sections],
        heading="Probes of these potentials",
        figures=figures,
    )


def _run_section(run: Run, key: str, title: str, figures: Figures) -> str:
    parts = [
        f'<section id="{key}"><h2>{escape(title)}</h2>',
        *(f'<p class="bad">{escape(line)}.</p>' for line in exclusions(run)),
        *_jumps(run, key, figures),
        *_walls(run, key, figures),
        *_forces(run, key, figures),
        *_diatomics(run, key, figures),
        "<h3>Noise</h3>",
        _noise_table(run),
        "<h3>Probes that do not count</h3>",
        _failures(run),
        "<h3>What the numbers mean</h3>",
        definitions(TERMS),
        metric_definitions(CURVES),
        "<h3>Data, settings and provenance</h3>",
        _provenance(run),
        "</section>",
    ]
    return "\n".join(parts)


def _drawn(run: Run, key: str, name: str, figure: Figure, note: str, figures: Figures) -> str:
    figures.append((f"{run.folder.name}-{name}", figure))
    return figure_block(f"{key}-{name}", figure, note)


def _viewer(
    run: Run, key: str, name: str, word: str, drawn: Sequence[tuple[str, Figure]], figures: Figures
) -> str:
    """Return figures of which one is chosen by a word.

    Args:
        run: that they are of.
        key: of the section.
        name: of the viewer.
        word: what is chosen, for people.
        drawn: each with its name for people.
        figures: to add them to.
    """
    for label, figure in drawn:
        take_title(figure)
        figures.append((f"{run.folder.name}-{name}-{label}", figure))
    data = "".join(embedded(f"{key}-{name}{k}", figure) for k, (_, figure) in enumerate(drawn))
    options = "".join(
        f'<option value="{key}-{name}{k}">{escape(label)}</option>' for k, (label, _) in enumerate(drawn)
    )
    picker = f'<select data-plot="{key}-{name}">{options}</select>'
    return (
        f'{data}<p class="pick"><label>{escape(word)} {picker}</label></p>'
        f'<figure><div class="plot" id="{key}-{name}" data-figure="{key}-{name}0"></div></figure>'
    )


def _jumps(run: Run, key: str, figures: Figures) -> list[str]:
    head = [heading("model", words=True), heading("paths"), heading("jumps")]
    head += [heading(f"largest of the {what}", unit) for what, unit in zip(ORDERS, UNITS, strict=True)]
    head += [heading("refuted"), heading("below this is noise", UNITS[0])]
    rows = []
    for model in run.models.values():
        jumps = model.jumps
        cells = [f"<th>{escape(model.name)}</th><td>{sum(jumps.paths.values())}</td>"]
        bad = ' class="bad"' if jumps.found else ""
        cells.append(f'<td{bad} data-value="{len(jumps.found)}">{len(jumps.found)}</td>')
        for order in range(len(ORDERS)):
            found = jumps.largest(order)
            cells.append(number_cell(1e3 * found.size) if found else '<td data-value="0">none</td>')
        cells += [f"<td>{jumps.refuted}</td>", number_cell(1e3 * jumps.floor[0])]
        rows.append("".join(cells))
    note = (
        "Sizes of what does not shrink with the interval; a jump counts for its lowest order only. Refuted: "
        f"suspicious places that turned out smooth. {settings_note(run.settings, SHOWN_ELSEWHERE)}"
    )
    parts = [f'<h3 id="{key}-jumps">Jumps of the surface</h3>', table(head, rows, note.strip())]
    if any(model.jumps.found for model in run.models.values()):
        parts += [_cause_table(run)]
        proof = "Each line is the largest jump of one cause; hover for what and where. What is steep falls."
        parts.append(_drawn(run, key, "proof", plots.proof_figure(run), proof, figures))
        if any(
            f.cause.kind in ("cutoff", "rank") for model in run.models.values() for f in model.jumps.found
        ):
            where = (
                "Dots: energy, squares: force, diamonds: curvature. Points above one another share a cutoff."
            )
            parts.append(_drawn(run, key, "where", plots.place_figure(run), where, figures))
        parts.append(_jump_list(run))
    else:
        lines = [f"{model.name}: {below(model)}" for model in run.models.values()]
        parts.append(f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")
    return parts


def _cause_table(run: Run) -> str:
    head = [heading("model", words=True), heading("what changes", words=True), heading("jumps")]
    head += [heading("the largest", words=True), heading("neighbors", hint="within that distance")]
    rows = []
    for model in run.models.values():
        for cause, found in model.jumps.causes():
            near = found[0].cause.neighbors
            shown = f'<td data-value="{near}">{near}</td>' if near >= 0 else NOT_APPLICABLE
            rows.append(
                f"<th>{escape(model.name)}</th>{words_cell(cause.words)}<td>{len(found)}</td>"
                f"{words_cell(found[0].in_words())}{shown}"
            )
    return folded_if_long(
        table(head, rows, "What changes where something jumps."), len(rows), "cause", OPEN_ROWS
    )


def _jump_list(run: Run) -> str:
    head = [heading(what, words=True) for what in ("model", "path", "what changes")]
    head += [heading("place", "Å"), heading("jumps", words=True)]
    rows = [
        f"<th>{escape(model.name)}</th>{words_cell(found.probe.name)}{words_cell(found.cause.words)}"
        f"{number_cell(found.place)}{words_cell(found.in_words())}"
        for model in run.models.values()
        for found in model.jumps.found
    ]
    return folded(f"All {count(len(rows), 'jump')}", table(head, rows, "Place: along the path."))


def _walls(run: Run, key: str, figures: Figures) -> list[str]:
    head = [heading("model", words=True), heading("two atoms", words=True), heading("pairs")]
    head += [heading(title, "%") for title in CHECKS.values()]
    head += [heading("holes"), heading("deepest", "eV"), heading("at", "Å"), heading("behind", "eV")]
    rows = []
    for model in run.models.values():
        for what, walls in (("alone", model.pairs), ("in molecules", model.places)):
            if walls.total:
                rows.append(f"<th>{escape(model.name)}</th>{words_cell(what)}{_wall_cells(walls)}")
    note = (
        "Share of pairs, below it the 95 % interval. Behind: height of the barrier before the deepest hole."
    )
    parts = [f'<h3 id="{key}-walls">Compression</h3>', table(head, rows, note)]
    if any(model.pairs.squeezed or model.places.squeezed for model in run.models.values()):
        bars = "Bars are 95 % intervals."
        parts.append(_drawn(run, key, "rates", plots.rate_figure(run), bars, figures))
    shown = plots.shown_walls(run)
    if shown:
        parts += ["<h4>Energy of two atoms that are pressed together</h4>"]
        drawn = [(f"{name}: {one.name}", plots.wall_figure(name, one)) for name, one in shown]
        parts.append(_viewer(run, key, "wall", "Two atoms", drawn, figures))
    return parts


def _wall_cells(walls: Walls) -> str:
    cells = [coverage_cell(len(walls.squeezed), walls.total)]
    cells += [_rate_cell(walls.rates[name]) for name in RATES]
    holes = walls.holes
    bad = ' class="bad"' if holes else ""
    cells.append(f'<td{bad} data-value="{len(holes)}">{len(holes)}</td>')
    hole = holes[0].hole if holes else None
    values = (hole.depth, hole.place, hole.barrier) if hole else ()
    cells += [number_cell(value) for value in values] or [NOT_APPLICABLE] * 3
    return "".join(cells)


def _rate_cell(estimate: Estimate) -> str:
    if not estimate.n:
        return NOT_APPLICABLE
    spread = f'<span class="spread">[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]</span>'
    bad = "" if estimate.mean == 1 else ' class="bad"'
    return f'<td{bad} data-value="{estimate.mean:.6g}">{percent(estimate.mean)}{spread}</td>'


def _forces(run: Run, key: str, figures: Figures) -> list[str]:
    head = [heading("model", words=True), heading("structures")]
    head += [heading(title) for title in ("mismatch", "closed loops", "asymmetry")]
    head += [heading("mean asymmetry"), heading("so", words=True)]
    rows = []
    for model in run.models.values():
        forces = model.forces
        cells = [f"<th>{escape(model.name)}</th><td>{len(forces.names)}</td>"]
        for what in plots.FORCES:
            found = forces.worst(what)
            cells.append(_level_cell(found[1] if found else None, forces.largest_noise[what]))
        e = forces.mean_asymmetry
        mean = number_cell(
            e.mean, f'<span class="spread">[{number(max(e.low, 0.0))}, {number(e.high)}]</span>'
        )
        cells.append(mean if e.n and forces.worst("asymmetry") else NOT_APPLICABLE)
        cells.append(words_cell(forces.in_words() if forces.names else "n/a"))
        rows.append("".join(cells))
    note = (
        "Relative errors of the worst structure, “<” where they are noise; mean over structures [95 %]. A "
        "jump nearby shows in loops and asymmetry, too."
    )
    parts = [f'<h3 id="{key}-forces">Force and energy</h3>', table(head, rows, note)]
    if any(model.forces.names for model in run.models.values()):
        hollow = "Hollow: not more than noise. The dotted line is where the verdict turns."
        parts.append(_drawn(run, key, "forces-figure", plots.force_figure(run), hollow, figures))
        parts.append(folded("By element and component", _component_table(run)))
    return parts


def _component_table(run: Run) -> str:
    names = dict.fromkeys(name for model in run.models.values() for name in model.forces.by_component_named)
    head = [heading("component", words=True), *(heading(name) for name in run.models)]
    rows = []
    for name in names:
        levels = [model.forces.by_component_named.get(name) for model in run.models.values()]
        cells = [
            NOT_APPLICABLE if level is None else _level_cell(None if level.below else level, level.noise)
            for level in levels
        ]
        rows.append(f"<th>{escape(name)}</th>{''.join(cells)}")
    return table(head, rows, "Relative mismatch of force and energy; “<” where it is noise.")


def _level_cell(level: Level | None, noise: float) -> str:
    if level is None:
        return f'<td data-value="0">{"n/a" if math.isnan(noise) else f"&lt; {number(noise)}"}</td>'
    return number_cell(level.value)


def _diatomics(run: Run, key: str, figures: Figures) -> list[str]:
    elements = plots.shown_elements(run)
    if not elements:
        return []
    head = [heading("model", words=True), heading("elements"), *map(metric_heading, CURVES)]
    rows = []
    for model in run.models.values():
        cells = "".join(number_cell(mean_of(model.diatomics, metric.key)) for metric in CURVES)
        rows.append(f"<th>{escape(model.name)}</th><td>{len(model.diatomics)}</td>{cells}")
    note = (
        "Means over elements, of errors the mean size. Definitions of Matbench-Discovery, at the distances "
        "of its PBE curves between 0.9 covalent and 3.1 van der Waals radii; a model of another level of "
        "theory differs from PBE for that reason too."
    )
    parts = [f'<h3 id="{key}-diatomics">Two like atoms</h3>', table(head, rows, note)]
    drawn = [(element, plots.curve_figure(run, element)) for element in elements]
    parts.append(_viewer(run, key, "curve", "Element", drawn, figures))
    parts.append(folded("Every element", _element_table(run, elements)))
    return parts


def _element_table(run: Run, elements: Sequence[str]) -> str:
    head = [heading("element", words=True), heading("model", words=True), *map(metric_heading, CURVES)]
    rows = []
    for element in elements:
        for model in run.models.values():
            for one in (one for one in model.diatomics if one.element == element):
                cells = "".join(number_cell(one.numbers[metric.key]) for metric in CURVES)
                rows.append(f"<th>{escape(element)}</th>{words_cell(model.name)}{cells}")
    return table(head, rows, "Errors are model − PBE.")


def _noise_table(run: Run) -> str:
    head = [heading("model", words=True), heading("precision", words=True)]
    head += [heading("energy", "eV"), heading("force", "eV/Å")]
    rows = [
        f"<th>{escape(model.name)}</th>{words_cell(dtype)}{number_cell(energy)}{number_cell(force)}"
        for model in run.models.values()
        for dtype, (energy, force) in model.forces.noise.items()
    ]
    return table(head, rows, "Jumps and forces are examined in the finest precision that a model offers.")


def _failures(run: Run) -> str:
    groups = failures(run)
    return (
        failure_list(groups, "probe") if groups else "<p>None: every probe of every model has a result.</p>"
    )


def _provenance(run: Run) -> str:
    protocol = run.protocol
    each = {name: protocol.settings_json(settings) for name, settings in run.settings.items()}
    return provenance_block(
        run.data,
        count(len(run.data), "structure"),
        run.manifest,
        run.folder,
        {"protocol": protocol.name, "version": protocol.version} | settings_by_model(each),
        {name: model.identity for name, model in run.models.items()},
    )
