"""Run a protocol on models and data: one folder, one record file per model, resumable at any time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.datasets import named as datasets
from sfumato.execution.folder import RunFolder, RunFolderError, provenance
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import read_records
from sfumato.potentials.potential import Potential
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.models import Model, Watcher, Way, evaluated, manifest_of, recorded, resolved
from sfumato.systems import Batch, Scan, ScanSet


@dataclass(frozen=True, eq=False)
class BsctRun:
    """Everything a reader of a run needs: the reference, every model's result, and what was asked for."""

    scan_set: ScanSet
    models: dict[str, bsct.ModelResult]
    settings: bsct.Settings
    manifest: dict[str, Any]
    folder: Path

    @property
    def complete(self) -> bool:
        """Whether every scan of every model came out ok."""
        return all(n == total for n, total in (model.coverage for model in self.models.values()))

    def as_json(self) -> dict[str, Any]:
        """Return the result file."""
        return {
            "models": {name: model.as_json() for name, model in self.models.items()},
            "settings": self.settings.model_dump()
            | {"protocol": bsct.NAME, "version": bsct.VERSION, "fsd_name": self.settings.fsd.name}
            | {"limit_per_bond": self.manifest["limit_per_bond"]},
            "provenance": self.manifest["provenance"] | {"data": self.manifest["data"]},
        }


def run_bsct(
    models: Sequence[str | Potential],
    data: str | Path | ScanSet,
    *,
    out: Path | None = None,
    settings: bsct.Settings = bsct.Settings(),  # noqa: B008 (frozen)
    limit_per_bond: int | None = None,
    pool: PoolSettings = PoolSettings(workers=0),  # noqa: B008 (frozen)
    retry_failed: bool = False,
    watch: Watcher = lambda name: nullcontext(lambda tally: None),
) -> BsctRun:
    """Evaluate models on bond scans, continuing where an earlier run of the same folder stopped.

    Args:
        models: specs ("gfn2-xtb", "file.py:factory", "NAME=SPEC") or Potential objects; an object is
            evaluated in this process, a spec also in worker processes.
        data: a named data set, a path to scans, or a ScanSet.
        out: the run folder; default "runs/bsct-<data set>".
        settings: of the test.
        limit_per_bond: only the first scans of each bond type.
        pool: workers (0: this process), threads, limits.
        retry_failed: evaluate again what failed before.
        watch: given a model's name, a context manager that yields a callback for its progress.

    Returns:
        The results of these models, with the data they were measured on.

    Raises:
        ValueError: bad data, model or settings; a folder that holds something else.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    scan_set = datasets.load(data) if isinstance(data, str | Path) else data
    scans = bsct.select(scan_set, limit_per_bond)
    chosen = resolved(models)
    folder = RunFolder(out or default_folder(scan_set))
    manifest = _manifest(data, scan_set, limit_per_bond, settings, chosen)
    folder.begin(manifest)
    way = Way(pool, retry_failed, watch)
    results = {}
    for model in chosen:
        name, identity = model.name, model.potential.identity
        records = evaluated(folder, manifest, model, list(bsct.plan(scans, identity, settings)), way)
        results[name] = bsct.analyse(scans, records, name, identity, settings)
    return BsctRun(scan_set, results, settings, manifest, folder.path)


def load_bsct(folder: Path) -> BsctRun:
    """Return a run from its folder, analysed anew from its records; nothing is evaluated.

    Raises:
        ValueError: the folder or its records are damaged, or the data set is not here or has changed.
    """
    run_folder = RunFolder(folder)
    manifest = manifest_of(run_folder, bsct.NAME, bsct.VERSION)
    scan_set = datasets.load(manifest["data"]["spec"])
    if scan_set.identity != manifest["data"]["identity"]:
        raise RunFolderError(f"{folder}: the data set {manifest['data']['spec']} has changed since this run")
    settings = bsct.Settings(**manifest["settings"])
    scans = bsct.select(scan_set, manifest["limit_per_bond"])
    results = {
        name: bsct.analyse(scans, records, name, identity, settings)
        for name, identity, records in recorded(run_folder, manifest)
    }
    return BsctRun(scan_set, results, settings, manifest, folder)


def default_folder(scan_set: ScanSet) -> Path:
    """Return where a run goes when nothing is said: runs/bsct-<data set>."""
    return Path("runs") / f"{bsct.NAME}-{scan_set.name}"


@dataclass(frozen=True)
class Cost:
    """What a run of one model would take.

    Args:
        model: its name.
        frames: structures to predict, and `done` of them already in the run folder.
        seconds: single-worker time left, and the slowest and fastest timed frame's seconds per frame.
    """

    model: str
    frames: int
    done: int
    seconds: float
    fastest: float
    slowest: float


def plan_bsct(
    models: Sequence[str | Potential],
    data: str | Path | ScanSet,
    *,
    out: Path | None = None,
    settings: bsct.Settings = bsct.Settings(),  # noqa: B008 (frozen)
    limit_per_bond: int | None = None,
    samples: int = 5,
) -> list[Cost]:
    """Time a few real frames of each model and say what the whole run would take; nothing is written.

    Args:
        models, data, out, settings, limit_per_bond: as for `run_bsct`.
        samples: frames timed per model, from the smallest to the largest molecule.

    Raises:
        ValueError: as `run_bsct`, and where none of the sampled frames can be evaluated.
    """
    scan_set = datasets.load(data) if isinstance(data, str | Path) else data
    scans = bsct.select(scan_set, limit_per_bond)
    folder = RunFolder(out or default_folder(scan_set))
    costs = []
    for model in resolved(models):
        path = folder.record_path(model.name)
        records = read_records(path)[1] if path.exists() else {}
        items = list(bsct.plan(scans, model.potential.identity, settings))
        todo = [item for item in items if item.key not in records]
        timed = _time_frames(model.potential, scans, samples)
        seconds = sum(np.interp(len(item.payload.numbers), *timed) for item in todo)
        costs.append(
            Cost(model.name, len(items), len(items) - len(todo), seconds, min(timed[1]), max(timed[1]))
        )
    return costs


def _time_frames(potential: Potential, scans: Sequence[Scan], samples: int) -> tuple[list[int], list[float]]:
    """Seconds per frame at a few molecule sizes, by real predictions after one to warm up."""
    by_size = {len(scan.numbers): scan for scan in scans}
    sizes = sorted(by_size)
    picked = sorted({sizes[round(i)] for i in np.linspace(0, len(sizes) - 1, samples)})
    potential.predict(Batch.of([by_size[picked[0]].system(len(by_size[picked[0]]) // 2)]))
    seconds = []
    for size in picked:
        system = by_size[size].system(len(by_size[size]) // 2)
        start = time.perf_counter()
        potential.predict(Batch.of([system]))
        seconds.append(time.perf_counter() - start)
    return picked, seconds


def _manifest(
    data: str | Path | ScanSet,
    scan_set: ScanSet,
    limit_per_bond: int | None,
    settings: bsct.Settings,
    chosen: Sequence[Model],
) -> dict[str, Any]:
    spec = scan_set.name if isinstance(data, ScanSet) else str(data)
    if Path(spec).exists():
        spec = str(Path(spec).resolve())
    return {
        "protocol": bsct.NAME,
        "version": bsct.VERSION,
        "data": {
            "spec": spec,
            "name": scan_set.name,
            "level": scan_set.level,
            "scans": len(scan_set),
            "identity": scan_set.identity,
        },
        "limit_per_bond": limit_per_bond,
        "models": {s.name: {"spec": s.spec, "identity": s.potential.identity} for s in chosen},
        "settings": settings.model_dump(),
        "provenance": provenance(),
    }
