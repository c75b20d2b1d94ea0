"""Memory: what there is, what runs out of it, and batches in parts that fit."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import torch

from sfumato.systems import Ints

MOST = {"cpu": 2**31, "cuda": 2**50}
"""Bytes that structures evaluated together may take at most: more do not make a CPU faster."""

SHARE = 0.7
"""Of the free memory, what a batch may take by an estimate."""


def pack(sizes: Ints, limit: int) -> list[int]:
    """Return where to cut a sequence so that parts add up to a limit at most, or are one element.

    Args:
        sizes: (S,).
        limit: of each sum.

    Returns:
        The end of each part.
    """
    stops, total = [], 0
    for k, size in enumerate(sizes.tolist()):
        if total and total + size > limit:
            stops.append(k)
            total = 0
        total += size
    return [*stops, len(sizes)]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be had, on a GPU or by torch on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text
    )


def free_memory(device: torch.device) -> int:
    """Return how many bytes a device has to give; 4 GiB where the system does not say.

    On a CPU a container or a batch job may have less than the machine.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(row.split()[1]) for row in rows if row.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = 2**32
    return max(0, min([free, *group_room()]))


def give_back() -> None:
    """Return memory that this process has freed to the system; glibc keeps what an evaluation before left."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def group_room(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the bytes left in each control group, of version 1 or 2, that limits this process's memory.

    What is held only to save reading files again counts as left.

    Args:
        root: where the groups are mounted.
        own: the file that says which groups this process is in.
    """
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, most, used = (
            (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else (root, "memory.max", "memory.current")
        )
        group = PurePosixPath(path)
        for place in (group, *group.parents):  # in a container the groups outside cannot be seen
            folder = base / place.relative_to("/")
            try:
                limit, now, stat = ((folder / name).read_text() for name in (most, used, "memory.stat"))
            except OSError:
                continue
            held = dict(row.split() for row in stat.splitlines())
            cached = held.get("total_inactive_file", held.get("inactive_file", "0"))
            if limit.strip() != "max":
                yield int(limit) - int(now) + int(cached)
