"""The molecule's drawing: true to the scan, and moved by its slider in a real browser."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from sfumato import datasets
from sfumato.protocols.run import run_bsct
from sfumato.report.html import write_report
from sfumato.report.molecule import scene
from tests.test_bsct import Spring, diatomic, scan_set


def test_two_frames_and_the_lengths_give_every_frame_back():
    for scan in datasets.load("bsct-mini"):
        s = scene(scan)
        (first, last), b = np.array(s["frames"]), np.array(s["lengths"])
        for frame in (0, 17, 63, 99):
            drawn = first + (b[frame] - b[0]) / (b[-1] - b[0]) * (last - first)
            true = scan.positions[frame]
            distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (drawn, true)]
            assert distances[0] == pytest.approx(distances[1], abs=1e-3)
        i, j = s["scanned"]
        across = (last[j] - last[i])[1:]
        assert np.abs(across).max() < 1e-3
        assert last[j][0] > last[i][0]
        assert s["start"] == scan.energy.argmin()


def test_a_molecule_on_one_line_can_be_drawn():
    assert np.isfinite(np.array(scene(diatomic())["frames"])).all()


PROBE = """
<script>
addEventListener('load', () => {
  const box = document.querySelector('.molecule'), slider = box.querySelector('input');
  const canvas = box.querySelector('canvas'), output = box.querySelector('output');
  const picture = () => canvas.toDataURL();
  const shot = () => `${output.textContent} ${picture().length} ${picture().slice(-60)}`;
  const seen = [shot()];
  for (const frame of [0, 39]) {
    slider.value = frame;
    slider.dispatchEvent(new Event('input'));
    seen.push(shot());
  }
  document.title = 'seen|' + seen.join('|') + '|' + (window.failures || []).join(';');
});
</script>
"""


def test_the_slider_moves_the_atoms_in_a_real_browser(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    run = run_bsct([Spring(4.0)], scan_set(), out=tmp_path / "run")
    page = write_report([run], tmp_path / "report.html").read_text()
    catch = "<script>window.failures = []; addEventListener('error', e => failures.push(e.message));</script>"
    page = page.replace("<style>", catch + "<style>", 1).replace("</body>", PROBE + "</body>")
    (tmp_path / "probe.html").write_text(page)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update --virtual-time-budget=8000"
    command = [chromium, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    result = subprocess.run(
        [*command, (tmp_path / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = re.search(r"<title>seen\|(.*?)</title>", result.stdout)
    assert title, result.stdout[-2000:]
    start, first, last, failures = title[1].split("|")
    assert failures == ""
    assert first.startswith("0.800 Å")
    assert last.startswith("3.000 Å")
    assert len({start, first, last}) == 3
