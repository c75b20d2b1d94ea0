"""A few records out of a large file, and what its content is called, without reading all of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfumato.execution.records import Record, RecordError, parsed

PIECE = 1 << 20
"""Bytes read at once."""

START = b'{"key": "'
"""How the line of a record begins."""

DIGITS = 16
"""Of a key that an index holds, in hexadecimal."""


def digest_of(path: Path) -> str:
    """Return the SHA-256 of the intact lines of a record file; what follows the last newline does not count.

    Raises:
        OSError: it cannot be read.
    """
    sha, rest = hashlib.sha256(), b""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            end = piece.rfind(b"\n") + 1
            if end:
                sha.update(rest)
                sha.update(memoryview(piece)[:end])
                rest = b""
            rest += piece[end:]
    return sha.hexdigest()


class Index(NamedTuple):
    """Where each record of a file is.

    Attributes:
        heads: (n,) the beginnings of keys, in ascending order.
        starts: (n,) where the line of each begins; of two of one key the later one comes later.
    """

    heads: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, path: Path) -> Index:
        """Read a file.

        Raises:
            OSError: it cannot be read.
        """
        heads, starts, place = [], [], 0
        end = len(START) + DIGITS
        with path.open("rb", buffering=PIECE) as file:
            for line in file:
                if line.startswith(START):
                    with suppress(ValueError):
                        heads.append(int(line[len(START) : end], 16))
                        starts.append(place)
                place += len(line)
        order = np.argsort(np.array(heads, dtype=np.uint64), kind="stable")
        return cls(np.array(heads, dtype=np.uint64)[order], np.array(starts, dtype=np.int64)[order])

    def place(self, key: str) -> int:
        """Return where the last line of a key begins; some place if there is none."""
        k = int(np.searchsorted(self.heads, np.uint64(int(key[:DIGITS], 16)), side="right")) - 1
        return int(self.starts[k]) if len(self.starts) else 0

    def text(self) -> list[str]:
        """Return the index in JSON types."""
        return [
            base64.b64encode(part.astype("<i8").tobytes()).decode()
            for part in (self.heads.view(np.int64), self.starts)
        ]

    @classmethod
    def from_text(cls, text: Sequence[str]) -> Index:
        """Return what `text` gave."""
        heads, starts = (np.frombuffer(base64.b64decode(part), dtype="<i8") for part in text)
        return cls(heads.view(np.uint64), starts)


def look_up(path: Path, keys: Sequence[str], index: Index) -> list[Record]:
    """Return the records of some keys; of two records of one key the later one counts.

    Args:
        path: of a record file that was read before.
        keys: that it had then.
        index: of it, as it was then.

    Raises:
        RecordError: a key is missing, or its line is damaged.
        OSError: the file cannot be read.
    """
    records = []
    with path.open("rb") as file:
        for key in keys:
            file.seek(index.place(key))
            try:
                record = parsed(file.readline())
            except (ValueError, KeyError, TypeError):
                record = {}
            if record.get("key") != key:
                raise RecordError(f"{path}: the record {key[:16]} is damaged or gone; read the run again")
            records.append(record)
    return records
