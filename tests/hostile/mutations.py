"""Seeded damage: bits, bytes, lines and words, and the parts of JSON, HDF5, npz, safetensors and tar files.

Every function takes the contents of a file and a random generator, and returns other contents.
"""

from __future__ import annotations

import copy
import io
import json
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zstandard

from sfumato.execution.records import _sealed

Mutation = Callable[[bytes, np.random.Generator], bytes]

NUMBERS = (-1, 0, 1, 2, 1.5, -1.5, 1e9, 1e308, 10**12, 2**31, 2**63, float("nan"), float("inf"), -0.0)
WORDS = (
    "",
    " ",
    "nan",
    "inf",
    "1.0",
    "true",
    "null",
    "None",
    "~",
    "D",
    "X",
    "Uuo",
    "../../escaped",
    "/dev/null",
    "a" * 100_000,
    "[/red]",
    "=HYPERLINK(1)",
    "\x00",
    "\x1b[2J",
    "\u2603",
    "\ud800",
    "%s%s%n",
    "{0}",
    "-",
    "*",
    "&a",
    "!!python/object:os.system",
    "1e999",
    "0x10",
    "1_000",
    "Infinity",
)
DEEP = "[" * 20_000 + "]" * 20_000


def pick(rng: np.random.Generator, things: Any) -> Any:
    return things[int(rng.integers(len(things)))]


def place(rng: np.random.Generator, data: bytes) -> int:
    return int(rng.integers(max(1, len(data))))


# --- bytes ---------------------------------------------------------------------------------------


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one bit, not in the last byte, whose loss is what a kill leaves behind."""
    damaged = bytearray(data)
    damaged[place(rng, data[:-1])] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: place(rng, data)]


def drop(data: bytes, rng: np.random.Generator) -> bytes:
    k = place(rng, data)
    return data[:k] + data[k + int(rng.integers(1, 65)) :]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    k = place(rng, data)
    part = data[k : k + int(rng.integers(1, 512))]
    return data[:k] + part * int(rng.integers(2, 5)) + data[k:]


def scribble(data: bytes, rng: np.random.Generator) -> bytes:
    k, n = place(rng, data), int(rng.integers(1, 65))
    return data[:k] + rng.bytes(n) + data[k + n :]


def zero(data: bytes, rng: np.random.Generator) -> bytes:
    k, n = place(rng, data), int(rng.integers(1, 513))
    return data[:k] + bytes(len(data[k : k + n])) + data[k + n :]


def integer(data: bytes, rng: np.random.Generator) -> bytes:
    """Put a large or negative integer in the place of some bytes."""
    width = pick(rng, (1, 2, 4, 8))
    value = pick(rng, (-1, 2**31 - 1, 2**30, 10**9, 10**12, 2**62, 0)) % 2 ** (8 * width)
    k = place(rng, data) // width * width
    return data[:k] + value.to_bytes(width, pick(rng, ("little", "big"))) + data[k + width :]


def replaced(data: bytes, rng: np.random.Generator) -> bytes:
    """Put another kind of file in its place."""
    return bytes(
        pick(
            rng,
            (
                b"",
                b"\x00",
                b"\n\n\n",
                b"PK\x05\x06" + bytes(18),
                b"\x89HDF\r\n\x1a\n" + bytes(64),
                b"\x80\x04cos\nsystem\n(S'true'\ntR.",
                b"\x28\xb5\x2f\xfd" + rng.bytes(40),
                b"\x1f\x8b\x08" + rng.bytes(40),
                b"\xff\xfe" + data[:400],
                DEEP.encode(),
                b"{}",
                b"[]",
                b"null",
                rng.bytes(2000),
                b"\xef\xbb\xbf" + data,
                data.replace(b"\n", b"\r\n"),
                data + data,
            ),
        )
    )


BYTES: tuple[Mutation, ...] = (flip, cut, drop, repeat, scribble, zero, integer, replaced)


# --- text ----------------------------------------------------------------------------------------


def word(data: bytes, rng: np.random.Generator) -> bytes:
    """Put something else in the place of a word or number."""
    places = [match.span() for match in re.finditer(rb"[\w.+-]+", data)] or [(0, len(data))]
    start, stop = pick(rng, places)
    new = pick(rng, WORDS) if rng.random() < 0.6 else repr(pick(rng, NUMBERS))
    return data[:start] + new.encode("utf-8", "surrogatepass") + data[stop:]


def lines(data: bytes, rng: np.random.Generator) -> bytes:
    """Drop, repeat, exchange, join or bury lines."""
    rows = data.splitlines(keepends=True) or [b""]
    i, j = place(rng, rows), place(rng, rows)  # type: ignore[arg-type]
    what = pick(rng, ("drop", "repeat", "exchange", "join", "empty", "bury", "indent"))
    if what == "drop":
        del rows[i]
    elif what == "repeat":
        rows.insert(j, rows[i])
    elif what == "exchange":
        rows[i], rows[j] = rows[j], rows[i]
    elif what == "join":
        rows[i] = rows[i].rstrip(b"\r\n") + b" "
    elif what == "empty":
        rows.insert(i, b"\n")
    elif what == "bury":
        rows.insert(i, b"x" * 200_000 + b"\n")
    else:
        rows[i] = b"\t  " + rows[i]
    return b"".join(rows)


def signs(data: bytes, rng: np.random.Generator) -> bytes:
    """Put another sign in the place of one that structures a text."""
    places = [match.start() for match in re.finditer(rb"[\[\]{}()\"':=,;#/|<>\s-]", data)] or [0]
    k = pick(rng, places)
    new = pick(
        rng, (b"", b"[", b"]", b"{", b"}", b'"', b"'", b":", b"=", b"#", b"\n", b"\t", b"\\", b"&a ", b"*a")
    )
    return data[:k] + new + data[k + 1 :]


TEXT: tuple[Mutation, ...] = (word, word, word, lines, lines, signs, flip, cut, drop, scribble, replaced)


# --- JSON ----------------------------------------------------------------------------------------


def thing(rng: np.random.Generator) -> Any:
    """Return any value that JSON has."""
    return pick(
        rng,
        (
            None,
            True,
            [],
            {},
            [[]],
            {"shape": [10**9], "f8": ""},
            {"shape": [-1], "f8": "AAAA"},
            pick(rng, NUMBERS),
            pick(rng, WORDS[:16]),
            str(pick(rng, NUMBERS)),
            [1] * 1000,
        ),
    )


def changed(value: Any, rng: np.random.Generator) -> Any:
    """Change one part of a JSON value, at any depth."""
    value = copy.deepcopy(value)
    parts: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        keys = (
            list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        )
        for key in keys:
            parts.append((inner, key))
            walk(inner[key])

    walk(value)
    if not parts or rng.random() < 0.02:
        return thing(rng)
    inner, key = pick(rng, parts)
    what = pick(rng, ("put", "put", "drop", "rename", "more", "exchange"))
    if what == "drop":
        del inner[key]
    elif what == "rename" and isinstance(inner, dict):
        inner[pick(rng, WORDS[:16])] = inner.pop(key)
    elif what == "more" and isinstance(inner, dict):
        inner[pick(rng, WORDS[:16])] = thing(rng)
    elif what == "exchange":
        other, its = pick(rng, parts)
        try:
            inner[key], other[its] = other[its], inner[key]
            json.dumps(value)
        except (KeyError, IndexError, ValueError, RecursionError):
            return thing(rng)
    else:
        inner[key] = thing(rng)
    return value


def tree(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a part of a JSON file."""
    return json.dumps(changed(json.loads(data), rng)).encode()


def record(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a part of a record and seal it anew, as someone would who wants it to be believed."""
    rows = data.splitlines()
    k = place(rng, rows)  # type: ignore[arg-type]
    content = json.loads(rows[k])
    content.pop("sha", None)
    found = changed(content, rng)
    rows[k] = (
        _sealed(found).rstrip(b"\n") if isinstance(found, dict) and found else json.dumps(found).encode()
    )
    return b"\n".join(rows) + b"\n"


def line(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a part of a line of a log."""
    rows = data.splitlines()
    k = place(rng, rows)  # type: ignore[arg-type]
    rows[k] = json.dumps(changed(json.loads(rows[k]), rng)).encode()
    return b"\n".join(rows) + b"\n"


JSON: tuple[Mutation, ...] = (tree, tree, tree, *TEXT)
RECORDS: tuple[Mutation, ...] = (
    record,
    record,
    record,
    flip,
    flip,
    flip,
    cut,
    lines,
    word,
    scribble,
    replaced,
)
LOG: tuple[Mutation, ...] = (line, line, line, *TEXT)


# --- HDF5 ----------------------------------------------------------------------------------------


def hdf5(data: bytes, rng: np.random.Generator) -> bytes:
    """Change an array, a group or an attribute."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            sets = [name for name in names if isinstance(file[name], h5py.Dataset)]
            if file.attrs and rng.random() < 0.2:
                _change_attribute(file, rng)
            elif rng.random() < 0.4:
                _change_values(file[pick(rng, sets)], rng)
            else:
                _change_array(file, pick(rng, sets if rng.random() < 0.9 else names), rng)
        return path.read_bytes()


def _change_attribute(file: h5py.File, rng: np.random.Generator) -> None:
    key = pick(rng, sorted(file.attrs))
    del file.attrs[key]
    if rng.random() < 0.8:
        file.attrs[key] = pick(rng, ("", "x", 99, -1, 1.5, np.zeros(3), np.array(["a", "b"], dtype=object)))


def _change_values(data: h5py.Dataset, rng: np.random.Generator) -> None:
    if not data.shape or not data.size:
        return
    row = int(rng.integers(data.shape[0]))
    if data.dtype.kind in "iu":
        info = np.iinfo(data.dtype)
        data[row] = pick(rng, (info.max, info.min, 0, min(118, info.max), min(119, info.max)))
    elif data.dtype.kind == "f":
        data[row] = pick(rng, (np.nan, np.inf, -np.inf, 1e30, 0.0, -1.0))
    else:
        data[row] = pick(rng, ("", "x/y/z", "a" * 70_000, "[/red]", "../x", "\u2603"))


def _change_array(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    old = file[name]
    values = old[()] if isinstance(old, h5py.Dataset) else None
    shape = old.shape if isinstance(old, h5py.Dataset) else ()
    what = pick(
        rng,
        ("gone", "huge", "type", "text", "scalar", "group", "link", "loop", "more", "less", "empty", "axis"),
    )
    del file[name]
    if what == "huge":
        file.create_dataset(name, shape=(10**11, *shape[1:]), dtype="f8", chunks=True, compression="gzip")
    elif what == "type":
        kinds = ("i1", "u8", "f2", "c16", "S3", "?", h5py.string_dtype(), h5py.vlen_dtype("i4"), "V5")
        file.create_dataset(name, shape=shape, dtype=pick(rng, kinds))
    elif what == "text":
        file.create_dataset(name, data=["x"] * (shape[0] if shape else 1), dtype=h5py.string_dtype())
    elif what == "scalar":
        file[name] = pick(rng, (1, -1, "x", np.nan))
    elif what == "group":
        file.create_group(name)
    elif what == "link":
        file[name] = h5py.ExternalLink("/etc/passwd", "/x")
    elif what == "loop":
        file[name] = h5py.SoftLink("/" + name)
    elif what == "empty":
        file[name] = h5py.Empty("f8")
    elif (
        values is not None
        and what in ("more", "less", "axis")
        and np.ndim(values)
        and values.dtype.kind in "iuf"
    ):
        change = {
            "more": np.concatenate([values, values[:1]]),
            "less": values[:-1],
            "axis": values[..., None],
        }
        file[name] = change[what]


HDF5: tuple[Mutation, ...] = (hdf5, hdf5, flip, flip, flip, cut, drop, scribble, zero, integer, replaced)


# --- npz, safetensors, tar -----------------------------------------------------------------------


def npz(data: bytes, rng: np.random.Generator) -> bytes:
    """Change an array of an npz, or the archive around it."""
    with np.load(io.BytesIO(data), allow_pickle=True) as archive:
        arrays = {key: archive[key] for key in archive.files}
    key = pick(rng, sorted(arrays))
    value = arrays[key]
    arrays[key] = pick(
        rng,
        (
            np.array(value, dtype=object),
            np.array([], dtype=value.dtype),
            np.zeros(200_000),
            np.array(pick(rng, NUMBERS)),
            np.full(value.shape, pick(rng, (-1, 0, 7, 10**6))),
            value.astype("U8"),
            value[None],
            np.array([1.0, 2.0, 1e8]),
            np.array([np.nan] * max(1, value.size)),
            np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
        ),
    )
    buffer = io.BytesIO()
    if rng.random() < 0.2:
        del arrays[key]
    np.savez_compressed(buffer, **arrays)
    if rng.random() < 0.2:
        return _announcing(buffer.getvalue(), key)
    return buffer.getvalue()


def _announcing(data: bytes, key: str) -> bytes:
    """Let an array announce far more numbers than it has."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == f"{key}.npy":
                head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }"
                head += b" " * (117 - len(head)) + b"\n"
                content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
            new.writestr(name, content)
    return buffer.getvalue()


def safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """Change the header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header, tensors = json.loads(data[8 : 8 + size]), data[8 + size :]
    entry = header.get("__metadata__", {})
    if "sfumato" in entry and rng.random() < 0.6:
        entry["sfumato"] = json.dumps(changed(json.loads(entry["sfumato"]), rng))
    else:
        header = changed(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def tar(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a member of a packed tar."""
    packed = data[:4] == b"\x28\xb5\x2f\xfd"
    plain = zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 26) if packed else data
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(plain)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        members = old.getmembers()
        chosen = pick(rng, members)
        for member in members:
            content = old.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            if member is chosen:
                content = _changed_member(member, content, rng)
            if member.name:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    found = buffer.getvalue()
    return zstandard.ZstdCompressor().compress(found) if packed else found


def _changed_member(member: tarfile.TarInfo, content: bytes, rng: np.random.Generator) -> bytes:
    """Change a member in place, without a name where it is to be left out; return its contents."""
    what = pick(rng, ("gone", "up", "root", "link", "device", "long", "pax", "content", "content", "big"))
    if what == "gone":
        member.name = ""
    elif what == "up":
        member.name = f"../{member.name}"
    elif what == "root":
        member.name = f"/tmp/{member.name}"
    elif what in ("link", "device"):
        member.type = tarfile.SYMTYPE if what == "link" else tarfile.CHRTYPE
        member.linkname = "/etc/passwd"
        return b""
    elif what == "long":
        member.name += "x" * 70_000
    elif what == "pax":
        member.pax_headers = {"comment": "x" * 100_000, "size": "1000000000000"}
    elif what == "big":
        return bytes(17 << 20)
    else:
        return pick(rng, BYTES)(content, rng) if content else b"x"
    return content


NPZ: tuple[Mutation, ...] = (npz, npz, npz, *BYTES)
SAFETENSORS: tuple[Mutation, ...] = (safetensors, safetensors, flip, flip, *BYTES)
TAR: tuple[Mutation, ...] = (tar, tar, tar, *BYTES)
SEALED: tuple[Mutation, ...] = (flip, flip, *BYTES)
