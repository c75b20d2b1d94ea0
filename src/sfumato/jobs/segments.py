"""What a long job keeps while it works: items that go together, their segments on disk, and how far they are.

Items that were begun together stay together: what a batch gives may depend, in its last bits, on what else is
in it, and a run that was killed must end with the same numbers as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato.execution.runner import Chunk, Tally, Watch
from sfumato.files import remove_leftovers, write_json
from sfumato.io.trajectories import Arrays, read_segment, write_segment
from sfumato.words import duration

SEGMENTS, KEYS, PROGRESS = "segments", "keys.json", "progress.json"
LOOK_SECONDS = 2.0
"""How often progress is written, and looked at."""

DAY = 86400.0


@dataclass(frozen=True)
class Group:
    """Items that are worked on together, and the folder of their segments.

    Args:
        folder: of the group.
        keys: of its items, in their order.
    """

    folder: Path
    keys: tuple[str, ...]

    @classmethod
    def begun(cls, folder: Path, keys: Sequence[str]) -> Group:
        """Return a new group, noted in its folder below that of all groups."""
        name = hashlib.sha256("/".join(keys).encode()).hexdigest()[:20]
        group = cls(folder / name, tuple(keys))
        write_json(group.folder / KEYS, list(keys))
        return group

    def path(self, number: int) -> Path:
        """Return where a segment is; number 0 is the start."""
        return self.folder / f"segment-{number:06d}.h5"

    @property
    def count(self) -> int:
        """How many segments there are, the start among them."""
        remove_leftovers(self.folder)
        number = 0
        while self.path(number).exists():
            number += 1
        return number

    def write(self, number: int, arrays: Arrays, facts: dict[str, Any]) -> None:
        """Put a segment on disk, whole or not at all."""
        write_segment(self.path(number), arrays, facts)

    def read(self, number: int, only: tuple[str, ...] = ("",)) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arrays and facts of a segment.

        Args:
            number: of the segment.
            only: arrays whose names begin with one of these.

        Raises:
            ValueError: it is damaged; says what to do.
        """
        try:
            return read_segment(self.path(number), only)
        except ValueError as error:
            raise ValueError(f"{error}. Remove {self.folder} to begin these items anew.") from None


def groups(folder: Path) -> list[Group]:
    """Return the groups in a folder that have a first segment; a damaged list of items counts as none."""
    found = []
    for path in sorted(folder.glob(f"*/{KEYS}")):
        with suppress(OSError, ValueError):
            group = Group(path.parent, tuple(json.loads(path.read_text(encoding="utf-8"))))
            if group.path(0).exists():
                found.append(group)
    return found


def grouped(chunk: Chunk, folder: Path) -> list[Group]:
    """Return the groups that the items of a chunk belong to; those without one form a new one."""
    at_home = {key: group for group in groups(folder) for key in group.keys}
    known = dict.fromkeys(at_home[item.key] for item in chunk if item.key in at_home)
    new = [item.key for item in chunk if item.key not in at_home]
    return [*known, *([Group.begun(folder, new)] if new else [])]


def tidy(folder: Path, done: Collection[str]) -> None:
    """Remove the segments of groups all of whose items have a record."""
    for group in groups(folder):
        if all(key in done for key in group.keys):
            shutil.rmtree(group.folder, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


@dataclass(frozen=True)
class Progress:
    """How far a group is.

    Args:
        done: fs that each of its replicas has been moved.
        total: fs in all.
        rate: fs per second of the wall clock, of each replica.
        alive: replicas that are still moved.
        replicas: that began.
    """

    done: float
    total: float
    rate: float
    alive: int
    replicas: int

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the rate; None before there is one."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


class Pulse:
    """Writes the progress of a group now and then.

    Args:
        group: whose.
        total: fs in all.
        done: fs at the start of this process.
    """

    def __init__(self, group: Group, total: float, done: float) -> None:
        self.path, self.total, self.first = group.folder / PROGRESS, total, done
        self.start = self.spoke = time.monotonic()
        self.replicas = len(group.keys)

    def __call__(self, done: float, alive: int) -> None:
        """Say how far it is; written every `LOOK_SECONDS`."""
        now = time.monotonic()
        if now - self.spoke < LOOK_SECONDS:
            return
        self.spoke = now
        rate = (done - self.first) / (now - self.start)
        progress = Progress(done, self.total, rate, alive, self.replicas)
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        os.replace(temporary, self.path)

    def end(self) -> None:
        """Say no more."""
        self.path.unlink(missing_ok=True)


def in_words(progress: Sequence[Progress]) -> str:
    """Return one line about groups that are on their way; empty where there is none."""
    if not progress:
        return ""
    slow = max(progress, key=lambda p: p.seconds_left or 0.0)
    alive, replicas = sum(p.alive for p in progress), sum(p.replicas for p in progress)
    speed = sum(p.rate * p.alive for p in progress) * DAY / 1e3
    parts = [f"{slow.done / 1e3:.3g} of {slow.total / 1e3:.3g} ps", f"{speed:.3g} ps/day"]
    if alive < replicas:
        parts.append(f"{alive} of {replicas} replicas go on")
    parts.append(f"{duration(slow.seconds_left)} left")
    return ", ".join(parts)


@contextmanager
def followed(folder: Path, watch: Watch) -> Iterator[Watch]:
    """Show how far the groups in a folder are, between the tallies of finished items.

    Args:
        folder: of the groups.
        watch: shows a tally.

    Yields:
        What the runner calls in its place.
    """
    begun, lock, stop = time.time(), threading.Lock(), threading.Event()
    last: list[Tally] = []

    def shown(tally: Tally) -> None:
        with lock:
            last[:] = [tally]
            watch(tally)

    def look() -> None:
        while not stop.wait(LOOK_SECONDS):
            words = in_words([p for p in map(_read, folder.glob(f"*/{PROGRESS}")) if p] if last else [])
            if words:
                with lock:
                    last[0].note = words
                    watch(last[0])

    def _read(path: Path) -> Progress | None:
        with suppress(OSError, ValueError, TypeError):
            if path.stat().st_mtime >= begun:
                return Progress(**json.loads(path.read_text(encoding="utf-8")))
        return None

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        stop.set()
        thread.join()
