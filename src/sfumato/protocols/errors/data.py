"""The frames of the errors protocol: any set of frames or scans, or a file with declared labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sfumato.datasets import named
from sfumato.datasets.labeled import declaration, read_labeled
from sfumato.datasets.sources import SourceSettings
from sfumato.frames import Category, FrameSet
from sfumato.systems import Batch, Prediction, ScanSet

STRUCTURES = (".xyz", ".extxyz", ".db", ".aselmdb", ".json", ".traj")
"""Endings of files whose labels somebody has to declare."""


def read_frames(data: str | Path, declared: dict[str, Any] | None = None) -> FrameSet:
    """Return the frames of any data set.

    Args:
        data: a named set, a packed file of frames or scans, a file that `sfumato label` wrote, or one of
            structures with declared labels.
        declared: what the labels of that file are; None for all others.

    Raises:
        ValueError: an unknown name or path, contents that cannot be read, or a file of structures of which
            is not said what its labels are.
    """
    if declared is not None:
        return read_labeled(Path(data), SourceSettings(**declared))
    path = Path(data)
    if data not in named.DATASETS and path.is_file() and path.suffix in STRUCTURES:
        own = declaration(path)
        if own is not None:
            return read_labeled(path, own)
        raise ValueError(
            f"{data}: say what its labels are, with --source FILE.yaml: layout, level, keys and units "
            f"(docs/training.md); sfumato data convert {data} --template FILE.yaml writes one to complete"
        )
    if named.holds(data) == "frames":
        return named.load_frames(data)
    return of_scans(named.load(data))


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
