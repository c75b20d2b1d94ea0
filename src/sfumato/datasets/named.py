"""Named data sets: where each comes from, what it must contain, and how it gets onto this machine.

A set holds scans to test potentials on, frames to train them on, or testing sets of rare events. It is pinned
by the identity of its contents (`ScanSet.identity`, `FrameSet.identity`), not by the bytes of an archive:
hosts pack the same commit into different bytes over the years. Only `get` opens a connection.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from sfumato.datasets.downloads import DownloadError, Progress, download
from sfumato.datasets.published import READERS, read_published_set
from sfumato.datasets.table import DATASETS as DATASETS  # noqa: PLC0414 (exported)
from sfumato.datasets.table import HELD, DataSet, Holds
from sfumato.files import expanded, remove_leftovers, temporary_name
from sfumato.frames import FrameSet
from sfumato.io import (
    FrameFile,
    read_frame_set,
    read_released_archive,
    read_released_folder,
    read_scan_set,
    write_frame_set,
    write_scan_set,
)
from sfumato.io.frames_hdf5 import FORMAT as FRAMES
from sfumato.io.hdf5 import open_any
from sfumato.io.rare_events import FORMAT as RARE_EVENTS
from sfumato.io.rare_events import RareEvents, read_packed, write_packed
from sfumato.systems import ScanSet
from sfumato.words import nearest

Status = Literal["bundled", "cached", "not here"]


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
    if (kind := holds(data)) != "scans":
        raise ValueError(f"{data}: holds {HELD[kind]}, not scans")
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
    return KINDS.get(_format(path) or "", "scans")


KINDS: dict[str, Holds] = {FRAMES: "frames", RARE_EVENTS: "rare events"}
"""By what a packed file says it is; all others are scans."""


def _format(path: Path) -> str | None:
    """Return what an HDF5 file says it is; None for anything else."""
    import h5py

    if not path.is_file() or not h5py.is_hdf5(path):
        return None
    with suppress(Exception), open_any(path) as file:  # what is damaged is said by whoever reads it
        return str(file.attrs.get("format"))
    return None


def frames_path(data: str | Path) -> Path:
    """Return the packed file of a set of frames, which may be too large to load at once.

    Args:
        data: a name from `DATASETS`, or the path of a packed file.

    Raises:
        ValueError: an unknown name or path, a named set that is not here, or one that holds scans.
    """
    if (kind := holds(data)) != "frames":
        raise ValueError(f"{data}: holds {HELD[kind]}, not frames to train on")
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


def load_rare_events(data: str | Path) -> RareEvents:
    """Load testing sets of rare events, verified.

    Args:
        data: a name from `DATASETS`, or the path of a packed file.

    Raises:
        ValueError: an unknown name or path, a named set that is not here, one that holds something else, or
            contents that are damaged or not the expected ones.
    """
    if (kind := holds(data)) != "rare events":
        raise ValueError(f"{data}: holds {HELD[kind]}, not testing sets of rare events")
    if isinstance(data, str) and data in DATASETS:
        found = read_packed(_here(DATASETS[data]))
        _require_named(data, found.identity)
        return found
    return read_packed(expanded(data))


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
    if entry.name in READERS:
        return _store_published(entry, path)
    scan_set = _with_facts(_read(path), entry)
    _check_identity(entry, scan_set, str(path))
    target = location(entry.name)
    _make_cache(target.parent)
    write_scan_set(target, scan_set)
    return target


def _store_published(entry: DataSet, path: Path) -> Path:
    """Do the same with a set that is not one of scans."""
    found = read_published_set(entry.name, path)
    found = replace(found, name=entry.name, level=entry.level, licence=entry.licence, source=entry.source)
    if found.identity != entry.identity:
        raise ValueError(
            f"{path}: not the contents of {entry.name}: expected identity {entry.identity}, found "
            f"{found.identity}; {len(found)} structures, expected {entry.frames}"
        )
    target = location(entry.name)
    _make_cache(target.parent)
    if isinstance(found, RareEvents):
        write_packed(target, found)
    else:
        write_frame_set(target, found)
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
        _verify(entry)
        return location(name)
    except ValueError:
        if entry.bundled:
            raise
    folder = cache_dir()
    _make_cache(folder)
    remove_leftovers(folder, f"{name}.download")
    archive = folder / temporary_name(f"{name}.download")
    try:
        download(entry.name, entry.url, archive, progress)
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


def _verify(entry: DataSet) -> None:
    """Check that a named set is here and is what it must be.

    Raises:
        ValueError: it is not.
    """
    if entry.holds == "scans":
        _load_named(entry)
    elif entry.holds == "frames":
        verify_frames(entry.name)
    else:
        load_rare_events(entry.name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
