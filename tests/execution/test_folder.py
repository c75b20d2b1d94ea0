"""Run folders: what a manifest must say, and that it loses nothing."""

import json
import multiprocessing

import pytest

from sfumato.execution.folder import RunFolder, RunFolderError

MANIFEST = {
    "protocol": "bsct",
    "version": 2,
    "data": {"spec": "s.h5", "name": "s", "identity": "x"},
    "models": {"lj": {"spec": "lj", "identity": "y", "settings": {"floor": 1.0}}},
    "provenance": {},
}


def begun(path, **changes):
    folder = RunFolder(path)
    folder.begin(MANIFEST)
    content = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(content | changes))
    return folder


def test_what_was_asked_for_is_read_back(tmp_path):
    assert begun(tmp_path).manifest() == {"schema": 2, **MANIFEST}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": None}, "lacks protocol"),
        ({"version": "2"}, "lacks protocol, version"),
        ({"version": True}, "lacks protocol, version"),
        ({"data": []}, "lacks protocol, version, data"),
        ({"data": {"spec": "s.h5"}}, "data.identity is missing"),
        ({"data": {"identity": "x", "spec": 3}}, "data.spec is missing or not a word"),
        ({"models": {"lj": 3}}, "lacks protocol, version, data or models"),
        ({"models": {"lj": {}}}, "models.lj.identity is missing"),
        (
            {"models": {"lj": {"identity": "y", "settings": []}}},
            "models.lj.settings is missing or not a group",
        ),
        ({"models": {"lj": {"identity": "y", "settings": {}, "training": 3}}}, "models.lj.training is not"),
        ({"models": {"lj": {"identity": "y", "settings": {}, "spec": []}}}, "models.lj.spec is not"),
        ({"settings": 3}, "its settings are not a group"),
        ({"provenance": 3}, "its provenance is not a group"),
        ({"schema": 3}, "newer Sfumato"),
        ({"schema": "2"}, "newer Sfumato"),
    ],
)
def test_a_damaged_manifest_says_what_is_wrong(tmp_path, changes, message):
    with pytest.raises(RunFolderError, match=rf"run\.json: .*{message}"):
        begun(tmp_path, **changes).manifest()


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 20_000, "\udcff"])
def test_what_is_not_a_manifest_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunFolderError, match=r"run\.json"):
        RunFolder(tmp_path).manifest()


def add(path, k, barrier):
    barrier.wait()
    RunFolder(path).begin(MANIFEST | {"models": {f"m{k}": {"identity": str(k), "settings": {}}}})


def test_processes_that_begin_at_once_lose_no_model(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(12)
    processes = [context.Process(target=add, args=(tmp_path / "run", k, barrier)) for k in range(12)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert set(RunFolder(tmp_path / "run").manifest()["models"]) == {f"m{k}" for k in range(12)}
