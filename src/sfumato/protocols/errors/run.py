"""Measure the errors of models on labeled structures: one folder, one record file per model, resumable."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.datasets import named as datasets
from sfumato.execution.folder import RunFolder, RunFolderError, provenance
from sfumato.execution.pool import PoolSettings
from sfumato.frames import Category, FrameSet
from sfumato.io import read_frame_set
from sfumato.potentials.potential import Potential
from sfumato.protocols.errors import analysis as protocol
from sfumato.protocols.models import Model, Watcher, Way, evaluated, manifest_of, recorded, resolved
from sfumato.systems import Batch, Prediction, ScanSet

STRUCTURES = (".xyz", ".extxyz", ".db", ".aselmdb", ".json", ".traj")
"""Endings of files whose labels somebody has to declare."""


@dataclass(frozen=True, eq=False)
class EvalRun:
    """Everything a reader of a run needs: the frames, every model's errors, and what was asked for."""

    frames: FrameSet
    models: dict[str, protocol.ModelErrors]
    settings: protocol.Settings
    manifest: dict[str, Any]
    folder: Path

    @property
    def complete(self) -> bool:
        """Whether every frame was predicted by every model."""
        return all(n == total for n, total in (model.coverage for model in self.models.values()))

    @property
    def split(self) -> str:
        """Which split the frames are of; "all" for every frame."""
        return str(self.manifest["split"])

    @property
    def seen(self) -> dict[str, str]:
        """Model → what it had of these frames in its training; a model that saw none is left out."""
        found = {}
        for name in self.models:
            training = self.manifest["models"][name].get("training") or {}
            if training.get("dataset_sha256") == self.manifest["data"]["identity"]:
                said = {
                    training["train"]: "was trained on these frames",
                    training["validation"]: "was chosen by its errors on these frames",
                    protocol.ALL: "was trained on some of these frames",
                }
                if self.split in said:
                    found[name] = said[self.split]
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the result file."""
        data = self.manifest["data"] | {"split": self.split, "frames used": len(self.frames)}
        return {
            "models": {
                name: model.as_json() | {"seen": self.seen.get(name)} for name, model in self.models.items()
            },
            "settings": self.settings.model_dump()
            | {"protocol": protocol.NAME, "version": protocol.VERSION}
            | {"limit_per_subset": self.manifest["limit_per_subset"]},
            "provenance": self.manifest["provenance"] | {"data": data},
        }


@dataclass(frozen=True)
class Source:
    """Which frames.

    Args:
        data: a named set, a packed file of frames or scans, or a file of structures with a `source`.
        source: YAML that says what the file is and means, as for `sfumato data convert`; None for none.
        split: train, val, test or all; None for test, else val, else all, whichever is there first.
        limit_per_subset: only the first so many frames of each subset, at least one; None for all.

    Raises:
        ValueError: a limit below one.
    """

    data: str | Path
    source: Path | None = None
    split: str | None = None
    limit_per_subset: int | None = None

    def __post_init__(self) -> None:
        if self.limit_per_subset is not None and self.limit_per_subset < 1:
            raise ValueError(
                f"limit per subset = {self.limit_per_subset}: must be at least 1; leave it out for all frames"
            )


def run_eval(
    models: Sequence[str | Potential],
    which: Source | FrameSet,
    *,
    out: Path | None = None,
    settings: protocol.Settings = protocol.Settings(),  # noqa: B008 (frozen)
    pool: PoolSettings = PoolSettings(workers=0),  # noqa: B008 (frozen)
    retry_failed: bool = False,
    watch: Watcher = lambda name: nullcontext(lambda tally: None),
) -> EvalRun:
    """Predict labeled structures and compare, continuing where an earlier run of the folder stopped.

    Args:
        models: specs ("gfn2-xtb", "model.safetensors", "NAME=SPEC") or Potential objects; an object is
            evaluated in this process, a spec also in worker processes.
        which: frames.
        out: the run folder; default "runs/eval-<data set>".
        settings: of the protocol.
        pool: workers (0: this process), threads, limits.
        retry_failed: evaluate again what failed before.
        watch: given a model's name, a context manager that yields a callback for its progress.

    Returns:
        The errors of these models.

    Raises:
        ValueError: bad data, model or settings; a folder that holds something else.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    whole, asked = (which, Source(which.name)) if isinstance(which, FrameSet) else (load_set(which), which)
    split = _split(whole, asked)
    frames = whole.take(protocol.select(whole, split, asked.limit_per_subset))
    chosen = resolved(models)
    folder = RunFolder(out or Path("runs") / f"{protocol.NAME}-{whole.name}")
    manifest = _manifest(whole, replace(asked, split=split), settings, chosen)
    folder.begin(manifest)
    way = Way(pool, retry_failed, watch)
    results = {}
    for model in chosen:
        name, identity = model.name, model.potential.identity
        records = evaluated(folder, manifest, model, list(protocol.plan(frames, identity, settings)), way)
        results[name] = protocol.analyse(frames, records, name, identity, settings)
    return EvalRun(frames, results, settings, manifest, folder.path)


def load_eval(folder: Path) -> EvalRun:
    """Return a run from its folder, analysed anew from its records; nothing is evaluated.

    Raises:
        ValueError: the folder or its records are damaged, or the data is not here or has changed.
    """
    run_folder = RunFolder(folder)
    manifest = manifest_of(run_folder, protocol.NAME, protocol.VERSION)
    data, declared = manifest["data"], manifest["source"]
    whole = _read(data["spec"], declared)
    if whole.identity != data["identity"]:
        raise RunFolderError(f"{folder}: the data set {data['spec']} has changed since this run")
    manifest["split"] = protocol.chosen_split(whole, manifest.get("split"))
    frames = whole.take(protocol.select(whole, manifest["split"], manifest["limit_per_subset"]))
    settings = protocol.Settings(**manifest["settings"])
    results = {
        name: protocol.analyse(frames, records, name, identity, settings)
        for name, identity, records in recorded(run_folder, manifest)
    }
    return EvalRun(frames, results, settings, manifest, folder)


def load_set(which: Source) -> FrameSet:
    """Return the frames of any data set.

    Raises:
        ValueError: an unknown name or path, contents that cannot be read, or a file of structures of which
            is not said what its labels are.
    """
    return _read(which.data, None if which.source is None else _declared(which.source))


def _declared(path: Path) -> dict[str, Any]:
    from sfumato.datasets.convert import read_source

    return read_source(path).model_dump(mode="json")


def _read(data: str | Path, declared: dict[str, Any] | None) -> FrameSet:
    if declared is not None:
        return _converted(Path(data), declared)
    path = Path(data)
    if data not in datasets.DATASETS and path.is_file() and path.suffix in STRUCTURES:
        raise ValueError(
            f"{data}: say what its labels are, with --source FILE.yaml: layout, level, keys and units, as "
            "for `sfumato data convert` (docs/training.md)"
        )
    if datasets.holds(data) == "frames":
        return datasets.load_frames(data)
    return of_scans(datasets.load(data))


def _converted(path: Path, declared: dict[str, Any]) -> FrameSet:
    from sfumato.datasets.convert import convert
    from sfumato.datasets.sources import SourceSettings

    with tempfile.TemporaryDirectory(prefix="sfumato-eval-") as folder:
        packed = Path(folder) / "frames.h5"
        # How the frames would be divided for training does not matter here, and few cannot be.
        settings = SourceSettings(**declared | {"fractions": (0.0, 0.0, 1.0)})
        convert(path, packed, settings)
        return read_frame_set(packed)


def of_scans(scan_set: ScanSet) -> FrameSet:
    """Return the labeled frames of scans; positions are rounded to float32, by less than 1e-6 Å.

    A frame's molecule is its scan and its subset the type of the scan.
    """
    frames = [(scan, k) for scan in scan_set for k in np.flatnonzero(scan.labeled).tolist()]
    if not frames:
        raise ValueError(f"{scan_set.name}: no frame is labeled")
    batch = Batch.of([scan.system(k) for scan, k in frames])
    rounded = Batch(
        numbers=batch.numbers,
        positions=batch.positions.astype(np.float32),
        index=batch.index,
        cell=batch.cell,
        pbc=batch.pbc,
        charge=batch.charge,
        multiplicity=batch.multiplicity,
    )
    return FrameSet(
        scan_set.name,
        scan_set.level,
        scan_set.licence,
        scan_set.source,
        rounded,
        Prediction(
            np.array([scan.energy[k] for scan, k in frames]),
            np.concatenate([scan.forces[k] for scan, k in frames]),
        ),
        Category.of(scan.name for scan, _ in frames),
        Category.of(scan.stratum for scan, _ in frames),
        Category.of("test" for _ in frames),
    )


def _split(whole: FrameSet, asked: Source) -> str:
    """Return the split that is asked for, or the usual one; a file that is not packed has none."""
    return protocol.chosen_split(whole, asked.split or (protocol.ALL if asked.source else None))


def _training(spec: str | None) -> dict[str, str | None] | None:
    """Return on what the model of a file was trained: the data set and its two splits; None if unknown."""
    from sfumato.models.checkpoint import SUFFIX, load_model
    from sfumato.potentials.specs import BUNDLED, DATA, NAMED

    if spec is None or (spec in NAMED and spec not in BUNDLED):
        return None
    path = DATA / f"{spec}{SUFFIX}" if spec in BUNDLED else Path(spec).expanduser()
    path = path / f"model{SUFFIX}" if path.is_dir() else path
    if path.suffix != SUFFIX or not path.is_file():
        return None
    facts = load_model(path)[1]
    data = facts.notes.get("settings", {}).get("data", {})
    return {
        "dataset_sha256": facts.dataset_sha256,
        "train": data.get("train", "train"),
        "validation": data.get("validation", "val"),
    }


def _manifest(
    whole: FrameSet, asked: Source, settings: protocol.Settings, chosen: Sequence[Model]
) -> dict[str, Any]:
    spec = str(asked.data)
    return {
        "protocol": protocol.NAME,
        "version": protocol.VERSION,
        "data": {
            "spec": str(Path(spec).resolve()) if Path(spec).exists() else spec,
            "name": whole.name,
            "level": whole.level,
            "frames": len(whole),
            "identity": whole.identity,
        },
        "source": None if asked.source is None else _declared(asked.source),
        "split": asked.split,
        "limit_per_subset": asked.limit_per_subset,
        "models": {
            model.name: {
                "spec": model.spec,
                "identity": model.potential.identity,
                "training": _training(model.spec),
            }
            for model in chosen
        },
        "settings": settings.model_dump(),
        "provenance": provenance(),
    }
