"""What every packed file shares: errors that name the file, and bounds before anything is read."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

MOST_PACKED = 2000
"""Bytes of numbers in one byte of a file; gzip reaches 1032."""

HEAP = b"GCOL\x01\0\0\0"
"""With which HDF5 begins a heap of strings."""

MOST_SCANNED = 1 << 28
"""Bytes of a file that is searched for damaged heaps."""

SPARE = 1 << 26
"""Bytes that may be read beyond that, of arrays that were never written and read as zeros."""


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn what HDF5 and the containers raise into one kind of error that names the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}: a part is missing: {error.args[0]}") from None
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged, truncated or not an HDF5 file: {error}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    except (AttributeError, IndexError, MemoryError, ArithmeticError) as error:
        raise ValueError(f"{path}: damaged: {type(error).__name__}: {error}") from None


@contextmanager
def open_packed(path: Path) -> Iterator[h5py.File]:
    """Open a packed file for reading, errors explained as by `errors_of`.

    Raises:
        ValueError: no such file, not HDF5, or arrays of a size that the file cannot hold.
    """
    with errors_of(path), open_file(path) as file:
        yield file


def open_file(path: Path) -> h5py.File:
    """Open a packed file for reading, after a look at how much its arrays would take.

    Raises:
        ValueError: no such file, or arrays of a size that the file cannot hold.
        OSError: not HDF5.
    """
    if not path.is_file():
        raise ValueError("no such file")
    file = open_any(path)
    try:
        _require_plausible(file, os.path.getsize(path))
    except BaseException:
        file.close()
        raise
    return file


def open_any(path: Path) -> h5py.File:
    """Open an HDF5 file of any origin for reading; one that HDF5 would read for ever is refused.

    Raises:
        ValueError: a damaged heap of strings.
        OSError: no such file, or not HDF5.
    """
    import h5py

    _require_sound_heaps(path)
    return h5py.File(path, "r")


def _require_sound_heaps(path: Path) -> None:
    """Walk the heaps that hold strings as HDF5 does; where one has a part without a size it would not end."""
    if not 0 < os.path.getsize(path) <= MOST_SCANNED:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            end = start + int.from_bytes(content[start + 8 : start + 16], "little")
            place = start + 16
            while place + 16 <= min(end, len(content)):
                index = int.from_bytes(content[place : place + 2], "little")
                size = int.from_bytes(content[place + 8 : place + 16], "little")
                step = 16 + (size + 7) // 8 * 8 if index else size
                if step == 0 or place + step > end:
                    raise ValueError(f"damaged: the heap of strings at byte {start} is not as it was written")
                place += step
            start = content.find(HEAP, start + 1)


def _require_plausible(file: h5py.File, size: int) -> None:
    import h5py

    total = 0

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        nonlocal total
        if isinstance(item, h5py.Dataset):
            total += item.size * item.dtype.itemsize if item.size else 0

    file.visititems(visit)
    if total > MOST_PACKED * size + SPARE:
        raise ValueError(f"damaged: a file of {size} bytes cannot hold arrays of {total} bytes")


def require_rows(file: h5py.File, group: str, rows: int, names: tuple[str, ...]) -> None:
    """Check, before they are read, that arrays have the number of rows that others say.

    Args:
        file: open.
        group: of the arrays.
        rows: what they must have.
        names: of the arrays; those that are not there are passed over.

    Raises:
        ValueError: one has another number of rows, or none.
    """
    for name in names:
        path = f"{group}/{name}"
        if path in file and file[path].shape[:1] != (rows,):
            raise ValueError(f"{path}: expected {rows} rows, got shape {file[path].shape}")
