"""HTML pages, readable offline, on a phone, in the dark and on paper, and what they are made of.

A page asks for nothing outside itself, and its content security policy forbids a browser to.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.files import write_text
from sfumato.report.figures import DARK
from sfumato.report.numbers import Metric, interval, mean, number
from sfumato.report.tables import Failures
from sfumato.words import count

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.metrics.stats import Estimate, PairedDifference

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

NOT_APPLICABLE = '<td data-value="">n/a</td>'

ITEMS_SHOWN = 100
"""Items named in a group of failures before the rest is only counted."""


@dataclass(frozen=True, eq=False)
class Page:
    """What a protocol has to show of its runs; pages can be joined to one report.

    Args:
        title: of the window and of the list of contents, not escaped.
        below: a line under the heading, not escaped.
        body: HTML; element ids in it must differ from those of other pages, so begin them with a word of
            one's own.
        heading: not escaped; the title, if empty.
        figures: (name, figure) of all that it draws, for files of their own.
        scripts: files of `sfumato.report` that it needs besides that of the figures.
    """

    title: str
    below: str
    body: Sequence[str]
    heading: str = ""
    figures: Sequence[tuple[str, Figure]] = ()
    scripts: Sequence[str] = ()

    def __str__(self) -> str:
        """The page alone as the text of an HTML file; the same page gives the same text."""
        return report_text([self])


def write_report(pages: Sequence[Page], path: str | Path) -> Path:
    """Write one HTML file of some pages; a reader sees the old file or the new one, never half of it.

    Raises:
        ValueError: no page.
        OSError: the file cannot be written, for example because it is a folder; names it.
    """
    text = report_text(pages)
    write_text(path, text)
    return Path(path)


def report_text(pages: Sequence[Page]) -> str:
    """Return the text of an HTML file of some pages, with figures that work offline.

    Raises:
        ValueError: no page.
    """
    from plotly.offline import get_plotlyjs

    if not pages:
        raise ValueError("a report needs at least one page")
    title = pages[0].title if len(pages) == 1 else "Report"
    scripts = dict.fromkeys(name for page in pages for name in ("report.js", *page.scripts))
    links = "".join(f'<li><a href="#page{k}">{escape(page.title)}</a></li>' for k, page in enumerate(pages))
    parts = [part for k, page in enumerate(pages) for part in (_header(page, k), *page.body)]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>\n<style>{_text('report.css')}</style>",
            f"<script>{get_plotlyjs()}</script>\n</head>\n<body>",
            f'<script type="application/json" id="dark-colors">{json.dumps(DARK)}</script>',
            f"<nav><ul>{links}</ul></nav>" if len(pages) > 1 else "",
            *parts,
            "<noscript><p>The figures need JavaScript; the tables do not.</p></noscript>",
            *(f"<script>{_text(name)}</script>" for name in scripts),
            "</body>\n</html>\n",
        ]
    )


def _header(page: Page, k: int) -> str:
    name = escape(page.heading or page.title)
    return f'<header id="page{k}"><h1>{name}</h1><p class="soft">{escape(page.below)}</p></header>'


def _text(name: str) -> str:
    """A file that lies beside this one in the package."""
    return files("sfumato.report").joinpath(name).read_text(encoding="utf-8")


def figure_block(key: str, figure: Figure, note: str) -> str:
    """Return a figure with its title and a note.

    Args:
        key: the id of its data on the page.
        figure: its title moves to the page.
        note: not escaped.
    """
    return (
        f"<figure><h4>{take_title(figure)}</h4>{embedded(key, figure)}"
        f'<div class="plot" data-figure="{key}"></div><figcaption>{escape(note)}</figcaption></figure>'
    )


def take_title(figure: Figure) -> str:
    """Move a figure's title, which is escaped already, into the page, where it can break into lines."""
    title: str = figure.layout.title.text
    figure.update_layout(title_text=None, margin_t=46)
    return title


def embedded(key: str, figure: Figure) -> str:
    """Return the figure as data that no text in it can break out of."""
    text = figure.to_json().replace("<", "\\u003c")
    return f'<script type="application/json" id="{key}">{text}</script>'


def number_cell(value: float, more: str = "") -> str:
    """Return a cell with a number that sorts by its full precision, and HTML after it."""
    return f'<td data-value="{_sortable(value)}">{number(value)}{more}</td>'


def _sortable(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""


def estimate_cell(estimate: Estimate | PairedDifference | None, expected: int | None = None) -> str:
    """Return a mean, its interval below, and on how many items they rest where these are not all.

    Args:
        estimate: None is n/a.
        expected: items that the reader assumes; by default those that the estimate should rest on.
    """
    if estimate is None or not estimate.n:
        return NOT_APPLICABLE
    if expected is None:
        expected = getattr(estimate, "total", estimate.n)
    n = "" if estimate.n == expected else f" n={estimate.n}"
    spread = f'<span class="spread">{interval(estimate)}{n}</span>'
    return f'<td data-value="{_sortable(estimate.mean)}">{mean(estimate)}{spread}</td>'


def coverage_cell(n: int, total: int) -> str:
    """Return "n/total", conspicuous where something is missing."""
    bad = ' class="bad"' if n < total else ""
    return f'<td{bad} data-value="{n}">{n}/{total}</td>'


LONG = 40
"""Letters; a cell of more gets room for them, so that its row does not become a tower."""


def words_cell(text: str) -> str:
    """Return a cell of words that may break anywhere."""
    kind = "words long" if len(text) > LONG else "words"
    return f'<td class="{kind}">{escape(text)}</td>'


def linked(text: str) -> str:
    """Escaped text in which web addresses are links to follow, not to load."""
    return re.sub(
        r"https?://[^\s<>&\"')]*[^\s<>&\"').,;:]",
        lambda m: f'<a href="{m[0]}" rel="noreferrer">{m[0]}</a>',
        escape(text),
    )


def folded(title: str, content: str, *, opened: bool = False) -> str:
    """Return HTML under a title that unfolds it."""
    return f"<details{' open' * opened}><summary>{escape(title)}</summary>{content}</details>"


def folded_json(title: str, content: Any) -> str:
    """Return values as JSON under a title; unfolded where they are few."""
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    return folded(title, f"<pre>{escape(text)}</pre>", opened=len(text) < 2000)


def heading(title: str, unit: str = "", *, words: bool = False, hint: str = "") -> str:
    """Return the head of a column, by which it sorts.

    Args:
        title: not escaped.
        unit: shown below.
        words: a column of words, not of numbers.
        hint: shown while a pointer rests on it.
    """
    kind = "sort words" if words else "sort"
    below = f'<span class="unit">{escape(unit)}</span>' if unit else ""
    tip = f' title="{escape(hint)}"' if hint else ""
    return f'<th class="{kind}" scope="col" tabindex="0"{tip}>{escape(title)}{below}</th>'


def metric_heading(metric: Metric) -> str:
    """Return the head of a column of a metric."""
    return heading(metric.title, metric.unit, hint=metric.meaning)


def table(head: Iterable[str], rows: Iterable[str], note: str) -> str:
    """Return a table; where it is wider than the page it scrolls, and says so.

    Args:
        head: of `heading`.
        rows: cells of each row.
        note: below, not escaped; may be empty.
    """
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wide"><div class="scroll"><table><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></div>{below}"
    )


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """Return terms and what they mean; addresses in the meaning are links."""
    listed = "".join(f"<dt>{escape(term)}</dt><dd>{linked(meaning)}</dd>" for term, meaning in rows)
    return f"<dl>{listed}</dl>"


def metric_definitions(metrics: Iterable[Metric], more: Iterable[tuple[str, str]] = ()) -> str:
    """Return what numbers mean.

    Args:
        metrics: that are shown.
        more: terms besides, with their meaning.
    """
    named = [(f"{m.title} ({m.unit})" if m.unit else m.title, m.meaning) for m in metrics]
    return definitions([*named, *more])


def warning_lines(lines: Iterable[str]) -> str:
    """Return sentences, not escaped, without their full stops, that a reader must not overlook."""
    return "".join(f'<p class="bad"><b>{escape(line)}.</b></p>' for line in lines)


def failure_list(groups: Sequence[Failures], unit: str) -> str:
    """Return what does not count and why, by model and reason, as a table.

    Args:
        groups: from `tables.group_failures`; at least one.
        unit: what is counted, in the singular.
    """

    def which(items: Sequence[str]) -> str:
        rest = len(items) - ITEMS_SHOWN
        return ", ".join(items[:ITEMS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")

    rows = [
        f'<th>{escape(g.model)}</th><td data-value="{g.count}">{g.count}</td>'
        f"{words_cell(g.reason)}{words_cell(which(g.items))}"
        for g in groups
    ]
    head = [heading("model", words=True), heading(f"{unit}s")]
    return table([*head, heading("reason", words=True), heading("which", words=True)], rows, "")


def provenance_block(
    data: Any,
    content: str,
    manifest: Mapping[str, Any],
    folder: Path,
    settings: Mapping[str, Any],
    models: Mapping[str, str],
) -> str:
    """Return where data, models and numbers of a run come from.

    Args:
        data: has `name`, `level`, `source` and `licence`.
        content: what of it was used.
        manifest: of the run folder.
        folder: of the run.
        settings: in JSON types.
        models: identity by name.
    """
    made = manifest.get("provenance", {})
    packages = ", ".join(f"{name} {version}" for name, version in made.get("packages", {}).items())
    facts = [
        ("data", f"{data.name}, {content}"),
        ("level of theory", data.level),
        ("source", data.source or "not stated"),
        ("licence of the data", data.licence),
        ("SHA-256 of the data", str(manifest.get("data", {}).get("identity") or data.identity)),
        ("versions", packages),
        ("Python, platform", f"{made.get('python', '')}, {made.get('platform', '')}"),
        ("run folder", str(folder)),
    ]
    asked = manifest.get("models", {})
    rows = []
    for name, identity in models.items():
        entry = asked.get(name, {})
        where = " ".join(str(entry[key]) for key in ("device", "dtype") if entry.get(key))
        spec = str(entry.get("spec") or "an object in Python")
        rows.append(
            f"<th>{escape(name)}</th>{words_cell(spec)}{words_cell(where)}"
            f'<td class="words"><code>{escape(identity)}</code></td>'
        )
    head = [heading(title, words=True) for title in ("model", "specification", "run on", "SHA-256")]
    return f"{definitions(facts)}{table(head, rows, '')}{folded_json('Settings', settings)}"


def folded_if_long(shown: str, rows: int, unit: str, most: int) -> str:
    """Return HTML as it is, or folded under the number of its rows where they are more than `most`."""
    return shown if rows <= most else folded(count(rows, unit), shown)
