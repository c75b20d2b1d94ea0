"""Tables for other programs carry every number, its interval and its coverage."""

import csv
import io

import numpy as np
import pytest

from sfumato.protocols.bsct import BSCT
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.export import csv_table, latex_table, markdown_table, write_table
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.protocol import Run
from tests.made_runs import make_run
from tests.protocols.bsct.test_analysis import diatomic, records_of, scan_set


@pytest.fixture
def run(tmp_path):
    """Two scans, one of which the model did not finish."""
    scans = [diatomic("C-C/a"), diatomic("C-N/b", b=np.linspace(0.81, 3.1, 40))]
    records = records_of(scans[0], 1.1 * scans[0].energy, 1.1 * scans[0].forces)
    model = bsct.analyse(scan_set(*scans), records, "a_b&c", "id", Settings())
    return Run(BSCT(), scan_set(*scans), {"a_b&c": model}, {"a_b&c": Settings()}, {}, tmp_path)


def test_csv_holds_every_metric_for_all_scans_and_each_bond_type(run):
    rows = list(csv.DictReader(io.StringIO(csv_table(run))))
    (model,) = run.models.values()
    assert {row["metric"] for row in rows} == set(model.estimates)
    assert {row["bond"] for row in rows} == {"all", "C-C", "C-N"}
    (row,) = [r for r in rows if r["metric"] == "force_mae_full" and r["bond"] == "all"]
    assert float(row["mean"]) == model.scans["C-C/a"].values["force_mae_full"]
    assert (row["low95"], row["scans"], row["of"]) == ("", "1", "2")


def test_markdown_and_latex_show_coverage_and_escape_names(run):
    lines = markdown_table(run).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == 8
    assert lines[2].startswith("| a_b&c |")
    assert lines[2].endswith("| 1/2 |")
    latex = latex_table(run)
    assert r"a\_b\&c" in latex
    assert latex.count("&") - latex.count(r"\&") == 12
    assert "Å" not in latex


def test_the_ending_of_the_file_chooses_the_format(run, tmp_path):
    for ending, start in [(".csv", "model,bond"), (".md", "| model"), (".tex", r"\begin{tabular}")]:
        write_table(run, tmp_path / f"t{ending}")
        assert (tmp_path / f"t{ending}").read_text().startswith(start)
    with pytest.raises(ValueError, match=r"\.csv, \.md, \.tex"):
        write_table(run, tmp_path / "t.xls")


def test_a_table_that_cannot_be_written_leaves_the_old_one(run, tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(OSError, match="is a folder"):
        write_table(run, tmp_path / "t.csv")


def test_other_settings_are_noted():
    run = make_run(own={"rough": Settings(refine=2)})
    assert "rough: refine=2" in markdown_table(run).splitlines()[-1]
    assert latex_table(run).startswith("% Settings differ")
    assert "n/a" not in markdown_table(run)
