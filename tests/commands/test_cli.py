"""The command line: what a user types, reads and gets back."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfumato.cli import _exit_code
from sfumato.commands.train import closing
from sfumato.execution.records import read_records
from sfumato.io import write_scan_set
from sfumato.training.status import Trained
from tests import ROOT
from tests.protocols.bsct.test_analysis import scan_set

MODEL = """
import time
from ase.calculators.calculator import Calculator, all_changes
import numpy as np

class Spring(Calculator):
    implemented_properties = ["energy", "forces"]
    k, pause, fail = 5.0, 0.0, False

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        time.sleep(self.pause)
        vector = atoms.positions[1] - atoms.positions[0]
        b = np.linalg.norm(vector)
        energy = 0.5 * self.k * (b - 1.5) ** 2
        pull = -self.k * (b - 1.5) * vector / b
        self.results = {"energy": float("nan") if self.fail and b > 2.9 else energy,
                        "forces": np.array([-pull, pull])}

def spring():
    return Spring()

def slow():
    made = Spring(); made.pause = 0.05
    return made

def failing():
    made = Spring(); made.fail = True
    return made

def wrong():
    return 42

def raising():
    raise RuntimeError("no weights here")
"""

DECLARED = {
    "layout": "extxyz",
    "name": "springs",
    "level": "spring",
    "licence": "MIT",
    "keys": "{energy: energy, forces: forces}",
    "units": "{energy: eV, length: Å, forces: eV/Å}",
    "absent": "[stress]",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m.py").write_text(MODEL)
    write_scan_set(tmp_path / "springs.h5", scan_set())
    return tmp_path


def command(*words):
    return [str(Path(sys.executable).parent / "sfumato"), *words]


def sfumato(folder, *words):
    env = os.environ | {"COLUMNS": "80", "SFUMATO_CACHE": str(folder / "cache")}
    return subprocess.run(
        command(*words), cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def bsct(folder, *models, options=()):
    words = [word for model in models for word in ("--model", model)]
    return sfumato(folder, "run", "bsct", *words, "--data", "springs.h5", *options)


def test_a_run_prints_a_table_and_writes_the_promised_json(folder):
    result = bsct(folder, "m.py:spring", "stiff=m.py:spring", options=["--json", "out.json", "--out", "r"])
    assert result.returncode == 0, result.stderr
    assert "stiff" in result.stdout
    assert "1/1" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    out = json.loads((folder / "out.json").read_text())
    assert set(out) == {"models", "settings", "provenance"}
    model = out["models"]["m-spring"]
    assert model["coverage"] == [1, 1]
    scan = model["scans"]["C-C/a"]
    assert scan["status"] == "ok"
    for name in ("fsd_full", "fsd_compress", "fsd_stretch", "force_mae_full", "energy_mae_raw_full"):
        assert scan[name] == pytest.approx(0.0, abs=1e-12)
        assert model["mean"][name] == scan[name]
        assert len(model["interval95"][name]) == 2
    assert out["provenance"]["data"]["level"] == "harmonic"
    assert out["settings"]["floor"] == 1.0


def test_failed_items_are_shown_with_reason_and_exit_code_1(folder):
    result = bsct(folder, "m.py:failing", options=["--json", "out.json"])
    assert result.returncode == 1, result.stderr
    assert "0/1" in result.stdout
    assert "the predicted energy is not finite" in re.sub(r"\s+", " ", result.stdout)
    scan = json.loads((folder / "out.json").read_text())["models"]["m-failing"]["scans"]["C-C/a"]
    assert scan["status"] == "failed"
    assert "fsd_full" not in scan


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "gfn2-xbt"], r"unknown model 'gfn2-xbt'; did you mean 'gfn2-xtb'\?"),
        (["--model", "nothere.py:f"], "there is no file nothere.py"),
        (["--model", "m.py"], "add :factory"),
        (["--model", "m.py:sprong"], "no function 'sprong'; did you mean 'spring'"),
        (["--model", "m.py:wrong"], "returned a int"),
        (["--model", "m.py:raising"], r"raising\(\) raised RuntimeError: no weights here"),
        (["--model", "m.py:spring", "--data", "bsct-mimi"], "bsct-mini"),
        (["--model", "m.py:spring", "--data", "bsct-spice"], "sfumato data import bsct-spice PATH"),
        (["--model", "m.py:spring", "--model", "m.py:spring"], "NAME=SPEC"),
        (["--model", "m.py:spring", "--wrokers", "2"], "--workers"),
        (["--model", "m.py:spring", "--config", "c.yaml"], "unknown key 'flor'; did you mean 'floor'"),
        (["--model", "m.py:spring", "--config", "d.yaml"], "floor = -1"),
        (["--model", "m.py:spring", "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["--model", "m.py:spring", "--workers", "-1"], "workers"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(folder, words, message):
    (folder / "c.yaml").write_text("flor: 0.5\n")
    (folder / "d.yaml").write_text("floor: -1\n")
    result = sfumato(folder, "run", "bsct", *words)
    assert result.returncode == 2, result.stdout + result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert "Traceback" not in result.stderr


def test_a_setting_changes_the_name_of_its_number(folder):
    (folder / "c.yaml").write_text("floor: 0.5\nrefine: 2\n")
    result = bsct(folder, "m.py:spring", options=["--config", "c.yaml", "--json", "out.json"])
    assert result.returncode == 0, result.stderr
    scan = json.loads((folder / "out.json").read_text())["models"]["m-spring"]["scans"]["C-C/a"]
    assert "fsd[floor=0.5]_full" in scan
    assert "work_energy_residual[refine=2]_full" in scan


def test_a_changed_model_is_refused_in_the_same_folder(folder):
    assert bsct(folder, "m.py:spring").returncode == 0
    (folder / "m.py").write_text(MODEL.replace("k, pause, fail = 5.0", "k, pause, fail = 6.0"))
    result = bsct(folder, "m.py:spring")
    assert result.returncode == 2
    assert "the model changed since" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_says_so_and_continues(folder, number):
    words = ["run", "bsct", "--model", "m.py:slow", "--data", "springs.h5", "--out", "r"]
    process = subprocess.Popen(command(*words), cwd=folder, stderr=subprocess.PIPE, text=True)
    path = folder / "r" / "records" / "m-slow.evaluate.jsonl"
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < 4:
        assert time.monotonic() < deadline, "no records"
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "the same command continues" in said
    done = set(read_records(path)[1])
    assert 3 <= len(done) < 40
    result = sfumato(folder, *words)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line)["key"] for line in path.read_text().splitlines()[1:]]
    assert len(lines) == len(set(lines)) == 40


def test_plan_report_compare_and_lists(folder):
    plan = sfumato(folder, "plan", "bsct", "--model", "m.py:spring", "--data", "springs.h5")
    assert plan.returncode == 0, plan.stderr
    assert "40" in plan.stdout
    assert bsct(folder, "m.py:spring", "other=m.py:spring").returncode == 0
    report = sfumato(folder, "report", "runs")
    assert report.returncode == 0, report.stderr
    assert (folder / "runs" / "report.html").exists()
    compare = sfumato(folder, "compare", "runs/bsct-springs")
    assert compare.returncode == 0, compare.stderr
    listed = sfumato(folder, "list")
    assert listed.returncode == 0, listed.stderr
    assert "lj-hard-cutoff" in listed.stdout
    assert "bsct-spice" in listed.stdout
    check = sfumato(folder, "data", "check", "springs.h5")
    assert check.returncode in (0, 1), check.stderr
    for shown in (plan, report, compare, listed, check):
        assert max(map(len, shown.stdout.splitlines())) <= 80, shown.stdout


def test_report_of_a_folder_without_runs_says_so(folder):
    result = sfumato(folder, "report", ".")
    assert result.returncode == 2
    assert "no run folders here" in result.stderr


def test_scan_build_makes_a_set_that_a_run_takes(folder):
    pytest.importorskip("tblite", reason="labels with GFN2-xTB")
    mini = ROOT / "src" / "sfumato" / "data" / "bsct-mini.extxyz"
    ethane = "\n".join(mini.read_text().splitlines()[:10]) + "\n"
    (folder / "ethane.extxyz").write_text(ethane)
    built = sfumato(folder, "scan", "build", "ethane.extxyz", "-o", "e.h5", "--frames", "12")
    assert built.returncode == 0, built.stderr
    assert "1 scans, 12 of 12 frames labeled" in built.stdout
    run = sfumato(folder, "run", "bsct", "--model", "gfn2-xtb", "--data", "e.h5", "--json", "o.json")
    assert run.returncode == 0, run.stderr
    mean = json.loads((folder / "o.json").read_text())["models"]["gfn2-xtb"]["mean"]
    assert mean["fsd_full"] == pytest.approx(0.0, abs=1e-6)
    methane = "5\ncharge=0 multiplicity=1\nC 0 0 0\n" + "".join(
        f"H {x} {y} {z}\n"
        for x, y, z in [(0.63, 0.63, 0.63), (-0.63, -0.63, 0.63), (-0.63, 0.63, -0.63), (0.63, -0.63, -0.63)]
    )
    (folder / "methane.extxyz").write_text(methane)
    none = sfumato(folder, "scan", "build", "methane.extxyz", "-o", "n.h5")
    assert none.returncode == 2
    assert "no bridge bond" in none.stderr


def test_smiles_become_torsions_and_labels(folder):
    pytest.importorskip("tblite", reason="labels with GFN2-xTB")
    pytest.importorskip("rdkit", reason="makes structures from SMILES")
    (folder / "m.smi").write_text("CCO ethanol\nC(( broken\nC methane\n")
    words = ["m.smi", "--coordinate", "torsion", "--frames", "9"]
    plan = sfumato(folder, "plan", "scan", *words)
    assert plan.returncode == 0, plan.stderr
    assert re.search(r"together +2 +18", plan.stdout)
    built = sfumato(folder, "scan", "build", *words, "-o", "t.h5", "--workers", "2")
    assert built.returncode == 1, built.stderr  # a molecule could not be read, as below
    assert "2 scans, 18 of 18 frames labeled" in built.stdout
    assert re.search(r"line 2: .* +broken", built.stdout)
    assert re.search(r"no bridge bond +methane", built.stdout)
    run = sfumato(folder, "run", "bsct", "--model", "gfn1-xtb", "--data", "t.h5")
    assert run.returncode == 0, run.stderr
    labeled = sfumato(folder, "label", "m.smi", "-o", "m.extxyz", "--store", "t.h5.campaign")
    assert labeled.returncode == 1, labeled.stderr
    assert "m.extxyz: 2 of 3 structures labeled" in labeled.stdout
    for shown in (plan, built, run, labeled):
        assert max(map(len, shown.stdout.splitlines())) <= 80, shown.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "tblight"], "tblite"),
        (["--level", "GFN3"], "GFN2-xTB"),
        (["--coordinate", "bnod"], "bond"),
        (["--executor", "slrm.py"], "slrm.py"),
        (["--memory", "-1"], "memory"),
    ],
)
def test_bad_words_of_a_build_are_explained(folder, options, message):
    mini = ROOT / "src" / "sfumato" / "data" / "bsct-mini.extxyz"
    result = sfumato(folder, "scan", "build", str(mini), "-o", "x.h5", "--frames", "3", *options)
    assert result.returncode == 2, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_structures_of_others_become_a_checked_training_set(folder):
    head = 'Properties=species:S:1:pos:R:3:force:R:3 energy={} pbc="F F F"'
    frames = [
        f"2\n{head.format(0.5 * (r - 1) ** 2)}\nH 0 0 0 0 0 {r - 1}\nH 0 0 {r} 0 0 {1 - r}\n"
        for r in (0.7, 0.72, 0.9, 0.91, 1.1)
    ]
    (folder / "a.xyz").write_text("".join(frames))
    (folder / "a.yaml").write_text(
        "layout: extxyz\nname: springs\nlevel: spring\nlicence: MIT\nkeys: {energy: energy, forces: force}\n"
        "units: {energy: eV, length: Å, forces: eV/Å}\nabsent: [stress]\nmolecule: frame\n"
        "fractions: [0.6, 0.4, 0.0]\n"
    )
    made = sfumato(folder, "data", "convert", "a.xyz", "--source", "a.yaml", "-o", "a.h5")
    assert made.returncode == 0, made.stderr
    assert "a.h5: 5 frames" in made.stdout
    check = sfumato(folder, "data", "check", "a.h5", "--json", "a.json")
    assert check.returncode in (0, 1), check.stderr
    assert json.loads((folder / "a.json").read_text())["frames"] == 5
    (folder / "b.yaml").write_text(
        (folder / "a.yaml").read_text().replace("forces: force}", "forces: froces}")
    )
    wrong = sfumato(folder, "data", "convert", "a.xyz", "--source", "b.yaml", "-o", "b.h5")
    assert wrong.returncode == 2
    assert "force" in wrong.stderr
    assert not (folder / "b.h5").exists()


def test_the_contract_passes_what_is_smooth_and_fails_what_is_not(folder):
    good = sfumato(folder, "check", "lj", "--json", "c.json")
    assert good.returncode == 0, good.stderr
    assert "lj keeps the contract" in good.stdout
    assert max(map(len, good.stdout.splitlines())) <= 80
    assert json.loads((folder / "c.json").read_text())["passed"] is True
    bad = sfumato(folder, "check", "lj-neighbor-cap")
    assert bad.returncode == 1, bad.stderr
    assert "breaks the contract: neighbor swap" in bad.stdout
    unknown = sfumato(folder, "check", "lj-hard-cutof")
    assert unknown.returncode == 2
    assert "lj-hard-cutoff" in unknown.stderr


def test_the_contract_is_told_elements_periodicity_reach_and_seed(folder):
    words = ["--elements", "Au", "Pt", "--no-periodic", "--reach", "4", "--seed", "3", "--json", "c.json"]
    found = sfumato(folder, "check", "lj", *words)
    assert found.returncode == 0, found.stderr
    settings = json.loads((folder / "c.json").read_text())["settings"]
    asked = {"elements": ["Au", "Pt"], "periodic": False, "reach": 4.0, "seed": 3}
    assert {key: settings[key] for key in asked} == asked
    unknown = sfumato(folder, "check", "lj", "--elements", "Og")
    assert unknown.returncode == 2
    assert "name elements it knows (--elements Au Pt" in unknown.stderr
    mistyped = sfumato(folder, "check", "lj", "--elements", "Xy")
    assert mistyped.returncode == 2
    assert "'Xy' is not an element; did you mean" in mistyped.stderr


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["none.xyz"], "none.xyz: no such file"),
        (["train=none.xyz"], "none.xyz: no such file"),
        (["a.xyz", "b.xyz"], "a.xyz: several files are given as train=FILE val=FILE test=FILE"),
        (["train=a.xyz", "train=b.xyz"], "train=a.xyz and train=b.xyz: a split takes one file"),
    ],
)
def test_files_to_convert_are_one_for_each_split(folder, capsys, files, message):
    source = folder / "a.yaml"
    source.write_text("".join(f"{key}: {value}\n" for key, value in DECLARED.items()))
    assert _exit_code(["data", "convert", *files, "--source", str(source), "-o", str(folder / "a.h5")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "out", "message"),
    [
        ({"level": None}, "a.h5", r"a\.yaml: level: is missing"),
        ({"units": "{energy: eV}"}, "a.h5", r"a\.yaml: units: declare the unit of the forces"),
        ({"units": "{stres: GPa}"}, "a.h5", r"a\.yaml: units: unknown key 'stres'; did you mean 'stress'\?"),
        ({"absent": "[]"}, "a.h5", r"a\.yaml: keys: name the key of the stress, or declare it"),
        ({}, ".", r"is a folder; name the file to write, such as .*springs\.h5"),
    ],
)
def test_what_is_wrong_with_a_declaration_names_its_file(folder, capsys, changes, out, message):
    declared = DECLARED | changes
    source = folder / "a.yaml"
    source.write_text("".join(f"{key}: {value}\n" for key, value in declared.items() if value))
    (folder / "a.xyz").touch()
    words = [str(folder / "a.xyz"), "--source", str(source), "-o", str(folder / out)]
    assert _exit_code(["data", "convert", *words]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert "licence" not in said


@pytest.mark.parametrize("name", ["w.xyz", "s.yaml"])
def test_what_is_not_packed_is_to_be_converted_first(folder, capsys, name):
    (folder / name).write_text("1\n\nH 0 0 0\n")
    assert _exit_code(["data", "check", str(folder / name)]) == 2
    assert f"{name}: is not a packed data set; pack labeled structures first: sfumato data convert" in (
        capsys.readouterr().err
    )


def test_more_than_there_is_memory_for_is_no_traceback(tmp_path, capsys, monkeypatch):
    def refuse(*given, **more):
        raise MemoryError("Unable to allocate 128 GiB")

    monkeypatch.setattr("sfumato.protocols.run.run", refuse)
    assert _exit_code(["run", "bsct", "--model", "lj", "--out", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err
    assert said == "sfumato: there is not enough memory for this: Unable to allocate 128 GiB\n"
    assert _exit_code(["run", "bsct", "--model", "lj", "--refine", "8589934592"]) == 2
    assert "100" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "[]", '{"data": 3}', "{", None])
def test_damaged_settings_beside_a_finished_model_are_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(
        "sfumato.models.checkpoint.load_model", lambda path: (None, SimpleNamespace(notes={}))
    )
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json: (damaged|cannot be read)"):
        closing(Trained(True, 10, tmp_path / "model.safetensors", None), tmp_path)
