"""Campaigns of reference calculations: label any structures, once, in a store that other campaigns share.

A store is a folder with one record file per level of theory. A record is kept under the hash of engine,
settings, versions and structure, so a campaign is continued by running it again, and whatever another one
labeled already (a scan, a training set) is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.execution.folder import RunFolder, provenance
from sfumato.execution.pool import Executor, Lost, PoolSettings, run_pool
from sfumato.execution.records import Header, Record, RecordFile
from sfumato.execution.runner import Item, Watch, run, wanted
from sfumato.jobs.frames import Frame, Subject, frames_of
from sfumato.jobs.label import LABEL, SWEEP, EngineJob, LabelFromNeighbor, LabelWith, Sweep
from sfumato.potentials.engines import Engine
from sfumato.systems import Scan, System

HERE = PoolSettings(workers=0)


def label(
    frames: Iterable[Frame | System],
    engine: Engine,
    store: Path,
    *,
    executor: Executor = HERE,
    watch: Watch = lambda tally: None,
    retry_failed: bool = False,
) -> list[Record]:
    """Label structures by an engine, continuing where this or any other campaign of the store stopped.

    Args:
        frames: structures; `frames_of(scan)` gives those of a scan.
        engine: the level of theory; it must pass its self-test before the first point.
        store: folder of the records; made if needed.
        executor: processes here (`PoolSettings`) or pilot jobs (`ParslSettings`).
        watch: called with the tally as work proceeds.
        retry_failed: label again what failed before.

    Returns:
        One record per structure, in order: `energy` (eV) and `forces` (eV/Å, `records.decode`) where its
        status is "ok", else the `reason`.

    Raises:
        ValueError: the engine fails its self-test, the store holds another version of this level, no worker
            can be started, or points were lost with their machines (`UnfinishedError`).
        OSError: the disk is full; everything finished is kept.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    subject = Subject(*LABEL, engine.identity)
    unchecked = [frame if isinstance(frame, Frame) else Frame.of(frame) for frame in frames]
    items = [Item(subject.key(frame), frame) for frame in unchecked]
    with _open(store, engine, subject) as file:
        _work(LabelWith(engine), items, file, executor, watch, retry_failed)
        return [file.records[item.key] for item in items]


def retry(
    pairs: Iterable[tuple[Frame, Frame]],
    engine: Engine,
    store: Path,
    *,
    executor: Executor = HERE,
    watch: Watch = lambda tally: None,
) -> list[Record]:
    """Label what did not converge from scratch, starting from the orbitals of a neighboring frame.

    A new label takes the place of the failed one, and its message says where it came from. What has a label
    is left alone, and so is what failed from this very neighbor before.

    Args:
        pairs: each frame with a neighbor of it that converges: the same atoms at other positions.
        engine, store, executor, watch: as for `label`.

    Returns:
        One record per pair, in order, as `label` does.

    Raises:
        ValueError, OSError, Stopped: as `label` does.
    """
    subject = Subject(*LABEL, engine.identity)
    items = [Item(subject.key(frame), (frame, neighbor)) for frame, neighbor in pairs]
    with _open(store, engine, subject) as file:
        todo = [item for item in items if _untried(file.records.get(item.key), item, subject)]
        _work(LabelFromNeighbor(engine), todo, file, executor, watch, retry_failed=True)
        return [file.records[item.key] for item in items]


def _untried(record: Record | None, item: Item, subject: Subject) -> bool:
    if record is None:
        return True
    return record["status"] != "ok" and record.get("neighbor") != subject.key(item.payload[1])


def sweep(
    scans: Iterable[Scan],
    engine: Engine,
    store: Path,
    *,
    executor: Executor = HERE,
    watch: Watch = lambda tally: None,
    retry_failed: bool = False,
) -> list[Record]:
    """Follow scans forward and backward with orbital reuse, which shows hysteresis of the SCF.

    Args:
        scans: their frames are followed in order; each scan is one piece of work.
        engine, store, executor, watch, retry_failed: as for `label`.

    Returns:
        One record per scan: `forward` and `backward`, (F,) energies in eV in the order of the frames
        (`records.decode`), NaN where a frame did not converge.

    Raises:
        ValueError, OSError, Stopped: as `label` does.
    """
    subject = Subject(*SWEEP, engine.identity)
    items = [Item(subject.key(scan), frames_of(scan)) for scan in scans]
    with _open(store, engine, subject, " sweep") as file:
        _work(Sweep(engine), items, file, executor, watch, retry_failed)
        return [file.records[item.key] for item in items]


def _open(store: Path, engine: Engine, subject: Subject, suffix: str = "") -> RecordFile:
    level = engine.level + suffix
    header = Header(subject.job, subject.version, level, subject.identity, provenance())
    return RecordFile(RunFolder(store).plain_record_path(level), header)


def _work(
    job: EngineJob,
    items: Sequence[Item],
    file: RecordFile,
    executor: Executor,
    watch: Watch,
    retry_failed: bool,
) -> None:
    """Run the items that are wanted, after the engine showed that it works."""
    if any(wanted(file.records.get(item.key), retry_failed) for item in items):
        job.engine.self_test()
    second_chance = isinstance(
        job, LabelFromNeighbor
    )  # what is hard for one reason may well fail for it again
    run(
        job,
        items,
        file,
        pool=executor,
        watch=watch,
        retry_failed=retry_failed,
        keep_going=second_chance,
    )


@dataclass(frozen=True)
class _Timed:
    """Seconds of labels, after the self-test has loaded the engine's package."""

    engine: Engine

    def build(self, device: str) -> Callable[[Frame], float]:
        self.engine.self_test()
        return lambda frame: self.engine.label(frame.system()).seconds


def estimate(
    frames: Iterable[Frame | System], engine: Engine, *, samples: int = 5, threads: int = 1
) -> float:
    """Return the seconds that a point takes on average, from a few that are labeled for it in one worker.

    A campaign takes about seconds × points ∕ workers, and seconds × points × threads ∕ 3600 core-hours.

    Args:
        frames: all structures of the campaign.
        engine: the level of theory.
        samples: structures to label, from the smallest to the largest; others are interpolated by size.
        threads: of the worker.

    Raises:
        ValueError: there are no structures, the engine fails its self-test, or a sample cannot be labeled.
    """
    by_size = sorted(frames, key=lambda frame: len(frame.numbers))
    if not by_size:
        raise ValueError("there is nothing to label, so nothing to estimate")
    picked = sorted({round(k) for k in np.linspace(0, len(by_size) - 1, samples)})
    chosen = [by_size[k] for k in picked]
    tasks = [frame if isinstance(frame, Frame) else Frame.of(frame) for frame in chosen]
    seconds: dict[int, list[float]] = {}
    for frame, result in list(run_pool(_Timed(engine), tasks, PoolSettings(1, threads))):
        if isinstance(result, Lost):
            raise ValueError(f"a sample of {len(frame.numbers)} atoms cannot be labeled: {result.reason}")
        seconds.setdefault(len(frame.numbers), []).append(result)
    sizes = sorted(seconds)
    means = [float(np.mean(seconds[size])) for size in sizes]
    return float(np.mean(np.interp([len(frame.numbers) for frame in by_size], sizes, means)))
