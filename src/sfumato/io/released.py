"""Bond scans in the layout they are published in: one extended XYZ file per frame.

`<bond>/<id>/atoms_<i>.xyz` with a `partition.npz` that tells the bond, the fragments and the grid, as a
folder or inside an archive. What is not part of the layout is passed over; what is part of it must be
complete and agree with itself.
"""

from __future__ import annotations

import io
import math
import re
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sfumato.io.extxyz_frame import Frame, parse_frame, unlabeled
from sfumato.systems import Floats, Ints, Scan, ScanSet

ROOT = "bsct_spice"
PARTITION = "partition.npz"
NOT_STATED = "not stated"
TOLERANCE = 1e-6
"""Å; the released files carry eight decimals and agree with their grid to 1.5e-8."""

MAX_MEMBER = 16 * 2**20
"""Bytes; a frame of a thousand atoms has 0.1 MB."""

MAX_HEADER = 2**16
"""Bytes of a long name or of extended attributes in a tar, which are read at once."""

MAX_PARTITION = 2**20
"""Bytes of an array in a partition; the labels of ten thousand atoms have 80 kB."""

MAX_FRAMES = 100_000
"""Of one scan; those published have 100."""

MAX_UNPACKED, SPARE = 1000, 2**30
"""Times its size to which an archive may unpack, and bytes beyond; text is packed tenfold."""

_BOND = re.compile(r"[A-Z][a-z]?-[A-Z][a-z]?")
_ID = re.compile(r"\w[\w.+-]*")
_FRAME = re.compile(r"atoms_(0|[1-9]\d*)\.xyz")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class _Partition:
    bond: Ints
    labels: Ints
    grid: Floats


@dataclass(slots=True)
class _Parts:
    """What has been found of one scan so far."""

    frames: dict[int, Frame] = field(default_factory=dict)
    partition: _Partition | None = None

    def add(self, file: str, data: bytes, where: str) -> None:
        """Parse one file of a scan and keep it."""
        frame = _FRAME.fullmatch(file)
        if frame is None:
            if self.partition is not None:
                raise ValueError(f"{where}: there twice")
            self.partition = _read_partition(data, where)
            return
        index = int(frame[1])
        if index in self.frames:
            raise ValueError(f"{where}: there twice")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise ValueError(f"{where}: not a text file") from None
        self.frames[index] = parse_frame(text, where)


def _wanted(file: str) -> bool:
    return file == PARTITION or _FRAME.fullmatch(file) is not None


def _array(data: bytes, key: str) -> NDArray[Any]:
    """Return an array of an .npz, after a look at how large it says it is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        try:
            member = archive.getinfo(f"{key}.npy")
        except KeyError:
            raise KeyError(f"{key} is not a file in the archive") from None
        if member.file_size > MAX_PARTITION:
            raise ValueError(f"{key} has {member.file_size} bytes")
        content = archive.read(member)
    stream = io.BytesIO(content)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in read:
        raise ValueError(f"{key} has the format version {version}")
    shape, _, dtype = read[version](stream)
    if math.prod(shape) * dtype.itemsize > len(content):
        raise ValueError(f"{key} announces shape {shape}, of which it does not have the numbers")
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _read_partition(data: bytes, where: str) -> _Partition:
    try:
        bond, labels, grid = (_array(data, key) for key in ("bond_index", "labels", "perturb_range"))
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]}") from None
    except (
        ValueError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
        IndexError,
        OverflowError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{where}: not a readable .npz of plain arrays: {error}") from None
    if bond.shape != (2,) or bond.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"{where}: bond_index must be two atom numbers and labels one per atom")
    if (
        grid.shape != (3,)
        or grid.dtype.kind not in "iuf"
        or not (np.isfinite(grid).all() and 2 <= grid[2] <= MAX_FRAMES and grid[2] == int(grid[2]))
    ):
        raise ValueError(f"{where}: perturb_range must be first and last bond length and the frame count")
    lengths = np.linspace(float(grid[0]), float(grid[1]), int(grid[2]))
    return _Partition(bond.astype(np.int64), labels.astype(np.int64), lengths)


def _fragment(partition: _Partition, atoms: int, where: str) -> Ints:
    """Return labels ±1, +1 on the side of the second atom of the bond."""
    labels, bond = partition.labels, partition.bond
    if len(labels) != atoms:
        raise ValueError(f"{where}: {len(labels)} labels for {atoms} atoms")
    if not ((bond >= 0) & (bond < atoms)).all():
        raise ValueError(f"{where}: bond_index {bond.tolist()} names an atom outside 0…{atoms - 1}")
    if not (np.isin(labels, (0, 1)).all() or np.isin(labels, (-1, 1)).all()):
        raise ValueError(f"{where}: labels must be 0 and 1, or −1 and +1")
    signs = np.where(labels > 0, 1, -1)
    if signs[bond[0]] == signs[bond[1]]:
        raise ValueError(f"{where}: both atoms of the bond have label {labels[bond[0]]}")
    result: Ints = signs * signs[bond[1]]
    return result


def _check_motion(partition: _Partition, fragment: Ints, positions: Floats, where: str) -> None:
    """Check the frames against the grid and the labels: x_i(α) = x_i + α h_i r̂, b = b₀ + 2α."""
    first, second = partition.bond
    vectors = positions[:, second] - positions[:, first]
    lengths = np.linalg.norm(vectors, axis=1)
    off = np.abs(lengths - partition.grid)
    if off.max() > TOLERANCE:
        k = int(off.argmax())
        raise ValueError(
            f"{where}: in frame {k} the bond is {lengths[k]:.6f} Å long, perturb_range says "
            f"{partition.grid[k]:.6f} Å"
        )
    step = fragment[:, None] * vectors[-1] / lengths[-1]  # the longest bond gives the best direction
    moved = positions[0] + 0.5 * (partition.grid - partition.grid[0])[:, None, None] * step
    off = np.abs(positions - moved).max(axis=(1, 2))
    if off.max() > TOLERANCE:
        k = int(off.argmax())
        atom = int(np.abs(positions[k] - moved[k]).max(axis=1).argmax())
        raise ValueError(
            f"{where}: in frame {k} atom {atom} is {off[k]:.2g} Å from where its label {fragment[atom]:+d} "
            "moves it; labels and frames disagree"
        )


def _stated(values: set[int | None], default: int, what: str, where: str) -> int:
    """Return the one value that the frames state, or the default if they state none."""
    stated = values - {None}
    if len(stated) > 1 or (stated and None in values):
        raise ValueError(f"{where}: the frames do not agree on the {what}")
    return next((v for v in stated if v is not None), default)


def _scan(name: str, parts: _Parts, where: str, charge: int, multiplicity: int) -> Scan:
    """Put one scan together, or say what is missing or wrong."""
    if parts.partition is None:
        raise ValueError(f"{where}: {PARTITION} is missing")
    count = len(parts.partition.grid)
    missing = sorted(set(range(count)) - set(parts.frames))
    if missing:
        shown = ", ".join(f"atoms_{i}.xyz" for i in missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ValueError(f"{where}: {len(missing)} of {count} frames missing: {shown}")
    if len(parts.frames) > count:
        raise ValueError(f"{where}: atoms_{max(parts.frames)}.xyz is there, but the grid has {count} frames")
    frames = [parts.frames[i] for i in range(count)]
    for i, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, frames[0].numbers) or frame.smiles != frames[0].smiles:
            raise ValueError(f"{where}: atoms_{i}.xyz is another molecule than atoms_0.xyz")
    fragment = _fragment(parts.partition, len(frames[0].numbers), f"{where}/{PARTITION}")
    positions = np.stack([frame.positions for frame in frames])
    if not np.isfinite(positions).all():
        raise ValueError(f"{where}: a position is not finite")
    _check_motion(parts.partition, fragment, positions, where)
    # A failed calculation is released as energy NaN with forces −0: they are not forces.
    forces = [np.full_like(f.forces, np.nan) if unlabeled(f) else f.forces for f in frames]
    return Scan(
        name=name,
        numbers=frames[0].numbers,
        positions=positions,
        coordinate=parts.partition.grid,
        energy=np.array([frame.energy for frame in frames]),
        forces=np.stack(forces),
        atoms=parts.partition.bond,
        fragment=fragment,
        charge=_stated({f.charge for f in frames}, charge, "charge", where),
        multiplicity=_stated({f.multiplicity for f in frames}, multiplicity, "multiplicity", where),
        smiles=frames[0].smiles,
    )


def _order(name: str) -> tuple[str, int, str]:
    """Sort scans by bond, then by id as a number: the order must not depend on the container."""
    bond, ident = name.split("/")
    return bond, int(ident) if ident.isdecimal() else -1, ident


def _scan_set(
    scans: Mapping[str, Scan], path: Path, name: str | None, level: str, licence: str, source: str
) -> ScanSet:
    if not scans:
        raise ValueError(f"{path}: no scans: expected <bond>/<id>/atoms_<i>.xyz and <bond>/<id>/{PARTITION}")
    return ScanSet(
        name=name or path.name.lstrip(".").split(".")[0] or "scans",
        level=level,
        licence=licence,
        source=source or path.name,
        scans=tuple(scans[key] for key in sorted(scans, key=_order)),
        provenance={"read from": path.name, "layout": "<bond>/<id>/atoms_<i>.xyz"},
    )


def _scan_folders(root: Path) -> list[tuple[str, list[Path]]]:
    """Return (name, files) of every folder that holds anything of a scan."""
    found = []
    for bond in root.iterdir():
        if not (_BOND.fullmatch(bond.name) and bond.is_dir()):
            continue
        for folder in bond.iterdir():
            if _ID.fullmatch(folder.name) and folder.is_dir():
                files = [f for f in folder.iterdir() if _wanted(f.name) and f.is_file()]
                if files:
                    found.append((f"{bond.name}/{folder.name}", files))
    return found


def read_released_folder(
    path: str | Path,
    *,
    name: str | None = None,
    level: str = NOT_STATED,
    licence: str = NOT_STATED,
    source: str = "",
    charge: int = 0,
    multiplicity: int = 1,
) -> ScanSet:
    """Read a folder of bond scans in the released layout.

    Args:
        path: the folder that holds the bond folders, or the one that holds it as `bsct_spice`.
        name: name of the set; the folder's if not given.
        level: level of theory of the labels.
        licence: SPDX identifier or the owner's words.
        source: who made it; the folder's name if not given.
        charge: e, of frames that do not state theirs.
        multiplicity: 2S+1, of frames that do not state theirs.

    Returns:
        The scans, sorted by bond and id; a frame without energy has NaN forces. The fragment is +1 on the
        side of the second atom of the bond, so that +α along the bond from first to second lengthens it.

    Raises:
        ValueError: no such folder, no scans in it, or a scan that is incomplete or contradicts itself.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: no such folder")
    folders = _scan_folders(path)
    if not folders and (path / ROOT).is_dir():
        folders = _scan_folders(path / ROOT)
    scans = {}
    for key, files in folders:
        parts = _Parts()
        for file in files:
            parts.add(file.name, file.read_bytes(), str(file))
        scans[key] = _scan(key, parts, str(files[0].parent), charge, multiplicity)
    return _scan_set(scans, path.resolve(), name, level, licence, source)


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Tail:
    """A stream that remembers how it ended, and ends where it grows beyond measure.

    A tar ends with blocks of zeros; cut at a boundary between members it would read as a shorter one.
    """

    def __init__(self, stream: _Readable, most: int) -> None:
        self._stream = stream
        self._last = b""
        self._left = most

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError("it unpacks to more than any data does")
        self._last = (self._last + data)[-1024:]
        return data

    def check_end(self) -> None:
        """Read to the end, which also checks a checksum there, and check that it is one."""
        while self.read(2**20):
            pass
        if self._last.strip(b"\0"):
            raise tarfile.ReadError("it ends before the end mark of a tar")


@contextmanager
def _unpacked(path: Path) -> Iterator[_Readable]:
    """Open a tar as a stream of plain bytes, whatever packed it."""
    with path.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        if magic == _ZSTD_MAGIC:
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
                yield stream
        elif magic[:2] == _GZIP_MAGIC:
            import gzip

            with gzip.open(raw) as stream:
                yield stream
        else:
            yield raw


class _Member(tarfile.TarInfo):
    """A member whose header is not read if it is larger than any name."""

    HEADERS = (
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_SPARSE,
    )

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in self.HEADERS and not 0 <= self.size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header announces {self.size} bytes")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member


def _members(path: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Yield (path parts, contents) of the members that are part of a scan; nothing is extracted."""
    with _unpacked(path) as stream:
        tail = _Tail(stream, SPARE + MAX_UNPACKED * path.stat().st_size)
        with tarfile.open(fileobj=tail, mode="r|", tarinfo=_Member) as archive:  # type: ignore[call-overload]
            for member in archive:
                parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
                if len(parts) < 3 or not (
                    _wanted(parts[-1]) and _ID.fullmatch(parts[-2]) and _BOND.fullmatch(parts[-3])
                ):
                    continue
                if ".." in parts or member.name.startswith("/") or not member.isreg():
                    raise ValueError(f"{path}: refused: {member.name} is not a plain file inside the archive")
                if member.size > MAX_MEMBER:
                    raise ValueError(f"{path}: refused: {member.name} has {member.size} bytes")
                yield parts, archive.extractfile(member).read()
        tail.check_end()


def _one_root(path: Path, roots: dict[tuple[str, ...], Any]) -> Any:
    """Choose the folder of the archive that holds the scans; `bsct_spice` if there are several."""
    if len(roots) > 1:
        named = {root: found for root, found in roots.items() if root[-1:] == (ROOT,)}
        if len(named) != 1:
            raise ValueError(f"{path}: scans in several folders: " + ", ".join(map("/".join, sorted(roots))))
        roots = named
    return next(iter(roots.values()), {})


def read_released_archive(
    path: str | Path,
    *,
    name: str | None = None,
    level: str = NOT_STATED,
    licence: str = NOT_STATED,
    source: str = "",
    charge: int = 0,
    multiplicity: int = 1,
) -> ScanSet:
    """Read a tar, tar.gz or tar.zst of bond scans in the released layout, without extracting it.

    Args:
        path: the archive; the layout may lie at any depth in it.
        name: name of the set; the archive's if not given.
        level: level of theory of the labels.
        licence: SPDX identifier or the owner's words.
        source: who made it; the archive's name if not given.
        charge: e, of frames that do not state theirs.
        multiplicity: 2S+1, of frames that do not state theirs.

    Returns:
        The same as `read_released_folder` gives for the unpacked archive.

    Raises:
        ValueError: no such file, no archive, a truncated one, no scans in it, or a scan that is
            incomplete or contradicts itself.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    errors: list[type[Exception]] = [tarfile.TarError, EOFError, OSError, zlib.error, OverflowError]
    with path.open("rb") as file:
        if file.read(4) == _ZSTD_MAGIC:
            import zstandard

            errors.append(zstandard.ZstdError)
    roots: dict[tuple[str, ...], dict[str, _Parts]] = defaultdict(lambda: defaultdict(_Parts))
    try:
        for parts, data in _members(path):
            found = roots[parts[:-3]][f"{parts[-3]}/{parts[-2]}"]
            found.add(parts[-1], data, f"{path}: {'/'.join(parts)}")
    except tuple(errors) as error:
        raise ValueError(f"{path}: damaged, truncated or not a tar archive: {error}") from None
    chosen = _one_root(path, roots)
    scans = {key: _scan(key, found, f"{path}: {key}", charge, multiplicity) for key, found in chosen.items()}
    return _scan_set(scans, path, name, level, licence, source)
