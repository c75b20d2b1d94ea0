"""What version 0.1.0 wrote still works: run folders, packed sets, stores of labels. Files in `tests/v010`."""

import json
import shutil

import pytest

from sfumato.campaigns.campaign import label
from sfumato.datasets import named
from sfumato.execution.folder import RunFolderError
from sfumato.io import read_frame_set, read_scan_set
from sfumato.jobs.frames import frames_of
from sfumato.potentials.engines import TBLite
from sfumato.protocols.run import load_run, run
from tests import ROOT

OLD = ROOT / "tests" / "v010"


def copied(name, tmp_path):
    """A run folder of 0.1.0 whose data lies where it was left."""
    folder = tmp_path / "runs" / name
    shutil.copytree(OLD / name, folder)
    manifest = json.loads((folder / "run.json").read_text())
    if manifest["data"]["spec"].endswith("scans.h5"):
        manifest["data"]["spec"] = str(OLD / "scans.h5")
        (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def test_a_run_of_scans_is_read_with_its_numbers_and_goes_on(tmp_path):
    folder = copied("bsct", tmp_path)
    before = json.loads((OLD / "bsct.json").read_text())
    found = load_run(folder)
    after = found.as_json()
    for name in ("lj", "morse"):
        for scan, values in before["models"][name]["scans"].items():
            now = after["models"][name]["scans"][scan]
            assert {key: now[key] for key in values} == values
        assert after["models"][name]["identity"] == before["models"][name]["identity"]
    tallies = []
    again = run("bsct", ["lj", "morse", "lj-hard-cutoff"], OLD / "scans.h5", out=folder, way=watched(tallies))
    assert again.complete
    assert [tally.done for tally in tallies] == [0, 0, 12]
    assert load_run(folder).models.keys() == {"lj", "morse", "lj-hard-cutoff"}


def watched(tallies):
    """A way that keeps the last tally of each model."""
    from contextlib import contextmanager

    from sfumato.jobs.perform import Way

    @contextmanager
    def watch(name):
        seen = []
        yield seen.append
        tallies.append(seen[-1])

    return Way(watch=watch)


def test_a_run_of_errors_is_read_with_its_numbers(tmp_path):
    found = load_run(copied("eval", tmp_path))
    before = json.loads((OLD / "eval.json").read_text())["models"]["lj"]
    after = found.as_json()["models"]["lj"]
    assert after["coverage"] == before["coverage"]
    assert after["force_mae_by_magnitude"] == before["force_mae_by_magnitude"]
    for name, number in before["subsets"]["all"].items():
        assert after["subsets"]["all"][name]["value"] == number["value"]
    settings = found.settings["lj"]
    assert (found.protocol.name, settings.split, settings.turned) == ("errors", "test", 2)


def test_packed_sets_are_read_to_the_same_identity():
    assert read_scan_set(OLD / "scans.h5").identity == named.load(OLD / "scans.h5").identity
    assert len(read_frame_set(OLD / "frames.h5")) == 13


def test_a_store_of_labels_is_used_again(tmp_path):
    pytest.importorskip("tblite")
    shutil.copytree(OLD / "scans.h5.campaign", tmp_path / "store")
    (scan,) = read_scan_set(OLD / "scans.h5")
    tallies = []
    engine = TBLite("GFN2-xTB")
    kept = json.loads((tmp_path / "store" / "records" / "GFN2-xTB.jsonl").read_text().splitlines()[0])
    if kept["identity"] != engine.identity:
        pytest.skip("the labels were made with another version of tblite")
    label(frames_of(scan), engine, tmp_path / "store", watch=tallies.append)
    assert (tallies[-1].skipped, tallies[-1].done) == (12, 0)


def test_a_folder_of_a_newer_version_is_refused(tmp_path):
    folder = copied("bsct", tmp_path)
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(RunFolderError, match="pip install --upgrade sfumato"):
        load_run(folder)
