"""What a search shows: the Pareto front in a table and in figures, and the winner in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING

from rich.text import Text

from sfumato.metrics.stats import Estimate
from sfumato.report import html
from sfumato.report.figures import BLUE, GRAY, VERMILION, blank_figure, escaped
from sfumato.report.html import Page
from sfumato.report.numbers import Metric
from sfumato.report.tables import estimate_cell, plain_table
from sfumato.study.page import excludes_zero, shown
from sfumato.study.search import Searched, Tried, gains
from sfumato.study.table import COLUMNS
from sfumato.words import count

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

HEIGHT = 460
"""px."""


def metrics_of(found: Searched) -> list[Metric]:
    """Return how the objectives are presented."""
    known = {column.metric.key: column.metric for column in COLUMNS}
    return [known.get(key, Metric(key, key, "", "")) for key in found.settings.objectives]


def estimate_of(tried: Tried, metric: Metric) -> Estimate | None:
    """Return a number of a trial with the interval of its protocol, in the unit that it is shown in."""
    if metric.key not in tried.numbers:
        return None
    value, low, high = (math.nan if x is None else float(x) for x in tried.numbers[metric.key])
    return None if math.isnan(value) else shown(metric, Estimate(value, low, high, 1, 1))


def in_words(found: Searched) -> list[str]:
    """Return how the search went, what won, and whether that was confirmed."""
    trials = found.trials
    given_up = sum(t.look is not None and not t.numbers for t in trials)
    failed = sum(not t.numbers for t in trials) - given_up
    parts = [f"{count(len(trials), 'trial')}"]
    parts += [f"{given_up} given up early"] if given_up else []
    parts += [f"{failed} failed"] if failed else []
    lines = [f"{', '.join(parts)}; {len(found.front)} on the Pareto front."]
    if found.winner is None:
        return [*lines, "No trial on the front is as balanced as the start; there is nothing to confirm."]
    changes = next(t.changes for t in trials if t.number == found.winner)
    lines.append(f"Winner: trial {found.winner} ({_changes(changes)}).")
    return lines + _confirmed(found)


def _confirmed(found: Searched) -> list[str]:
    if found.confirmation is None:
        return ["It was not confirmed with other seeds."]
    seeds = count(len(found.settings.confirm), "new seed")
    lines = []
    for metric, better in zip(metrics_of(found), found.settings.objectives.values(), strict=True):
        entry = found.confirmation.entries["winner"].get(metric.key)
        difference = None if entry is None else entry.difference
        if not excludes_zero(difference):
            lines.append(f"{metric.title}: no difference from the start beyond {seeds}.")
        else:
            assert difference is not None
            lower = difference.mean < 0
            verdict = "better" if lower == (better == "lower") else "worse"
            lines.append(f"{metric.title}: {verdict} than the start, confirmed with {seeds}.")
    return lines


def _changes(changes: Mapping[str, object]) -> str:
    def value(x: object) -> str:
        return f"{x:.4g}" if isinstance(x, float) else str(x)

    return ", ".join(f"{key} = {value(x)}" for key, x in changes.items()) or "the start"


def search_tables(found: Searched) -> list[RenderableType]:
    """Return a table of the start and the front: each objective with its interval, and the gain."""
    table = plain_table("Start and Pareto front")
    table.add_column("trial", overflow="fold")
    table.add_column("number", overflow="fold")
    table.add_column("value [95 %]", justify="right")
    table.add_column("gain", justify="right")
    for tried in _listed(found):
        for k, metric in enumerate(metrics_of(found)):
            name = Text(f"{tried.number}: {_changes(tried.changes)}" if k == 0 else "")
            cell = estimate_cell(estimate_of(tried, metric))
            table.add_row(name, Text(metric.heading), cell, _gain(found, tried, metric))
        table.add_section()
    table.caption = "Gain: how much better than the start. Intervals: over what was measured, of one seed."
    return [table]


def _listed(found: Searched) -> list[Tried]:
    return [t for t in found.trials if t.numbers and (t.number == 0 or t.number in found.front)]


def _gain(found: Searched, tried: Tried, metric: Metric) -> str:
    start = next((t for t in found.trials if t.number == 0 and t.numbers), None)
    if start is None or tried.number == 0:
        return ""
    gain = gains(tried, start, found.settings)[metric.key]
    return "n/a" if math.isnan(gain) else f"{math.expm1(gain):+.0%}"


def search_page(found: Searched, name: str) -> Page:
    """Return the page of a search; the same findings give the same text.

    Args:
        found: what was found.
        name: of the search.
    """
    metrics = metrics_of(found)
    pairs = list(combinations(metrics, 2)) or [(metrics[0], metrics[0])]
    figures = [(f"search-{k}", front_figure(found, *pair)) for k, pair in enumerate(pairs)]
    note = "One mark per trial that was trained to the end, with the 95 % interval over what was measured."
    body = [
        f'<div class="lead"><ul>{"".join(f"<li>{escape(line)}</li>" for line in in_words(found))}</ul></div>',
        "<h3>Start and Pareto front</h3>",
        _front_rows(found, metrics),
        "<h3>All trials</h3>",
        *(html.figure_block(key, figure, note) for key, figure in figures),
        html.folded("Every trial", _all_rows(found)),
        "<h3>What the numbers mean</h3>",
        html.metric_definitions(metrics),
    ]
    below = f"{count(len(found.trials), 'trial')}; written by Sfumato"
    return Page(f"Search: {name}", below, body, figures=figures)


def _front_rows(found: Searched, metrics: Sequence[Metric]) -> str:
    head = [html.heading("trial", words=True)]
    for metric in metrics:
        head += [html.metric_heading(metric), html.heading("gain")]
    rows = []
    for tried in _listed(found):
        row = html.words_cell(f"{tried.number}: {_changes(tried.changes)}")
        for metric in metrics:
            row += html.estimate_cell(estimate_of(tried, metric))
            row += html.words_cell(_gain(found, tried, metric))
        rows.append(row)
    return html.table(head, rows, "Gain: by how much better than the start.")


def _all_rows(found: Searched) -> str:
    head = [html.heading("trial", words=True), html.heading("changes", words=True)]
    head += [html.heading("early look"), html.heading("why it has no result", words=True)]
    rows = (
        html.words_cell(str(t.number))
        + html.words_cell(_changes(t.changes))
        + html.number_cell(math.nan if t.look is None else t.look)
        + html.words_cell(t.reason)
        for t in found.trials
    )
    return html.table(head, rows, "")


def front_figure(found: Searched, across: Metric, up: Metric) -> Figure:
    """Show two objectives of all trials against each other: the start, the front, the winner, the others."""
    figure = blank_figure(escaped(f"{up.title} against {across.title}"), HEIGHT)

    def kind(t: Tried) -> str:
        if t.number == found.winner:
            return "winner"
        return "Pareto front" if t.number in found.front else "start" if t.number == 0 else "other trials"

    looks = {
        "other trials": (GRAY, "circle"),
        "Pareto front": (BLUE, "square"),
        "start": (VERMILION, "diamond"),
        "winner": (BLUE, "star"),
    }
    for name, (color, symbol) in looks.items():
        some = [
            (t, estimate_of(t, across), estimate_of(t, up))
            for t in found.trials
            if t.numbers and kind(t) == name
        ]
        points = [(t, x, y) for t, x, y in some if x is not None and y is not None]
        if points:
            figure.add_scatter(
                x=[x.mean for _, x, _ in points],
                y=[y.mean for _, _, y in points],
                error_x=_bars([x for _, x, _ in points]),
                error_y=_bars([y for _, _, y in points]),
                text=[escaped(f"trial {t.number}: {_changes(t.changes)}") for t, _, _ in points],
                hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
                mode="markers",
                name=name,
                marker={"color": color, "symbol": symbol, "size": 13 if symbol == "star" else 9},
            )
    figure.update_xaxes(title_text=escaped(across.heading))
    figure.update_yaxes(title_text=escaped(up.heading))
    return figure


def _bars(estimates: Sequence[Estimate]) -> dict[str, object]:
    def side(length: float) -> float:
        return length if math.isfinite(length) else 0.0

    return {
        "type": "data",
        "symmetric": False,
        "array": [side(e.high - e.mean) for e in estimates],
        "arrayminus": [side(e.mean - e.low) for e in estimates],
        "thickness": 1,
        "width": 0,
    }
