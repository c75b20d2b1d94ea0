"""Tables and figures for papers and other programs: CSV, Markdown, LaTeX; SVG, PDF, PNG."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sfumato.files import temporary_folder, write_bytes
from sfumato.report.figures import FRAME

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
"""Programs that can draw plotly's figures without a window; the first one on PATH is used."""

WIDTH = 760
"""px of a figure in a file."""

SECONDS = 300
"""After which a browser is given up."""

PRINTERS = 2
"""Browsers that print at the same time."""


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
    named = _named(figures)
    drawings = _drawn(browser, list(named.values()))
    # A browser prints one file per start, and mostly waits for itself.
    with ThreadPoolExecutor(PRINTERS) as pool:
        printed = list(pool.map(lambda drawing: _printed(browser, drawing), drawings))
    written = []
    for name, drawing, pdf in zip(named, drawings, printed, strict=True):
        for ending, content in (("svg", drawing.svg.encode()), ("pdf", pdf), ("png", drawing.png)):
            path = Path(folder) / f"{name}.{ending}"
            write_bytes(path, content)
            written.append(path)
    return written


@dataclass(frozen=True)
class Drawing:
    """A figure as a browser has drawn it: as text, as a picture, and its height in px."""

    svg: str
    png: bytes
    height: int


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
<script type="application/json" id="figures">{figures}</script><script>
(async () => {{
  const plot = document.getElementById('plot');
  for (const {{data, layout}} of JSON.parse(document.getElementById('figures').textContent)) {{
    await Plotly.newPlot(plot, data, layout, {{staticPlot: true}});
    for (const format of ['svg', 'png']) {{
      const {{width, height}} = layout, scale = format === 'png' ? 3 : 1;
      const text = document.createElement('pre');
      text.className = 'drawn';
      text.textContent = await Plotly.toImage(plot, {{format, width, height, scale}});
      document.body.append(text);
    }}
  }}
}})();
</script>"""


def _drawn(browser: str, figures: Sequence[Figure]) -> list[Drawing]:
    """Draw figures in one browser, without the line that a slider would move."""
    from plotly.offline import get_plotlyjs

    contents, heights = [], []
    for figure in figures:
        content = json.loads(figure.to_json())
        layout = content["layout"]
        heights.append(int(layout.get("height") or 450))
        shapes = [shape for shape in layout.get("shapes", ()) if shape.get("name") != FRAME]
        content["layout"] = layout | {"width": WIDTH, "height": heights[-1], "shapes": shapes}
        contents.append(content)
    text = DRAW.format(plotly=get_plotlyjs(), figures=json.dumps(contents).replace("<", "\\u003c"))
    with temporary_folder("figure") as folder:
        page = folder / "figures.html"
        page.write_text(text, encoding="utf-8")
        budget = 10_000 * (1 + len(figures))
        dom = _run(browser, folder, f"--virtual-time-budget={budget}", "--dump-dom", page.as_uri())
    found = [unescape(text) for text in re.findall(r'<pre class="drawn">(.*?)</pre>', dom, re.DOTALL)]
    if len(found) != 2 * len(figures):
        raise ValueError(f"{browser} drew {len(found) // 2} of {len(figures)} figures")
    return [
        Drawing(unquote(svg.partition(",")[2]), base64.b64decode(png.partition(",")[2]), height)
        for svg, png, height in zip(found[::2], found[1::2], heights, strict=True)
    ]


def _printed(browser: str, drawing: Drawing) -> bytes:
    """Return a drawing as a PDF of one page."""
    size = f"size: {WIDTH}px {drawing.height}px"
    style = f"@page {{ {size}; margin: 0 }} body {{ margin: 0 }} svg {{ display: block }}"
    with temporary_folder("figure") as folder:
        page, pdf = folder / "figure.html", folder / "figure.pdf"
        text = f'<!doctype html><meta charset="utf-8"><style>{style}</style>{drawing.svg}'
        page.write_text(text, encoding="utf-8")
        _run(browser, folder, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())
        if not pdf.is_file():
            raise ValueError(f"{browser} did not print a figure")
        return pdf.read_bytes()


def _run(browser: str, folder: Path, *arguments: str) -> str:
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
