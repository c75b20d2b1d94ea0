"""Analyses kept beside the records they were made from, so that a run of a million records opens at once.

What is kept counts only while everything it rests on is the same: the bytes of the records, the data, the
settings, and every line of Sfumato. It is signed with a key that stays in this user's cache: what was
damaged, or came in a folder from elsewhere, is not believed, and the records are analyzed anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import platform
import secrets
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import sfumato
from sfumato.datasets.named import cache_dir
from sfumato.execution.folder import RunFolder
from sfumato.files import write_atomically, write_bytes

FOLDER = "kept"
"""Of a run folder."""

WORTH = 10_000_000
"""Bytes of a model's records; the analysis of fewer takes no time."""

LARGEST = 100_000_000
"""Bytes of an analysis; no file of more is read."""

KEY = "kept.key"
"""In the cache: what analyses are signed with."""

KEY_BYTES = 32

Basis = Mapping[str, Any]


def basis(data: str, records: str, model: str, identity: str, settings: Mapping[str, Any]) -> Basis:
    """Return everything that an analysis rests on, in JSON types.

    Args:
        data: identity of the data.
        records: SHA-256 of the record file.
        model: its name.
        identity: of the model.
        settings: it was measured with.
    """
    return {
        "data": data,
        "records": records,
        "model": model,
        "identity": identity,
        "settings": dict(settings),
        "code": _code(),
    }


def path_of(folder: RunFolder, model: str) -> Path:
    """Return where the analysis of a model is kept."""
    return folder.path / FOLDER / f"{folder.record_path(model, 'analysis').stem}.json"


def keep(path: Path, rests_on: Basis, analysis: Any) -> None:
    """Write an analysis, in JSON types; nothing happens where nothing can be written.

    Args:
        path: of the file.
        rests_on: `basis`.
        analysis: what `kept` shall return.
    """
    with suppress(OSError, ValueError):
        key = _key(create=True)
        content = json.dumps({"basis": rests_on, "analysis": analysis}).encode()
        write_bytes(path, _signature(key, content) + b"\n" + content)


def kept(path: Path, rests_on: Basis) -> Any:
    """Return an analysis that was kept; None where there is none that can be believed.

    Args:
        path: of the file.
        rests_on: what it must rest on.
    """
    try:
        if path.stat().st_size > LARGEST:
            return None
        signature, _, content = path.read_bytes().partition(b"\n")
        if not hmac.compare_digest(signature, _signature(_key(), content)):
            return None
    except (OSError, ValueError):
        return None
    found = json.loads(content)
    return found["analysis"] if found["basis"] == rests_on else None


def _signature(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).hexdigest().encode()


def _key(create: bool = False) -> bytes:
    """Return the key of this user.

    Raises:
        OSError: there is none, or none can be written.
        ValueError: there is no cache, or the key is damaged.
    """
    path = cache_dir() / KEY
    if create and (not path.is_file() or path.stat().st_size != KEY_BYTES):
        with write_atomically(path) as temporary:
            os.chmod(temporary, 0o600)
            temporary.write_bytes(secrets.token_bytes(KEY_BYTES))
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: damaged")
    return key


@cache
def _code() -> str:
    """SHA-256 of every module of Sfumato, and of what else decides the last digits of a number."""
    sha = hashlib.sha256(f"{np.__version__} {platform.python_version()} {platform.machine()}".encode())
    (root,) = sfumato.__path__
    for path in sorted(Path(root).rglob("*.py")):
        content = path.read_bytes()
        sha.update(f"{path.relative_to(root)} {len(content)} ".encode() + content)
    return sha.hexdigest()
