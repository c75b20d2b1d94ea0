"""From frames to tensors: structures turned or displaced, batches shared out.

A batch depends on seed, epoch and step alone, and so does every random number in it: there is no state of
random generators that could be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from ase.geometry import complete_cell
from torch import Tensor

from sfumato.datasets.loader import Loader, orientations
from sfumato.graph.layout import Topology
from sfumato.systems import Batch, Floats, Ints, Prediction
from sfumato.training.denoising import displace
from sfumato.training.graphs import Graphs
from sfumato.training.losses import Counts, Targets
from sfumato.training.settings import TrainSettings
from sfumato.training.stages import Denoising, Stage

KEPT = 20_000
"""Frames of a split whose graphs are kept in memory, some 50 kB each; larger splits find them every time."""

Item = TypeVar("Item")

NOISE, BONDS = 2, 3
"""What a random generator is for, beside those of the loader."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The part of a step's batch that one pass over the network sees.

    Args:
        frames: (G,) their numbers in the set.
        topology: the graph.
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
        targets: what the model should say.
        known_forces: (N, 3) eV/Å, in a displaced batch.
        stretch: (N, 3) unit displacements along a bond of each structure, where these are asked for.
    """

    frames: Ints
    topology: Topology
    positions: Tensor
    cell: Tensor
    targets: Targets
    known_forces: Tensor | None = None
    stretch: Tensor | None = None

    def to(self, device: torch.device) -> Sample:
        """Return the same on another device."""
        moved = {f.name: getattr(self.targets, f.name) for f in fields(Targets)}
        moved |= {name: part.to(device) for name, part in moved.items() if isinstance(part, Tensor)}
        return Sample(
            self.frames,
            self.topology.to(device),
            self.positions.to(device),
            self.cell.to(device),
            Targets(**moved),
            None if self.known_forces is None else self.known_forces.to(device),
            None if self.stretch is None else self.stretch.to(device),
        )


@dataclass(frozen=True, eq=False)
class Whole:
    """The batch of a step, before it is shared out.

    Args:
        frames: (G,) their numbers in the set.
        batch: structures as stored.
        labels: of them; NaN where they are not compared.
        turn: (G, 3, 3) rotation of each structure, or None.
        noise: (N, 3) displacements over their standard deviation, NaN for atoms that stay, or None.
        known_forces: (N, 3) eV/Å to show the model, or None.
        stretch: (N, 3) unit displacements along a bond, or None.
        counts: of compared labels.
    """

    frames: Ints
    batch: Batch
    labels: Prediction
    turn: Floats | None
    noise: Floats | None
    known_forces: Floats | None
    stretch: Floats | None
    counts: Counts

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, places: Ints) -> Whole:
        """Return some of the structures; the counts stay those of the whole."""
        atoms, labels = _atoms(self.batch, places), self.labels
        stress = None if labels.stress is None else labels.stress[places]
        noise, known, stretch = (
            None if part is None else part[atoms] for part in (self.noise, self.known_forces, self.stretch)
        )
        return replace(
            self,
            frames=self.frames[places],
            batch=self.batch.take(places),
            labels=Prediction(labels.energy[places], labels.forces[atoms], stress),
            turn=None if self.turn is None else self.turn[places],
            noise=noise,
            known_forces=known,
            stretch=stretch,
        )

    def share(self, rank: int, ranks: int) -> Whole:
        """Return the structures of one rank: every so many, from the largest to the smallest."""
        if ranks == 1:
            return self
        order = np.argsort(-np.diff(self.batch.offsets), kind="stable")
        return self.take(np.sort(order[rank::ranks]))


def _atoms(batch: Batch, places: Ints) -> Ints:
    """Return the atoms of some structures."""
    counts = np.diff(batch.offsets)[places]
    stops = np.cumsum(counts)
    total = int(counts.sum())
    return np.asarray(np.repeat(batch.offsets[places] - (stops - counts), counts) + np.arange(total))


class Batches:
    """The batches of one stage, each a function of its epoch and step alone.

    Args:
        loader: of the frames as stored.
        settings: of the run.
        stage: of which the batches are.
        skin: Å of the graphs, more than twice what a step moves atoms.
    """

    def __init__(self, loader: Loader, settings: TrainSettings, stage: Stage, skin: float = 0.0) -> None:
        self.loader, self.settings, self.stage = loader, settings, stage
        self.graphs = Graphs(settings.model.graph, skin, keep=len(loader.frames) <= KEPT)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Whole]:
        """Yield what is left of an epoch, each batch prepared while the one before is worked on.

        Args:
            epoch: from 0.
            start: the step to begin with.
        """
        numbers = (self.loader.numbers(epoch, k) for k in range(start, self.loader.steps(epoch)))
        pairs = zip(numbers, self.loader.batches(epoch, start), strict=True)
        for step, (frames, (batch, labels)) in enumerate(pairs, start):
            yield self._whole(epoch, step, frames, batch, labels)

    def _whole(self, epoch: int, step: int, frames: Ints, batch: Batch, labels: Prediction) -> Whole:
        s, stage = self.settings, self.stage
        turn = orientations(s.seed, epoch, frames) if s.rotates else None
        noise = known = stretch = None
        if stage.denoising is not None:
            made = displace_batch(batch, labels, stage.denoising, [NOISE, s.seed, epoch, step])
            if made is not None:
                batch, labels, noise, known = made
        if stage.smoothness is not None:
            stretch = stretches(batch, np.random.default_rng([BONDS, s.seed, epoch, step]))
        stress = labels.stress if stage.loss.stress > 0 else None
        counts = Counts(
            structures=len(batch),
            atoms=int(np.isfinite(labels.forces).all(axis=1).sum()),
            stressed=0 if stress is None else int(np.isfinite(stress).all(axis=(1, 2)).sum()),
            moved=0 if noise is None else int(np.isfinite(noise).all(axis=1).sum()),
        )
        labels = Prediction(labels.energy, labels.forces, stress)
        return Whole(frames, batch, labels, turn, noise, known, stretch, counts)

    def sample(self, whole: Whole, dtype: torch.dtype) -> Sample:
        """Return a batch, or a part of one, as tensors on the CPU.

        Args:
            whole: of at least one structure.
            dtype: of positions and targets.
        """
        return as_sample(whole, self.graphs, dtype)


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items, each made in another thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def displace_batch(
    batch: Batch, labels: Prediction, settings: Denoising, seed: list[int]
) -> tuple[Batch, Prediction, Floats, Floats] | None:
    """Displace the atoms of a batch; None where it stays as it is.

    Args:
        batch: the structures.
        labels: of them; the stress of a displaced structure is not known.
        settings: of the displacements.
        seed: of this batch alone.

    Returns:
        Structures, labels, displacements and known forces as in `Displaced`.
    """
    moved = displace(batch.positions, labels.forces, settings, np.random.default_rng(seed))
    if moved is None:
        return None
    stress = None if labels.stress is None else np.full_like(labels.stress, np.nan)
    labels = Prediction(labels.energy, moved.forces, stress)
    return replace(batch, positions=moved.positions), labels, moved.noise, moved.known_forces


def stretches(batch: Batch, rng: np.random.Generator) -> Floats:
    """Return (N, 3) unit displacements that stretch a bond of each molecule, half of it by either side.

    The bond is drawn from those that hold two fragments together. Where there is none, or the structure is
    periodic or in pieces, nothing moves.

    Args:
        batch: the structures.
        rng: of this batch alone.
    """
    from sfumato.reference.scans.network import bonds, bridge_bonds

    found = np.zeros_like(batch.positions)
    for k, system in enumerate(batch):
        drawn = rng.random()
        if system.pbc.any():
            continue
        try:
            bridges = bridge_bonds(len(system), bonds(system))
        except ValueError:  # in pieces, or atoms on top of each other: no bond to stretch
            continue
        if bridges:
            bridge = bridges[int(drawn * len(bridges))]
            along = system.positions[bridge.j] - system.positions[bridge.i]
            atoms = slice(batch.offsets[k], batch.offsets[k + 1])
            found[atoms] = 0.5 * bridge.fragment[:, None] * along / np.linalg.norm(along)
    return found


def as_sample(whole: Whole, graphs: Graphs, dtype: torch.dtype) -> Sample:
    """Return structures and labels as tensors, turned.

    Args:
        whole: structures, not turned yet.
        graphs: where their graph is found.
        dtype: of positions and vectors; energies stay in double precision.
    """
    batch, labels, turn = whole.batch, whole.labels, whole.turn
    positions, cell, stress = batch.positions, batch.cell, labels.stress
    if stress is not None:
        # A molecule beside crystals has no stress to compare, but one is computed, per volume.
        cell = np.stack([complete_cell(vectors) for vectors in cell])
    vectors = {"forces": labels.forces, "noise": whole.noise}
    vectors |= {"known": whole.known_forces, "stretch": whole.stretch}
    if turn is not None:
        by_atom = turn[batch.index]
        positions = _turned(by_atom, positions)
        vectors = {name: None if v is None else _turned(by_atom, v) for name, v in vectors.items()}
        cell = np.einsum("gij,gkj->gki", turn, cell)
        stress = None if stress is None else np.einsum("gij,gjk,glk->gil", turn, stress, turn)

    def tensor(values: Floats | None) -> Tensor | None:
        return None if values is None else torch.from_numpy(np.array(values)).to(dtype)

    found = {name: tensor(values) for name, values in vectors.items()}
    forces, energy = found["forces"], torch.from_numpy(labels.energy.copy())
    assert forces is not None
    sizes = torch.from_numpy(np.diff(batch.offsets))
    targets = Targets(energy, forces, tensor(stress), found["noise"], sizes, whole.counts)
    topology = graphs.of(whole.frames, batch, whole.noise is not None)
    return Sample(
        whole.frames,
        topology,
        torch.from_numpy(positions.copy()).to(dtype),
        torch.from_numpy(cell.copy()).to(dtype),
        targets,
        found["known"],
        found["stretch"],
    )


def _turned(turn: Floats, vectors: Floats) -> Floats:
    return np.asarray(np.einsum("nij,nj->ni", turn, vectors))
