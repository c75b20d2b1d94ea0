"""Tables for other programs are harmless there, and figures are files that other programs read."""

import csv
import io
import struct

import pytest
from plotly.graph_objects import Figure

from sfumato.report import export
from sfumato.report.export import csv_text, latex_text, markdown_text, write_figures
from sfumato.report.figures import FRAME, blank_figure


def test_words_that_a_spreadsheet_would_execute_are_words():
    text = csv_text(
        ("model", "mean"), [("=HYPERLINK(1)", -1.5), ("-2+3", "-1.5e-3"), ("@a", "-12"), ("a", "+1")]
    )
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[1:] == [["'=HYPERLINK(1)", "-1.5"], ["'-2+3", "-1.5e-3"], ["'@a", "-12"], ["a", "'+1"]]


def test_latex_and_markdown_show_any_name():
    text = latex_text(("model", "Å"), [(r"a\b_{c}~^&%$#", "1")], "two\nlines")
    expected = r"a\textbackslash{}b\_\{c\}\textasciitilde{}\textasciicircum{}\&\%\$\# & 1 \\"
    assert expected in text.splitlines()
    assert text.startswith("% two lines\n")
    assert markdown_text(("a", "b"), [("x|y", "1")], "note").splitlines() == [
        "| a | b |",
        "| --- | ---: |",
        r"| x\|y | 1 |",
        "",
        "note",
    ]


def figure():
    made = blank_figure("Energies ü Å < &lt;", 300)
    made.add_scatter(x=[1, 2], y=[3, 4], name="</script><b>")
    made.add_shape(type="line", name=FRAME, x0=1, x1=1, y0=3, y1=4, line={"color": "#010203"})
    return made


@pytest.mark.skipif(not any(map(export.shutil.which, export.BROWSERS)), reason="no browser to draw figures")
def test_figures_become_files_of_three_kinds(tmp_path):
    files = write_figures([("a/b: c", figure()), ("a/b: c", figure())], tmp_path / "new")
    assert [file.name for file in files] == [
        f"{name}.{ending}" for name in ("a_b_c", "a_b_c-2") for ending in ("svg", "pdf", "png")
    ]
    svg, pdf, png = (file.read_bytes() for file in files[:3])
    assert svg.startswith(b"<svg")
    assert "Energies ü Å".encode() in svg
    assert b"<script" not in svg
    assert b"rgb(1, 2, 3)" not in svg  # the line that a slider moves is of no use on paper
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") == 1
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (3 * export.WIDTH, 900)


def test_without_a_browser_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="install Chromium"):
        write_figures([("a", Figure())], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_browser_that_fails_is_an_error_with_its_words(tmp_path, monkeypatch):
    (tmp_path / "chromium").write_text("#!/bin/sh\necho no display >&2\nexit 3\n")
    (tmp_path / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ValueError, match=r"exit code 3: no display"):
        write_figures([("a", figure())], tmp_path / "new")
