"""Do the tasks of a protocol by a model into a run folder, and read what is recorded there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from sfumato.execution.folder import RunFolder, provenance
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import (
    Header,
    Record,
    RecordError,
    RecordFile,
    failed,
    read_header,
    read_records,
)
from sfumato.execution.runner import Item, Watch, run, wanted
from sfumato.jobs.frames import Subject
from sfumato.jobs.job import Job, Task, Work, kind_of
from sfumato.jobs.models import Model
from sfumato.jobs.segments import SEGMENTS, followed, tidy

Watcher = Callable[[str], AbstractContextManager[Watch]]
Records = Mapping[str, Record]


HERE = PoolSettings(workers=0)
"""In this process."""


@dataclass(frozen=True)
class Way:
    """How models are evaluated.

    Args:
        pool: workers (0: this process), threads, limits; a Potential object stays in this process.
        retry_failed: work again on what failed before.
        fresh: set records of an earlier run of the model aside and begin anew.
        keep_going: do not stop where everything fails for one reason.
        watch: given a model's name, a context manager that yields a callback for its progress.
    """

    pool: PoolSettings = HERE
    retry_failed: bool = False
    fresh: bool = False
    keep_going: bool = False
    watch: Watcher = lambda name: nullcontext(lambda tally: None)


class Recorded(dict[str, Record]):
    """Records by key.

    Attributes:
        digests: SHA-256 of each record file, as it was when these were all that it held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.digests: dict[Path, str] = {}


def perform(tasks: Iterable[Task], model: Model, folder: RunFolder, way: Way) -> Recorded:
    """Do what a folder has no record of, and return the records of all.

    What run folders beside this one hold of the same job, structure and potential is taken over.

    Args:
        tasks: of a protocol.
        model: by which.
        folder: begun with a manifest that names the model.
        way: how.

    Raises:
        RecordError: records of another model of this name, or damaged ones.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    identity = model.potential.identity
    place = folder.work_path(model.name)
    records = Recorded()
    for jobs in _by_file(tasks).values():
        first = next(iter(jobs))
        pool = replace(way.pool, devices=model.devices) if model.spec else HERE
        with folder.open(_header(first, model.name, identity), way.fresh) as file:
            items: list[Item] = []
            for some in jobs.values():
                keys = keys_of(some, identity)
                _borrow(file, some, keys, folder, model.name)
                ready, lost = _items(some, keys, identity, records)
                items += ready
                file.append(r for r in lost if wanted(file.records.get(r["key"]), way.retry_failed))
            segments = place / SEGMENTS
            if way.fresh:
                shutil.rmtree(segments, ignore_errors=True)
            with way.watch(model.name) as callback, followed(segments, callback) as shown:
                run(
                    Work({kind_of(job): job for job in jobs}, model.spec or model.potential, identity, place),
                    items,
                    file,
                    chunk=max(job.together(model.potential) for job in jobs),
                    pool=pool,
                    retry_failed=way.retry_failed,
                    keep_going=way.keep_going,
                    watch=shown,
                )
            tidy(segments, file.records)
            records.update(file.records)
            records.digests[file.path] = file.digest
    return records


def _by_file(tasks: Iterable[Task]) -> dict[tuple[str, int], dict[Job, list[Task]]]:
    """Return the tasks of each job, in order, by the file of their records: settings of a job share it."""
    files: dict[tuple[str, int], dict[Job, list[Task]]] = {}
    for job, some in by_job(tasks).items():
        files.setdefault((job.name, job.version), {})[job] = some
    return files


def keys_of(tasks: Sequence[Task], identity: str) -> list[str]:
    """Return `Task.key` of tasks of one job."""
    return tasks[0].job.subject(identity).keys_of(task.frame for task in tasks) if tasks else []


def _items(
    tasks: Sequence[Task], keys: Sequence[str], identity: str, records: Records
) -> tuple[list[Item], list[Record]]:
    """Return the items of tasks, prepared by what was done first, and records of those that cannot be."""
    items, lost = [], []
    for task, key in zip(tasks, keys, strict=True):
        first = task.job.before(task.frame)
        before = records[first.key(identity)] if first else None
        if before is None:
            items.append(Item(key, task.frame, kind_of(task.job)))
        elif before["status"] == "ok":
            items.append(Item(key, task.job.prepared(task.frame, before), kind_of(task.job)))
        else:
            lost.append(failed(key, before["reason"]))
    return items, lost


def recorded(
    tasks: Iterable[Task] | Mapping[Job, list[Task]], name: str, identity: str, folder: RunFolder
) -> dict[str, Record]:
    """Return what a folder holds of a model's tasks; nothing is done.

    Args:
        tasks: of a protocol, or `by_job` of them.
        name: of the model.
        identity: its hash.
        folder: of the run.

    Raises:
        RecordError: a record file is damaged.
    """
    records: dict[str, Record] = {}
    for job, some in (tasks if isinstance(tasks, Mapping) else by_job(tasks)).items():
        records |= _old_records(some, identity, folder.plain_record_path(name))
        path = folder.record_path(name, job.name)
        if path.exists():
            records |= read_records(path)[1]
    return records


def by_job(tasks: Iterable[Task]) -> dict[Job, list[Task]]:
    """Return the tasks of each job, in order."""
    groups: dict[Job, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.job, []).append(task)
    return groups


def _header(job: Job, name: str, identity: str) -> Header:
    return Header(job.name, job.version, name, identity, provenance())


def _borrow(
    file: RecordFile, tasks: Sequence[Task], keys: Sequence[str], folder: RunFolder, name: str
) -> None:
    """Append what other record files hold of these tasks: of version 0.1.0 here, and of runs beside this."""
    job, identity = tasks[0].job, file.header.identity
    lacking = set(keys) - file.records.keys()

    def take(records: Records) -> None:
        useful = [r for key, r in records.items() if key in lacking and r["status"] == "ok"]
        file.append(useful)
        lacking.difference_update(record["key"] for record in useful)

    if lacking:
        take(_old_records(tasks, identity, folder.plain_record_path(name)))
    for path in folder.siblings(job.name):
        if not lacking:
            return
        take(_same(path, file.header))


def _same(path: Path, header: Header) -> Records:
    """Return the records of a file if they are of the same job and potential; a damaged one helps nobody."""
    try:
        other = read_header(path)
        if (other.job, other.version, other.identity) != (header.job, header.version, header.identity):
            return {}
        return read_records(path)[1]
    except (OSError, RecordError):
        return {}


def _old_records(tasks: Sequence[Task], identity: str, path: Path) -> dict[str, Record]:
    """Return the records of a file of version 0.1.0, whose keys hashed the protocol, under today's keys."""
    if not path.exists():
        return {}
    header, records = read_records(path)
    if header.identity != identity:
        return {}
    old = Subject(header.job, header.version, identity)
    renewed = {}
    for task in tasks:
        if (record := records.get(old.key(task.frame))) is not None:
            key = task.key(identity)
            renewed[key] = record | {"key": key}
    return renewed
