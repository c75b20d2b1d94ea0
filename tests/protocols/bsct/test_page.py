"""The report's page: safe, complete, and drawn in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from sfumato.protocols.bsct.page import bsct_page, summary
from sfumato.report import html
from sfumato.report.html import write_page
from tests.made_runs import HOSTILE, failed, make_run, with_result


class Page(HTMLParser):
    """Collects what a browser would load, and the visible words."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.tags, self.words, self._skip = [], [], [], [], False
        self.feed(text)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.words.append(" ")
        self._skip = tag in ("script", "style")
        for key, value in attrs:
            if key in ("src", "srcset", "data", "action", "poster", "background"):
                self.loads.append(value)
            if key == "href":
                (self.links if tag == "a" else self.loads).append(value)

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        if not self._skip:
            self.words.append(data)


@pytest.fixture(scope="module")
def hostile():
    """A run with everything that can go wrong in names and results."""
    run = make_run({"smooth": (0.0, 2.1), HOSTILE: (0.15, 2.1), "exact": (0.0, 2.0)}, limit=3)
    run = with_result(run, HOSTILE, "C-C/0", failed(f"frame 4: {HOSTILE}"))
    old = run.models["smooth"].scans["C-O/0"]
    side = replace(old, values={**old.values, "fsd_compress": np.nan})
    return with_result(run, "smooth", "C-O/0", side)


@pytest.fixture(scope="module")
def page(hostile):
    return bsct_page([hostile])


def test_the_page_loads_nothing_from_outside(page):
    parsed = Page(page)
    assert parsed.loads == ["data:,"]
    assert all(link.startswith(("#", "https://data.example/set")) for link in parsed.links)
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in css
    assert "@import" not in css
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1


def test_names_and_reasons_are_text_on_the_page(page):
    parsed = Page(page)
    assert "img" not in parsed.tags
    assert parsed.text.count(HOSTILE) > 4
    assert "<img" not in re.sub(r"<script>/\*\*.*?</script>", "", page, flags=re.DOTALL)


def test_the_page_tells_what_a_reader_must_know(page):
    text = Page(page).text
    for words in (
        "3 models predicted energies and forces along 9 bond scans of morse-set",
        "(the first 3 of each bond type)",
        "540 structures in all",
        "finished 8 of 9 scans",
        "exact reproduces the reference forces to within 1 meV/Å",
        "licence of the data CC0-1.0",
        "Morse/exact",
        "sha-of-smooth",
        "smooth.py:make",
        "numpy 9.9",
        '"floor": 1.0',
        "frame 4: " + HOSTILE,
        "Force Smoothness Deviation",
        "n=8",
    ):
        assert words in text


def test_the_same_run_gives_the_same_page(hostile, page):
    assert bsct_page([hostile]) == page


def test_the_summary_names_the_smoothest_and_whether_it_can_be_told():
    told = " ".join(summary(make_run()))
    assert "Smoothest: smooth, mean FSD" in told
    assert "is statistically distinguishable" in told
    few = " ".join(summary(make_run(per_bond=1)))
    assert "cannot be told from chance; 3 scans could hardly show one" in few
    same = " ".join(summary(make_run({"a": (0.0, 2.1), "b": (0.0, 2.1)})))
    assert "cannot be told from chance" in same


def test_the_summary_of_one_model_or_none_ranks_nothing():
    assert "Smoothest" not in " ".join(summary(make_run({"a": (0.0, 2.1)})))
    assert "nothing to compare" in summary(make_run({"a": ("failed", "x")}))[-1]
    assert "no model to rank" in summary(make_run({"exact": (0.0, 2.0)}))[-1]
    other = summary(make_run({"a": (0.0, 2.1), "b": ("failed", "x")}))
    assert "b finished 0 of 9 scans" in other[1]


def test_a_report_on_models_that_all_failed_can_be_written(tmp_path):
    run = make_run({"a": ("failed", "no such element"), "b": ("incomplete", "0 of 60 frames evaluated")})
    text = Page(write_page(bsct_page([run]), tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert text.count("no such element") == 10
    assert text.count("0 of 60 frames evaluated") == 9
    assert "C-C/0 failed incomplete" in text


def test_several_runs_share_one_file_and_one_library():
    text = bsct_page([make_run(folder="runs/one"), make_run(folder="runs/two", per_bond=1)])
    assert text.count("plotly.js v") == 1
    assert "morse-set (one)" in text
    assert '<a href="#r1">morse-set (two)</a>' in text
    ids = re.findall(r' id="([^"]+)"', re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.DOTALL))
    assert len(ids) == len(set(ids))


def test_a_report_replaces_the_old_one_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    assert write_page(bsct_page([make_run(per_bond=1)]), path) == path
    old = path.read_text(encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(html, "os", SimpleNamespace(getpid=lambda: 1, replace=full))
    with pytest.raises(OSError, match="No space"):
        write_page(bsct_page([make_run()]), path)
    assert path.read_text(encoding="utf-8") == old
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_report_needs_a_run_and_a_file(tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        write_page(bsct_page([]), tmp_path / "r.html")
    with pytest.raises(ValueError, match="is a folder"):
        write_page(bsct_page([make_run()]), tmp_path)


# in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PROBE = """<script>addEventListener('load', () => {
  const plots = document.querySelectorAll('.plot'), select = document.querySelector('select');
  const before = document.getElementById(select.dataset.plot).textContent;
  select.selectedIndex = 1;
  select.dispatchEvent(new Event('change'));
  const first = () => document.querySelector('tbody tr').textContent;
  const top = first();
  document.querySelector('th[tabindex]').click();
  document.querySelector('th[tabindex]').click();
  const facts = {plots: plots.length, sorted: top !== first(),
    drawn: [...plots].filter(p => p.querySelector('svg.main-svg')).length,
    changed: before !== document.getElementById(select.dataset.plot).textContent,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    loaded: performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))};
  const out = document.createElement('output');
  out.id = 'facts';
  out.textContent = JSON.stringify(facts);
  document.body.append(out);
});</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to draw the page in")
def test_a_browser_draws_every_figure_and_asks_for_nothing(page, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", PROBE), encoding="utf-8")
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=600,2000"),
        *("--virtual-time-budget=8000", "--dump-dom", file.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    facts = json.loads(unescape(re.search(r'<output id="facts">(.*?)</output>', done.stdout)[1]))
    assert facts == {"plots": 5, "drawn": 5, "sorted": True, "changed": True, "wide": 0, "loaded": []}
