"""Named sets that are published in a layout of their own, read from a folder or an archive of one."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sfumato.files import temporary_folder
from sfumato.frames import FrameSet
from sfumato.io import read_frame_set
from sfumato.io.mlearn import read_mlearn
from sfumato.io.rare_events import RareEvents, read_packed
from sfumato.io.silicon import TESTING, read_enhanced, read_published

Published = FrameSet | RareEvents

READERS: dict[str, Callable[[Path], Published]] = {
    "silicon-rare-events": read_published,
    "silicon-interstitial-enhanced": partial(read_enhanced, defect="interstitial"),
    "silicon-vacancy-enhanced": partial(read_enhanced, defect="vacancy"),
    "mlearn-si": read_mlearn,
}
"""By name of the set."""

MARKS = {"mlearn-si": "Si/training.json"}
"""What lies in the folder of a set; of all others a folder of `TESTING`."""

LARGEST = 1 << 30
"""Bytes of an archive's contents, beyond which it is refused."""


def read_published_set(name: str, path: Path) -> Published:
    """Read a named set from a copy of it.

    Args:
        name: a key of `READERS`.
        path: a folder in the published layout, a tar archive of one, or a packed file.

    Raises:
        ValueError: contents that are something else, or are damaged.
    """
    if path.is_file() and path.suffix.lower() in (".h5", ".hdf5"):
        return read_packed(path) if name == "silicon-rare-events" else read_frame_set(path)
    with _folder(name, path) as folder:
        return READERS[name](folder)


@contextmanager
def _folder(name: str, path: Path) -> Iterator[Path]:
    """Yield the folder of a set, unpacked if it lies in an archive."""
    if path.is_dir():
        yield _inside(name, path)
        return
    with temporary_folder("published") as folder:
        try:
            with tarfile.open(path) as archive:
                members = [m for m in archive if m.isdir() or m.isfile()]
                if sum(m.size for m in members) > LARGEST:
                    raise tarfile.ReadError("it unpacks to more than the set does")
                archive.extractall(folder, members=members, filter="data")
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            raise ValueError(f"{path}: damaged, truncated or not a tar archive: {error}") from None
        yield _inside(name, folder)


def _inside(name: str, folder: Path) -> Path:
    """Return the folder of a set at or below a folder; where there is none the folder itself."""
    mark = Path(MARKS.get(name, next(iter(TESTING.values()))))
    if (folder / mark.name).exists():
        return folder
    found = sorted(folder.glob(f"**/{mark}"))
    return found[0].parent if found else folder
