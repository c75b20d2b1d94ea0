"""The HTML page about bond scans, for any number of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct import figures as plots
from sfumato.protocols.bsct.kinds import kind_of, type_word
from sfumato.protocols.bsct.numbers import FSD, estimate_of, key_of, shared_metrics
from sfumato.protocols.bsct.tables import (
    comparison_note,
    comparisons,
    difference,
    failures,
    ranked,
    scan_names,
)
from sfumato.reference.scans import degrees
from sfumato.report import molecule
from sfumato.report.html import (
    NOT_APPLICABLE,
    Page,
    coverage_cell,
    embedded,
    estimate_cell,
    figure_block,
    folded,
    folded_if_long,
    folded_json,
    heading,
    metric_definitions,
    metric_heading,
    number_cell,
    provenance_block,
    table,
    take_title,
    warning_lines,
    words_cell,
)
from sfumato.report.numbers import interval, mean, number, p_value
from sfumato.report.tables import settings_by_model, settings_note
from sfumato.words import count

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

Figures = list[tuple[str, "Figure"]]

DONE_TO = {
    "bond": "molecules in which one bond is compressed and stretched",
    "angle": "structures in which one angle is bent",
    "torsion": "structures in which one bond is turned about",
    "site": "structures in which one atom leaves its site",
    "": "structures in which one bond, angle, torsion or atom is moved",
}
"""What each kind of scan does."""

SAME_METHOD = 1e-3
"""eV/Å; a model whose mean force error is below this is taken for the method that made the labels."""

YARDSTICKS = (
    "Published mean FSDs on all 485 scans of bsct-spice: GemNet-T 33.8, MinDScAIP 43.2 (smoothest) to 97.4, "
    "MACE 62.1 (Liu et al. 2026); smaller sets of smaller molecules score lower."
)

SIGNIFICANT = 0.05

OPEN_ROWS = 40
"""Longer lists start folded."""

HEADLINE = (FSD, "outside", "barrier", "well", "force", "energy", "order")

TERMS = (
    (
        "95 % interval",
        "Studentized bootstrap over scans within types: where the mean would lie for other scans of the same "
        "kinds. It needs five scans.",
    ),
    ("n/a", "The number does not exist, for example one side of a scan whose minimum is its end."),
)

DETAIL = (
    "fsd_compress",
    "fsd_stretch",
    "variation",
    "work",
    "work_stretch",
    "minima",
    "maxima",
    "inflections",
    "position",
    "depth",
    "wall",
)


def bsct_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    titles = [f"{run.data.name} ({run.folder.name})" if len(runs) > 1 else run.data.name for run in runs]
    links = "".join(f'<li><a href="#bsct{k}">{escape(title)}</a></li>' for k, title in enumerate(titles))
    figures: Figures = []
    sections = [
        _run_section(run, f"bsct{k}", title, figures) for k, (run, title) in enumerate(zip(runs, titles))
    ]
    return Page(
        f"How smooth? {', '.join(titles)}",
        "Bond Smoothness Characterization Test, written by Sfumato",
        [f"<nav><ul>{links}</ul></nav>" if len(runs) > 1 else "", *sections],
        heading="How smooth are these potentials?",
        figures=figures,
        scripts=["molecule.js"],
    )


def summary(run: Run) -> list[str]:
    """Return in plain words what was measured, what came out, and what can be told apart.

    Args:
        run: any number of models.

    Returns:
        Sentences, not escaped.
    """
    names = scan_names(run)
    asked = set(names)
    frames = sum(len(scan) for scan in run.data if scan.name in asked)
    limits = {settings.limit_per_bond for settings in run.settings.values()}
    limit = limits.pop() if len(limits) == 1 else None
    part = f" (the first {limit} of each {type_word(run)})" if limit else ""
    kind = kind_of(run)
    said = [
        f"{count(len(run.models), 'model')} predicted energies and forces along "
        f"{count(len(names), f'{kind} scan'.strip())} of {run.data.name}{part}: {DONE_TO[kind]} in "
        f"small steps, {count(frames, 'structure')} in all. Each is compared with the reference "
        f"({run.data.level})."
    ]
    lacking = [model for model in run.models.values() if model.coverage[0] < model.coverage[1]]
    said += [
        f"{model.name} finished {model.coverage[0]} of {count(model.coverage[1], 'scan')}; the others are "
        "listed below with their reasons and are in no mean."
        for model in lacking
    ]
    if not lacking:
        said.append("Every model finished every scan.")
    contenders = [model for model in ranked(run) if model.coverage[0] and not _is_reference(model)]
    said += [
        f"{model.name} reproduces the reference forces to within {1e3 * SAME_METHOD:g} meV/Å: it is the "
        "method that made the labels, or as good as, and is left out of the ranking."
        for model in run.models.values()
        if _is_reference(model)
    ]
    return said + _ranking(run, contenders)


def _ranking(run: Run, contenders: Sequence[bsct.ModelResult]) -> list[str]:
    """Say which model has the lowest FSD and whether that can be told from chance."""
    metric = shared_metrics(run)[FSD]
    if not contenders:
        return [
            "There is no model to rank."
            if any(m.coverage[0] for m in run.models.values())
            else "No model finished a scan, so there is nothing to compare."
        ]

    def value(model: bsct.ModelResult) -> str:
        e = model.estimates[key_of(run, model.name)]
        said = f"mean {metric.title} {mean(e)} {interval(e)} 1/Å"
        return f"{model.name}, {said} over {e.n} of {count(e.total, 'scan')}"

    best, *others = contenders
    bonds = kind_of(run) == "bond"
    caution = (
        f"{metric.title} mostly reads how well the place of the minimum agrees"
        + (": a well moved by 0.02 Å scores about 44. " if bonds else ". ")
        + "Read it beside the verdicts, which say what would be felt in a simulation."
        + (f" {YARDSTICKS}" if bonds else "")
    )
    if not others:
        return [f"{value(best)} (95 % interval in brackets).", caution]
    said = f"Lowest FSD: {value(best)}. Next: {value(others[0])} (95 % intervals in brackets)."
    if key_of(run, best.name) != key_of(run, others[0].name):
        return [said, "The two were measured with different settings, so they are not compared.", caution]
    d = difference(run, best, others[0])
    if d is None:
        return [said, "The two share no finished scan, so they cannot be compared.", caution]
    word = "lower" if d.mean < 0 else "higher"
    p = p_value(d.p_value)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    clear = "is statistically distinguishable" if d.p_value < SIGNIFICANT else "cannot be told from chance"
    few = f"; {count(d.n, 'scan')} could hardly show one" if d.n < 6 and d.p_value >= SIGNIFICANT else ""
    paired = (
        f"On the {count(d.n, 'scan')} that both finished, {best.name} is {word} by "
        f"{number(abs(d.mean))} 1/Å (difference {mean(d)} {interval(d)}, {p}): the difference "
        f"{clear}{few}."
    )
    return [said, paired, caution]


def _is_reference(model: bsct.ModelResult) -> bool:
    estimate = model.estimates.get("force_mae_full")
    return estimate is not None and estimate.mean < SAME_METHOD


def _run_section(run: Run, key: str, title: str, figures: Figures) -> str:
    measured = any(model.coverage[0] for model in run.models.values())
    parts = [
        f'<section id="{key}"><h2>{escape(title)}</h2>',
        warning_lines(run.remarks),
        f'<div class="lead"><ul>{"".join(f"<li>{_prose(s)}</li>" for s in summary(run))}</ul></div>',
        "<h3>Models</h3>",
        _model_table(run, HEADLINE),
        folded("More numbers", _model_table(run, DETAIL)),
        "<h3>Scans that do not count</h3>",
        _failure_table(run),
    ]
    if measured:
        parts += [_figures(run, key, figures), _scan_viewer(run, key, figures)]
    if len(run.models) > 1:
        parts += ["<h3>Pairs of models</h3>", _pair_table(run)]
    parts += ["<h3>Every scan</h3>", folded("FSD of each scan, the roughest first", _scan_table(run))]
    parts += ["<h3>What the numbers mean</h3>", metric_definitions(shared_metrics(run).values(), TERMS)]
    parts += ["<h3>Data, settings and provenance</h3>", _provenance(run), "</section>"]
    return "\n".join(parts)


def _prose(text: str) -> str:
    """Escaped text that does not break within a unit."""
    return escape(text).replace("1/Å", "1/\N{WORD JOINER}Å")


def _figures(run: Run, key: str, figures: Figures) -> str:
    drawn = [
        (
            "fsd",
            plots.fsd_figure(run),
            "In brackets the scans a model finished; bars are 95 % intervals.",
        ),
        (
            "scans",
            plots.distribution_figure(run),
            "A point is a scan; a box spans the quartiles about the median.",
        ),
        (
            "types",
            plots.bond_figure(run),
            "A small point is a scan; bars are 95 % intervals; one scan alone has none.",
        ),
    ]
    contenders = [m.name for m in run.models.values() if m.coverage[0] and not _is_reference(m)]
    if len(contenders) > 1:
        pair = plots.paired_figure(run, *contenders[:2])
        drawn.append(("pair", pair, "A point is a scan that both models finished."))
    figures += [(f"{run.folder.name}-{name}", figure) for name, figure, _ in drawn]
    return "\n".join(figure_block(f"{key}-{name}", figure, note) for name, figure, note in drawn)


def _scan_viewer(run: Run, key: str, figures: Figures) -> str:
    chosen = plots.shown_scans(run)
    drawn = [plots.scan_figure(run, name) for name in chosen]
    for figure in drawn:
        take_title(figure)  # the selector says it
    figures += [(f"{run.folder.name}-scan-{name}", figure) for name, figure in zip(chosen, drawn)]
    data = [embedded(f"{key}-s{k}", figure) for k, figure in enumerate(drawn)]
    scans = {scan.name: molecule.Drawn(scan, degrees(scan)) for scan in run.data if scan.name in chosen}
    options = [
        f'<option value="{key}-s{k}">{escape(f"{name}: {why}" if why else name)}</option>'
        for k, (name, why) in enumerate(chosen.items())
    ]
    note = (
        "From the top: energy from the frame of the reference minimum (dotted line), on the range of the "
        "reference; squared change of all forces from that frame; the logarithm L of its ratio to the "
        "reference's; how fast L changes: its maximum, the dot, is the FSD. A peak far above all others is "
        "cut off, and a triangle says how high it is. The gray bar is the frame that is drawn below."
    )
    return (
        f"<h3>Where the roughness is</h3>{''.join(data)}"
        f'<p class="pick"><label>Scan <select id="{key}-pick" data-plot="{key}-scan">'
        f"{''.join(options)}</select></label></p>"
        f'<figure><div class="plot" id="{key}-scan" data-figure="{key}-s0"></div>'
        f"<figcaption>{escape(note)}</figcaption></figure>"
        f"{molecule.viewer({f'{key}-s{k}': scans[name] for k, name in enumerate(chosen)}, f'{key}-pick')}"
    )


def _model_table(run: Run, words: Sequence[str]) -> str:
    metrics = shared_metrics(run)
    head = [heading("model", words=True), heading("scans ok")]
    head += [metric_heading(metrics[word]) for word in words]
    rows = []
    for model in ranked(run):
        done = model.coverage[0]
        cells = [f"<th>{escape(model.name)}</th>", coverage_cell(*model.coverage)]
        cells += [estimate_cell(estimate_of(run, model, word), done) for word in words]
        rows.append("".join(cells))
    note = "Mean over scans, below it the 95 % interval; n where it rests on fewer scans. Headings sort."
    return table(head, rows, f"{note} {settings_note(run.settings)}".strip())


def _pair_table(run: Run) -> str:
    metric = shared_metrics(run)[FSD]
    head = [heading("first", words=True), heading("second", words=True), heading("difference", metric.unit)]
    head += [heading("first lower"), heading("p"), heading("scans")]
    pairs = comparisons(run)
    rows = []
    for first, second, d in pairs:
        names = f"<th>{escape(first.name)}</th>{words_cell(second.name)}"
        total = len(first.scans)
        if d is None:
            rows.append(f"{names}{NOT_APPLICABLE * 3}{coverage_cell(0, total)}")
            continue
        values = (
            estimate_cell(d, d.n),
            f'<td data-value="{d.fraction_lower}">{d.fraction_lower:.0%}</td>',
            f'<td data-value="{d.p_value}">{escape(p_value(d.p_value))}</td>',
            coverage_cell(d.n, total),
        )
        rows.append(names + "".join(values))
    note = f"{metric.title}: first − second on the scans that both finished. {comparison_note(run, pairs)}"
    return folded_if_long(table(head, rows, note), len(rows), "pair", OPEN_ROWS)


def _failure_table(run: Run) -> str:
    groups = failures(run)
    if not groups:
        return "<p>None: every model finished every scan.</p>"
    listed = "".join(
        f"<li>{escape(group.model)}: {count(group.count, 'scan')}, {escape(group.reason)}</li>"
        for group in groups
    )
    rows = [
        f"<th>{escape(model.name)}</th>{words_cell(name)}{words_cell(scan.status)}{words_cell(scan.reason)}"
        for model in run.models.values()
        for name, scan in model.scans.items()
        if scan.status != "ok"
    ]
    shown = table([heading(what, words=True) for what in ("model", "scan", "status", "reason")], rows, "")
    opened = len(rows) <= OPEN_ROWS
    return f"<ul>{listed}</ul>" + folded(f"All {count(len(rows), 'failure')}", shown, opened=opened)


def _scan_table(run: Run) -> str:
    models = ranked(run)
    keys = {model.name: key_of(run, model.name) for model in models}

    def roughest(name: str) -> float:
        values = (m.scans[name].values.get(keys[m.name], math.nan) for m in models if name in m.scans)
        return max((value for value in values if math.isfinite(value)), default=-1.0)

    def cell(model: bsct.ModelResult, name: str) -> str:
        result = model.scans.get(name)
        if result is not None and result.status == "ok":
            return number_cell(result.values[keys[model.name]])
        return f'<td class="bad" data-value="">{escape(result.status if result else "not run")}</td>'

    rows = [
        f"<th>{escape(name)}</th>{''.join(cell(model, name) for model in models)}"
        for name in sorted(scan_names(run), key=lambda name: -roughest(name))
    ]
    head = [heading("scan", words=True), *(heading(model.name, "1/Å") for model in models)]
    return table(head, rows, "Headings sort.")


def _provenance(run: Run) -> str:
    protocol = run.protocol
    settings = settings_by_model(
        {name: protocol.settings_json(settings) for name, settings in run.settings.items()}
    )
    block = provenance_block(
        run.data,
        count(len(run.data), "scan"),
        run.manifest,
        run.folder,
        {"protocol": protocol.name, "version": protocol.version} | settings,
        {name: model.identity for name, model in run.models.items()},
    )
    made = run.data.provenance
    return block + (folded_json("How the data was made", made) if made else "")
