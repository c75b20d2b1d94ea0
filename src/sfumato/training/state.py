"""The state of a run: whole or not at all, and gone on from exactly or not at all.

Private to a run and never handed around; models are shared as safetensors (`models.checkpoint`).
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sfumato.files import open_to_lock, remove_leftovers, write_bytes
from sfumato.models.mindscaip.native import build_name
from sfumato.training.distributed import Group
from sfumato.training.progress import Progress
from sfumato.training.settings import TrainSettings

NAME = "state.pt"
LOCK = ".lock"
SCHEMA = 3

MAGIC = b"sfumato-state sha256 "
"""How a state begins; the digest of what follows and the end of the line come next."""

ZIP = b"PK"
"""How a state of version 0.1.0 begins, which has no digest."""


def circumstances(settings: TrainSettings, data: str, group: Group) -> dict[str, Any]:
    """Return everything beside the state that the next step depends on to the last bit.

    Args:
        settings: of the run.
        data: identity of the frames.
        group: the processes.
    """
    found: dict[str, Any] = {
        "settings": settings.identity,
        "data": data,
        "sfumato": version("sfumato"),
        "numpy": version("numpy"),
        "torch": str(torch.__version__),
        "devices": group.size,
        "device type": group.device.type,
    }
    if group.device.type == "cpu":
        found |= {"threads": torch.get_num_threads(), "processor": torch.backends.cpu.get_cpu_capability()}
        found["core"] = build_name()
    return found


@contextmanager
def in_use(folder: Path, group: Group) -> Iterator[None]:
    """Make the folder of a run and keep others out of it; the system lets go of it however this process ends.

    Args:
        folder: of the run.
        group: the processes that train together.

    Raises:
        ValueError: another run is in it.
    """
    file, free = None, True
    if group.first:
        folder.mkdir(parents=True, exist_ok=True)
        file = open_to_lock(folder / LOCK)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            pass
        if free:
            remove_leftovers(folder)
    try:
        if not group.agree(free):
            raise ValueError(
                f"{folder}: another process trains in this folder; wait for it, or choose another"
            )
        yield
    finally:
        if file is not None:
            file.close()


def save(folder: Path, progress: Progress, tensors: Mapping[str, Any], around: Mapping[str, Any]) -> None:
    """Write the state of a run; what was there stays until the new one is complete on the disk.

    Args:
        folder: of the run.
        progress: where it is.
        tensors: state of model, averaged model and optimizer.
        around: from `circumstances`.

    Raises:
        OSError: it cannot be written; names the file.
    """
    facts = {"schema": SCHEMA, "progress": progress.values(), "around": dict(around)}
    # In memory first: where a disk is full, torch would raise errors of its own.
    buffer = io.BytesIO()
    torch.save({**facts, **tensors}, buffer)
    data = buffer.getvalue()
    write_bytes(folder / NAME, MAGIC + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def content(path: Path) -> dict[str, Any]:
    """Return what `save` wrote, after a check that it is what was written.

    Args:
        path: of the file.

    Raises:
        ValueError: the file was changed or damaged; torch raises other errors where it is not a state.
    """
    found: dict[str, Any] = torch.load(_verified(path), map_location="cpu", weights_only=True)
    return found


def _verified(path: Path) -> io.BytesIO:
    data = path.read_bytes()
    if data.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # which keeps a checksum of each part
            if (part := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {part} differs")
        return io.BytesIO(data)
    head, _, rest = data.partition(b"\n")
    if head != MAGIC + hashlib.sha256(rest).hexdigest().encode():
        raise ValueError("it is not what was written: its digest differs")
    return io.BytesIO(rest)


def load(
    folder: Path, around: dict[str, Any], inexact: bool = False
) -> tuple[Progress, dict[str, Any]] | None:
    """Read the state of a run; None where it has none yet.

    Args:
        folder: of the run.
        around: from `circumstances`, of the run that goes on.
        inexact: go on also where the result may differ from that of a run without a break.

    Raises:
        ValueError: a state that cannot be read, or that cannot be gone on from exactly; says why.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        found = content(path)
        if found["schema"] == 2:
            found = _from_schema_2(found)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']}, expected {SCHEMA}")
        progress = Progress.of(found.pop("progress"))
        before = found.pop("around")
    except Exception as error:  # noqa: BLE001 (whatever a damaged file makes torch raise)
        raise ValueError(
            f"{path}: the state of this run cannot be read ({error}); to begin anew, choose another folder"
        ) from None
    differ = sorted(key for key in before.keys() | around.keys() if before.get(key) != around.get(key))
    if "settings" in differ or "data" in differ:
        what = " and ".join(word for word in ("settings", "data") if word in differ)
        raise ValueError(f"{folder} holds a run with other {what}; choose another folder")
    if differ and not inexact:
        words = ", ".join(f"{key} was {before.get(key)!r}, now {around.get(key)!r}" for key in differ)
        raise ValueError(
            f"{folder}: going on would not give what a run without a break gives: {words}; restore that, "
            "or go on all the same with --inexact"
        )
    return progress, found


def _from_schema_2(found: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a run of version 0.1.0 as this version writes it."""
    found = dict(found)
    place = dict(found.pop("place"))
    tally = {key: place.pop(key) for key in ("sums", "counts", "structures")}
    tally |= {"seconds": place.pop("reported"), "done": place.pop("told")}
    optimizer = found.pop("optimiser" if "optimiser" in found else "optimizer")
    return found | {"schema": 3, "progress": place | {"tally": tally}, "optimizer": optimizer}
