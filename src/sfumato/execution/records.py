"""Append-only record files: one JSON line per finished item, keyed by content, safe against any kill.

The first line is a header that says what made the records (job, version, subject). A file whose
header differs from what is asked for is refused: records of other weights are never mixed.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SCHEMA = 1

Record = dict[str, Any]


class RecordError(ValueError):
    """A record file is damaged, in use, or belongs to other settings."""


def encode(array: NDArray[np.float64]) -> dict[str, Any]:
    """Return a float array as JSON: shape and base64 of its little-endian float64 bytes (bit-exact)."""
    little = np.asarray(array, dtype="<f8")
    return {"shape": list(little.shape), "f8": base64.b64encode(little.tobytes()).decode()}


def decode(value: dict[str, Any]) -> NDArray[np.float64]:
    """Return the array that `encode` stored."""
    return np.frombuffer(base64.b64decode(value["f8"]), dtype="<f8").reshape(value["shape"])


def ok(key: str, *, seconds: float, **values: Any) -> Record:
    """Return the record of a finished item."""
    return {"key": key, "status": "ok", "seconds": round(seconds, 6), **values}


def failed(key: str, reason: str, *, seconds: float = 0.0, traceback: str = "") -> Record:
    """Return the record of an item that could not be finished, with its reason."""
    record = {"key": key, "status": "failed", "seconds": round(seconds, 6), "reason": reason}
    return record | ({"traceback": traceback} if traceback else {})


@dataclass(frozen=True)
class Header:
    """What made the records of a file.

    Args:
        job: for example "evaluate"; in files of version 0.1.0 the protocol.
        version: of the job; versions are added, never edited.
        subject: name of the model or engine.
        identity: SHA-256 of the subject's weights and settings.
        provenance: package versions, host facts; informative, not compared.
    """

    job: str
    version: int
    subject: str
    identity: str
    provenance: dict[str, Any] = field(default_factory=dict)

    def line(self) -> bytes:
        """The header as the first line of a file."""
        facts = {"sfumato-records": SCHEMA, **self.__dict__}
        return (json.dumps(facts) + "\n").encode()

    @classmethod
    def parse(cls, line: bytes, path: Path) -> Header:
        """Read the first line of a file."""
        try:
            facts = json.loads(line)
            schema = facts.pop("sfumato-records")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RecordError(f"{path}: not a record file (its first line is no header)") from None
        if schema != SCHEMA:
            raise RecordError(f"{path}: record schema {schema}; this version of sfumato reads {SCHEMA}")
        if "protocol" in facts:  # written by version 0.1.0
            facts["job"] = facts.pop("protocol")
        kinds = {"job": str, "version": int, "subject": str, "identity": str, "provenance": dict}
        if facts.keys() != kinds.keys() or not all(isinstance(facts[k], kind) for k, kind in kinds.items()):
            raise RecordError(f"{path}: damaged header: expected {', '.join(kinds)}")
        return cls(**facts)

    def require(self, expected: Header, path: Path) -> None:
        """Raise if the file was made by another protocol version or another subject."""
        if self.identity != expected.identity:
            raise RecordError(
                f"{path}: the model changed since these records were made ({self.identity[:8]} then, "
                f"{expected.identity[:8]} now); --fresh starts anew, NAME=SPEC keeps both"
            )
        for what in ("job", "version", "subject"):
            present, wanted = getattr(self, what), getattr(expected, what)
            if present != wanted:
                raise RecordError(
                    f"{path} holds records of another {what}: {present}, not {wanted}. "
                    "Choose another --out, or move the file away to start again."
                )


def read_header(path: Path) -> Header:
    """Return the header of a record file.

    Raises:
        RecordError: it has none.
    """
    with path.open("rb") as file:
        return Header.parse(file.readline(), path)


def read_records(path: Path) -> tuple[Header, dict[str, Record]]:
    """Return a record file's header and its records by key; of two records of one key the later one counts.

    A last line without its newline is what a kill leaves behind, and is dropped.

    Raises:
        RecordError: no header, or a damaged line anywhere but at the end.
    """
    header, records, _ = _read(path)
    return header, records


def _read(path: Path) -> tuple[Header, dict[str, Record], int]:
    """Header, records, and the length in bytes of the intact part of the file."""
    data = path.read_bytes()
    intact = data.rfind(b"\n") + 1
    lines = data[:intact].split(b"\n")[:-1]
    if not lines:
        raise RecordError(f"{path}: not a record file (no complete header line)")
    header = Header.parse(lines[0], path)
    records: dict[str, Record] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = json.loads(line)
            records[record["key"]] = record
        except (ValueError, KeyError, TypeError):
            raise RecordError(
                f"{path}, line {number}: damaged record. Only an unfinished last line is expected after a "
                "kill; restore the file, or move it away to start again."
            ) from None
    return header, records, intact


def _set_aside(path: Path) -> None:
    """Rename a file to the first free of NAME.old-1, NAME.old-2, …"""
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(aside)


class RecordFile:
    """A record file open for appending by one process.

    Opening creates the file with its header, or checks the header of an existing one, drops an unfinished
    last line, and reads what is there. `append` hands lines to the operating system at once, so that a killed
    process loses nothing it appended; `sync` puts them on disk.

    Raises:
        RecordError: the file belongs to other settings, is damaged, or another process is writing to it.
    """

    def __init__(self, path: Path, header: Header, fresh: bool = False) -> None:
        self.path, self.header = path, header
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh and path.exists():
            _set_aside(path)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)
        try:
            self._lock()
            self.records = self._resume(header)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordError(
                f"{self.path}: another run is writing to this file. Wait for it, or choose another --out."
            ) from None

    def _resume(self, header: Header) -> dict[str, Record]:
        if b"\n" not in self.path.read_bytes()[:65536]:
            os.truncate(self.path, 0)
            self._file.write(header.line())
            self.sync()
            return {}
        found, records, intact = _read(self.path)
        found.require(header, self.path)
        os.truncate(self.path, intact)
        return records

    def append(self, records: Iterable[Record]) -> None:
        """Add records, all of them or, where the disk is full (OSError), none."""
        records = list(records)
        rest = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        length = os.fstat(self._file.fileno()).st_size
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            os.truncate(self.path, length)
            raise self._full(error) from None
        self.records.update({record["key"]: record for record in records})

    def sync(self) -> None:
        """Wait until everything appended is on disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from None

    def _full(self, error: OSError) -> OSError:
        advice = "all that finished before is kept; make room, then run the same command again"
        return OSError(error.errno, f"{error.strerror}; {advice}", str(self.path))

    def close(self) -> None:
        """Sync and close."""
        self.sync()
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
