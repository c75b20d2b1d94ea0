"""Tables and figures for papers and other programs: CSV, Markdown, LaTeX; SVG, PDF, PNG."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.files import write_bytes

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
"""Programs that can draw plotly's figures without a window; the first one on PATH is used."""

WIDTH = 760
"""px of a figure in a file."""

SECONDS = 180
"""After which a browser is given up."""


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV; words that a spreadsheet would take for a formula are marked as words."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if re.match(r"[=+@\t\r]|-(?!\d+(\.\d*)?(e[+-]?\d+)?$)", cell) else cell


def markdown_text(head: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """Return a table in Markdown; the first column is words, the others numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    text = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in lines)
    return text + (f"\n{note}\n" if note else "")


def latex_text(head: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    """Return a table as a LaTeX tabular (package booktabs); the note becomes a comment."""
    top, *lines = [[_latex(cell) for cell in row] for row in (head, *rows)]
    body = "".join(f"{' & '.join(row)} \\\\\n" for row in lines)
    columns = "l" + "r" * (len(head) - 1)
    begin = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{' & '.join(top)} \\\\\n\\midrule\n"
    comment = f"% {' '.join(note.split())}\n" if note else ""
    return f"{comment}{begin}{body}\\bottomrule\n\\end{{tabular}}\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Å": r"\AA{}",
    "–": "--",
    "−": "$-$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def write_figures(figures: Sequence[tuple[str, Figure]], folder: str | Path) -> list[Path]:
    """Write figures as SVG, PDF and PNG, drawn on white by a browser without a window.

    Args:
        figures: (name, figure); names that files cannot have are changed, and repeated ones numbered.
        folder: created if it does not exist; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        ValueError: no browser on PATH; says what to install. Or the browser failed; says how.
        OSError: a file cannot be written.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ValueError(
            "figures are drawn by a browser without a window, and none is on PATH: install Chromium "
            "(`apt install chromium`, `brew install --cask chromium`) or Google Chrome"
        )
    written = []
    for name, figure in _named(figures).items():
        svg, png, height = _drawn(browser, figure)
        files = {
            "svg": svg.encode(),
            "pdf": _printed(browser, svg, height),
            "png": base64.b64decode(png.partition(",")[2]),
        }
        for ending, content in files.items():
            path = Path(folder) / f"{name}.{ending}"
            write_bytes(path, content)
            written.append(path)
    return written


def _named(figures: Iterable[tuple[str, Figure]]) -> Mapping[str, Figure]:
    named: dict[str, Figure] = {}
    for name, figure in figures:
        base = re.sub(r"[^\w.+-]+", "_", name).strip("._") or "figure"
        k, free = 2, base
        while free in named:
            k, free = k + 1, f"{base}-{k}"
        named[free] = figure
    return named


DRAW = """<!doctype html><meta charset="utf-8"><script>{plotly}</script><div id="plot"></div>
<script type="application/json" id="figure">{figure}</script><script>
const {{data, layout}} = JSON.parse(document.getElementById('figure').textContent);
const size = {{width: {width}, height: {height}}}, plot = document.getElementById('plot');
const out = kind => Plotly.toImage(plot, {{format: kind, scale: kind === 'png' ? 3 : 1, ...size}});
Plotly.newPlot(plot, data, {{...layout, ...size}}, {{staticPlot: true}}).then(async () => {{
  for (const kind of ['svg', 'png']) {{
    const text = document.createElement('pre');
    text.id = kind;
    text.textContent = await out(kind);
    document.body.append(text);
  }}
}});
</script>"""


def _drawn(browser: str, figure: Figure) -> tuple[str, str, int]:
    """Return SVG, PNG as an address with data, and the height in px."""
    from urllib.parse import unquote

    from plotly.offline import get_plotlyjs

    height = int(figure.layout.height or 450)
    text = DRAW.format(
        plotly=get_plotlyjs(),
        figure=figure.to_json().replace("<", "\\u003c"),
        width=WIDTH,
        height=height,
    )
    with tempfile.TemporaryDirectory(prefix="sfumato-figure-") as folder:
        page = Path(folder) / "figure.html"
        page.write_text(text, encoding="utf-8")
        dom = _run(browser, folder, "--virtual-time-budget=20000", "--dump-dom", page.as_uri())
    found = {k: re.search(rf'<pre id="{k}">(.*?)</pre>', dom, re.DOTALL) for k in ("svg", "png")}
    if not all(found.values()):
        raise ValueError(f"{browser} did not draw a figure: {dom[-300:]!r}")
    svg, png = (unescape(match[1]) for match in found.values() if match)
    return unquote(svg.partition(",")[2]), png, height


def _printed(browser: str, svg: str, height: int) -> bytes:
    """Return a drawing as a PDF of one page."""
    style = f"@page {{ size: {WIDTH}px {height}px; margin: 0 }} body {{ margin: 0 }} svg {{ display: block }}"
    with tempfile.TemporaryDirectory(prefix="sfumato-figure-") as folder:
        page, pdf = Path(folder) / "figure.html", Path(folder) / "figure.pdf"
        text = f'<!doctype html><meta charset="utf-8"><style>{style}</style>{svg}'
        page.write_text(text, encoding="utf-8")
        _run(browser, folder, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())
        if not pdf.is_file():
            raise ValueError(f"{browser} did not print a figure")
        return pdf.read_bytes()


def _run(browser: str, folder: str, *arguments: str) -> str:
    """Run a browser without a window and network, with a profile of its own; return what it prints."""
    flags = ["--headless", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder}/profile"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # it refuses to start as root otherwise
    try:
        done = subprocess.run(
            [browser, *flags, *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"{browser} did not draw a figure within {SECONDS} s") from None
    if done.returncode:
        raise ValueError(f"{browser} failed with exit code {done.returncode}: {done.stderr[-300:]}")
    return done.stdout
