"""The HTML page about bond scans, for any number of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct import figures as plots
from sfumato.protocols.bsct.kinds import type_word
from sfumato.report import molecule
from sfumato.report.html import (
    embedded,
    figure_block,
    folded,
    folded_json,
    heading,
    linked,
    number_cell,
    page,
    table,
    take_title,
)
from sfumato.report.tables import (
    Metric,
    comparison_note,
    comparisons,
    failures,
    interval,
    metrics_of,
    number,
    p_value,
    ranked,
)

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate, PairedDifference
    from sfumato.protocols.run import BsctRun

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

SIGNIFICANT = 0.05

OPEN_ROWS = 40
"""Longer lists start folded."""

HEADLINE = ("fsd", "fsd_compress", "fsd_stretch", "force", "energy", "work_stretch")
_NOT_APPLICABLE = '<td data-value="">n/a</td>'

DETAIL = ("work", "minima", "maxima", "inflections", "position", "depth", "wall")


def bsct_page(runs: Sequence[BsctRun]) -> str:
    """Return the HTML text of a report; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    titles = [
        f"{run.scan_set.name} ({run.folder.name})" if len(runs) > 1 else run.scan_set.name for run in runs
    ]
    links = "".join(f'<li><a href="#r{k}">{escape(title)}</a></li>' for k, title in enumerate(titles))
    sections = [_run_section(run, f"r{k}", title) for k, (run, title) in enumerate(zip(runs, titles))]
    return page(
        f"How smooth? {', '.join(titles)}",
        "Bond Smoothness Characterization Test, written by Sfumato",
        [f"<nav><ul>{links}</ul></nav>" if len(runs) > 1 else "", *sections],
        heading="How smooth are these potentials?",
        scripts=["molecule.js"],
    )


def summary(run: BsctRun) -> list[str]:
    """Return in plain words what was measured, what came out, and what can be told apart.

    Args:
        run: any number of models.

    Returns:
        Sentences, not escaped.
    """
    scans = next(iter(run.models.values())).scans if run.models else {}
    frames = sum(len(scan) for scan in run.scan_set if scan.name in scans)
    limit = run.manifest.get("limit_per_bond")
    part = f" (the first {limit} of each {type_word(run)})" if limit else ""
    kind = type_word(run).removesuffix("type").strip()
    told = [
        f"{_count(len(run.models), 'model')} predicted energies and forces along "
        f"{_count(len(scans), f'{kind} scan'.strip())} of {run.scan_set.name}{part}: {DONE_TO[kind]} in "
        f"small steps, {_count(frames, 'structure')} in all. Each is compared with the reference "
        f"({run.scan_set.level})."
    ]
    lacking = [model for model in run.models.values() if model.coverage[0] < model.coverage[1]]
    told += [
        f"{model.name} finished {model.coverage[0]} of {_count(model.coverage[1], 'scan')}; the others are "
        "listed below with their reasons and are in no mean."
        for model in lacking
    ]
    if not lacking:
        told.append("Every model finished every scan.")
    contenders = [model for model in ranked(run) if model.coverage[0] and not _is_reference(model)]
    told += [
        f"{model.name} reproduces the reference forces to within {1e3 * SAME_METHOD:g} meV/Å: it is the "
        "method that made the labels, or as good as, and is left out of the ranking."
        for model in run.models.values()
        if _is_reference(model)
    ]
    return told + _verdict(run, contenders)


def _verdict(run: BsctRun, contenders: Sequence[bsct.ModelResult]) -> list[str]:
    """Say which model is smoothest and whether that can be told from chance."""
    metric = metrics_of(run.settings)["fsd"]
    if not contenders:
        return [
            "There is no model to rank."
            if any(m.coverage[0] for m in run.models.values())
            else "No model finished a scan, so there is nothing to compare."
        ]

    def value(model: bsct.ModelResult) -> str:
        e = model.estimates[metric.key]
        mean = f"mean {metric.title} {number(e.mean)} {interval(e)} 1/Å"
        return f"{model.name}, {mean} over {e.n} of {_count(e.total, 'scan')}"

    best, *others = contenders
    caution = (
        f"{metric.title} says how evenly forces change along a scan, not how right they are: read it beside "
        "the force error and the work–energy residual."
    )
    if not others:
        return [f"{value(best)} (95 % interval in brackets).", caution]
    told = f"Smoothest: {value(best)}. Next: {value(others[0])} (95 % intervals in brackets)."
    try:
        d: PairedDifference = bsct.compare(best, others[0], metric.key)
    except ValueError:
        return [told, "The two share no finished scan, so they cannot be compared.", caution]
    word = "lower" if d.mean < 0 else "higher"
    p = p_value(d.p_value)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    clear = "is statistically distinguishable" if d.p_value < SIGNIFICANT else "cannot be told from chance"
    few = f"; {_count(d.n, 'scan')} could hardly show one" if d.n < 6 and d.p_value >= SIGNIFICANT else ""
    paired = (
        f"On the {_count(d.n, 'scan')} that both finished, {best.name} is {word} by "
        f"{number(abs(d.mean))} 1/Å (difference {number(d.mean)} {interval(d)}, {p}): the difference "
        f"{clear}{few}."
    )
    return [told, paired, caution]


def _is_reference(model: bsct.ModelResult) -> bool:
    estimate = model.estimates.get("force_mae_full")
    return estimate is not None and estimate.mean < SAME_METHOD


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _run_section(run: BsctRun, key: str, title: str) -> str:
    parts = [
        f'<section id="{key}"><h2>{escape(title)}</h2>',
        f'<div class="lead"><ul>{"".join(f"<li>{_prose(s)}</li>" for s in summary(run))}</ul></div>',
        "<h3>Models</h3>",
        _model_table(run, HEADLINE),
        folded("More numbers", _model_table(run, DETAIL)),
    ]
    if any(model.coverage[0] for model in run.models.values()):
        parts += [_figures(run, key), _scan_viewer(run, key)]
    if len(run.models) > 1:
        parts += ["<h3>Pairs of models</h3>", _pair_table(run)]
    parts += ["<h3>Scans that do not count</h3>", _failure_table(run)]
    parts += ["<h3>Every scan</h3>", folded("FSD of each scan, the roughest first", _scan_table(run))]
    parts += ["<h3>What the numbers mean</h3>", _definitions(run)]
    parts += ["<h3>Data, settings and provenance</h3>", _provenance(run), "</section>"]
    return "\n".join(parts)


def _prose(text: str) -> str:
    """Escaped text that does not break within a unit."""
    return escape(text).replace("1/Å", "1/\N{WORD JOINER}Å")


def _figures(run: BsctRun, key: str) -> str:
    drawn = [
        (plots.fsd_figure(run), "In brackets the scans a model finished; bars are 95 % intervals."),
        (plots.distribution_figure(run), "A point is a scan; a box spans the quartiles about the median."),
        (
            plots.bond_figure(run),
            "A small point is a scan; bars are 95 % intervals; one scan alone has none.",
        ),
    ]
    contenders = [m.name for m in run.models.values() if m.coverage[0] and not _is_reference(m)]
    if len(contenders) > 1:
        drawn.append(
            (plots.paired_figure(run, *contenders[:2]), "A point is a scan that both models finished.")
        )
    return "\n".join(figure_block(f"{key}-f{k}", figure, note) for k, (figure, note) in enumerate(drawn))


def _scan_viewer(run: BsctRun, key: str) -> str:
    chosen = plots.notable_scans(run)
    figures = [plots.scan_figure(run, name) for name in chosen]
    for figure in figures:
        take_title(figure)  # the selector says it
    data = [embedded(f"{key}-s{k}", figure) for k, figure in enumerate(figures)]
    scans = {scan.name: scan for scan in run.scan_set}
    options = [
        f'<option value="{key}-s{k}">{escape(f"{name}: {why}")}</option>'
        for k, (name, why) in enumerate(chosen.items())
    ]
    note = (
        "From the top: energy from the frame of the reference minimum (dotted line), on the range of the "
        "reference; squared change of all forces from that frame; the logarithm L of its ratio to the "
        "reference's; how fast L changes: its maximum, the dot, is the FSD."
    )
    return (
        f"<h3>Where the roughness is</h3>{''.join(data)}"
        f'<p class="pick"><label>Scan <select id="{key}-pick" data-plot="{key}-scan">'
        f"{''.join(options)}</select></label></p>"
        f'<figure><div class="plot" id="{key}-scan" data-figure="{key}-s0"></div>'
        f"<figcaption>{escape(note)}</figcaption></figure>"
        f"{molecule.viewer({f'{key}-s{k}': scans[name] for k, name in enumerate(chosen)}, f'{key}-pick')}"
    )


def _model_table(run: BsctRun, words: Sequence[str]) -> str:
    metrics = metrics_of(run.settings)
    head = [
        heading("model", words=True),
        heading("scans ok"),
        *(_metric_head(metrics[word]) for word in words),
    ]
    rows = []
    for model in ranked(run):
        n, total = model.coverage
        bad = ' class="bad"' if n < total else ""
        cells = [f"<th>{escape(model.name)}</th>", f'<td{bad} data-value="{n}">{n}/{total}</td>']
        cells += [_estimate_cell(model.estimates.get(metrics[word].key), n) for word in words]
        rows.append("".join(cells))
    note = "Mean over scans, below it the 95 % interval; n where it rests on fewer scans. Headings sort."
    return table(head, rows, note)


def _estimate_cell(estimate: Estimate | None, expected: int) -> str:
    if estimate is None or not estimate.n:
        return _NOT_APPLICABLE
    n = "" if estimate.n == expected else f" n={estimate.n}"
    return number_cell(estimate.mean, f'<span class="spread">{interval(estimate)}{n}</span>')


def _pair_table(run: BsctRun) -> str:
    metric = metrics_of(run.settings)["fsd"]
    head = [heading("first", words=True), heading("second", words=True), heading("difference", metric.unit)]
    head += [heading("first lower"), heading("p"), heading("scans")]
    pairs = comparisons(run, metric.key)
    rows = []
    for first, second, d in pairs:
        names = f'<th>{escape(first.name)}</th><td class="words">{escape(second.name)}</td>'
        total = len(first.scans)
        if d is None:
            missing = _NOT_APPLICABLE * 3
            rows.append(f'{names}{missing}<td class="bad" data-value="0">0/{total}</td>')
            continue
        values = (
            number_cell(d.mean, f'<span class="spread">{interval(d)}</span>'),
            f'<td data-value="{d.fraction_lower}">{d.fraction_lower:.0%}</td>',
            f'<td data-value="{d.p_value}">{escape(p_value(d.p_value))}</td>',
            f'<td data-value="{d.n}">{d.n}/{total}</td>',
        )
        rows.append(names + "".join(values))
    note = f"{metric.title}: first − second on the scans that both finished. {comparison_note(len(pairs))}"
    shown = table(head, rows, note)
    return shown if len(rows) <= OPEN_ROWS else folded(_count(len(rows), "pair"), shown)


def _failure_table(run: BsctRun) -> str:
    groups = failures(run)
    if not groups:
        return "<p>None: every model finished every scan.</p>"
    listed = "".join(
        f"<li>{escape(model)}: {_count(len(names), 'scan')}, {escape(reason)}</li>"
        for model, reason, names in groups
    )
    rows = [
        f'<th>{escape(model.name)}</th><td class="words">{escape(name)}</td>'
        f'<td class="words">{escape(scan.status)}</td><td class="words">{escape(scan.reason)}</td>'
        for model in run.models.values()
        for name, scan in model.scans.items()
        if scan.status != "ok"
    ]
    shown = table([heading(what, words=True) for what in ("model", "scan", "status", "reason")], rows, "")
    opened = len(rows) <= OPEN_ROWS
    return f"<ul>{listed}</ul>" + folded(f"All {_count(len(rows), 'failure')}", shown, opened=opened)


def _scan_table(run: BsctRun) -> str:
    key = metrics_of(run.settings)["fsd"].key
    models = ranked(run)

    def roughest(name: str) -> float:
        values = (model.scans[name].values.get(key, math.nan) for model in models)
        return max((value for value in values if math.isfinite(value)), default=-1.0)

    def cell(result: bsct.ScanResult) -> str:
        if result.status == "ok":
            return number_cell(result.values[key])
        return f'<td class="bad" data-value="">{escape(result.status)}</td>'

    rows = [
        f"<th>{escape(name)}</th>{''.join(cell(model.scans[name]) for model in models)}"
        for name in sorted(models[0].scans, key=lambda name: -roughest(name))
    ]
    head = [heading("scan", words=True), *(heading(model.name, "1/Å") for model in models)]
    return table(head, rows, "Headings sort.")


def _definitions(run: BsctRun) -> str:
    rows = "".join(
        f"<dt>{escape(m.title)}{f' ({escape(m.unit)})' if m.unit else ''}</dt><dd>{escape(m.meaning)}</dd>"
        for m in metrics_of(run.settings).values()
    )
    more = (
        "<dt>95 % interval</dt><dd>Bootstrap over scans within types: where the mean would lie for "
        "other scans of the same kinds. It needs two scans.</dd>"
        "<dt>n/a</dt><dd>The number does not exist, for example one side of a scan whose minimum is its "
        "end.</dd>"
    )
    return f"<dl>{rows}{more}</dl>"


def _provenance(run: BsctRun) -> str:
    data, made = run.scan_set, run.manifest.get("provenance", {})
    packages = ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items())
    facts = [
        ("data", f"{data.name}, {_count(len(data), 'scan')}"),
        ("level of theory", data.level),
        ("source", data.source or "not stated"),
        ("licence of the data", data.licence),
        ("SHA-256 of the data", str(run.manifest.get("data", {}).get("identity") or data.identity)),
        ("versions", packages),
        ("Python, platform", f"{made.get('python', '')}, {made.get('platform', '')}"),
        ("run folder", str(run.folder)),
    ]
    listed = "".join(f"<dt>{escape(what)}</dt><dd>{linked(value)}</dd>" for what, value in facts)
    asked = run.manifest.get("models", {})
    specs = {
        m.name: str(asked.get(m.name, {}).get("spec") or "an object in Python") for m in run.models.values()
    }
    rows = [
        f'<th>{escape(m.name)}</th><td class="words">{escape(specs[m.name])}</td>'
        f'<td class="words"><code>{escape(m.identity)}</code></td>'
        for m in run.models.values()
    ]
    head = [
        heading("model", words=True),
        heading("specification", words=True),
        heading("SHA-256", words=True),
    ]
    settings = run.as_json()["settings"]
    blocks = folded_json("Settings", settings) + (
        folded_json("How the data was made", data.provenance) if data.provenance else ""
    )
    return f"<dl>{listed}</dl>{table(head, rows, '')}{blocks}"


def _metric_head(metric: Metric) -> str:
    return heading(metric.title, metric.unit, hint=metric.meaning)
