"""HTML pages, readable offline, on a phone and on paper, and what they are made of.

A page asks for nothing outside itself, and its content security policy forbids a browser to.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from sfumato.report.tables import number

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_page(text: str, path: Path) -> Path:
    """Write a page; a reader sees the old file or the new one, never half of it.

    Raises:
        ValueError: a path that is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file, for example {path / 'report.html'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def page(title: str, below: str, body: Sequence[str], heading: str = "", scripts: Sequence[str] = ()) -> str:
    """Return an HTML page with the common look and figures that work offline.

    Args:
        title: of the window, not escaped.
        below: a line under the heading, not escaped.
        body: HTML.
        heading: not escaped; the title, if empty.
        scripts: files beside this one that it needs besides that of the figures.
    """
    from plotly.offline import get_plotlyjs

    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>\n<style>{_text('report.css')}</style>",
            f"<script>{get_plotlyjs()}</script>\n</head>\n<body>",
            f'<header><h1>{escape(heading or title)}</h1><p class="soft">{escape(below)}</p></header>',
            *body,
            "<noscript><p>The figures need JavaScript; the tables do not.</p></noscript>",
            *(f"<script>{_text(name)}</script>" for name in ("report.js", *scripts)),
            "</body>\n</html>\n",
        ]
    )


def _text(name: str) -> str:
    """A file that lies beside this one in the package."""
    return files("sfumato.report").joinpath(name).read_text(encoding="utf-8")


def figure_block(key: str, figure: Any, note: str) -> str:
    return (
        f"<figure><h4>{take_title(figure)}</h4>{embedded(key, figure)}"
        f'<div class="plot" data-figure="{key}"></div><figcaption>{escape(note)}</figcaption></figure>'
    )


def take_title(figure: Any) -> str:
    """Move a figure's title, which is escaped already, into the page, where it can break into lines."""
    title: str = figure.layout.title.text
    figure.update_layout(title_text=None, margin_t=46)
    return title


def embedded(key: str, figure: Any) -> str:
    """The figure as data that no text in it can break out of."""
    text = figure.to_json().replace("<", "\\u003c")
    return f'<script type="application/json" id="{key}">{text}</script>'


def number_cell(value: float, more: str = "") -> str:
    sortable = f"{value:.9g}" if math.isfinite(value) else ""
    return f'<td data-value="{sortable}">{number(value)}{more}</td>'


def folded_json(title: str, content: Any) -> str:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    return folded(title, f"<pre>{escape(text)}</pre>", opened=len(text) < 2000)


def linked(text: str) -> str:
    """Escaped text in which web addresses are links to follow, not to load."""
    return re.sub(
        r"https?://[^\s<>&\"')]+", lambda m: f'<a href="{m[0]}" rel="noreferrer">{m[0]}</a>', escape(text)
    )


def folded(title: str, content: str, *, opened: bool = False) -> str:
    return f"<details{' open' * opened}><summary>{escape(title)}</summary>{content}</details>"


def heading(title: str, unit: str = "", *, words: bool = False, hint: str = "") -> str:
    kind = "sort words" if words else "sort"
    below = f'<span class="unit">{escape(unit)}</span>' if unit else ""
    tip = f' title="{escape(hint)}"' if hint else ""
    return f'<th class="{kind}" scope="col" tabindex="0"{tip}>{escape(title)}{below}</th>'


def table(head: Iterable[str], rows: Iterable[str], note: str) -> str:
    below = f'<p class="note">{escape(note)}</p>' if note else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{below}"
    )
