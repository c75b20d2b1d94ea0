"""What a study shows: tables for a terminal, and the HTML page with a figure per number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

from rich.text import Text

from sfumato.metrics.stats import Estimate
from sfumato.report import html
from sfumato.report.figures import add_means, blank_figure, escaped, label_rows, look_of
from sfumato.report.html import Page
from sfumato.report.numbers import Metric
from sfumato.report.tables import estimate_cell, plain_table
from sfumato.study.table import Column, Entry, Findings
from sfumato.words import count, duration

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

ROW, ROOM = 30, 130
"""px of a figure for each variant, and for its title and axis."""

CLEAR = "Δ: mean difference from the baseline with the same seeds. *: best of its group by mean."


def shown(metric: Metric, estimate: Estimate | None) -> Estimate | None:
    """Return a number in the unit that it is shown in."""
    if estimate is None or not estimate.n:
        return None
    mean, low, high = (metric.factor * x for x in (estimate.mean, estimate.low, estimate.high))
    return replace(estimate, mean=mean, low=low, high=high)


def excludes_zero(estimate: Estimate | None) -> bool:
    """Whether a difference has an interval that does not hold zero."""
    return estimate is not None and (estimate.low > 0 or estimate.high < 0)


def study_tables(found: Findings) -> list[RenderableType]:
    """Return one table per group: every number of its variants, and the difference from the baseline."""
    groups = [_group_table(found, group) for group in found.study.groups]
    return groups + _prediction_table(found) + _missing_table(found)


def _group_table(found: Findings, group: str) -> RenderableType:
    table = plain_table(group)
    table.add_column("number", overflow="fold")
    table.add_column("variant", overflow="fold")
    table.add_column("mean [95 %]", justify="right")
    table.add_column(f"Δ {found.study.baseline} [95 %]", justify="right")
    for column in found.columns:
        for k, variant in enumerate(found.study.groups[group]):
            entry = found.entries[variant][column.metric.key]
            table.add_row(
                Text(column.metric.heading if k == 0 else ""),
                Text(f"{variant}{' *' if entry.best else ''}", "bold" if entry.best else ""),
                estimate_cell(shown(column.metric, entry.estimate)),
                _difference_cell(column.metric, entry),
            )
        table.add_section()
    seeds = count(len(found.study.seeds), "seed")
    table.caption = f"Means over {seeds}, with Student's intervals. {CLEAR}"
    return table


def _difference_cell(metric: Metric, entry: Entry) -> Text:
    if entry.difference is None:
        return Text("baseline", "dim")
    cell = estimate_cell(shown(metric, entry.difference))
    if excludes_zero(entry.difference):
        cell.stylize("bold")
        for part in getattr(cell, "parts", ()):
            part.stylize("bold")
    return cell


def _prediction_table(found: Findings) -> list[RenderableType]:
    if not found.predictions:
        return []
    metrics = {column.metric.key: column.metric for column in found.columns}
    table = plain_table("What predicts trouble in dynamics")
    for title in ("trouble", "predicted by"):
        table.add_column(title, overflow="fold")
    for title in ("Spearman ρ [95 %]", "given force MAE"):
        table.add_column(title, justify="right")
    before = ""
    for one in found.predictions:
        if before not in ("", one.outcome):
            table.add_section()
        name = Text(metrics[one.outcome].title if one.outcome != before else "")
        cells = (estimate_cell(one.found.spearman), estimate_cell(one.found.partial))
        table.add_row(name, Text(metrics[one.cheap].title), *cells)
        before = one.outcome
    table.caption = "Over the means of the variants. The page has Kendall's τ and each group left out."
    return [table]


def _missing_table(found: Findings) -> list[RenderableType]:
    if not found.missing:
        return []
    table = plain_table("Trials without a result")
    table.add_column("trial", overflow="fold")
    table.add_column("reason", overflow="fold")
    for trial, reason in found.missing.items():
        table.add_row(Text(trial), Text(reason))
    return [table]


def study_page(found: Findings, name: str) -> Page:
    """Return the page of a study; the same findings give the same text.

    Args:
        found: the findings.
        name: of the study.
    """
    figures = [(f"study-{k}", number_figure(found, column)) for k, column in enumerate(found.columns)]
    note = f"Bars are Student's 95 % intervals over {count(len(found.study.seeds), 'seed')}."
    body = [
        f'<div class="lead"><ul>{"".join(f"<li>{escape(line)}</li>" for line in in_words(found))}</ul></div>',
        "<h3>Numbers</h3>",
        _numbers(found),
        "<h3>Differences from the baseline</h3>",
        _differences(found),
        "<h3>One figure per number</h3>",
        *(html.figure_block(key, figure, note) for key, figure in figures),
        *_predictions(found),
        "<h3>What was trained</h3>",
        _trained(found),
        "<h3>What the numbers mean</h3>",
        html.metric_definitions(column.metric for column in found.columns),
    ]
    if found.missing:
        rows = (html.words_cell(trial) + html.words_cell(why) for trial, why in found.missing.items())
        head = [html.heading(title, words=True) for title in ("trial", "reason")]
        body += ["<h3>Trials without a result</h3>", html.table(head, rows, "")]
    below = f"{count(len(found.entries), 'variant')} of one training run; written by Sfumato"
    return Page(f"Study: {name}", below, body, figures=figures)


def in_words(found: Findings) -> list[str]:
    """Return what differs from the baseline for sure, one sentence per number, and what cannot be said."""
    lines = []
    for column in found.columns:
        key, metric = column.metric.key, column.metric
        differences = {
            name: shown(metric, numbers[key].difference) for name, numbers in found.entries.items()
        }
        clear = {name: d for name, d in differences.items() if d is not None and excludes_zero(d)}
        if not clear:
            lines.append(f"{metric.title}: no variant differs from {found.study.baseline} beyond the seeds.")
            continue
        sides = {
            "lower": [name for name, d in clear.items() if d.mean < 0],
            "higher": [name for name, d in clear.items() if d.mean > 0],
        }
        words = "; ".join(f"{side} for {', '.join(names)}" for side, names in sides.items() if names)
        lines.append(f"{metric.title}, against {found.study.baseline}: {words}.")
    return lines


def _numbers(found: Findings) -> str:
    head = [html.heading("group", words=True), html.heading("variant", words=True)]
    head += [html.metric_heading(column.metric) for column in found.columns]
    rows = []
    for variant, numbers in found.entries.items():
        row = html.words_cell(found.study.group_of(variant)) + html.words_cell(variant)
        rows.append(row + "".join(_cell(column.metric, numbers) for column in found.columns))
    return html.table(head, rows, "Means over seeds; * is the best of its group by mean.")


def _cell(metric: Metric, numbers: Mapping[str, Entry]) -> str:
    entry = numbers[metric.key]
    cell = html.estimate_cell(shown(metric, entry.estimate))
    return cell.replace("<span", "*<span", 1) if entry.best else cell


def _differences(found: Findings) -> str:
    head = [html.heading("variant", words=True)]
    head += [html.metric_heading(column.metric) for column in found.columns]
    rows = []
    for variant, numbers in found.entries.items():
        if variant == found.study.baseline:
            continue
        cells = (
            html.estimate_cell(shown(column.metric, numbers[column.metric.key].difference))
            for column in found.columns
        )
        rows.append(html.words_cell(variant) + "".join(cells))
    return html.table(head, rows, f"Variant − {found.study.baseline}, seed by seed.")


def _predictions(found: Findings) -> list[str]:
    """Return the section on what predicts trouble in dynamics, where enough variants say something."""
    rows = []
    metrics = {column.metric.key: column.metric for column in found.columns}
    for one in found.predictions:
        row = html.words_cell(metrics[one.outcome].title) + html.words_cell(metrics[one.cheap].title)
        row += html.estimate_cell(one.found.spearman) + html.estimate_cell(one.found.kendall)
        row += html.estimate_cell(one.found.partial)
        rest = [rho for rho in one.found.without.values() if math.isfinite(rho)]
        rows.append(row + html.words_cell(f"{min(rest):.2f} to {max(rest):.2f}" if rest else "n/a"))
    if not rows:
        return []
    titles = ("Spearman ρ", "Kendall τ", "ρ given force MAE")
    head = [html.heading("trouble in dynamics", words=True), html.heading("predicted by", words=True)]
    head += [*map(html.heading, titles), html.heading("ρ without any one group", words=True)]
    note = (
        f"Over {count(len(found.entries), 'variant')}, each the mean over its seeds, with 95 % intervals; "
        "the best predictor first. Variants of one run are not independent: the last column leaves out one "
        "group after the other."
    )
    return ["<h3>Which cheap number predicts trouble in dynamics?</h3>", html.table(head, rows, note)]


def _trained(found: Findings) -> str:
    head = [html.heading("variant", words=True), html.heading("changes", words=True)]
    head += [html.heading("parameters"), html.heading("steps"), html.heading("processor time")]
    rows = []
    for variant, facts in found.facts.items():
        changes = ", ".join(f"{key} = {value}" for key, value in found.study.variants[variant].items())
        row = html.words_cell(variant) + html.words_cell(changes or "as it is")
        row += html.number_cell(facts.get("parameters", math.nan))
        row += html.number_cell(facts.get("steps", math.nan))
        rows.append(row + html.words_cell(duration(facts["cpu"]) if facts.get("cpu") else "n/a"))
    return html.table(head, rows, "Means over the seeds of each variant.")


def number_figure(found: Findings, column: Column) -> Figure:
    """Show one number of all variants, each with its interval; the baseline has a mark of its own."""
    metric, names = column.metric, list(found.entries)
    figure = blank_figure(escaped(metric.heading), ROOM + ROW * len(names))
    for k, group in enumerate(found.study.groups):
        color, _, symbol = look_of(k)
        points = [(names.index(name), found.entries[name][metric.key]) for name in found.study.groups[group]]
        drawn = [(float(row), e) for row, entry in points if (e := shown(metric, entry.estimate)) is not None]
        add_means(figure, drawn, name=escaped(group), color=color, symbol=symbol)
    base = shown(metric, found.entries[found.study.baseline][metric.key].estimate)
    if base is not None and math.isfinite(base.mean):
        figure.add_vline(x=base.mean, line_dash="dot", line_width=1)
    label_rows(figure, [escaped(name) for name in names])
    figure.update_xaxes(title_text=escaped(metric.heading))
    return figure
