"""The HTML page about errors on labeled structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.errors import figures as plots
from sfumato.protocols.errors.tables import NUMBERS, Number, failures, warnings
from sfumato.report.html import figure_block, folded, folded_json, heading, linked, number_cell, page, table
from sfumato.report.tables import interval

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate
    from sfumato.protocols.errors.run import EvalRun

SHOWN = ("energy_mae", "relative_energy_mae", "force_mae", "force_cosine")
"""In the table by subset."""


def errors_page(run: EvalRun) -> str:
    """Return the HTML text about a run; the same run gives the same text."""
    names = [*next(iter(run.models.values())).subsets] if run.models else []
    shown = []
    if any(model.coverage[0] for model in run.models.values()):
        drawn = "At most {} {}, drawn at random."
        shown = [
            (plots.force_parity(run), drawn.format(plots.MOST, "points")),
            (
                plots.magnitude_figure(run),
                "Mean over components of the atoms in a bin; hover for their number.",
            ),
            (plots.energy_parity(run), drawn.format(plots.MOST, "frames")),
        ]
    by_subset = ["<h2>By subset</h2>", _by_subset(run, names)] if len(names) > 1 else []
    body = [
        *(f'<p class="bad"><b>{escape(line)}.</b></p>' for line in warnings(run)),
        "<h2>All frames</h2>",
        _all_frames(run) if run.models else "",
        *by_subset,
        *(folded(f"Every number: {name}", _all_frames(run, name)) for name in names[1:]),
        *(figure_block(f"f{k}", figure, note) for k, (figure, note) in enumerate(shown)),
        "<h2>Frames that do not count</h2>",
        _failures(run),
        "<h2>What the numbers mean</h2>",
        f"<dl>{''.join(f'<dt>{escape(n.title)}</dt><dd>{escape(n.meaning)}</dd>' for n in NUMBERS)}</dl>",
        "<h2>Data, settings and provenance</h2>",
        _provenance(run),
    ]
    return page(
        f"Errors on {run.frames.name}, split {run.split}", f"{run.frames.level}; written by Sfumato", body
    )


def _all_frames(run: EvalRun, subset: str = "all") -> str:
    """Every number over the frames of a subset, a column for each model."""
    head = [heading("", words=True), *(heading(name) for name in run.models)]
    rows = []
    for shown in NUMBERS:
        unit = f' <span class="unit">{escape(shown.unit)}</span>' if shown.unit else ""
        cells = "".join(_cell(shown, model.subsets[subset]) for model in run.models.values())
        rows.append(f'<th title="{escape(shown.meaning)}">{escape(shown.title)}{unit}</th>{cells}')
    note = "Mean over frames, below it the 95 % interval; n where it rests on fewer frames."
    return table(head, rows, note)


def _by_subset(run: EvalRun, names: Sequence[str]) -> str:
    head = [heading("subset", words=True), heading("model", words=True), heading("frames")]
    head += [heading(shown.title, shown.unit, hint=shown.meaning) for shown in NUMBERS if shown.key in SHOWN]
    rows = []
    for subset in names:
        for model in run.models.values():
            numbers = model.subsets[subset]
            e = numbers["energy_mae"]
            bad = ' class="bad"' if e.n < e.total else ""
            cells = "".join(_cell(shown, numbers) for shown in NUMBERS if shown.key in SHOWN)
            words = f'<th>{escape(subset)}</th><td class="words">{escape(model.name)}</td>'
            rows.append(f'{words}<td{bad} data-value="{e.n}">{e.n}/{e.total}</td>{cells}')
    return table(head, rows, "Headings sort.")


def _cell(shown: Number, numbers: Mapping[str, Estimate]) -> str:
    e = shown.of(numbers)
    if e is None:
        return '<td data-value="">n/a</td>'
    n = "" if e.n == e.total else f" n={e.n}"
    return number_cell(e.mean, f'<span class="spread">{interval(e)}{n}</span>')


def _failures(run: EvalRun) -> str:
    rows = [
        f'<th>{escape(name)}</th><td>{len(frames)}</td><td class="words">{escape(reason)}</td>'
        f'<td class="words">{", ".join(map(str, frames[:100]))}</td>'
        for name, reason, frames in failures(run)
    ]
    if not rows:
        return "<p>None: every model predicted every frame.</p>" if run.complete else "<p>Not finished.</p>"
    head = [
        heading("model", words=True),
        heading("frames"),
        heading("reason", words=True),
        heading("which", words=True),
    ]
    return table(head, rows, "")


def _provenance(run: EvalRun) -> str:
    made, data = run.manifest["provenance"], run.manifest["data"]
    packages = ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items())
    facts = {
        "data": f"{run.frames.name}, {len(run.frames)} of {data['frames']} frames, split {run.split}",
        "level of theory": run.frames.level,
        "source": run.frames.source or "not stated",
        "licence of the data": run.frames.licence,
        "SHA-256 of the data": data["identity"],
        "versions": packages,
        "Python, platform": f"{made.get('python', '')}, {made.get('platform', '')}",
        "run folder": str(run.folder),
    }
    models = {
        model.name: f"{run.manifest['models'][model.name]['spec'] or 'an object in Python'}, {model.identity}"
        for model in run.models.values()
    }
    listed = "".join(
        f"<dt>{escape(what)}</dt><dd>{linked(str(value))}</dd>" for what, value in (facts | models).items()
    )
    return f"<dl>{listed}</dl>" + folded("Settings", folded_json("Settings", run.as_json()["settings"]))
