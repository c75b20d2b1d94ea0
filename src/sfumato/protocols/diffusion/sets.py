"""Testing sets of rare events from the path of a hop: its images with the atoms in the middle of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sfumato.execution.records import array
from sfumato.io.rare_events import RareEvents, flagged_set
from sfumato.jobs.defects import Barrier
from sfumato.metrics.hops import THIRD
from sfumato.potentials.potential import Potential
from sfumato.protocols.diffusion.data import Crystal
from sfumato.reference.defects import hop_ends
from sfumato.systems import Batch, Bools, Floats

FAR = 1.0
"""Å from one end of a path to the other, from which on an atom hops and does not only make room."""


def middle_of_path(positions: Floats) -> Bools:
    """Return (P, N) which atoms are in the middle third of their hop, in each image of a path.

    Args:
        positions: (P, N, 3) Å, never wrapped into the cell.
    """
    span = positions[-1] - positions[0]
    length = (span**2).sum(axis=1)
    t = ((positions - positions[0]) * span).sum(axis=2) / np.maximum(length, 1e-12)
    return np.asarray((length > FAR**2) & (t > THIRD) & (t < 1 - THIRD))


def path_set(crystal: Crystal, job: Barrier, by: Potential, labels: Potential) -> RareEvents:
    """Return the images of a hop with an atom in the middle, labeled.

    Args:
        crystal: the perfect one.
        job: which hop, how many images.
        by: the potential that finds the path.
        labels: the potential or engine whose energies and forces are the truth.

    Raises:
        ValueError: no path at rest; no image with an atom in the middle; an image without an answer.
    """
    record = job.measure(by, crystal.system) | {"key": ""}
    positions = array(record, "positions", (None, None, 3))
    flags = middle_of_path(positions)
    rows = np.flatnonzero(flags.any(axis=1))
    if not len(rows):
        raise ValueError(f"{job.kind}: no image shows an atom in the middle of its hop; take more images")
    first = hop_ends(crystal.system, job.repeat, job.kind)[0]
    systems = [replace(first, positions=positions[k], cell=array(record, "cell", (3, 3))) for k in rows]
    found = labels.predict(Batch.of(systems)).require()
    parts = np.split(found.forces, len(rows))
    one = flagged_set(job.kind, systems, found.energy, parts, list(flags[rows]))
    source = f"path of a {job.kind} hop in {crystal.name} by {by.name}"
    return RareEvents(
        f"{crystal.name}-{job.kind}", labels.abilities.level or labels.name, "not stated", source, (one,)
    )
