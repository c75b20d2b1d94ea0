"""Analyses are kept beside records, and believed only while nothing that they rest on has changed."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from sfumato.datasets.named import load
from sfumato.execution.records import RecordError, read_records
from sfumato.io import write_scan_set
from sfumato.protocols import kept
from sfumato.protocols import run as runs
from sfumato.protocols.bsct import BSCT, analysis


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of one model on two scans, of whose analysis nothing is kept: it is not worth it."""
    path = tmp_path_factory.mktemp("done") / "r"
    mini = load("bsct-mini")
    write_scan_set(path.parent / "two.h5", replace(mini, name="two", scans=mini.scans[:2]))
    runs.run("bsct", ["lj"], path.parent / "two.h5", out=path)
    assert not (path / kept.FOLDER).exists()
    return path


@pytest.fixture
def folder(done, tmp_path, monkeypatch):
    """The same, now worth it, and a cache of its own."""
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "WORTH", 0)
    return shutil.copytree(done, tmp_path / "r")


@pytest.fixture
def analysed(monkeypatch):
    """How often records were analyzed."""
    calls, analyse = [], BSCT.analyse
    monkeypatch.setattr(BSCT, "analyse", lambda *a: calls.append(a[3]) or analyse(*a))
    return calls


def kept_file(folder):
    (file,) = (folder / kept.FOLDER).iterdir()
    return file


def numbers(run):
    return json.dumps(run.as_json(), sort_keys=True)


def test_a_second_reading_takes_over_the_analysis(folder, analysed):
    first, second = runs.load_run(folder), runs.load_run(folder)
    assert analysed == ["lj"]
    assert numbers(first) == numbers(second)
    _, records = read_records(folder / "records/lj.evaluate.jsonl")
    anew = analysis.analyse(first.data, records, "lj", first.identity_of("lj"), first.settings["lj"])
    found = second.models["lj"]
    assert found.as_json() == anew.as_json()
    for name, scan in anew.scans.items():
        assert found.scans[name].limits == scan.limits
        assert np.array_equal(found.scans[name].energy, scan.energy)
        assert np.array_equal(found.scans[name].forces, scan.forces)


def test_a_run_keeps_what_it_has_analyzed(folder, analysed):
    done = runs.run("bsct", ["lj"], json.loads((folder / "run.json").read_text())["data"]["spec"], out=folder)
    assert numbers(runs.load_run(folder)) == numbers(done)
    assert analysed == ["lj"]


def test_failed_and_unfinished_scans_are_kept_as_such(folder, analysed):
    records = folder / "records/lj.evaluate.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:150]))
    first, second = runs.load_run(folder), runs.load_run(folder)
    assert analysed == ["lj"]
    assert {scan.status for scan in second.models["lj"].scans.values()} == {"ok", "incomplete"}
    assert numbers(first) == numbers(second)
    left = next(scan for scan in second.models["lj"].scans.values() if scan.status != "ok")
    assert left.energy is None
    assert left.forces is None


def change_records(folder, monkeypatch):
    file = folder / "records/lj.evaluate.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def change_code(folder, monkeypatch):
    monkeypatch.setattr(kept, "_code", lambda: "another")


def change_settings(folder, monkeypatch):
    file = folder / "run.json"
    manifest = json.loads(file.read_text())
    manifest["models"]["lj"]["settings"]["floor"] = 2.0
    file.write_text(json.dumps(manifest))


def change_a_number(folder, monkeypatch):
    """What somebody would do who wants another verdict."""
    file = kept_file(folder)
    signature, _, content = file.read_bytes().partition(b"\n")
    packed = json.loads(content)
    packed["analysis"]["estimates"]["fsd_full"][0] = 1.0
    file.write_bytes(signature + b"\n" + json.dumps(packed).encode())


def sign_with_another_key(folder, monkeypatch):
    change_a_number(folder, monkeypatch)
    file = kept_file(folder)
    content = file.read_bytes().partition(b"\n")[2]
    file.write_bytes(kept._signature(b"0" * kept.KEY_BYTES, content) + b"\n" + content)


def flip_a_bit(folder, monkeypatch):
    file = kept_file(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def cut_short(folder, monkeypatch):
    file = kept_file(folder)
    file.write_bytes(file.read_bytes()[:-100])


def nest_deeply(folder, monkeypatch):
    kept_file(folder).write_bytes(b"0" * 64 + b"\n" + b"[" * 100_000)


def make_it_huge(folder, monkeypatch):
    monkeypatch.setattr(kept, "LARGEST", 100)


def lose_the_key(folder, monkeypatch):
    (folder.parent / "cache" / kept.KEY).unlink()


def damage_the_key(folder, monkeypatch):
    (folder.parent / "cache" / kept.KEY).write_bytes(b"short")


def a_folder_in_its_place(folder, monkeypatch):
    file = kept_file(folder)
    file.unlink()
    file.mkdir()


def no_cache(folder, monkeypatch):
    monkeypatch.setattr(kept, "cache_dir", lambda: exec("raise ValueError('no home')"))


@pytest.mark.parametrize(
    "change",
    [
        change_records,
        change_code,
        change_settings,
        change_a_number,
        sign_with_another_key,
        flip_a_bit,
        cut_short,
        nest_deeply,
        make_it_huge,
        lose_the_key,
        damage_the_key,
        a_folder_in_its_place,
        no_cache,
    ],
)
def test_what_has_changed_or_cannot_be_believed_is_analyzed_anew(change, folder, analysed, monkeypatch):
    before = numbers(runs.load_run(folder))
    change(folder, monkeypatch)
    after = numbers(runs.load_run(folder))
    assert analysed == ["lj", "lj"]
    assert (after == before) == (change not in (change_records, change_settings))


def test_the_key_is_nobody_elses(folder):
    runs.load_run(folder)
    path = folder.parent / "cache" / kept.KEY
    assert path.stat().st_mode & 0o077 == 0
    assert len(path.read_bytes()) == kept.KEY_BYTES


def test_records_that_are_damaged_stay_an_error(folder):
    runs.load_run(folder)
    file = folder / "records/lj.evaluate.jsonl"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(RecordError, match="damaged record"):
        runs.load_run(folder)


def test_predictions_that_changed_after_they_were_analyzed_are_not_shown(folder):
    runs.load_run(folder)
    found = runs.load_run(folder).models["lj"]
    file = folder / "records/lj.evaluate.jsonl"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(RecordError, match="damaged or gone"):
        _ = [scan.energy for scan in found.scans.values()]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folder, analysed, monkeypatch):
    monkeypatch.setattr(kept, "write_bytes", lambda *a: exec("raise OSError(30, 'Read-only file system')"))
    assert numbers(runs.load_run(folder)) == numbers(runs.load_run(folder))
    assert analysed == ["lj", "lj"]
