"""The README's own blocks run, in order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

BLOCK = re.compile(
    r"<!-- test: (?P<what>run|python|file (?P<file>\S+)) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL
)


def run(command, folder, **kwargs):
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False, **kwargs
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_readmes_blocks_run(tmp_path):
    pytest.importorskip("tblite", reason="the README's example model is GFN2-xTB")
    pytest.importorskip("rdkit", reason="the README's molecules are SMILES")
    blocks = list(BLOCK.finditer((ROOT / "README.md").read_text()))
    assert [block["what"].split()[0] for block in blocks] == ["file", "run", "file", "run", "python"]
    for block in blocks:
        if block["file"]:
            (tmp_path / block["file"]).write_text(block["text"])
        elif block["what"] == "run":
            run(["bash", "-e"], tmp_path, input=block["text"])
        else:
            out = run([sys.executable, "-c", block["text"]], tmp_path)
            assert re.search(r"gfn2-xtb: [\d.]+ \[[\d.]+, [\d.]+\] 1/Å on 9 of 9 scans", out)
    assert (tmp_path / "runs" / "report.html").stat().st_size > 1e6
    assert (tmp_path / "labeled.extxyz").read_text().count("energy=") == 2


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(map(str, Path("docs").glob("*.md")))]
)
def test_files_that_docs_name_exist(page):
    text = (ROOT / page).read_text()
    for name in re.findall(r"`((?:src|tests|docs|examples|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{page} names {name}"


def test_every_metric_of_a_result_is_documented():
    import numpy as np

    from sfumato.protocols.bsct import analysis as bsct
    from tests.protocols.bsct.test_analysis import diatomic

    scan = diatomic()
    text = (ROOT / "docs" / "metrics.md").read_text()
    for name in bsct.scan_metrics(scan, np.array(scan.energy), np.array(scan.forces), bsct.Settings()):
        stem = re.sub(r"_(full|compress|stretch)$", "", name)
        assert stem in text, f"docs/metrics.md does not explain {name}"


def test_every_setting_is_documented():
    from sfumato.protocols.bsct.analysis import Settings

    text = (ROOT / "docs" / "protocols.md").read_text()
    for key in Settings.model_fields:
        assert f"| `{key}` |" in text
