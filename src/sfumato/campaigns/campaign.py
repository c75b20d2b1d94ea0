"""Campaigns of reference calculations: label any structures, once, in a store that other campaigns share.

A store is a folder with one record file per level of theory. A record is kept under the hash of engine,
settings, versions and structure, so a campaign is continued by running it again, and whatever another one
labeled already (a scan, a training set) is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfumato.execution.folder import RunFolder, provenance
from sfumato.execution.pool import Executor, Lost, PoolSettings, run_pool
from sfumato.execution.records import Header, Record, RecordFile, array, number
from sfumato.execution.runner import Item, Watch, run, wanted
from sfumato.jobs.frames import Frame, Subject, frames_of
from sfumato.jobs.label import LABEL, SWEEP, EngineJob, LabelFromNeighbor, LabelWith, Sweep
from sfumato.potentials.engines import Engine
from sfumato.systems import Floats, Scan, System

HERE = PoolSettings(workers=0)


@dataclass(frozen=True)
class CampaignOptions:
    """How a campaign is carried out.

    Args:
        executor: processes here (`PoolSettings`) or pilot jobs (`ParslSettings`).
        retry_failed: work again on what failed before.
        fresh: set earlier records of this level in the store aside and begin anew.
        keep_going: do not stop where everything fails for one reason.
    """

    executor: Executor = HERE
    retry_failed: bool = False
    fresh: bool = False
    keep_going: bool = False


DEFAULTS = CampaignOptions()


def label(
    frames: Iterable[Frame | System],
    engine: Engine,
    store: Path,
    *,
    options: CampaignOptions = DEFAULTS,
    watch: Watch = lambda tally: None,
) -> list[Record]:
    """Label structures by an engine, continuing where this or any other campaign of the store stopped.

    Args:
        frames: structures; `frames_of(scan)` gives those of a scan.
        engine: the level of theory; it must pass its self-test before the first point.
        store: folder of the records; made if needed.
        options: who works, what to repeat, when to stop.
        watch: called with the tally as work proceeds.

    Returns:
        One record per structure, in order, to be read by `label_of`; where its status is not "ok", there is
        a `reason`.

    Raises:
        ValueError: the engine fails its self-test, the store holds another version of this level, no worker
            can be started, everything fails for one reason (`SameFailureError`), or points were lost with
            their machines (`UnfinishedError`).
        OSError: the disk is full; everything finished is kept.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    subject = Subject(*LABEL, engine.identity)
    unchecked = [frame if isinstance(frame, Frame) else Frame.of(frame) for frame in frames]
    items = [Item(subject.key(frame), frame) for frame in unchecked]
    with _open(store, engine, subject, options.fresh) as file:
        _work(LabelWith(engine), items, file, options, watch)
        return [file.records[item.key] for item in items]


def retry(
    pairs: Iterable[tuple[Frame, Frame]],
    engine: Engine,
    store: Path,
    *,
    options: CampaignOptions = DEFAULTS,
    watch: Watch = lambda tally: None,
) -> list[Record]:
    """Label what did not converge from scratch, starting from the orbitals of a neighboring frame.

    A new label takes the place of the failed one, and its message says where it came from. What has a label
    is left alone, and so is what failed from this very neighbor before.

    Args:
        pairs: each frame with a neighbor of it that converges: the same atoms at other positions.
        engine, store, options, watch: as for `label`; nothing is set aside.

    Returns:
        One record per pair, in order, as `label` does.

    Raises:
        ValueError, OSError, Stopped: as `label` does.
    """
    subject = Subject(*LABEL, engine.identity)
    items = [Item(subject.key(frame), (frame, neighbor)) for frame, neighbor in pairs]
    # What is hard for one reason may well fail for it again.
    again = replace(options, retry_failed=True, keep_going=True)
    with _open(store, engine, subject) as file:
        todo = [item for item in items if _untried(file.records.get(item.key), item, subject)]
        _work(LabelFromNeighbor(engine), todo, file, again, watch)
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
    options: CampaignOptions = DEFAULTS,
    watch: Watch = lambda tally: None,
) -> list[Record]:
    """Follow scans forward and backward with orbital reuse, which shows hysteresis of the SCF.

    Args:
        scans: their frames are followed in order; each scan is one piece of work.
        engine, store, options, watch: as for `label`.

    Returns:
        One record per scan: `forward` and `backward`, (F,) energies in eV in the order of the frames
        (`records.decode`), NaN where a frame did not converge.

    Raises:
        ValueError, OSError, Stopped: as `label` does.
    """
    subject = Subject(*SWEEP, engine.identity)
    items = [Item(subject.key(scan), frames_of(scan)) for scan in scans]
    with _open(store, engine, subject, options.fresh, " sweep") as file:
        _work(Sweep(engine), items, file, options, watch)
        return [file.records[item.key] for item in items]


def label_of(record: Record, atoms: int) -> tuple[float, Floats]:
    """Return the energy (eV) and the forces (N, 3) eV/Å of a record that `label` made.

    Args:
        record: one whose status is "ok".
        atoms: of the structure.

    Raises:
        RecordError: the record holds no number, or no forces on that many atoms.
    """
    return number(record, "energy"), array(record, "forces", (atoms, 3))


def _open(store: Path, engine: Engine, subject: Subject, fresh: bool = False, suffix: str = "") -> RecordFile:
    level = engine.level + suffix
    header = Header(subject.job, subject.version, level, subject.identity, provenance())
    return RecordFile(RunFolder(store).plain_record_path(level), header, fresh)


def _work(
    job: EngineJob, items: Sequence[Item], file: RecordFile, options: CampaignOptions, watch: Watch
) -> None:
    """Run the items that are wanted, after the engine showed that it works."""
    if any(wanted(file.records.get(item.key), options.retry_failed) for item in items):
        job.engine.self_test()
    run(
        job,
        items,
        file,
        pool=options.executor,
        watch=watch,
        retry_failed=options.retry_failed,
        keep_going=options.keep_going,
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
