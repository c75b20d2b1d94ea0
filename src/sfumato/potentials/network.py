"""A MinDScAIP model as a potential: any batch, in parts that fit into memory, on a CPU or a GPU."""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from sfumato.graph.neighbors import FLAT
from sfumato.graph.verlet import Neighbors
from sfumato.models.checkpoint import load_model, weights_digest
from sfumato.models.mindscaip.config import preset
from sfumato.models.mindscaip.network import MinDScAIP, Output, Prepared, evaluate, predict, prepare
from sfumato.potentials.potential import SKIN, Abilities, MissingElementError, Potential, Session
from sfumato.potentials.torchsim import torchsim
from sfumato.systems import Batch, Floats, Ints, Prediction, System
from sfumato.words import nearest

DTYPES = ("float32", "float64")

DEVICES = {"cpu": 2**31, "cuda": 2**50}
"""Bytes that structures evaluated together may take at most: more do not make a CPU faster."""

FOOTPRINT = 20
"""Numbers held for the gradient per edge, channel and layer, where an atom counts as `ATOM` edges."""

ATOM = 8
"""Edges that take as much memory as an atom, whose window is padded. Together they are from 3 % below to 42 %
above what `nano`, `small` and `medium` took for lone atoms, water, benzene, copper and diamond."""

SHARE = 0.7
"""Of the free memory, what a batch may take by that estimate."""


class MinDScAIPPotential(Potential):
    """A model with frozen weights on one device in one precision, usable under `torch.inference_mode` too.

    Distances, ranks and the sum over atoms are in double precision whatever the weights have. The model
    does not see total charge and multiplicity.

    Args:
        model: a copy of it is made.
        name: short, for tables.
        device: "cpu", "cuda" or "cuda:1".
        dtype: of the weights, "float32" or "float64".
        most_edges: that are evaluated together, an atom counting as `ATOM` of them; by default what fits into
            memory.

    Raises:
        ValueError: a device that is not there, or another precision.
    """

    name: str
    abilities: Abilities

    @torch.inference_mode(False)
    def __init__(
        self,
        model: MinDScAIP,
        name: str = "mindscaip",
        *,
        device: str = "cpu",
        dtype: str = "float32",
        most_edges: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: {dtype!r} is unknown; {nearest(str(dtype), DTYPES)}")
        self.name, self.device, self.dtype, self.most_edges = name, _device(device), dtype, most_edges
        self._given = copy.deepcopy(model).requires_grad_(False).eval()
        self.model = copy.deepcopy(self._given).to(self.device, getattr(torch, dtype))
        self.abilities = Abilities(
            batch=64,
            elements=frozenset(model.config.known_elements),
            periodic=True,
            stress=True,
            dtype=dtype,
            dtypes=DTYPES,
            device=str(self.device),
            devices=tuple(DEVICES),
        )

    @cached_property
    def identity(self) -> str:
        """SHA-256 of weights, settings and precision."""
        return weights_digest(self.model)

    def to(self, *, device: str | None = None, dtype: str | None = None) -> MinDScAIPPotential:
        """Return the same potential on another device or in another precision.

        Args:
            device: None: the same.
            dtype: None: the same. Weights are rounded once, from what the potential was made of.
        """
        return MinDScAIPPotential(
            self._given,
            self.name,
            device=device or str(self.device),
            dtype=dtype or self.dtype,
            most_edges=self.most_edges,
        )

    def session(self, batch: Batch, skin: float = SKIN) -> NetworkSession:
        """Return the structures with neighbors that are searched only when atoms have moved.

        Args:
            batch: the structures.
            skin: Å; a search is good until an atom has moved by half of it, or a cell has changed.
        """
        return NetworkSession(self, batch, Neighbors(self.model.config.graph, skin))

    def torchsim(self, skin: float = SKIN, stress: bool = True) -> Any:
        """Return a model for the simulations of the package torch-sim, which must be installed.

        Args:
            skin: Å, as for `calculator`.
            stress: whether to compute stress of states periodic in three directions. Those without a periodic
                direction have none; others are then refused.
        """
        return torchsim(self, skin, stress)

    def check_elements(self, numbers: Ints, index: Ints) -> None:
        """Raise `MissingElementError` where the model does not know one of these elements.

        Args:
            numbers: (N,) atomic numbers.
            index: (N,) the structure of each atom.
        """
        MissingElementError.check(self.name, self.abilities.elements or (), numbers, index)

    @torch.inference_mode(False)
    def compute(self, batch: Batch, neighbors: Neighbors | None = None) -> Prediction:
        """Return energies, forces and, where every structure is periodic in three directions, stress.

        Args:
            batch: of structures.
            neighbors: of the same structures a step before, to search for pairs only where needed.

        Raises:
            MissingElementError: an element that the model does not know.
            ValueError: a position or cell that is not finite, a cell without volume, or two atoms at one
                place.
            MemoryError: a structure that does not fit into memory, even alone.
        """
        self._check(batch)
        if neighbors is None:
            ready = prepare(self.model, batch)
            found = list(self._in_parts(batch, ready))
        else:
            ready = self._follow(batch, neighbors)
            found = [self._whole(ready, lean=self._is_large(ready)) or self._alone(ready, 0)]
        return Prediction(
            energy=_joined([part.energy for part in found]),
            forces=_joined([part.forces for part in found]),
            stress=_joined([part.stress for part in found]) if ready.periodic else None,
        )

    def _follow(self, batch: Batch, neighbors: Neighbors) -> Prepared:
        arrays = (batch.positions, batch.cell, batch.pbc, batch.numbers, batch.index)
        positions, cell, *rest = (torch.from_numpy(array.copy()).to(self.device) for array in arrays)
        topology = neighbors.topology(positions, cell, *rest)
        return Prepared(topology, positions, cell, bool(batch.pbc.all()))

    def _in_parts(self, batch: Batch, ready: Prepared) -> Iterator[Output]:
        """Evaluate consecutive structures together as long as their edges and atoms are few enough."""
        topology = ready.topology
        edges = torch.bincount(topology.system[topology.source], minlength=len(batch))
        atoms = torch.bincount(topology.system, minlength=len(batch))
        stops = pack((edges + ATOM * atoms).cpu().numpy(), self._most_edges())
        if len(stops) == 1:
            yield from self._halving(batch, 0, ready)
            return
        systems = list(batch)
        for first, stop in zip([0, *stops], stops):
            part = Batch.of(systems[first:stop])
            yield from self._halving(part, first, prepare(self.model, part))

    def _halving(self, batch: Batch, first: int, ready: Prepared) -> Iterator[Output]:
        """Evaluate structures together or, where memory does not suffice, in halves."""
        alone = len(batch) == 1
        found = self._whole(ready, lean=alone and self._is_large(ready))
        if found is not None:
            yield found
        elif alone:
            yield self._alone(ready, first)
        else:
            systems, half = list(batch), len(batch) // 2
            for part, start in ((systems[:half], first), (systems[half:], first + half)):
                smaller = Batch.of(part)
                yield from self._halving(smaller, start, prepare(self.model, smaller))

    def _alone(self, ready: Prepared, number: int) -> Output:
        """Evaluate one structure that was too large, recomputing layers instead of keeping them."""
        found = self._whole(ready, lean=True)
        if found is None:
            atoms, edges = len(ready.positions), len(ready.topology.reverse)
            raise MemoryError(
                f"{self.name}: structure {number} of the batch ({atoms} atoms, {edges} edges) does not fit "
                f"into the memory of {self.device}, even alone; use a device with more memory, float32, or a "
                "smaller model"
            )
        return found

    def _whole(self, ready: Prepared, lean: bool) -> Output | None:
        """Evaluate what was prepared; None if memory does not suffice."""
        self.model.checkpointing = lean
        try:
            return evaluate(self.model, ready.topology, ready.positions, ready.cell, stress=ready.periodic)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here are the tensors of the failed attempt no longer held by the traceback.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _is_large(self, ready: Prepared) -> bool:
        need = (len(ready.topology.reverse) + ATOM * len(ready.positions)) * self._bytes_per_edge
        if need > SHARE * free_memory(self.device):
            give_back()
        return need > SHARE * free_memory(self.device)

    def _most_edges(self) -> int:
        room = min(SHARE * free_memory(self.device), DEVICES[self.device.type])
        return self.most_edges or int(room / self._bytes_per_edge)

    @property
    def _bytes_per_edge(self) -> int:
        c = self.model.config
        return FOOTPRINT * c.width * c.attention_factor * c.layers * self.model.itself.element_size()

    def _check(self, batch: Batch) -> None:
        self.check_elements(batch.numbers, batch.index)
        lost = ~np.isfinite(batch.positions).all(axis=1)
        if lost.any():
            atom = int(np.argmax(lost))
            system = int(batch.index[atom])
            raise ValueError(
                f"{self.name}: atom {atom - batch.offsets[system]} of structure {system} is at "
                f"{batch.positions[atom].tolist()} Å; positions must be finite"
            )
        finite = np.asarray(np.isfinite(batch.cell).all(axis=(1, 2)))
        cell = np.where(finite[:, None, None], batch.cell, 0)
        flat = np.abs(np.linalg.det(cell)) <= FLAT * np.linalg.norm(cell, axis=2).prod(axis=1)
        wrong = ~finite | (batch.pbc.all(axis=1) & flat)
        if wrong.any():
            system = int(np.argmax(wrong))
            raise ValueError(
                f"{self.name}: the cell of structure {system} has no volume or is not finite: "
                f"{batch.cell[system].tolist()}"
            )


class NetworkSession(Session):
    """Structures that move a little from call to call, with neighbors that are kept.

    Args:
        potential: the network's.
        batch: the structures.
        neighbors: of the structures.
    """

    potential: MinDScAIPPotential

    def __init__(self, potential: MinDScAIPPotential, batch: Batch, neighbors: Neighbors) -> None:
        super().__init__(potential, batch)
        self.neighbors = neighbors

    def predict(self, positions: Floats, cell: Floats | None = None) -> Prediction:
        """Evaluate the structures where their atoms are now; one that fails leaves the others as they are."""
        self.move(positions, cell)
        try:
            found = self.potential.compute(self.batch, self.neighbors)
        except Exception:  # noqa: BLE001 (whose fault it was is found out structure by structure)
            return self.potential.predict(self.batch)
        return found.checked(self.batch)

    def take(self, rows: Sequence[int] | Ints) -> NetworkSession:
        """Return a session of some of the structures."""
        neighbors = Neighbors(self.neighbors.settings, self.neighbors.skin)
        return NetworkSession(self.potential, self.batch.take(rows), neighbors)


def from_file(path: str | Path) -> MinDScAIPPotential:
    """Return the model of a checkpoint, named after the file.

    Raises:
        ValueError: what `load_model` refuses.
    """
    model, _ = load_model(path)
    return MinDScAIPPotential(model, Path(path).stem)


@torch.inference_mode(False)
def untrained(text: str) -> MinDScAIPPotential:
    """Return a preset with random weights, always the same: smooth and symmetric, but of no use in physics.

    The unit of its output is the power of two that brings the force components in a molecule of ethanol
    closest to 1 eV/Å (root mean square), as in a real structure out of equilibrium: a defect could hide
    behind forces that are all but zero.

    Args:
        text: a preset, or a preset and a rank other than its own: "nano:hard".

    Raises:
        ValueError: an unknown preset or rank.
    """
    from ase.build import molecule

    size, _, rank = text.partition(":")
    config = preset(size)
    if rank:
        config = preset(size, graph=replace(config.graph, rank=rank))  # type: ignore[arg-type]
    model = MinDScAIP(config, torch.Generator().manual_seed(0))
    atoms = molecule("CH3CH2OH")
    force = predict(model, Batch.of([System(atoms.numbers, atoms.positions)])).forces
    assert force is not None
    # A power of two is the same on every machine, whatever the last digit of a force.
    model.scale.fill_(2.0 ** -round(math.log2(float(force.square().mean().sqrt()))))
    return MinDScAIPPotential(model, "-".join(["mindscaip", size, "random", *([rank] if rank else [])]))


def pack(sizes: Ints, limit: int) -> list[int]:
    """Return where to cut a sequence so that parts add up to a limit at most, or are one element.

    Args:
        sizes: (S,).
        limit: of each sum.

    Returns:
        The end of each part.
    """
    stops, total = [], 0
    for k, size in enumerate(sizes.tolist()):
        if total and total + size > limit:
            stops.append(k)
            total = 0
        total += size
    return [*stops, len(sizes)]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be had, on a GPU or by torch on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text
    )


def free_memory(device: torch.device) -> int:
    """Return how many bytes a device has to give; 4 GiB where the system does not say.

    On a CPU a container or a batch job may have less than the machine.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    try:
        rows = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(row.split()[1]) for row in rows if row.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = 2**32
    return max(0, min([free, *group_room()]))


def give_back() -> None:
    """Return memory that this process has freed to the system; glibc keeps what an evaluation before left."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def group_room(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the bytes left in each control group, of version 1 or 2, that limits this process's memory.

    What is held only to save reading files again counts as left.

    Args:
        root: where the groups are mounted.
        own: the file that says which groups this process is in.
    """
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base, most, used = (
            (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else (root, "memory.max", "memory.current")
        )
        group = PurePosixPath(path)
        for place in (group, *group.parents):  # in a container the groups outside cannot be seen
            folder = base / place.relative_to("/")
            try:
                limit, now, stat = ((folder / name).read_text() for name in (most, used, "memory.stat"))
            except OSError:
                continue
            held = dict(row.split() for row in stat.splitlines())
            cached = held.get("total_inactive_file", held.get("inactive_file", "0"))
            if limit.strip() != "max":
                yield int(limit) - int(now) + int(cached)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: {name!r} is unknown ({error}); write cpu, cuda or cuda:0") from None
    if device.type not in DEVICES:
        raise ValueError(f"device: {name!r} is not supported; use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {name!r} is not there; torch sees {torch.cuda.device_count()} GPUs")
    return device


def _joined(parts: list[torch.Tensor | None]) -> Any:
    return np.concatenate([part.double().cpu().numpy() for part in parts if part is not None])
