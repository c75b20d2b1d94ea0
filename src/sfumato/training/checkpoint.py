"""The state of a run: whole or not at all, and gone on from exactly or not at all.

Private to a run and never handed around; models are shared as safetensors (`models.checkpoint`).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sfumato.training.distributed import Group
from sfumato.training.settings import TrainSettings

NAME = "state.pt"
LOCK = ".lock"
SCHEMA = 2


@dataclass
class Place:
    """Where a run is; the next batch, its random numbers and the learning rate follow from it.

    Args:
        stage: number of the stage.
        epoch: number of the epoch, counted over all stages.
        first: the epoch that the stage began with.
        step: of the epoch, the next to do.
        done: steps done in this stage.
        total: steps done in the run.
        seconds: of training, all interruptions left out.
        cpu: seconds of processor time of this process.
        best: smallest validation loss of this stage; None before the first.
        waited: evaluations since then.
        sums: of the terms of the loss since the last line of the log.
        counts: steps in each of these sums.
        structures: seen since then.
        reported: `seconds` at that line, and those of evaluations since then.
        told: how much of the stage was done at that line, in its unit.
        due: the step before was done, its evaluation not yet.
    """

    stage: int = 0
    epoch: int = 0
    first: int = 0
    step: int = 0
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    best: float | None = None
    waited: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    structures: int = 0
    reported: float = 0.0
    told: float = 0.0
    due: bool = False


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
        file = (folder / LOCK).open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            pass
    try:
        if not group.agree(free):
            raise ValueError(
                f"{folder}: another process trains in this folder; wait for it, or choose another"
            )
        yield
    finally:
        if file is not None:
            file.close()


def save(folder: Path, place: Place, tensors: dict[str, Any], around: dict[str, Any]) -> None:
    """Write the state of a run; what was there stays until the new one is complete on the disk.

    Args:
        folder: of the run.
        place: where it is.
        tensors: state of model, averaged model and optimizer.
        around: from `circumstances`.
    """
    temporary = folder / f".{NAME}.{os.getpid()}"
    with temporary.open("wb") as file:
        torch.save({"schema": SCHEMA, "place": asdict(place), "around": around, **tensors}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(folder: Path, around: dict[str, Any], inexact: bool = False) -> tuple[Place, dict[str, Any]] | None:
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
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']}, expected {SCHEMA}")
        place = Place(**found.pop("place"))
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
            "or go on all the same with inexact"
        )
    return place, found
