"""Named data sets: where each comes from, what it must contain, and how it gets onto this machine.

A set holds scans to test potentials on, or frames to train them on. It is pinned by the identity of its
contents (`ScanSet.identity`, `FrameSet.identity`), not by the bytes of an archive: hosts pack the same commit
into different bytes over the years. Only `get` opens a connection.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sfumato.files import expanded, remove_leftovers, temporary_name
from sfumato.frames import FrameSet
from sfumato.io import (
    FrameFile,
    read_frame_set,
    read_released_archive,
    read_released_folder,
    read_scan_set,
    write_scan_set,
)
from sfumato.io.frames_hdf5 import FORMAT as FRAMES
from sfumato.systems import ScanSet
from sfumato.words import nearest

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and the total, 0 where the server does not say."""

Holds = Literal["scans", "frames"]

Status = Literal["bundled", "cached", "not here"]

TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""

LARGEST, LONGEST = 2 << 30, 3600.0
"""Bytes and seconds after which a download is given up, whatever the server sends."""


@dataclass(frozen=True)
class DataSet:
    """What is known about a named set before it is here.

    Args:
        name: what the user types.
        description: one line for `data list`.
        level: level of theory of the labels.
        licence: SPDX identifier.
        source: who made it, and at which revision.
        identity: SHA-256 that the set's identity must have.
        counts: (bond type, number of scans) pairs, or (split, number of frames).
        frames: number of frames in all.
        holds: "scans" or "frames".
        url: archive in the released layout, where it is downloaded.
        bundled: file name in the package's data folder, where it ships with it.
    """

    name: str
    description: str
    level: str
    licence: str
    source: str
    identity: str
    counts: tuple[tuple[str, int], ...]
    frames: int
    holds: Holds = "scans"
    url: str = ""
    bundled: str = ""

    @property
    def scans(self) -> int:
        """Number of scans."""
        return sum(count for _, count in self.counts)


_BONDS = ("C-C", "C-N", "C-O", "C-P", "C-S", "N-N", "N-O", "N-P", "O-P")
_BSCT_COMMIT = "79d915b0f1780a6cc680595984b4c210b5660038"

DATASETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            name="bsct-spice",
            description="bond scans of 485 molecules of the SPICE test set",
            level="wB97M-D3(BJ)/def2-TZVPPD",
            licence="MIT",
            source=f"Liu et al. 2026, arXiv 2602.04861; github.com/ryanliu30/bsct at {_BSCT_COMMIT}",
            identity="8871f40172b1b2115905880515a3d9131ee65ddde79513c535c05dbfd9517a52",
            counts=tuple(zip(_BONDS, (100, 98, 100, 18, 100, 20, 20, 14, 15))),
            frames=48500,
            url=f"https://codeload.github.com/ryanliu30/bsct/tar.gz/{_BSCT_COMMIT}",
        ),
        DataSet(
            name="bsct-mini",
            description="bond scans of nine small molecules, one of each published bond type",
            level="wb97m-d3bj/def2-tzvppd",
            licence="MIT",
            source="sfumato scan build",
            identity="5f6143b96fafe41dcf2d63b51b7d993e069bff74c6197b5ad357944eae0bc15d",
            counts=tuple((bond, 1) for bond in _BONDS),
            frames=900,
            bundled="bsct-mini.h5",
        ),
        DataSet(
            name="bsct-mini-gfn2",
            description="the frames of bsct-mini by a method that takes milliseconds",
            level="GFN2-xTB",
            licence="MIT",
            source="sfumato scan build",
            identity="147915806e4ab67baec390c24fa7d398a975a4c3501d0e602e7c5c2a509615b3",
            counts=tuple((bond, 1) for bond in _BONDS),
            frames=900,
            bundled="bsct-mini-gfn2.h5",
        ),
        DataSet(
            name="bsct-medium",
            description="27 scans of bsct-spice, molecules of 15 to 35 atoms, three of each bond type",
            level="wB97M-D3(BJ)/def2-TZVPPD",
            licence="MIT",
            source=f"Liu et al. 2026, arXiv 2602.04861; github.com/ryanliu30/bsct at {_BSCT_COMMIT}",
            identity="e4a4a6530bd8fe5c89697bbfdfde9b7f3f8face88126c22d2eda088600717ee2",
            counts=tuple((bond, 3) for bond in _BONDS),
            frames=2700,
            bundled="bsct-medium.h5",
        ),
        DataSet(
            name="organic-mini",
            description="configurations of 365 small molecules, split by molecule",
            level="GFN2-xTB",
            licence="MIT",
            source="sfumato data sample",
            identity="6eac7f7e9937154cd39eefc69247b4d33d4e3df94829caadd87e443efc6f59ec",
            counts=(("train", 3973), ("val", 611), ("test", 525)),
            frames=5109,
            holds="frames",
            bundled="organic-mini.h5",
        ),
    )
}
"""Every named data set; the molecules of all of them are neutral with closed shells."""


def _entry(name: str) -> DataSet:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; {nearest(name, sorted(DATASETS))}")
    return DATASETS[name]


def cache_dir() -> Path:
    """Return the folder of downloaded sets: `SFUMATO_CACHE`, else the user's cache folder.

    Raises:
        ValueError: neither is known, because the user has no home.
    """
    stated = os.environ.get("SFUMATO_CACHE")
    if stated:
        return expanded(stated)
    import pooch

    try:
        return Path(pooch.os_cache("sfumato"))
    except RuntimeError as error:
        raise ValueError(f"there is no folder for downloaded data ({error}); set SFUMATO_CACHE") from None


def location(name: str) -> Path:
    """Return where the packed file of a named set is, or would be once it is here.

    Raises:
        ValueError: an unknown name.
    """
    entry = _entry(name)
    if entry.bundled:
        return Path(__file__).parents[1] / "data" / entry.bundled
    return cache_dir() / f"{entry.name}.h5"


def status(name: str) -> Status:
    """Tell whether a named set ships with the package, has been fetched, or is not here.

    Raises:
        ValueError: an unknown name.
    """
    _entry(name)
    try:
        if not location(name).is_file():
            return "not here"
    except ValueError:  # a user without a home
        return "not here"
    return "bundled" if _entry(name).bundled else "cached"


def load(data: str | Path) -> ScanSet:
    """Load a data set, verified.

    Args:
        data: a name from `DATASETS` (which wins over a file of that name), or the path of a packed HDF5
            file, of a folder in the released layout, or of an archive (tar, tar.gz, tar.zst) of one.

    Returns:
        The scans. A folder or archive whose contents are those of a named set gets its facts; of any
        other, level and licence are "not stated" and the molecules neutral with closed shells.

    Raises:
        ValueError: an unknown name or path; a named set that is not here; contents that are incomplete,
            damaged or not the expected ones.
    """
    if holds(data) == "frames":
        raise ValueError(f"{data}: holds frames to train on, not scans")
    if isinstance(data, str) and data in DATASETS:
        return _load_named(DATASETS[data])
    scan_set = _read(expanded(data))
    for entry in DATASETS.values():
        named = _with_facts(scan_set, entry)
        if named.identity == entry.identity:
            return named
    return scan_set


def holds(data: str | Path) -> Holds:
    """Tell whether a data set holds scans or frames.

    Args:
        data: as for `load`.

    Raises:
        ValueError: an unknown name or path.
    """
    if isinstance(data, str) and data in DATASETS:
        return DATASETS[data].holds
    path = expanded(data)
    if not path.exists():
        raise ValueError(
            f"{str(data)!r} is neither a named data set nor an existing path; "
            f"{nearest(str(data), sorted(DATASETS))}"
        )
    return "frames" if _format(path) == FRAMES else "scans"


def _format(path: Path) -> str | None:
    """Return what an HDF5 file says it is; None for anything else."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return None
    with suppress(Exception), h5py.File(path, "r") as file:  # what is damaged is said by whoever reads it
        return str(file.attrs.get("format"))
    return None


def frames_path(data: str | Path) -> Path:
    """Return the packed file of a set of frames, which may be too large to load at once.

    Args:
        data: a name from `DATASETS`, or the path of a packed file.

    Raises:
        ValueError: an unknown name or path, a named set that is not here, or one that holds scans.
    """
    if holds(data) == "scans":
        raise ValueError(f"{data}: holds scans, not frames to train on")
    if isinstance(data, str) and data in DATASETS:
        return _here(DATASETS[data])
    return expanded(data)


def verify_frames(data: str | Path) -> str:
    """Check, with little memory, that a set of frames is what was written, and a named one what it must be.

    Args:
        data: as for `frames_path`.

    Returns:
        The identity of the contents.

    Raises:
        ValueError: as `frames_path`; contents that are damaged or not the expected ones.
    """
    with FrameFile(frames_path(data)) as file:
        file.verify()
        _require_named(data, file.identity)
        return file.identity


def _require_named(data: str | Path, identity: str) -> None:
    entry = DATASETS.get(data) if isinstance(data, str) else None
    if entry and identity != entry.identity:
        raise ValueError(f"{data}: expected identity {entry.identity}, got {identity}")


def load_frames(data: str | Path) -> FrameSet:
    """Load a set of labeled frames, verified.

    Args:
        data: as for `frames_path`.

    Raises:
        ValueError: as `frames_path`; contents that are damaged or not the expected ones.
    """
    frames = read_frame_set(frames_path(data))
    _require_named(data, frames.identity)
    return frames


def _here(entry: DataSet) -> Path:
    """Return the packed file of a named set, or say how to get it."""
    path = location(entry.name)
    if not path.is_file():
        if entry.bundled:
            raise ValueError(f"{entry.name} ships with the package, but {path} is missing: install it again")
        raise ValueError(
            f"{entry.name} is not here yet: download it with `sfumato data get {entry.name}`, or, from a "
            f"copy on this machine, run `sfumato data import {entry.name} PATH`"
        )
    return path


def _load_named(entry: DataSet) -> ScanSet:
    path = _here(entry)
    scan_set = read_scan_set(path)
    _check_identity(entry, scan_set, str(path))
    return scan_set


def _read(path: Path) -> ScanSet:
    """Read a set from any container: packed file, folder or archive."""
    if path.is_dir():
        return read_released_folder(path)
    with path.open("rb") as file:
        packed = file.read(8) == b"\x89HDF\r\n\x1a\n"
    if packed or path.suffix.lower() in (".h5", ".hdf5"):
        return read_scan_set(path)
    return read_released_archive(path)


def _with_facts(scan_set: ScanSet, entry: DataSet) -> ScanSet:
    """Return the set under the name, level, licence and source of a table entry."""
    return replace(scan_set, name=entry.name, level=entry.level, licence=entry.licence, source=entry.source)


def _check_identity(entry: DataSet, scan_set: ScanSet, where: str) -> None:
    if scan_set.identity == entry.identity:
        return
    count = "" if len(scan_set) == entry.scans else f"; {len(scan_set)} scans instead of {entry.scans}"
    raise ValueError(
        f"{where}: not the contents of {entry.name}: expected identity {entry.identity}, "
        f"found {scan_set.identity}{count}"
    )


def _store(entry: DataSet, path: Path) -> Path:
    """Pack what lies at `path` under its final name, after it proved to be the named set."""
    scan_set = _with_facts(_read(path), entry)
    _check_identity(entry, scan_set, str(path))
    target = location(entry.name)
    _make_cache(target.parent)
    write_scan_set(target, scan_set)
    return target


def _make_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the cache folder {folder}: {error}; set SFUMATO_CACHE") from None


def import_(name: str, path: str | Path) -> Path:
    """Pack a local copy of a named set into the cache.

    Args:
        name: a name from `DATASETS`.
        path: a folder in the released layout, an archive of one, or a packed HDF5 file.

    Returns:
        The packed file.

    Raises:
        ValueError: an unknown name, a bundled set, no such path, or contents that are not the named
            set's. Nothing is left under the final name then but what was there before.
    """
    entry = _entry(name)
    if entry.bundled:
        raise ValueError(f"{name} ships with the package: there is nothing to import")
    path = expanded(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    return _store(entry, path)


def get(name: str, progress: Progress | None = None) -> Path:
    """Download a named set, verify it and pack it into the cache, unless it is here already.

    Args:
        name: a name from `DATASETS`.
        progress: told how much has been received.

    Returns:
        The packed file.

    Raises:
        ValueError: an unknown name; no connection; a download that is damaged or not the named set.
            Nothing is left under the final name then but what was there before.
    """
    entry = _entry(name)
    try:
        _load_named(entry)
        return location(name)
    except ValueError:
        if entry.bundled:
            raise
    folder = cache_dir()
    _make_cache(folder)
    remove_leftovers(folder, f"{name}.download")
    archive = folder / temporary_name(f"{name}.download")
    try:
        _download(entry, archive, progress)
        return _store(entry, archive)
    except DownloadError:
        raise
    except ValueError as error:
        size, received = archive.stat().st_size, _sha256(archive)
        raise ValueError(
            f"{name}: the download is refused: {str(error).replace(str(archive), entry.url)} (expected "
            f"contents of identity {entry.identity}; received {size} bytes of sha256 {received}). Try again, "
            f"or run `sfumato data import {name} PATH` on a copy you trust"
        ) from None
    finally:
        archive.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DownloadError(ValueError):
    """A download that did not come to its end."""


class _Meter:
    """What pooch takes for a progress bar: tells a callable, and ends what is too large or takes too long."""

    def __init__(self, report: Progress | None, file: Path) -> None:
        self.total = 0
        self._report = report
        self._file = file
        self._start = time.monotonic()

    def update(self, _: int) -> None:
        # pooch counts whole chunks, and the last is shorter: the file knows better.
        received, seconds = self._file.stat().st_size, time.monotonic() - self._start
        if received > LARGEST or seconds > LONGEST:
            raise OSError(f"given up after {received} bytes in {seconds:.0f} s, more than any set takes")
        if self._report is not None:
            self._report(received, self.total)

    def reset(self) -> None:
        """Nothing to start over: the size of the file is the count."""

    def close(self) -> None:
        """Nothing to close."""


def _download(entry: DataSet, target: Path, progress: Progress | None) -> None:
    import pooch

    meter = _Meter(progress, target)
    fetch = pooch.HTTPDownloader(progressbar=meter, chunk_size=2**18, timeout=TIMEOUT)
    try:
        fetch(entry.url, str(target), None)
    except OSError as error:  # what requests raises, and a full disk
        raise DownloadError(
            f"{entry.name}: cannot be downloaded from {entry.url}: {error}. Without a network, bring a copy "
            f"(the archive or the folder) and run `sfumato data import {entry.name} PATH`"
        ) from None
