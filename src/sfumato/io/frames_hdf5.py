"""A packed set of labelled frames: one HDF5 file of ragged flat arrays, read whole or slice by slice.

Frame s has the rows `frame/offset[s:s+2]` of `atom/*`; positions and forces are float32, energies float64.
Categories are codes with their names beside them. Level of theory, licence, source and the identity that
proves the numbers intact are attributes of the file; cells are there only if any frame has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sfumato.frames import Category, FrameSet
from sfumato.io.scans_hdf5 import replacing
from sfumato.systems import Batch, Prediction

if TYPE_CHECKING:
    import h5py

FORMAT = "sfumato-frames"
SCHEMA = 1
CATEGORIES = ("molecule", "subset", "split")

CHUNK_ROWS = 8192
"""Rows that are packed together: small enough to read a slice cheaply, large enough to compress."""


def write_frame_set(path: str | Path, frames: FrameSet) -> None:
    """Write a set of labelled frames to one file, whole or not at all.

    Args:
        path: the file, replaced if it exists.
        frames: the frames and their facts.

    Raises:
        ValueError: a folder that does not exist, or provenance that JSON cannot express.
    """
    import h5py

    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")
    try:
        provenance = json.dumps(frames.provenance, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"frame set {frames.name!r}: provenance is not JSON: {error}") from None
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema"] = SCHEMA
        for key in ("name", "level", "licence", "source", "identity"):
            file.attrs[key] = getattr(frames, key)
        file["provenance"] = provenance  # an attribute may not exceed 64 KiB
        _write_arrays(file, frames)


def _write_arrays(file: h5py.File, frames: FrameSet) -> None:
    import h5py

    batch, labels = frames.batch, frames.labels

    def put(name: str, values: Any, dtype: str) -> None:
        values = np.asarray(values).astype(dtype)
        packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if values.size else {}
        chunks = (min(len(values), CHUNK_ROWS), *values.shape[1:]) if values.size else None
        file.create_dataset(name, data=values, chunks=chunks, **packing)

    put("frame/offset", batch.offsets, "<i8")
    put("frame/energy", labels.energy, "<f8")
    put("frame/charge", batch.charge, "<i4")
    put("frame/multiplicity", batch.multiplicity, "<i4")
    if batch.pbc.any() or batch.cell.any():
        put("frame/cell", batch.cell, "<f8")
        put("frame/pbc", batch.pbc, "u1")
    if labels.stress is not None:
        put("frame/stress", labels.stress, "<f8")
    put("atom/numbers", batch.numbers, "u1")
    put("atom/positions", batch.positions, "<f4")
    put("atom/forces", labels.forces, "<f4")
    for key in CATEGORIES:
        category: Category = getattr(frames, key)
        names = list(category.names)
        file.create_dataset(f"{key}/names", data=names, shape=(len(names),), dtype=h5py.string_dtype())
        put(f"{key}/codes", category.codes, "<i4")


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turn what HDF5 and the containers raise into one kind of error that names the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}: a part is missing: {error.args[0]}") from None
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged, truncated or not an HDF5 file: {error}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


class FrameFile:
    """A packed set of frames open for reading, slice by slice, without the rest of it in memory.

    Facts, categories and the atom counts of all frames are read at once; the identity is not verified.

    Args:
        path: the file.

    Raises:
        ValueError: no such file; not HDF5, or truncated; another format or a newer schema; something
            missing or malformed.
    """

    name: str
    level: str
    licence: str
    source: str
    identity: str

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"{self.path}: no such file")
        with _errors_of(self.path):
            self._file = h5py.File(self.path, "r")
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def _open(self) -> None:
        file = self._file
        stated = file.attrs.get("format")
        if stated != FORMAT:
            raise ValueError(f"not a packed set of frames: format is {stated!r}, expected {FORMAT!r}")
        schema = file.attrs["schema"]
        if schema != SCHEMA:
            hint = "; it was written by a newer sfumato: upgrade" if schema > SCHEMA else ""
            raise ValueError(f"schema {schema} cannot be read, only schema {SCHEMA}{hint}")
        for key in ("name", "level", "licence", "source", "identity"):
            setattr(self, key, str(file.attrs[key]))
        self.provenance: dict[str, Any] = json.loads(file["provenance"].asstr()[()])
        self.offsets = file["frame/offset"][:]
        self.counts = np.diff(self.offsets)
        self.molecule, self.subset, self.split = (self._category(key) for key in CATEGORIES)
        rows = {key: len(file[f"atom/{key}"]) for key in ("numbers", "positions", "forces")}
        if self.offsets[:1] != [0] or (self.counts < 0).any() or set(rows.values()) != {self.offsets[-1]}:
            raise ValueError(f"frame/offset does not divide the rows of atom/*: {rows}")

    def _category(self, key: str) -> Category:
        names = tuple(self._file[f"{key}/names"].asstr()[:])
        return Category(names, self._file[f"{key}/codes"][:])

    def __len__(self) -> int:
        return len(self.counts)

    def read(self, start: int = 0, stop: int | None = None) -> tuple[Batch, Prediction]:
        """Read consecutive frames.

        Args:
            start: first frame.
            stop: the frame after the last one; the end of the file if not given.

        Returns:
            The structures and their labels.

        Raises:
            ValueError: a slice that is not within the file, or a damaged part of it.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"{self.path}: frames {start} to {stop} of {len(self)} do not exist")
        with _errors_of(self.path):
            return self._slice(slice(start, stop))

    def _slice(self, s: slice) -> tuple[Batch, Prediction]:
        file, frames = self._file, s.stop - s.start
        a = slice(int(self.offsets[s.start]), int(self.offsets[s.stop]))
        periodic = "frame/cell" in file
        batch = Batch(
            numbers=file["atom/numbers"][a],
            positions=file["atom/positions"][a],
            index=np.repeat(np.arange(frames), self.counts[s]),
            cell=file["frame/cell"][s] if periodic else np.zeros((frames, 3, 3)),
            pbc=file["frame/pbc"][s] if periodic else np.zeros((frames, 3), dtype=bool),
            charge=file["frame/charge"][s],
            multiplicity=file["frame/multiplicity"][s],
        )
        stress = file["frame/stress"][s] if "frame/stress" in file else None
        return batch, Prediction(file["frame/energy"][s], file["atom/forces"][a], stress)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_frame_set(path: str | Path) -> FrameSet:
    """Read a packed set of frames and verify that its contents are what was written.

    Args:
        path: the file.

    Returns:
        The frames and their facts.

    Raises:
        ValueError: what `FrameFile` raises, or contents that differ from the identity the file states.
    """
    path = Path(path)
    with FrameFile(path) as file:
        batch, labels = file.read()
        with _errors_of(path):
            frames = FrameSet(
                name=file.name,
                level=file.level,
                licence=file.licence,
                source=file.source,
                batch=batch,
                labels=labels,
                molecule=file.molecule,
                subset=file.subset,
                split=file.split,
                provenance=file.provenance,
            )
    if frames.identity != file.identity:
        raise ValueError(
            f"{path}: the contents are not those that were written: the file states identity "
            f"{file.identity}, its arrays have {frames.identity}; fetch or build it again"
        )
    return frames
