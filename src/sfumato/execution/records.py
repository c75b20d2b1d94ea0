"""Append-only record files: one JSON line per finished item, keyed by content, safe against any kill.

The first line is a header that says what made the records (job, version, subject). A file whose
header differs from what is asked for is refused: records of other weights are never mixed.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

SCHEMA = 2
"""Since 2, every line ends with a digest of what stands before it. Files of 1 are continued as they are."""

FIRST = b'{"sfumato-records": '
"""How every record file begins."""

MEMBER = b', "sha": "'
"""What the digest at the end of a line is called."""

ADVICE = "Restore the file, or move it away to start again."

DIGITS = 12
"""Of SHA-256, in hexadecimal, at the end of a line."""

LONGEST_REASON, LONGEST_TRACEBACK = 1000, 8000
"""Characters that a record keeps."""

NO_LOCKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}
"""How file systems say that they lock no files, or that they cannot wait for a disk."""

Record = dict[str, Any]
Floats = NDArray[np.float64]


class RecordError(ValueError):
    """A record file is damaged, in use, or belongs to other settings."""


def encode(array: Floats) -> dict[str, Any]:
    """Return a float array as JSON: shape and base64 of its little-endian float64 bytes (bit-exact)."""
    little = np.asarray(array, dtype="<f8")
    return {"shape": list(little.shape), "f8": base64.b64encode(little.tobytes()).decode()}


def decode(value: Any) -> Floats:
    """Return the array that `encode` stored.

    Raises:
        RecordError: it stored nothing of this kind.
    """
    try:
        if not all(type(length) is int and length >= 0 for length in value["shape"]):
            raise ValueError("a shape is a list of lengths")
        stored = base64.b64decode(value["f8"], validate=True)
        return np.frombuffer(stored, dtype="<f8").reshape(value["shape"])
    except (ValueError, TypeError, KeyError, OverflowError):
        raise RecordError(f"damaged record: {_short(repr(value), 60)} is not an array") from None


def number(record: Record, name: str) -> float:
    """Return a finite number of a record.

    Raises:
        RecordError: there is none of this name.
    """
    value: Any = record.get(name)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise _damaged(record, name, "is not a finite number")
    return float(value)


def array(record: Record, name: str, shape: tuple[int | None, ...]) -> Floats:
    """Return an array of a record.

    Args:
        record: as it was read.
        name: of the array.
        shape: that it must have; None where any length will do.

    Raises:
        RecordError: there is none of this name and shape.
    """
    try:
        value = decode(record.get(name))
    except RecordError:
        raise _damaged(record, name, "is not an array") from None
    if len(value.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape)):
        wanted = tuple("any" if length is None else length for length in shape)
        raise _damaged(record, name, f"has the shape {value.shape}, not {wanted}".replace("'", ""))
    return value


def texts(record: Record, name: str) -> list[str]:
    """Return a list of words of a record.

    Raises:
        RecordError: there is none of this name.
    """
    value: Any = record.get(name)
    if type(value) is not list or not all(type(word) is str for word in value):
        raise _damaged(record, name, "is not a list of words")
    return value


def _damaged(record: Record, name: str, what: str) -> RecordError:
    return RecordError(
        f"damaged record {str(record.get('key'))[:16]}: {name!r} {what}. Restore the file, or move it away."
    )


def ok(key: str, *, seconds: float, **values: Any) -> Record:
    """Return the record of a finished item."""
    return {"key": key, "status": "ok", "seconds": round(seconds, 6), **values}


def failed(key: str, reason: str, *, seconds: float = 0.0, traceback: str = "") -> Record:
    """Return the record of an item that could not be finished, with its reason; both texts are bounded."""
    reason = _short(reason, LONGEST_REASON)
    record = {"key": key, "status": "failed", "seconds": round(seconds, 6), "reason": reason}
    return record | ({"traceback": traceback[-LONGEST_TRACEBACK:]} if traceback else {})


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def _sealed(content: dict[str, Any]) -> bytes:
    """Return a line of a file: the content, and a digest of it as the last member."""
    text = json.dumps(content).encode()
    return b'%s%s%s"}\n' % (text[:-1], MEMBER, _digest(text))


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:DIGITS].encode()


def _unsealed(line: bytes, required: bool) -> tuple[Any, bool]:
    """Return the content of a line, and whether it had a digest.

    Raises:
        ValueError: it is damaged.
    """
    text, member, digest = line[:-2].rpartition(MEMBER)
    if not member or len(digest) != DIGITS:
        if required:
            raise ValueError("its digest is missing")
        return _loads(line), False
    text += b"}"
    if digest + b'"}' != _digest(text) + line[-2:]:
        raise ValueError("its digest differs")
    return _loads(text), True


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


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
        return _sealed({"sfumato-records": SCHEMA, **self.__dict__})

    @classmethod
    def parse(cls, line: bytes, path: Path) -> Header:
        """Read the first line of a file.

        Raises:
            RecordError: it is not a header, is damaged, or of a later version.
        """
        try:
            facts = _loads(line)
            schema = facts.pop("sfumato-records")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise RecordError(f"{path}: not a record file (its first line is not a header)") from None
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            raise RecordError(f"{path}: record schema {schema}; this version of sfumato reads up to {SCHEMA}")
        try:
            facts.pop("sha", None)
            _unsealed(line, required=schema > 1)
        except ValueError as error:
            raise RecordError(f"{path}, line 1: damaged header ({error}). {ADVICE}") from None
        if "protocol" in facts:  # written by version 0.1.0
            facts["job"] = facts.pop("protocol")
        kinds = {"job": str, "version": int, "subject": str, "identity": str, "provenance": dict}
        if facts.keys() != kinds.keys() or not all(type(facts[k]) is kind for k, kind in kinds.items()):
            raise RecordError(f"{path}, line 1: damaged header (expected {', '.join(kinds)}). {ADVICE}")
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
        return Header.parse(file.readline().removesuffix(b"\n"), path)


def read_records(path: Path) -> tuple[Header, dict[str, Record]]:
    """Return a record file's header and its records by key; of two records of one key the later one counts.

    A last line without its newline is what a kill leaves behind, and is dropped.

    Raises:
        RecordError: no header, or a damaged line anywhere but at the end.
    """
    with path.open("rb", buffering=1 << 20) as file:
        header, records, _ = _read(path, file)
    return header, records


_NUMBER = rb"(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:e[-+][0-9]+)?|e[-+][0-9]+))"

_EVALUATED = re.compile(
    rb'\{"key": "([0-9a-f]{64})", "status": "ok", "seconds": %s, "energy": %s, '
    rb'"forces": \{"shape": \[([1-9][0-9]{0,8}), 3\], "f8": "' % (_NUMBER, _NUMBER)
)
"""How nearly all lines begin; what follows is forces in base64, and the digest."""

_AFTER = 4 + len(MEMBER) + DIGITS
"""Bytes after the forces: two braces, quotes and the digest."""


def _evaluated(line: bytes) -> Record | None:
    """Return the record of a line with energy and forces as `_sealed` writes it; None for any other line.

    The same as `_unsealed` gives in a third of the time: forces are not read character by character.
    """
    start = _EVALUATED.match(line)
    if start is None or line[-_AFTER:] != b'"}' + MEMBER + _digest(line[: 2 - _AFTER] + b"}") + b'"}':
        return None
    forces = line[start.end() : -_AFTER]
    seconds = float(start[2])
    if b'"' in forces or b"\\" in forces or not forces.isascii() or not math.isfinite(seconds):
        return None
    return {
        "key": start[1].decode(),
        "status": "ok",
        "seconds": seconds,
        "energy": float(start[3]),
        "forces": {"shape": [int(start[4]), 3], "f8": forces.decode()},
    }


def _read(path: Path, file: Iterable[bytes]) -> tuple[Header, dict[str, Record], int]:
    """Header, records, and the length in bytes of the intact part of a file, given line by line."""
    lines = iter(file)
    first = next(lines, b"")
    if not first.endswith(b"\n"):
        raise RecordError(f"{path}: not a record file (no complete header line)")
    header = Header.parse(first[:-1], path)
    sealed, intact = MEMBER in first[-41:], len(first)
    records: dict[str, Record] = {}
    for number, whole in enumerate(lines, start=2):
        if not whole.endswith(b"\n"):
            break
        intact += len(whole)
        line = whole[:-1]
        if (quick := _evaluated(line)) is not None:
            records[quick["key"]], sealed = quick, True
            continue
        try:
            record, sealed = _checked(line, required=sealed)
        except (ValueError, KeyError, TypeError) as error:
            what = str(error) if type(error) is ValueError else "not a record"
            raise RecordError(
                f"{path}, line {number}: damaged record ({what}). Only an unfinished last line is expected "
                f"after a kill. {ADVICE}"
            ) from None
        records[record["key"]] = record
    return header, records, intact


def parsed(line: bytes) -> Record:
    """Return the record of one line of a file, with its newline.

    Raises:
        ValueError, TypeError, KeyError: it is damaged.
    """
    whole = line.removesuffix(b"\n")
    return _evaluated(whole) or _checked(whole, required=False)[0]


def _checked(line: bytes, required: bool) -> tuple[Record, bool]:
    """Return what `_unsealed` returns, if it is a record."""
    record, sealed = _unsealed(line, required)
    _require_form(record)
    return record, sealed


def _require_form(record: Any) -> None:
    """Raise ValueError, TypeError or KeyError unless this is a record."""
    if type(record["key"]) is not str or record["status"] not in ("ok", "failed"):
        raise ValueError("neither ok nor failed")
    seconds = record["seconds"]
    if type(seconds) not in (int, float) or not math.isfinite(seconds):
        raise ValueError("'seconds' is not a number")
    if record["status"] == "failed" and type(record["reason"]) is not str:
        raise ValueError("failed without a reason")


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

    Args:
        path: of the file.
        header: what makes the records.
        fresh: rename what is there to NAME.old-1 (or -2, …) and begin anew.

    Attributes:
        header: as given.
        records: what is there, by key.
        locked: False where the file system has no locks, so that nothing keeps another run from writing here.

    Raises:
        RecordError: the file belongs to other settings, is damaged, or another process is writing to it.
    """

    def __init__(self, path: Path, header: Header, fresh: bool = False) -> None:
        self.path, self.header = path, header
        path.parent.mkdir(parents=True, exist_ok=True)
        self.locked = True
        self._file = self._open()
        try:
            if fresh and path.stat().st_size:
                _set_aside(path)
                self._file.close()
                self._file = self._open()
            self.records = self._resume(header)
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> FileIO:
        """Open the file and keep others from writing to it."""
        file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by `close`)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise self._busy(error) from None
            self.locked = False
        return file

    def _busy(self, error: OSError) -> Exception:
        if not isinstance(error, BlockingIOError):
            return OSError(error.errno, f"cannot be locked: {error.strerror}", str(self.path))
        return RecordError(
            f"{self.path}: another run is writing to this file. Wait for it, or choose another --out."
        )

    def _resume(self, header: Header) -> dict[str, Record]:
        data = self.path.read_bytes()
        if b"\n" not in data and FIRST[: len(data)] == data[: len(FIRST)]:  # new, or ended in its first line
            os.truncate(self.path, 0)
            self._file.write(line := header.line())
            self._content = hashlib.sha256(line)
            self.sync()
            return {}
        present, records, intact = _read(self.path, io.BytesIO(data))
        present.require(header, self.path)
        os.truncate(self.path, intact)
        self._content = hashlib.sha256(memoryview(data)[:intact])
        return records

    @property
    def digest(self) -> str:
        """SHA-256 of all lines that are there, as `lookup.digest_of` reads it from the file."""
        return self._content.hexdigest()

    def append(self, records: Iterable[Record]) -> None:
        """Add records, all of them or, where the disk is full or the file is gone (OSError), none."""
        records = list(records)
        rest = lines = b"".join(map(_sealed, records))
        length = self._length()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            os.truncate(self.path, length)
            raise self._full(error) from None
        self._content.update(lines)
        self.records.update({record["key"]: record for record in records})

    def _length(self) -> int:
        """The bytes in the file, which must still be there."""
        facts = os.fstat(self._file.fileno())
        if not facts.st_nlink:
            raise OSError(errno.ENOENT, "was removed while a run was writing to it", str(self.path))
        return facts.st_size

    def sync(self) -> None:
        """Wait until everything appended is on disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno not in NO_LOCKS:
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
