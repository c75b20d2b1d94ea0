"""Trajectories of dynamics and the segments they are made of, in HDF5; export to extended XYZ.

A segment is a set of named arrays with some facts, written whole or not at all, so that a killed simulation
goes on from the last one. A trajectory is what a user reads: one structure, its positions now and then, and
what was observed more often.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.files import write_atomically
from sfumato.io.ase_objects import write_systems
from sfumato.io.hdf5 import open_packed
from sfumato.systems import Floats, Ints, System

SEGMENT = "sfumato-segment 1"
TRAJECTORY = "sfumato-trajectory 1"
"""First attribute of each kind of file."""

Arrays = Mapping[str, NDArray[Any]]


def write_segment(path: str | Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write named arrays and facts in JSON types; a reader sees all of it or nothing."""
    import h5py

    with write_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = SEGMENT
        file.attrs["facts"] = json.dumps(facts)
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


def read_segment(
    path: str | Path, only: tuple[str, ...] = ("",)
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return what `write_segment` wrote.

    Args:
        path: of the file.
        only: arrays whose names begin with one of these.

    Raises:
        ValueError: no such file, or one that is damaged or of another kind; names it.
    """
    path = Path(path)
    with open_packed(path) as file:
        _require(file.attrs.get("format"), SEGMENT)
        arrays: dict[str, NDArray[Any]] = {}

        def take(name: str, item: Any) -> None:
            if hasattr(item, "shape") and name.startswith(only):
                arrays[name] = item[()]

        file.visititems(take)
        return arrays, dict(json.loads(file.attrs["facts"]))


def _require(found: Any, wanted: str) -> None:
    if found != wanted:
        raise ValueError(f"not a file of the kind {wanted.partition(' ')[0]!r} (its format is {found!r})")


@dataclass(frozen=True, eq=False)
class Motion:
    """A trajectory of one structure.

    Args:
        system: at the start.
        time: (F,) fs, of the frames.
        positions: (F, N, 3) Å, never wrapped into the cell.
        observed_at: (M,) fs, of what was observed.
        observed: name → (M,), for example "potential" in eV.
        facts: how it was made, in JSON types.
    """

    system: System
    time: Floats
    positions: Floats
    observed_at: Floats = field(default_factory=lambda: np.zeros(0))
    observed: Mapping[str, Floats] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time)


def write_trajectory(path: str | Path, motion: Motion) -> None:
    """Write a trajectory to HDF5, whole or not at all; positions are packed without loss."""
    import h5py

    s = motion.system
    with write_atomically(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"] = TRAJECTORY
        file.attrs["facts"] = json.dumps(motion.facts)
        file.attrs["units"] = "fs, Å, eV, K"
        file.attrs["charge"], file.attrs["multiplicity"] = s.charge, s.multiplicity
        for name in ("numbers", "cell", "pbc"):
            file[f"system/{name}"] = getattr(s, name)
        file["system/positions"] = s.positions
        file["time"] = motion.time
        packed = {"compression": "gzip", "shuffle": True} if len(motion) else {}
        file.create_dataset("positions", data=motion.positions, **packed)
        file["observed/time"] = motion.observed_at
        for name, values in motion.observed.items():
            file[f"observed/values/{name}"] = values


def read_trajectory(path: str | Path) -> Motion:
    """Return a trajectory.

    Raises:
        ValueError: no such file, or one that is damaged or of another kind; names it.
    """
    path = Path(path)
    with open_packed(path) as file:
        _require(file.attrs.get("format"), TRAJECTORY)
        parts = {name: file[f"system/{name}"][()] for name in ("numbers", "positions", "cell", "pbc")}
        charge, multiplicity = int(file.attrs["charge"]), int(file.attrs["multiplicity"])
        values = file.get("observed/values", {})
        motion = Motion(
            System(**parts, charge=charge, multiplicity=multiplicity),
            file["time"][()],
            file["positions"][()],
            file["observed/time"][()],
            {name: values[name][()] for name in values},
            dict(json.loads(file.attrs["facts"])),
        )
        if motion.positions.shape != (len(motion), len(parts["numbers"]), 3):
            raise ValueError(f"damaged: positions have the shape {motion.positions.shape}")
        return motion


def export_trajectory(path: str | Path, out: str | Path, every: int = 1) -> int:
    """Write a trajectory as extended XYZ, with time and, where it was observed then, the potential energy.

    Args:
        path: of the HDF5 file.
        out: the file to write, replaced if it exists.
        every: frame to write.

    Returns:
        The number of frames.

    Raises:
        ValueError: what `read_trajectory` refuses; `every` below 1.
    """
    if every < 1:
        raise ValueError(f"every: at least 1, got {every}")
    motion = read_trajectory(path)
    s = motion.system
    rows = range(0, len(motion), every)
    systems = [System(s.numbers, motion.positions[k], s.cell, s.pbc, s.charge, s.multiplicity) for k in rows]
    energy = _energies(motion)
    words = [
        {"time_fs": repr(float(motion.time[k]))}
        | ({"potential_eV": repr(float(energy[k]))} if np.isfinite(energy[k]) else {})
        for k in rows
    ]
    write_systems(out, systems, None, words)
    return len(systems)


def _energies(motion: Motion) -> Floats:
    """Return (F,) potential energies of the frames in eV, NaN where none was observed at that time."""
    known: Ints = np.searchsorted(motion.observed_at, motion.time)
    values = motion.observed.get("potential", np.zeros(0))
    found = np.full(len(motion), np.nan)
    for k, place in enumerate(known.tolist()):
        if place < len(values) and abs(motion.observed_at[place] - motion.time[k]) < 1e-9:
            found[k] = values[place]
    return found
