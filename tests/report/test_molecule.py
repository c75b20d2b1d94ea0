"""The molecule's drawing: true to the scan, and moved by its slider in a real browser."""

import re
import shutil
import subprocess
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from ase.build import molecule

from sfumato.datasets import named as datasets
from sfumato.protocols.bsct.page import bsct_page
from sfumato.protocols.run import run as run_protocol
from sfumato.reference.scans import candidates, degrees
from sfumato.report.molecule import Drawn
from sfumato.report.molecule import scene as scene_of
from sfumato.report.molecule import viewer as viewer_of
from sfumato.systems import Scan, System
from tests.protocols.bsct.test_analysis import Spring, diatomic, scan_set


def scene(scan):
    return scene_of(Drawn(scan, degrees(scan)))


def viewer(scans, select):
    return viewer_of({key: Drawn(scan, degrees(scan)) for key, scan in scans.items()}, select)


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


def in_browser(page, folder, *more):
    """Return what the probe in a page saw, in a headless Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    (folder / "probe.html").write_text(page)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update --virtual-time-budget=8000"
    command = [chromium, *flags.split(), *more, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    result = subprocess.run(
        [*command, (folder / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = re.search(r"<title>seen\|(.*?)</title>", result.stdout)
    assert title, result.stdout[-2000:]
    return title[1].split("|")


def test_the_slider_moves_the_atoms_in_a_real_browser(tmp_path):
    run = run_protocol("bsct", [Spring(4.0)], scan_set(), out=tmp_path / "run")
    page = str(bsct_page([run]))
    catch = "<script>window.failures = []; addEventListener('error', e => failures.push(e.message));</script>"
    page = page.replace("<style>", catch + "<style>", 1).replace("</body>", PROBE + "</body>")
    start, first, last, failures = in_browser(page, tmp_path)
    assert failures == ""
    assert first.startswith("0.800 Å")
    assert last.startswith("3.000 Å")
    assert len({start, first, last}) == 3


def turning(coordinate="torsion", name="trans-butane"):
    atoms = molecule(name)
    rest = System(atoms.numbers, atoms.positions)
    found = next(c for c in candidates(rest, coordinate) if set(c.type) == {"C", "-"})
    frames = len(found.lengths)
    return Scan(
        name=f"{found.type}/{name}",
        numbers=rest.numbers,
        positions=found.positions,
        coordinate=found.lengths,
        energy=(np.arange(frames) - 60.0) ** 2,
        forces=np.zeros(found.positions.shape),
        atoms=found.atoms,
        fragment=found.fragment,
        charge=0,
        multiplicity=1,
    )


@pytest.mark.parametrize("coordinate", ["angle", "torsion"])
def test_atoms_that_turn_are_drawn_in_every_frame(coordinate):
    scan = turning(coordinate)
    s = scene(scan)
    drawn = np.array(s["frames"])
    assert drawn.shape == scan.positions.shape
    for frame in (0, 17, 63, 99):
        distances = [
            np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (drawn[frame], scan.positions[frame])
        ]
        assert distances[0] == pytest.approx(distances[1], abs=1e-3)
    assert s["scanned"] == scan.atoms.tolist()
    assert s["start"] == scan.energy.argmin()
    if coordinate == "angle":
        assert s["degrees"] == pytest.approx(np.linspace(75, 165, 100), abs=0.06)
    else:
        # The axis of the torsion lies along x, its middle at the origin.
        ends = drawn[0][scan.atoms[1:3]]
        assert ends[:, 1:] == pytest.approx(np.zeros((2, 2)), abs=1e-3)
        assert ends.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-3)
        assert abs(s["degrees"][0]) == 180


def test_a_site_is_drawn_by_two_frames_along_its_way():
    scan = turning()
    positions = np.repeat(scan.positions[:1], 5, axis=0)
    positions[:, 3, 1] += np.linspace(0, 1, 5)
    fields = {"atoms": [3], "coordinate": np.linspace(0, 1, 5), "positions": positions}
    site = replace(scan, name="C/1", energy=np.arange(5), forces=np.zeros(positions.shape), **fields)
    s = scene(site)
    first, last = np.array(s["frames"])
    assert last[3] - first[3] == pytest.approx([1, 0, 0], abs=1e-3)
    assert s["degrees"] is None


def test_the_words_follow_the_kinds_of_scans():
    def words(*scans):
        return viewer({str(k): scan for k, scan in enumerate(scans)}, "pick").replace("\n", " ")

    bond = words(diatomic())
    assert "<span>Bond length</span>" in bond
    assert "Drag to turn. The dashed line is the scanned bond; sticks join" in bond
    assert "chosen bond length" in bond
    assert "<span>Torsion (arc length)</span>" in words(turning())
    both = words(turning(), diatomic())
    assert "<span>Coordinate</span>" in both
    assert "The dashed line is the scanned bond. Dashed lines join the atoms of the torsion" in both


PAGE = """<!doctype html><html><head><meta charset="utf-8">
<script>window.failures = []; addEventListener('error', e => failures.push(e.message));</script></head>
<body><select id="pick"><option value="0"></option><option value="1"></option></select>{viewer}
<script>{script}</script></body></html>"""


def test_a_torsion_turns_and_a_bond_follows_in_a_real_browser(tmp_path):
    script = files("sfumato.report").joinpath("molecule.js").read_text()
    page = PAGE.replace("{viewer}", viewer({"0": turning(), "1": diatomic()}, "pick")).replace(
        "{script}", script
    )
    choose = "document.getElementById('pick').value = '1'; "
    choose += "document.getElementById('pick').dispatchEvent(new Event('change')); seen.push(shot());"
    probe = PROBE.replace("document.title", f"{choose} document.title", 1)
    start, first, turned, bond, failures = in_browser(page.replace("</body>", probe + "</body>"), tmp_path)
    assert failures == ""
    assert "Å (" in start
    assert re.match(r"\d\.\d{3} Å \(−?180\.0°\)", first)
    assert len({start, first, turned, bond}) == 4
    assert re.match(r"\d\.\d{3} Å \d", bond)  # no degrees


CENTER = """
<script>
addEventListener('load', () => {
  const canvas = document.querySelector('canvas'), {width, height} = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  const inked = [...Array(width * height).keys()].filter(k => pixels[4 * k + 3] > 0);
  const ends = values => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [1e9, 0]);
  const middle = values => (ends(values)[0] + ends(values)[1]) / 2;
  const x = middle(inked.map(k => k % width)) / width;
  const y = middle(inked.map(k => Math.floor(k / width))) / height;
  document.title = `seen|${width / canvas.clientWidth}|${x}|${y}|${window.failures.join(';')}`;
});
</script>
"""


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_molecule_is_drawn_in_the_middle_on_any_screen(tmp_path, ratio):
    script = files("sfumato.report").joinpath("molecule.js").read_text()
    style = "<style>canvas { width: 300px; height: 200px }</style>"
    page = PAGE.replace("{viewer}", style + viewer({"0": diatomic(), "1": diatomic()}, "pick"))
    page = page.replace("{script}", script).replace("</body>", CENTER + "</body>")
    scale, x, y, failures = in_browser(page, tmp_path, f"--force-device-scale-factor={ratio}")
    assert failures == ""
    assert float(scale) == ratio
    assert [float(x), float(y)] == pytest.approx([0.5, 0.5], abs=0.05)
