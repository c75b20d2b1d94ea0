"""Named data sets: only the right contents get the name, and only `get` opens a connection."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest

from sfumato.datasets import named as datasets
from sfumato.datasets.named import DATASETS, DataSet
from sfumato.files import temporary_name
from sfumato.io import write_scan_set
from tests.released_layout import (
    RELEASED,
    SCANS,
    archive_at,
    frame_text,
    lay_out,
    make_scan,
    make_set,
    needs_released,
    released_files,
    tar_bytes,
)

FILES = released_files(*SCANS, root="bsct-79d915b/bsct_spice/")
GOOD = tar_bytes(FILES, "gz")
TAMPERED = replace(SCANS[1], energy=SCANS[1].energy + np.eye(5)[3] * 1e-6)
BAD = tar_bytes(
    {**FILES, "bsct-79d915b/bsct_spice/C-O/7/atoms_3.xyz": frame_text(TAMPERED, 3).encode()}, "gz"
)

MINI = DataSet(
    name="mini",
    description="three scans",
    level="made/up",
    licence="MIT",
    source="the tests",
    identity=make_set(*SCANS).identity,
    counts=(("C-C", 1), ("C-O", 2)),
    frames=15,
    url="http://127.0.0.1:9/mini.tar.gz",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, the set `mini` in the table, and no proxy between the tests and themselves."""
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setitem(DATASETS, "mini", MINI)
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@contextmanager
def served(body: bytes, length: int | None, code: int = 200) -> Iterator[tuple[str, list[str]]]:
    """Serve one body to every request, announcing `length` bytes, and list what was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(code)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/mini.tar.gz", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def from_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(DATASETS, "mini", replace(MINI, url=url))


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


# --- the table ------------------------------------------------------------------------------------------


def test_the_published_set_is_pinned_by_commit_and_contents() -> None:
    entry = DATASETS["bsct-spice"]
    assert entry.url.endswith("/79d915b0f1780a6cc680595984b4c210b5660038")
    assert (entry.scans, entry.frames) == (485, 48500)
    assert len(entry.identity) == 64


BUNDLED = [name for name, entry in DATASETS.items() if entry.bundled]


@pytest.mark.parametrize("name", [name for name in BUNDLED if DATASETS[name].holds == "frames"])
def test_bundled_frames_are_what_the_table_says(name):
    entry, found = DATASETS[name], datasets.load_frames(name)
    assert found.identity == entry.identity
    assert (found.name, found.level, found.licence) == (entry.name, entry.level, entry.licence)
    assert found.split.counts() == dict(entry.counts)
    assert len(found) == entry.frames


def test_scans_and_frames_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="organic-mini: holds frames to train on, not scans"):
        datasets.load("organic-mini")
    with pytest.raises(ValueError, match="bsct-mini: holds scans, not frames"):
        datasets.load_frames("bsct-mini")
    with pytest.raises(ValueError, match="did you mean 'organic-mini'"):
        datasets.frames_path("organic-min")
    assert datasets.holds(datasets.location("organic-mini")) == "frames"
    assert datasets.holds(datasets.location("bsct-mini")) == "scans"
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match=r"x\.h5: damaged"):
        datasets.load(tmp_path / "x.h5")


@pytest.mark.parametrize("name", [name for name in BUNDLED if DATASETS[name].holds == "scans"])
def test_what_is_bundled_is_what_the_table_says(name: str, offline: None) -> None:
    entry, found = DATASETS[name], datasets.load(name)
    assert datasets.status(name) == "bundled"
    assert (found.name, found.level, found.licence) == (entry.name, entry.level, entry.licence)
    assert {bond: sum(s.stratum == bond for s in found) for bond, _ in entry.counts} == dict(entry.counts)
    assert sum(len(scan) for scan in found) == entry.frames


@pytest.mark.parametrize(
    "call",
    [
        datasets.status,
        datasets.get,
        datasets.location,
        lambda name: datasets.import_(name, "."),
        datasets.load,
    ],
)
def test_an_unknown_name_gets_the_nearest(call: Callable[[str], object], offline: None) -> None:
    with pytest.raises(ValueError, match=r"'bsct-spise'.*did you mean 'bsct-spice'\?"):
        call("bsct-spise")


def test_a_name_like_no_other_gets_the_list(offline: None) -> None:
    with pytest.raises(ValueError, match=r"existing path; valid: bsct-") as caught:
        datasets.load("/no/such/Q.h5")
    assert "did you mean" not in str(caught.value)


def test_the_cache_is_where_the_user_says_or_where_the_system_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.cache_dir() == tmp_path / "here"
    monkeypatch.delenv("SFUMATO_CACHE")
    assert datasets.cache_dir().name == "sfumato"


# --- load -----------------------------------------------------------------------------------------------


def test_a_user_without_a_home_must_say_where_to_keep_downloads(monkeypatch):
    def homeless(name):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("SFUMATO_CACHE", raising=False)
    monkeypatch.setattr(pooch, "os_cache", homeless)
    assert datasets.status("bsct-spice") == "not here"
    assert datasets.status("bsct-mini") == "bundled"
    with pytest.raises(ValueError, match="set SFUMATO_CACHE"):
        datasets.get("bsct-spice")


def test_a_set_that_is_not_here_names_both_ways_to_it(offline: None, cache: Path) -> None:
    assert datasets.status("mini") == "not here"
    with pytest.raises(ValueError, match=r"`sfumato data get mini`.*`sfumato data import mini PATH`"):
        datasets.load("mini")
    assert not cache.exists()


def test_a_bundled_set_is_loaded_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    monkeypatch.setitem(DATASETS, "mini", replace(MINI, bundled="mini.h5"))
    assert datasets.location("mini") == Path(datasets.__file__).parents[1] / "data" / "mini.h5"
    packed = tmp_path / "mini.h5"
    monkeypatch.setitem(DATASETS, "mini", replace(MINI, bundled=str(packed), url=""))
    with pytest.raises(ValueError, match=r"ships with the package, but .* is missing: install it again"):
        datasets.load("mini")
    write_scan_set(packed, make_set(*SCANS))
    assert datasets.status("mini") == "bundled"
    assert datasets.load("mini").identity == MINI.identity
    assert datasets.get("mini") == packed
    with pytest.raises(ValueError, match="nothing to import"):
        datasets.import_("mini", packed)


def test_a_path_may_be_packed_a_folder_or_an_archive(tmp_path: Path, offline: None) -> None:
    others = (make_scan("C-C/1", 4, 9),)
    write_scan_set(tmp_path / "own.h5", make_set(*others))
    folder = lay_out(tmp_path / "folder", released_files(*others))
    archive = archive_at(tmp_path / "own.tar.zst", released_files(*others), "zst")
    packed = datasets.load(tmp_path / "own.h5")
    assert (packed.name, packed.level, packed.licence) == ("mini", "made/up", "MIT")
    for path in (folder, str(folder), archive):
        found = datasets.load(path)
        assert found.scans[0].identity == others[0].identity
        assert (found.level, found.licence) == ("not stated", "not stated")


def test_a_folder_is_recognized_by_its_contents(tmp_path: Path, offline: None) -> None:
    found = datasets.load(lay_out(tmp_path / "folder", released_files(*SCANS)))
    assert (found.name, found.level, found.source) == ("mini", "made/up", "the tests")
    part = datasets.load(lay_out(tmp_path / "part", released_files(*SCANS[:2])))
    assert (part.name, part.level) == ("part", "not stated")


def test_a_damaged_packed_file_is_called_that(tmp_path: Path, offline: None) -> None:
    (tmp_path / "own.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"own\.h5: damaged, truncated or not an HDF5 file"):
        datasets.load(tmp_path / "own.h5")


def test_other_contents_under_the_name_are_refused(cache: Path, offline: None) -> None:
    cache.mkdir()
    write_scan_set(cache / "mini.h5", make_set(*SCANS[:2]))
    with pytest.raises(ValueError, match=r"not the contents of mini.*; 2 scans instead of 3") as caught:
        datasets.load("mini")
    assert f"expected identity {MINI.identity}, found {make_set(*SCANS[:2]).identity}" in str(caught.value)


# --- import ---------------------------------------------------------------------------------------------


def test_a_copy_in_any_container_is_imported(tmp_path: Path, cache: Path, offline: None) -> None:
    write_scan_set(tmp_path / "packed.h5", replace(make_set(*SCANS), name="renamed"))
    copies = [
        lay_out(tmp_path / "folder", released_files(*SCANS)),
        archive_at(tmp_path / "a.tar.gz", FILES, "gz"),
        tmp_path / "packed.h5",
    ]
    for copy in copies:
        path = datasets.import_("mini", copy)
        assert path == cache / "mini.h5"
        assert datasets.status("mini") == "cached"
        found = datasets.load("mini")
        assert (found.name, found.level, found.licence, found.source) == (
            "mini",
            "made/up",
            "MIT",
            "the tests",
        )
        assert left_in(cache) == ["mini.h5"]
        path.unlink()


def test_an_import_of_anything_else_changes_nothing(tmp_path: Path, cache: Path, offline: None) -> None:
    datasets.import_("mini", archive_at(tmp_path / "good.tar", FILES))
    before = (cache / "mini.h5").read_bytes()
    (tmp_path / "bad.tar.gz").write_bytes(BAD)
    with pytest.raises(ValueError, match=rf"expected identity {MINI.identity}, found [0-9a-f]{{64}}$"):
        datasets.import_("mini", tmp_path / "bad.tar.gz")
    with pytest.raises(ValueError, match="2 scans instead of 3"):
        datasets.import_("mini", lay_out(tmp_path / "part", released_files(*SCANS[:2])))
    with pytest.raises(ValueError, match="no such file or folder"):
        datasets.import_("mini", tmp_path / "gone")
    assert (cache / "mini.h5").read_bytes() == before
    assert left_in(cache) == ["mini.h5"]


def test_a_cache_that_cannot_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match=r"cannot make the cache folder .*; set SFUMATO_CACHE"):
        datasets.import_("mini", archive_at(tmp_path / "good.tar", FILES))


# --- get ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
def test_a_download_is_verified_packed_and_fetched_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    seen: list[tuple[int, int]] = []
    with served(GOOD, len(GOOD) if announced else None) as (url, asked):
        from_url(monkeypatch, url)
        assert datasets.get("mini", lambda done, total: seen.append((done, total))) == cache / "mini.h5"
        assert datasets.get("mini") == cache / "mini.h5"
    assert asked == ["/mini.tar.gz"]
    assert seen[-1] == (len(GOOD), len(GOOD) if announced else 0)
    assert datasets.status("mini") == "cached"
    assert datasets.load("mini").identity == MINI.identity
    assert left_in(cache) == ["mini.h5"]


def test_a_spoilt_cache_is_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    (cache / "mini.h5").write_bytes(b"half a fi")
    with served(GOOD, len(GOOD)) as (url, _):
        from_url(monkeypatch, url)
        datasets.get("mini")
    assert datasets.load("mini").identity == MINI.identity


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (BAD, "not the contents of mini"),
        (GOOD[: len(GOOD) // 2], "damaged, truncated or not a tar archive"),
        (GOOD[:-4], "damaged, truncated or not a tar archive"),
        (b"<html>sign in</html>", "damaged, truncated or not a tar archive"),
        (b"", "damaged, truncated or not a tar archive"),
        (tar_bytes({"README.md": b"moved"}, "gz"), "no scans"),
        (tar_bytes(released_files(*SCANS[1:]), "gz"), "2 scans instead of 3"),
    ],
)
def test_a_download_of_anything_else_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, message: str
) -> None:
    with served(body, None) as (url, _):
        from_url(monkeypatch, url)
        with pytest.raises(ValueError, match=message) as caught:
            datasets.get("mini")
    text = str(caught.value)
    assert text.startswith("mini: the download is refused: ")
    assert MINI.identity in text
    assert f"received {len(body)} bytes of sha256 " in text
    assert "sfumato data import mini PATH" in text
    assert str(cache) not in text
    assert left_in(cache) == []
    assert datasets.status("mini") == "not here"


@pytest.mark.parametrize("code", [200, 404, 503])
def test_a_download_that_breaks_off_or_is_refused_names_the_import(
    cache: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with served(GOOD[: len(GOOD) // 2], len(GOOD) if code == 200 else len(GOOD) // 2, code) as (url, _):
        from_url(monkeypatch, url)
        with pytest.raises(ValueError, match=r"cannot be downloaded from .*`sfumato data import mini PATH`"):
            datasets.get("mini")
    assert left_in(cache) == []


def test_without_network_the_import_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    from_url(monkeypatch, f"http://127.0.0.1:{port}/mini.tar.gz")
    with pytest.raises(ValueError, match=r"cannot be downloaded from .*`sfumato data import mini PATH`"):
        datasets.get("mini")
    assert left_in(cache) == []


def test_an_interrupted_download_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with served(GOOD, len(GOOD)) as (url, _):
        from_url(monkeypatch, url)
        with pytest.raises(KeyboardInterrupt):
            datasets.get("mini", interrupt)
    assert left_in(cache) == []


def test_a_download_without_end_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.datasets.downloads.LARGEST", len(GOOD) // 2)
    with served(GOOD, None) as (url, _):
        from_url(monkeypatch, url)
        with pytest.raises(ValueError, match=rf"given up after {len(GOOD)} bytes"):
            datasets.get("mini")
    assert left_in(cache) == []


def test_what_killed_processes_left_is_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    for name in ("mini.h5", "mini.download"):
        left = temporary_name(name).replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
        (cache / left).write_bytes(b"half a set")
    with served(GOOD, len(GOOD)) as (url, _):
        from_url(monkeypatch, url)
        datasets.get("mini")
    assert left_in(cache) == ["mini.h5"]


# --- the published set ----------------------------------------------------------------------------------


@pytest.mark.slow
@needs_released
def test_the_published_archive_is_the_named_set(offline: None) -> None:
    datasets.import_("bsct-spice", RELEASED)
    found, entry = datasets.load("bsct-spice"), DATASETS["bsct-spice"]
    counts = {
        "C-C": 100,
        "C-O": 100,
        "C-S": 100,
        "C-N": 98,
        "N-N": 20,
        "N-O": 20,
        "C-P": 18,
        "O-P": 15,
        "N-P": 14,
    }
    assert {bond: sum(s.stratum == bond for s in found) for bond in counts} == counts == dict(entry.counts)
    assert len(found) == 485
    assert {len(scan) for scan in found} == {100}
    sizes = [len(scan.numbers) for scan in found]
    assert (min(sizes), round(np.mean(sizes), 1), max(sizes)) == (5, 28.5, 50)
    gaps = {scan.name: np.flatnonzero(~scan.labeled).tolist() for scan in found if not scan.labeled.all()}
    assert gaps == {"C-N/25729": [9, 10]}
    assert {(scan.charge, scan.multiplicity) for scan in found} == {(0, 1)}
    assert (found.level, found.licence) == ("wB97M-D3(BJ)/def2-TZVPPD", "MIT")
