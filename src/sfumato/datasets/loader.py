"""Batches for training: the frames of a packed file in an order that a seed, an epoch and a step determine.

Nothing is kept between batches: to resume, ask for the same epoch from the step that comes next.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

from sfumato.frames import Category, FrameSet
from sfumato.graph.neighbors import half_pairs
from sfumato.io.frames_hdf5 import STORED, FrameFile
from sfumato.systems import Batch, Bools, Floats, Ints, Prediction

Arrays = dict[str, NDArray[Any]]

BLOCK = 256
"""Consecutive frames that are read together, and whose rotations are drawn together."""

READ = 8192
"""Frames read at once, where those wanted lie close to each other."""

COUNTED = 512
"""Frames whose neighbors are counted together."""

DENSE = 128
"""Atoms of a molecule up to which all its distances are looked at."""

ORDER, ROTATION = 0, 1
"""What a random generator is for, so that one draw never depends on another."""


class Rows(Protocol):
    """Frames that can be read by number; `FrameFile` is one, and `rows_of` makes one of a `FrameSet`."""

    name: str
    level: str
    offsets: Ints
    molecule: Category
    subset: Category
    split: Category
    identity: str
    provenance: dict[str, Any]

    def __len__(self) -> int: ...
    def read(self, start: int = 0, stop: int | None = None) -> tuple[Batch, Prediction]: ...
    def arrays(self, start: int, stop: int) -> Arrays: ...


class _RowsOfSet:
    """A set in memory, read as if it were a file."""

    def __init__(self, frames: FrameSet) -> None:
        self._frames = frames
        self.name, self.level, self.identity = frames.name, frames.level, frames.identity
        self.molecule, self.subset, self.split = frames.molecule, frames.subset, frames.split
        self.provenance = frames.provenance
        self.offsets = frames.batch.offsets

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, start: int = 0, stop: int | None = None) -> tuple[Batch, Prediction]:
        part = self._frames.take(np.arange(start, len(self) if stop is None else stop))
        return part.batch, part.labels

    def arrays(self, start: int, stop: int) -> Arrays:
        rows = {"frame": slice(start, stop), "atom": slice(self.offsets[start], self.offsets[stop])}
        batch, labels = self._frames.batch, self._frames.labels
        found = {key: getattr(batch if hasattr(batch, key) else labels, key) for key in STORED}
        return {key: a[rows[STORED[key][0]]] for key, a in found.items() if a is not None}


def rows_of(source: FrameSet | str | Path) -> Rows:
    """Return the frames of a set, or of a packed file, which stays open."""
    return _RowsOfSet(source) if isinstance(source, FrameSet) else FrameFile(source)


class LoaderSettings(BaseModel):
    """How frames are put into batches. At least one limit must be given; a batch stays within each.

    Args:
        structures: most structures in a batch.
        atoms: most atoms in a batch.
        edges: most directed neighbor pairs in a batch.
        cutoff: Å, of those pairs: the model's.
        neighbors: pairs of one atom that count at most; the k of a model that sees k neighbors.
        seed: of order and rotations.
        shuffle: whether every epoch has its own order; if not, that of the file.
        rotate: whether every frame is turned and mirrored at random, anew in every epoch.
        window: frames that are in memory and shuffled together. A set that fits in one window is read
            once and shuffled wholly; a larger one is shuffled in blocks of 256, then within windows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    structures: PositiveInt | None = None
    atoms: PositiveInt | None = None
    edges: PositiveInt | None = None
    cutoff: PositiveFloat = 6.0
    neighbors: PositiveInt | None = None
    seed: NonNegativeInt = 0
    shuffle: bool = True
    rotate: bool = True
    window: PositiveInt = 1 << 17


def edge_counts(rows: Rows, frames: Ints, cutoff: float, neighbors: int | None = None) -> Ints:
    """Count the directed neighbor pairs of frames.

    Args:
        rows: the frames.
        frames: (n,) which of them, increasing.
        cutoff: Å.
        neighbors: most pairs that one atom counts with.

    Returns:
        (n,) pairs of each.
    """
    counts = np.zeros(len(rows), dtype=np.int64)
    for start, stop in _runs(frames, COUNTED):
        batch, _ = rows.read(start, stop)
        by_atom = _neighbor_counts(batch, cutoff)
        if neighbors is not None:
            by_atom = np.minimum(by_atom, neighbors)
        counts[start:stop] = np.bincount(batch.index, by_atom, len(batch))
    return counts[frames]


def _neighbor_counts(batch: Batch, cutoff: float) -> Ints:
    """Return (N,) neighbors of each atom."""
    counts = np.zeros(len(batch.numbers), dtype=np.int64)
    small, rest, kept = small_molecules(batch)
    for k in small.tolist():
        atoms = slice(batch.offsets[k], batch.offsets[k + 1])
        x = batch.positions[atoms]
        apart = x[:, None] - x[None]
        counts[atoms] = (np.einsum("ijk,ijk->ij", apart, apart) < cutoff * cutoff).sum(axis=1) - 1
    if len(rest):
        half, n = half_pairs(rest, cutoff), len(rest.numbers)
        counts[kept] = np.bincount(half.i, minlength=n) + np.bincount(half.j, minlength=n)
    return counts


def small_molecules(batch: Batch) -> tuple[Ints, Batch, Bools]:
    """Part a batch into molecules so small that all distances are faster than a neighbor list, and the rest.

    Returns:
        The numbers of those molecules, the other structures, and (N,) which atoms are theirs.
    """
    sizes = np.diff(batch.offsets)
    small = ~batch.pbc.any(axis=1) & (sizes <= DENSE)
    kept = ~small[batch.index]
    rest = Batch(
        numbers=batch.numbers[kept],
        positions=batch.positions[kept],
        index=np.repeat(np.arange((~small).sum()), sizes[~small]),
        cell=batch.cell[~small],
        pbc=batch.pbc[~small],
        charge=batch.charge[~small],
        multiplicity=batch.multiplicity[~small],
    )
    return np.flatnonzero(small), rest, kept


def _runs(frames: Ints, most: int = READ) -> Iterator[tuple[int, int]]:
    """Yield slices that cover increasing frame numbers, bridging gaps cheaper to read than to skip."""
    if not len(frames):
        return
    start = last = int(frames[0])
    for frame in frames[1:].tolist():
        if frame - last > BLOCK or frame - start >= most:
            yield start, last + 1
            start = frame
        last = frame
    yield start, last + 1


def orientations(seed: int, epoch: int, frames: Ints) -> Floats:
    """Draw the rotation of each frame in an epoch, uniformly from O(3), whatever batch it is in.

    Args:
        seed: of the run.
        epoch: number of the epoch.
        frames: (n,) their numbers in the set.

    Returns:
        (n, 3, 3) orthogonal matrices, of determinant +1 or −1 with equal chance.

    Source:
        Shoemake 1992, "Uniform random rotations": a normalized Gaussian quaternion.
    """
    blocks, place = np.unique(frames // BLOCK, return_inverse=True)
    drawn = np.empty((len(blocks), BLOCK, 3, 3))
    for k, block in enumerate(blocks.tolist()):
        rng = np.random.default_rng([ROTATION, seed, epoch, block])
        rotation = _matrices(rng.standard_normal((BLOCK, 4)))
        drawn[k] = rotation * rng.choice([-1.0, 1.0], (BLOCK, 1, 1))
    return np.asarray(drawn[place, frames % BLOCK])


def _matrices(q: Floats) -> Floats:
    """Return (n, 3, 3) rotations of the quaternions (n, 4) after normalizing them."""
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def pack(weights: list[tuple[Ints, int]]) -> list[Ints]:
    """Cut a sequence of frames into batches that stay within every limit.

    Args:
        weights: pairs of the frames' weights (n,) and the largest sum that a batch may have.

    Returns:
        The places of each batch, consecutive; a frame that alone exceeds a limit is one batch.
    """
    sums = [(np.concatenate([[0], np.cumsum(weight)]), limit) for weight, limit in weights]
    batches, start, n = [], 0, len(weights[0][0])
    while start < n:
        stop = min(int(np.searchsorted(total, total[start] + limit, "right")) - 1 for total, limit in sums)
        stop = max(stop, start + 1)
        batches.append(np.arange(start, stop))
        start = stop
    return batches


def share_out(batches: list[Ints], ranks: int) -> list[Ints]:
    """Halve the largest batches until their number is a multiple of the ranks.

    So every rank makes equally many steps, and every frame is seen once, without any repeated or dropped.

    Args:
        batches: the frames of each.
        ranks: how many processes share them.

    Raises:
        ValueError: fewer frames than ranks.
    """
    found = dict(enumerate(batches))
    sizes = [(-len(batch), k) for k, batch in found.items()]
    heapq.heapify(sizes)
    while len(found) % ranks:
        size, k = heapq.heappop(sizes)
        if size > -2:
            raise ValueError(f"{len(found)} frames are too few for {ranks} ranks; use fewer")
        whole, new = found[k], len(found)
        found[k], found[new] = whole[: len(whole) // 2], whole[len(whole) // 2 :]
        for part in (k, new):
            heapq.heappush(sizes, (-len(found[part]), part))
    return list(found.values())


class Loader:
    """Batches of one split, in an order that the seed and the epoch determine.

    Every frame is in one batch of every epoch. State is (epoch, step) and belongs to the caller.

    Args:
        source: a set, or a packed file, of which one window at a time is in memory.
        split: "train", "val" or "test".
        settings: limits of a batch, order and rotations.
        rank: which of the processes this is.
        ranks: how many there are; all make equally many steps.

    Raises:
        ValueError: no such split, no limit, a frame that alone exceeds one, or a wrong rank.
    """

    def __init__(
        self,
        source: FrameSet | str | Path,
        split: str,
        settings: LoaderSettings,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} of {ranks}: ranks are numbered from 0")
        self.rows = rows_of(source)
        self.frames = self.rows.split.where(split)
        self.settings, self.rank, self.ranks = settings, rank, ranks
        self._limits = self._weigh()
        self._plan: tuple[int, list[_Part]] | None = None
        self._window: _Window | None = None

    def _weigh(self) -> list[tuple[Ints, int]]:
        """Return, for each limit, what each frame of the split weighs against it."""
        s, atoms = self.settings, np.diff(self.rows.offsets)[self.frames]
        limits: list[tuple[str, Ints, int]] = []
        if s.structures is not None:
            limits.append(("structures", np.ones_like(atoms), s.structures))
        if s.atoms is not None:
            limits.append(("atoms", atoms, s.atoms))
        if s.edges is not None:
            limits.append(("edges", edge_counts(self.rows, self.frames, s.cutoff, s.neighbors), s.edges))
        if not limits:
            raise ValueError("loader: give at least one limit of a batch: structures, atoms or edges")
        for what, weight, limit in limits:
            if len(weight) and weight.max() > limit:
                frame = self.frames[weight.argmax()]
                raise ValueError(
                    f"loader: frame {frame} of {self.rows.name!r} has {weight.max()} {what}, but a batch may "
                    f"have {limit}; raise the limit"
                )
        return [(weight, limit) for _, weight, limit in limits]

    def _parts(self, epoch: int) -> list[_Part]:
        """Return the windows of an epoch with their batches."""
        if self._plan is None or self._plan[0] != epoch:
            s, n = self.settings, len(self.frames)
            rng = np.random.default_rng([ORDER, s.seed, epoch])
            blocks = np.arange(-(-n // BLOCK))
            if s.shuffle:
                blocks = rng.permutation(blocks)
            parts = []
            for group in np.array_split(blocks, max(1, min(-(-n // s.window), len(blocks)))):
                places = (np.sort(group)[:, None] * BLOCK + np.arange(BLOCK)).ravel()
                places = places[places < n]
                order = rng.permutation(len(places)) if s.shuffle else np.arange(len(places))
                packed = pack([(weight[places[order]], limit) for weight, limit in self._limits])
                batches = share_out([order[batch] for batch in packed], self.ranks)
                parts.append(_Part(self.frames[places], batches))
            self._plan = epoch, parts
        return self._plan[1]

    def steps(self, epoch: int) -> int:
        """Return how many batches every rank gets in an epoch."""
        return sum(len(part.batches) // self.ranks for part in self._parts(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Prediction]]:
        """Yield the batches of this rank.

        Args:
            epoch: from 0.
            start: the step to begin with.

        Yields:
            Structures and labels, turned alike.

        Raises:
            ValueError: a step that the epoch does not have.
        """
        for part, batch in self._mine(epoch, start):
            yield self._loaded(part.frames, epoch).take(batch)

    def numbers(self, epoch: int, step: int) -> Ints:
        """Return the numbers in the set of the frames of one of this rank's batches."""
        part, batch = next(self._mine(epoch, step))
        return np.asarray(part.frames[batch])

    def _mine(self, epoch: int, start: int) -> Iterator[tuple[_Part, Ints]]:
        if not 0 <= start <= self.steps(epoch):
            raise ValueError(f"loader: epoch {epoch} has {self.steps(epoch)} steps; there is no step {start}")
        for part in self._parts(epoch):
            mine = part.batches[self.rank :: self.ranks]
            yield from ((part, batch) for batch in mine[start:])
            start = max(0, start - len(mine))

    def _loaded(self, frames: Ints, epoch: int) -> _Window:
        """Return the window of some frames, read only if it is not in memory."""
        now = self._window
        if now is None or not (now.frames is frames or np.array_equal(now.frames, frames)):
            self._window = now = None  # two windows are never in memory together
            now = _Window.read(self.rows, frames)
        if now.epoch != epoch:
            seed = self.settings.seed
            rotation = orientations(seed, epoch, frames) if self.settings.rotate else None
            now = replace(now, frames=frames, epoch=epoch, rotation=rotation)
        self._window = now
        return now


def gather(rows: Rows, frames: Ints) -> tuple[Batch, Prediction]:
    """Read some frames, in any order, as they are.

    Args:
        rows: the frames.
        frames: (n,) their numbers.

    Returns:
        Structures and labels in that order.
    """
    unique, places = np.unique(frames, return_inverse=True)
    return _Window.read(rows, unique).take(places.reshape(-1))


@dataclass(frozen=True, eq=False)
class _Part:
    """One window of an epoch: its frames, increasing, and the batches of all ranks as places in it."""

    frames: Ints
    batches: list[Ints]


@dataclass(frozen=True, eq=False)
class _Window:
    """Frames in memory, in the types in which they are stored."""

    frames: Ints
    arrays: Arrays
    starts: Ints
    counts: Ints
    epoch: int = -1
    rotation: Floats | None = None

    @classmethod
    def read(cls, rows: Rows, frames: Ints) -> _Window:
        """Read increasing frame numbers."""
        counts = np.diff(rows.offsets)
        pieces: dict[str, list[NDArray[Any]]] = {}
        for start, stop in _runs(frames):
            wanted = np.zeros(stop - start, dtype=bool)
            wanted[frames[slice(*np.searchsorted(frames, (start, stop)))] - start] = True
            by_place = {"frame": wanted, "atom": np.repeat(wanted, counts[start:stop])}
            for key, values in rows.arrays(start, stop).items():
                pieces.setdefault(key, []).append(values[by_place[STORED[key][0]]])
        arrays = {key: np.concatenate(pieces.pop(key)) for key in list(pieces)}
        mine = counts[frames]
        return cls(frames, arrays, np.cumsum(mine) - mine, mine)

    def take(self, places: Ints) -> tuple[Batch, Prediction]:
        """Return some of the frames as a batch, turned as they are in this epoch."""
        a, n = self.arrays, len(places)
        counts = self.counts[places]
        stops = np.cumsum(counts)
        atoms = np.repeat(self.starts[places] - (stops - counts), counts) + np.arange(stops[-1])
        index = np.repeat(np.arange(n), counts)
        positions, forces = a["positions"][atoms].astype(float), a["forces"][atoms].astype(float)
        cell = a["cell"][places] if "cell" in a else np.zeros((n, 3, 3))
        stress = a["stress"][places] if "stress" in a else None
        if self.rotation is not None:
            turn = self.rotation[places]
            by_atom = turn[index]
            positions = np.einsum("nij,nj->ni", by_atom, positions)
            forces = np.einsum("nij,nj->ni", by_atom, forces)
            cell = np.einsum("sij,skj->ski", turn, cell)
            if stress is not None:
                stress = np.einsum("sij,sjk,slk->sil", turn, stress, turn)
        batch = Batch(
            numbers=a["numbers"][atoms],
            positions=positions,
            index=index,
            cell=cell,
            pbc=a["pbc"][places] if "pbc" in a else np.zeros((n, 3), dtype=bool),
            charge=a["charge"][places],
            multiplicity=a["multiplicity"][places],
        )
        return batch, Prediction(a["energy"][places], forces, stress)
