"""Packed files that were damaged: an error of one kind that names the file, never other numbers."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from sfumato.datasets import named
from sfumato.io import FrameFile, read_frame_set, read_scan_set
from sfumato.io.hdf5 import HEAP, open_any
from tests import ROOT

SCANS, FRAMES = "bsct-mini-gfn2.h5", "organic-mini.h5"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The bytes of a small packed set of scans, and of one of frames."""
    from dataclasses import replace

    from sfumato.io import write_frame_set, write_scan_set

    folder, data = tmp_path_factory.mktemp("small"), ROOT / "src" / "sfumato" / "data"
    scans = read_scan_set(data / SCANS)
    write_scan_set(folder / "s.h5", replace(scans, scans=scans.scans[:1]))
    write_frame_set(folder / "f.h5", read_frame_set(data / FRAMES).take(range(6)))
    return (folder / "s.h5").read_bytes(), (folder / "f.h5").read_bytes()


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content with a few bits flipped, or cut short."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
    return bytes(damaged if rng.random() < 0.9 else damaged[: int(rng.integers(len(damaged)))])


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["scans", "frames"])
def test_damage_is_an_error_or_changes_nothing(
    small: tuple[bytes, bytes], tmp_path: Path, kind: str, count: int
) -> None:
    content, path = small[kind == "frames"], tmp_path / "x.h5"
    rng = np.random.default_rng(count)
    path.write_bytes(content)
    read = read_scan_set if kind == "scans" else read_frame_set
    identity = read(path).identity
    reasons = []
    for _ in range(count):
        path.write_bytes(flipped(content, rng))
        try:
            named.holds(path)
            assert read(path).identity == identity
        except ValueError as error:
            reasons.append(str(error))
        with suppress(ValueError):
            if kind == "frames":
                with FrameFile(path) as file:
                    file.verify()
    assert len(reasons) > count / 4
    assert all(str(path) in reason for reason in reasons)


def test_an_array_larger_than_the_file_can_hold_is_not_read(
    small: tuple[bytes, bytes], tmp_path: Path
) -> None:
    for content, read, name in zip(small, (read_scan_set, read_frame_set), ("atom/fragment", "atom/extra")):
        path = tmp_path / "x.h5"
        path.write_bytes(content)
        with h5py.File(path, "r+") as file:
            if name in file:
                del file[name]
            file.create_dataset(name, shape=(10**12,), dtype="i8", chunks=(1024,), compression="gzip")
        with pytest.raises(ValueError, match="cannot hold arrays of 8000000"):
            read(path)


def test_a_heap_that_hdf5_would_walk_for_ever_is_refused(small: tuple[bytes, bytes], tmp_path: Path) -> None:
    for content, read in zip(small, (read_scan_set, read_frame_set)):
        damaged = bytearray(content)
        start = damaged.index(HEAP)
        damaged[start + 16 : start + 32] = bytes(16)  # free space of no size, in the place of the first word
        (tmp_path / "x.h5").write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"the heap of strings at byte {start} is not as it was"):
            read(tmp_path / "x.h5")


def test_nobody_walks_such_a_heap(small: tuple[bytes, bytes], tmp_path: Path) -> None:
    """In a process of its own, since HDF5 cannot be interrupted there."""
    damaged = bytearray(small[1])
    start = damaged.index(HEAP)
    damaged[start + 16 : start + 32] = bytes(16)
    path = tmp_path / "x.h5"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="the heap of strings"):
        open_any(path)
    look = "import sys; from sfumato.datasets.named import holds; print(holds(sys.argv[1]))"
    words = [sys.executable, "-c", look, str(path)]
    ended = subprocess.run(words, timeout=120, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "scans"  # what is damaged is said by whoever reads it
