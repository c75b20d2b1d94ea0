"""The HTML page about contracts, for any number of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.contract.analysis import slug
from sfumato.report.html import (
    NOT_APPLICABLE,
    Page,
    definitions,
    folded,
    heading,
    provenance_block,
    table,
    words_cell,
)
from sfumato.report.numbers import number
from sfumato.report.tables import settings_by_model, settings_note
from sfumato.words import count, duration

if TYPE_CHECKING:
    from sfumato.protocols.contract.analysis import ModelContract
    from sfumato.protocols.protocol import Run
    from sfumato.testing import Result

MARKS = {"passed": "pass", "not applicable": "n/a", "left out": "left out", "not checked": "not checked"}


def contract_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text."""
    titles = [f"Contract on {run.data.name} structures" for run in runs]
    body = [_section(run, f"contract{k}", title) for k, (run, title) in enumerate(zip(runs, titles))]
    below = "Symmetries, derivatives, jumps: what every potential must satisfy; written by Sfumato"
    return Page("Contract", below, body, heading="Do these potentials keep the contract?")


def _section(run: Run, key: str, title: str) -> str:
    models: list[ModelContract] = list(run.models.values())
    parts = [
        f'<section id="{key}"><h2>{escape(title)}</h2>',
        _matrix(models, key, settings_note(run.settings)),
        *(folded(f"{model.name}: every number", _numbers(model)) for model in models),
        folded("What each check means, and its tolerance", _meanings(models)),
        "<h3>Data, settings and provenance</h3>",
        _provenance(run),
        "</section>",
    ]
    return "\n".join(parts)


def _matrix(models: Sequence[ModelContract], key: str, note: str) -> str:
    """Checks by models; what fails with its size and place."""
    names = dict.fromkeys(result.name for model in models for result in model.report.results)
    head = [heading("check", words=True), *(heading(model.name, words=True) for model in models)]
    rows = []
    for name in names:
        cells = "".join(_cell(model, name) for model in models)
        rows.append(f'<th id="{key}-{slug(name)}">{escape(name)}</th>{cells}')
    said = "note: not as it should be, but reported only; n/a: makes no sense for the model. "
    return table(head, rows, f"{said}{note}".strip())


def _cell(model: ModelContract, name: str) -> str:
    result = next((r for r in model.report.results if r.name == name), None)
    if result is None:
        return NOT_APPLICABLE
    if result.status != "failed":
        kind = ' class="words bad"' if result.status == "not checked" else ' class="words"'
        return f'<td{kind} title="{escape(result.where)}">{MARKS[result.status]}</td>'
    kind = "words bad" if result.required else "words"
    word = "FAIL" if result.required else "note"
    place = f'<span class="soft">{escape(result.where)}</span>'
    return f'<td class="{kind}">{word}: {escape(_size(result))} {place}</td>'


def _size(result: Result) -> str:
    if math.isnan(result.tolerance):
        return ""
    return f"{number(result.measured)} > {number(result.tolerance)} {result.unit}".strip()


def _numbers(model: ModelContract) -> str:
    rows = [
        f"<th>{escape(r.name)}</th>{words_cell(r.status)}"
        f"{words_cell('' if math.isnan(r.measured) else f'{number(r.measured)} {r.unit}'.strip())}"
        f"{words_cell('' if math.isnan(r.tolerance) else f'{number(r.tolerance)} {r.unit}'.strip())}"
        f"{words_cell(r.where)}"
        for r in model.report.results
    ]
    head = [heading(word, words=True) for word in ("check", "outcome", "measured", "tolerance", "where")]
    report = model.report
    note = f"{count(report.evaluations, 'evaluation')} in {duration(report.seconds)}."
    return table(head, rows, f"The value nearest to its tolerance, or farthest beyond it. {note}")


def _meanings(models: Sequence[ModelContract]) -> str:
    every = {result.name: result for model in models for result in model.report.results}
    return definitions((r.name, f"{r.meaning}. Tolerance: {r.reason}.") for r in every.values())


def _provenance(run: Run) -> str:
    protocol = run.protocol
    each = {name: protocol.settings_json(settings) for name, settings in run.settings.items()}
    return provenance_block(
        run.data,
        f"{count(len(run.data.own), 'structure')} of the user" if run.data.own else "the contract's own",
        run.manifest,
        run.folder,
        {"protocol": protocol.name, "version": protocol.version} | settings_by_model(each),
        {name: model.identity for name, model in run.models.items()},
    )
