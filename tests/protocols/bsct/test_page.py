"""The report's page: safe, complete, and drawn in a real browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from sfumato.protocols.bsct.page import bsct_page, summary
from sfumato.protocols.bsct.settings import Settings
from sfumato.report.html import write_report
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
    models = {"smooth": (0.0, 2.1), HOSTILE: (0.15, 2.1), "exact": (0.0, 2.0)}
    run = make_run(models, Settings(limit_per_bond=3))
    run = with_result(run, HOSTILE, "C-C/0", failed(f"frame 4: {HOSTILE}"))
    old = run.models["smooth"].scans["C-O/0"]
    side = replace(old, values={**old.values, "fsd_compress": np.nan})
    return with_result(run, "smooth", "C-O/0", side)


@pytest.fixture(scope="module")
def page(hostile):
    return str(bsct_page([hostile]))


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
    assert str(bsct_page([hostile])) == page


def test_the_summary_names_the_smoothest_and_whether_it_can_be_told():
    said = " ".join(summary(make_run()))
    assert "Lowest FSD: smooth, mean FSD" in said
    assert "is statistically distinguishable" in said
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
    text = Page(write_report([bsct_page([run])], tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert text.count("no such element") == 10
    assert text.count("0 of 60 frames evaluated") == 9
    assert "C-C/0 failed incomplete" in text


def test_several_runs_share_one_file_and_one_library():
    text = str(bsct_page([make_run(folder="runs/one"), make_run(folder="runs/two", per_bond=1)]))
    assert text.count("plotly.js v") == 1
    assert "morse-set (one)" in text
    assert '<a href="#bsct1">morse-set (two)</a>' in text
    ids = re.findall(r' id="([^"]+)"', re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.DOTALL))
    assert len(ids) == len(set(ids))


def test_what_is_missing_comes_before_the_figures_and_the_pairs(page):
    headings = re.findall("<h3>(.*?)</h3>", page)
    assert headings.index("Scans that do not count") == 1
    assert headings.index("Scans that do not count") < headings.index("Pairs of models")


def test_models_with_other_settings_are_shown_and_named():
    run = make_run(own={"rough": Settings(refine=2, floor=0.5)})
    text = Page(str(bsct_page([run]))).text
    assert "Settings differ. smooth: the defaults; rough: floor=0.5, refine=2." in text
    assert '"of each model": { "smooth": { "floor": 1.0' in text
    assert "The two were measured with different settings, so they are not compared." in text
    models = text[text.index("Models model") : text.index("More numbers")]
    assert "n/a" not in models


def test_models_of_other_scans_share_a_page():
    run = make_run({"all": (0.0, 2.1), "few": (0.15, 2.1)}, own={"few": Settings(limit_per_bond=1)})
    text = Page(str(bsct_page([run]))).text
    assert "along 9 bond scans" in text
    assert "the first 1" not in text
    assert "not run" in text


def test_every_figure_can_become_a_file():
    made = bsct_page([make_run(per_bond=1)])
    names = [name for name, _ in made.figures]
    assert names[:4] == [f"bsct-morse-{word}" for word in ("fsd", "scans", "types", "pair")]
    assert sorted(names[4:]) == [f"bsct-morse-scan-{bond}/0" for bond in ("C-C", "C-O", "N-N")]


def test_a_report_needs_a_run():
    with pytest.raises(ValueError, match="at least one run"):
        bsct_page([])


# in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PROBE = """<script>addEventListener('load', () => {
  const plots = document.querySelectorAll('.plot'), select = document.querySelector('select');
  const scan = document.getElementById(select.dataset.plot), before = scan.textContent;
  const line = () => scan.layout.shapes.find(shape => shape.name === 'frame').x0;
  const slider = document.querySelector('.molecule input');
  slider.value = 0;
  slider.dispatchEvent(new Event('input'));
  const moved = [line()];
  slider.value = slider.max;
  slider.dispatchEvent(new Event('input'));
  moved.push(line());
  select.selectedIndex = 1;
  select.dispatchEvent(new Event('change'));
  const first = () => document.querySelector('tbody tr').textContent;
  const top = first();
  document.querySelector('th[tabindex]').click();
  document.querySelector('th[tabindex]').click();
  const facts = {plots: plots.length, sorted: top !== first(),
    drawn: [...plots].filter(p => p.querySelector('svg.main-svg')).length,
    changed: before !== document.getElementById(select.dataset.plot).textContent,
    options: select.options.length, moved,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    paper: scan.layout.paper_bgcolor, ground: getComputedStyle(document.body).backgroundColor,
    hints: [...document.querySelectorAll('.wide')].map(box => [box.classList.contains('clipped'),
      box.firstElementChild.scrollWidth > box.firstElementChild.clientWidth + 1]),
    loaded: performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))};
  const out = document.createElement('output');
  out.id = 'facts';
  out.textContent = JSON.stringify(facts);
  document.body.append(out);
});</script></body>"""


def facts_of(page, folder, *flags, width=600, probe=PROBE):
    """What the probe sees in a browser, and what the browser complains of."""
    file = folder / "report.html"
    file.write_text(page.replace("</body>", probe), encoding="utf-8")
    command = [
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"--window-size={width},2000"),
        *("--virtual-time-budget=8000", *flags, "--dump-dom", file.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    return json.loads(unescape(re.search(r'<output id="facts">(.*?)</output>', done.stdout)[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to draw the page in")
def test_a_browser_draws_every_figure_and_asks_for_nothing(page, tmp_path):
    facts = facts_of(page, tmp_path)
    hints, moved = facts.pop("hints"), facts.pop("moved")
    assert facts == {
        **{"plots": 5, "drawn": 5, "sorted": True, "changed": True, "wide": 0, "loaded": [], "options": 9},
        **{"paper": "#FFFFFF", "ground": "rgb(255, 255, 255)"},
    }
    assert moved == [0.8, 3.2]  # the ends of the scan
    assert all(said == wider for said, wider in hints)
    assert any(wider for _, wider in hints)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to draw the page in")
def test_page_and_figures_are_dark_where_a_reader_prefers_that(page, tmp_path):
    facts = facts_of(page, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert (facts["paper"], facts["ground"]) == ("#15181C", "rgb(21, 24, 28)")


SIZES = """<script>addEventListener('load', () => {
  const plots = [...document.querySelectorAll('.plot')];
  const labels = plots.map(plot => (plot.layout.yaxis.ticktext || []).join(' '));
  const room = plots.map(plot => plot._fullLayout._size.w / plot.clientWidth);
  const square = plots.filter(plot => plot.layout.yaxis.scaleanchor)
    .map(plot => plot.layout.height - plot.clientWidth);
  const facts = {labels, room: Math.min(...room), square};
  dispatchEvent(new Event('beforeprint'));
  facts.printed = Math.max(...plots.map(plot => plot.layout.height));
  const out = document.createElement('output');
  out.id = 'facts';
  out.textContent = JSON.stringify(facts);
  document.body.append(out);
});</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH to draw the page in")
def test_long_names_leave_room_on_a_small_screen_and_figures_fit_a_printed_page(tmp_path):
    names = [f"a-network-of-{k}-layers-and-a-long-name" for k in range(9)]
    run = make_run({name: (0.02 * k, 2.1) for k, name in enumerate(names)}, per_bond=2)
    facts = facts_of(str(bsct_page([run])), tmp_path, width=500, probe=SIZES)
    assert any("a-network-<br>of-3-layers-<br>" in text for text in facts["labels"])
    assert facts["room"] > 0.6
    assert facts["square"]
    assert all(more <= 40 for more in facts["square"])
    assert facts["printed"] <= 900
