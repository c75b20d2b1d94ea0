"""A packed set of labeled frames: one HDF5 file of ragged flat arrays, read whole or slice by slice.

Frame s has the rows `frame/offset[s:s+2]` of `atom/*`; positions and forces are float32, energies float64.
Categories are codes with their names beside them. Level of theory, licence, source and the identity that
proves the numbers intact are attributes of the file; cells are there only if any frame has one. A set too
large for memory is written in pieces by `FrameWriter` and read in slices by `FrameFile`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sfumato.files import write_atomically
from sfumato.frames import (
    COLUMNS,
    Category,
    Column,
    FrameSet,
    check_categories,
    check_labels,
    frames_identity,
)
from sfumato.io.hdf5 import errors_of, open_file, require_rows
from sfumato.systems import Batch, Prediction

if TYPE_CHECKING:
    import h5py

FORMAT = "sfumato-frames"
SCHEMA = 1
CATEGORIES = ("molecule", "subset", "split")

CHUNK_ROWS = 8192
"""Rows that are packed together: small enough to read a slice cheaply, large enough to compress."""


HASHED_ROWS = 1 << 18
"""Rows that are in memory at once while a file is hashed."""

STORED = {
    "energy": ("frame", "<f8", ()),
    "charge": ("frame", "<i4", ()),
    "multiplicity": ("frame", "<i4", ()),
    "cell": ("frame", "<f8", (3, 3)),
    "pbc": ("frame", "u1", (3,)),
    "stress": ("frame", "<f8", (3, 3)),
    "numbers": ("atom", "u1", ()),
    "positions": ("atom", "<f4", (3,)),
    "forces": ("atom", "<f4", (3,)),
}
"""Where each array lies in the file, its type and the shape of one row."""

OPTIONAL = ("cell", "pbc", "stress")


def write_frame_set(path: str | Path, frames: FrameSet) -> None:
    """Write a set of labeled frames to one file, whole or not at all.

    Args:
        path: the file, replaced if it exists.
        frames: the frames and their facts.

    Raises:
        ValueError: a folder that does not exist, or provenance that JSON cannot express.
    """
    facts = {key: getattr(frames, key) for key in ("name", "level", "licence", "source", "absent")}
    with writing_frames(path, **facts) as writer:
        writer.append(frames.batch, frames.labels)
        writer.finish(frames.molecule, frames.subset, frames.split, frames.provenance)


@contextmanager
def writing_frames(
    path: str | Path, *, name: str, level: str, licence: str, source: str, absent: Sequence[str] = ()
) -> Iterator[FrameWriter]:
    """Write a set of frames piece by piece; the file appears whole when the block ends, or not at all.

    Args:
        path: the file, replaced if it exists.
        name: short name of the set.
        level: level of theory.
        licence: SPDX identifier or the owner's words.
        source: who made it.
        absent: labels that some frames lack.

    Yields:
        The writer, of which `finish` must have been called when the block ends.

    Raises:
        ValueError: a folder that does not exist, an empty fact, or a writer that was not finished.
    """
    import h5py

    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")
    facts = {"name": name, "level": level, "licence": licence, "source": source}
    for key in ("name", "level", "licence"):
        if not facts[key]:
            raise ValueError(f"frame set {name!r}: {key} must not be empty")
    with write_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = FORMAT
        file.attrs["schema"] = SCHEMA
        file.attrs.update(facts)
        if absent:
            file.attrs["absent"] = list(absent)
        writer = FrameWriter(file, tuple(absent), f"frame set {name!r}: ")
        yield writer
        if "identity" not in file.attrs:
            raise ValueError(f"frame set {name!r}: finish() was not called, nothing is written")


class FrameWriter:
    """A packed set of frames being written: `append` as often as needed, then `finish` once.

    Args:
        file: open for writing, its facts in place.
        absent: labels that some frames lack.
        what: words to put before an error.
    """

    def __init__(self, file: h5py.File, absent: tuple[str, ...], what: str) -> None:
        self._file = file
        self._absent = absent
        self._what = what
        self._ends = [np.zeros(1, dtype=np.int64)]
        self.frames = 0
        self.atoms = 0
        for key in STORED:
            if key not in OPTIONAL:
                self._dataset(key)

    def _dataset(self, key: str) -> h5py.Dataset:
        place, dtype, shape = STORED[key]
        rows = self.frames if place == "frame" else self.atoms
        return self._file.create_dataset(
            f"{place}/{key}",
            shape=(rows, *shape),  # what was written before without it reads as zeros
            dtype=dtype,
            maxshape=(None, *shape),
            chunks=(CHUNK_ROWS, *shape),
            compression="gzip",
            compression_opts=4,
            shuffle=True,
        )

    def append(self, batch: Batch, labels: Prediction) -> None:
        """Write some more frames.

        Args:
            batch: the structures; positions are float32 numbers.
            labels: of them; all appended labels have a stress, or none has.

        Raises:
            ValueError: labels that do not fit the structures, are not finite or appear halfway.
        """
        check_labels(batch, labels, self._absent, self._what)
        if self.frames and (labels.stress is None) == ("frame/stress" in self._file):
            raise ValueError(f"{self._what}a stress must be appended with all frames or with none")
        arrays = {key: getattr(batch if hasattr(batch, key) else labels, key) for key in STORED}
        if not (batch.pbc.any() or batch.cell.any() or "frame/cell" in self._file):
            del arrays["cell"], arrays["pbc"]
        for key, values in arrays.items():
            if values is None or not len(values):
                continue
            place = STORED[key][0]
            data = self._file[f"{place}/{key}"] if f"{place}/{key}" in self._file else self._dataset(key)
            data.resize(len(data) + len(values), axis=0)
            data[-len(values) :] = values
        self._ends.append(batch.offsets[1:] + self.atoms)
        self.frames += len(batch)
        self.atoms += len(batch.numbers)

    def finish(
        self, molecule: Category, subset: Category, split: Category, provenance: dict[str, Any]
    ) -> str:
        """Write what is known of all frames together, and the identity.

        Args:
            molecule: of each frame.
            subset: of each frame.
            split: of each frame.
            provenance: everything else that made the set (JSON types only).

        Returns:
            The identity, as of a `FrameSet` of the same frames.

        Raises:
            ValueError: categories that do not fit, or provenance that JSON cannot express.
        """
        import h5py

        check_categories(molecule, subset, split, self.frames, self._what)
        try:
            text = json.dumps(provenance, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._what}provenance is not JSON: {error}") from None
        file = self._file
        file["provenance"] = text  # an attribute may not exceed 64 KiB
        file.create_dataset(
            "frame/offset", data=np.concatenate(self._ends).astype("<i8"), compression="gzip", shuffle=True
        )
        for key, category in zip(CATEGORIES, (molecule, subset, split)):
            names = list(category.names)
            file.create_dataset(f"{key}/names", data=names, shape=(len(names),), dtype=h5py.string_dtype())
            codes = category.codes.astype("<i4")
            file.create_dataset(
                f"{key}/codes", data=codes, maxshape=(None,), compression="gzip", shuffle=True
            )
        identity = _identity(file, (molecule, subset, split))
        file.attrs["identity"] = identity
        return identity


def _identity(file: h5py.File, categories: Sequence[Category]) -> str:
    """Return the identity of what lies in a file, of which only a piece is in memory at a time."""
    frames, atoms = len(file["frame/energy"]), len(file["atom/numbers"])

    def column(key: str) -> Column | None:
        if key == "offsets":
            return Column.of(file["frame/offset"][:])
        place, dtype, row = STORED[key]
        rows = frames if place == "frame" else atoms
        here = f"{place}/{key}" in file
        if key == "stress" and not here:
            return None
        steps = range(0, rows, HASHED_ROWS)
        cuts = [slice(k, min(k + HASHED_ROWS, rows)) for k in steps]
        pieces = (
            file[f"{place}/{key}"][cut] if here else np.zeros((cut.stop - cut.start, *row), dtype)
            for cut in cuts
        )
        return Column((rows, *row), pieces)

    return frames_identity(str(file.attrs["level"]), {key: column(key) for key in COLUMNS}, categories)


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
        self.path = Path(path)
        with errors_of(self.path):
            self._file = open_file(self.path)
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
        self.absent = tuple(str(key) for key in file.attrs.get("absent", ()))
        self.provenance: dict[str, Any] = json.loads(file["provenance"].asstr()[()])
        frames, atoms = len(file["frame/energy"]), len(file["atom/numbers"])
        require_rows(file, "frame", frames + 1, ("offset",))
        for place, rows in (("frame", frames), ("atom", atoms)):
            require_rows(file, place, rows, tuple(key for key, row in STORED.items() if row[0] == place))
        for key in CATEGORIES:
            require_rows(file, key, frames, ("codes",))
        self.offsets = file["frame/offset"][:]
        self.counts = np.diff(self.offsets)
        self.molecule, self.subset, self.split = (self._category(key) for key in CATEGORIES)
        if self.offsets[0] != 0 or (self.counts < 0).any() or self.offsets[-1] != atoms:
            raise ValueError(f"frame/offset does not divide the {atoms} rows of atom/*")

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
        arrays = self.arrays(start, stop)
        frames = stop - start
        with errors_of(self.path):
            batch = Batch(
                numbers=arrays["numbers"],
                positions=arrays["positions"],
                index=np.repeat(np.arange(frames), self.counts[start:stop]),
                cell=arrays.get("cell", np.zeros((frames, 3, 3))),
                pbc=arrays.get("pbc", np.zeros((frames, 3), dtype=bool)),
                charge=arrays["charge"],
                multiplicity=arrays["multiplicity"],
            )
            return batch, Prediction(arrays["energy"], arrays["forces"], arrays.get("stress"))

    def arrays(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return consecutive frames as the arrays of `STORED`, in the types in which they are stored.

        Args:
            start: first frame.
            stop: the frame after the last one.

        Returns:
            By name; cell, pbc and stress only if the file has them.

        Raises:
            ValueError: a slice that is not within the file, or a damaged part of it.
        """
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"{self.path}: frames {start} to {stop} of {len(self)} do not exist")
        atoms = slice(int(self.offsets[start]), int(self.offsets[stop]))
        rows = {"frame": slice(start, stop), "atom": atoms}
        with errors_of(self.path):
            return {
                key: self._file[f"{place}/{key}"][rows[place]]
                for key, (place, _, _) in STORED.items()
                if key not in OPTIONAL or f"{place}/{key}" in self._file
            }

    def verify(self) -> None:
        """Check, with little memory, that the contents are what was written.

        Raises:
            ValueError: they are not, or the file is damaged.
        """
        with errors_of(self.path):
            found = _identity(self._file, (self.molecule, self.subset, self.split))
        _check_identity(self.path, self.identity, found)

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
        with errors_of(path):
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
                absent=file.absent,
            )
    _check_identity(path, file.identity, frames.identity)
    return frames


def _check_identity(path: Path, stated: str, found: str) -> None:
    if found != stated:
        raise ValueError(
            f"{path}: the contents are not those that were written: the file states identity "
            f"{stated}, its arrays have {found}; fetch or build it again"
        )
