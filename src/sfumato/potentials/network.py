"""A network as a potential: any batch, in parts that fit into memory, on a CPU or a GPU."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato.graph.neighbors import FLAT, StructureError
from sfumato.graph.verlet import Neighbors
from sfumato.models.checkpoint import load_model, weights_digest
from sfumato.models.families import DEFAULT, build, family, preset
from sfumato.models.network import Network, Output, Prepared, evaluate, predict, prepare
from sfumato.potentials.devices import DTYPES, KINDS, require_device
from sfumato.potentials.memory import MOST, SHARE, free_memory, give_back, is_out_of_memory, pack
from sfumato.potentials.potential import SKIN, Abilities, MissingElementError, Potential, Session
from sfumato.potentials.torchsim import torchsim_model
from sfumato.systems import Batch, Failure, Floats, Ints, Prediction, System
from sfumato.words import nearest

SMALL = 2**26
"""Bytes that are there without looking: what is free takes milliseconds to find out."""

TOGETHER = 64
"""Structures it prefers to get at once."""

Failures = dict[int, Failure]


class NetworkPotential(Potential):
    """A network with frozen weights on one device in one precision, usable under `torch.inference_mode` too.

    Distances, ranks and the sum over atoms are in double precision whatever the weights have. The network
    does not see total charge and multiplicity.

    Args:
        network: a copy of it is made.
        name: short, for tables; by default the architecture.
        device: "cpu", "cuda" or "cuda:1".
        dtype: of the weights, "float32" or "float64".
        memory_limit: bytes that structures evaluated together may take, by the network's own estimate; by
            default what is free.

    Raises:
        ValueError: a device that is not there, or another precision.
    """

    name: str
    abilities: Abilities

    @torch.inference_mode(False)
    def __init__(
        self,
        network: Network,
        name: str = "",
        *,
        device: str = "cpu",
        dtype: str = "float32",
        memory_limit: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: {dtype!r} is unknown; {nearest(str(dtype), DTYPES)}")
        require_device(device)
        self.name, self.device = name or network.config.architecture, torch.device(device)
        self.memory_limit = memory_limit
        self._given = copy.deepcopy(network).requires_grad_(False).eval()
        self.network = copy.deepcopy(self._given).to(self.device, getattr(torch, dtype))
        self.abilities = Abilities(
            batch=TOGETHER,
            elements=frozenset(network.config.known_elements),
            periodic=True,
            stress=True,
            dtype=dtype,
            dtypes=DTYPES,
            device=str(self.device),
            devices=KINDS,
        )

    @cached_property
    def identity(self) -> str:
        """SHA-256 of weights, settings and precision."""
        return weights_digest(self.network)

    def to(self, *, device: str | None = None, dtype: str | None = None) -> NetworkPotential:
        """Return the same potential on another device or in another precision.

        Args:
            device: None: the same.
            dtype: None: the same. Weights are rounded once, from those of the network that was given.
        """
        return NetworkPotential(
            self._given,
            self.name,
            device=device or self.abilities.device,
            dtype=dtype or self.abilities.dtype,
            memory_limit=self.memory_limit,
        )

    def session(self, batch: Batch, skin: float = SKIN) -> NetworkSession:
        """Return the structures with neighbors that are searched only when atoms have moved.

        Args:
            batch: the structures.
            skin: Å; a search is good until an atom has moved by half of it, or a cell has changed.
        """
        return NetworkSession(self, batch, Neighbors(self.network.config.graph, skin))

    def torchsim(self, skin: float = SKIN, stress: bool = True) -> Any:
        """Return a model for the simulations of the package torch-sim, which must be installed.

        Args:
            skin: Å, as for `session`.
            stress: whether to compute stress of states periodic in three directions. Those without a periodic
                direction have none; others are then refused.
        """
        return torchsim_model(self.network, self.name, skin, stress)

    @torch.inference_mode(False)
    def compute(self, batch: Batch) -> Prediction:
        """Return energies, forces and, where every structure is periodic in three directions, stress.

        A structure fails alone for an element that the network does not know, a position or cell that is not
        finite, a cell without volume, two atoms at one place, or memory that does not suffice for it.

        Args:
            batch: structures.
        """
        failures = self._problems(batch)
        rows = np.setdiff1d(np.arange(len(batch)), list(failures))
        parts = list(self._in_parts(batch, rows, failures))
        return _assembled(batch, parts, failures)

    @torch.inference_mode(False)
    def follow(self, batch: Batch, neighbors: Neighbors) -> Prediction:
        """Return the same as `compute`, of structures whose neighbors a step before are known.

        Args:
            batch: structures.
            neighbors: of these structures and no others.
        """
        if not self._problems(batch):
            try:
                ready = self._followed(batch, neighbors)
            except StructureError:  # reported structure by structure
                return self.compute(batch)
            alone = len(batch) == 1
            large = self._is_large(ready)
            if alone or not large:
                found = self._whole(ready, ready.periodic, lean=large)
                if found is not None:
                    return _assembled(batch, [(np.arange(len(batch)), found)], {})
        return self.compute(batch)

    def _followed(self, batch: Batch, neighbors: Neighbors) -> Prepared:
        arrays = (batch.positions, batch.cell, batch.pbc, batch.numbers, batch.index)
        positions, cell, pbc, numbers, system = (
            torch.from_numpy(array.copy()).to(self.device) for array in arrays
        )
        topology = neighbors.topology(positions, cell, pbc, numbers, system, self.network.select)
        return Prepared(topology, positions, cell, bool(batch.pbc.all()))

    def _prepared(self, batch: Batch, rows: Ints, failures: Failures) -> tuple[Ints, Prepared | None]:
        """Find the edges of some structures; return those where that is possible, and note the others."""
        while len(rows):
            some = batch if len(rows) == len(batch) else batch.take(rows)
            try:
                return rows, prepare(self.network, some)
            except StructureError as error:
                for k in error.reasons:
                    words = error.reason(k, f"structure {rows[k]}")
                    failures[int(rows[k])] = Failure.of(ValueError(f"{self.name}: {words}"))
                rows = np.delete(rows, list(error.reasons))
        return rows, None

    def _in_parts(self, batch: Batch, rows: Ints, failures: Failures) -> Iterator[tuple[Ints, Output]]:
        """Evaluate consecutive structures together as long as they are estimated to fit into memory."""
        rows, ready = self._prepared(batch, rows, failures)
        if ready is None:
            return
        topology = ready.topology
        edges = torch.bincount(topology.system[topology.source], minlength=len(rows))
        atoms = torch.bincount(topology.system, minlength=len(rows))
        stops = pack(self._bytes(edges, atoms).cpu().numpy(), self._limit())
        if len(stops) == 1:
            yield from self._halving(batch, rows, ready, failures)
            return
        for part in np.split(rows, stops[:-1]):
            yield from self._halving(batch, *self._prepared(batch, part, failures), failures)

    def _halving(
        self, batch: Batch, rows: Ints, ready: Prepared | None, failures: Failures
    ) -> Iterator[tuple[Ints, Output]]:
        """Evaluate structures together or, where memory does not suffice, in halves."""
        if ready is None:
            return
        alone, stress = len(rows) == 1, bool(batch.pbc.all())
        found = self._whole(ready, stress, lean=alone and self._is_large(ready))
        if found is None and alone:
            found = self._whole(ready, stress, lean=True)
        if found is not None:
            yield rows, found
        elif alone:
            failures[int(rows[0])] = Failure.of(self._too_large(ready, int(rows[0])))
        else:
            for half in np.array_split(rows, 2):
                yield from self._halving(batch, *self._prepared(batch, half, failures), failures)

    def _too_large(self, ready: Prepared, number: int) -> MemoryError:
        atoms, edges = len(ready.positions), len(ready.topology.reverse)
        return MemoryError(
            f"{self.name}: structure {number} of the batch ({atoms} atoms, {edges} edges) does not fit "
            f"into the memory of {self.device}, even alone; use a device with more memory, float32, or a "
            "smaller model"
        )

    def _whole(self, ready: Prepared, stress: bool, lean: bool) -> Output | None:
        """Evaluate what was prepared, leanly by computing parts again; None if memory does not suffice."""
        self.network.checkpointing = lean
        try:
            return evaluate(self.network, ready.topology, ready.positions, ready.cell, stress=stress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here are the tensors of the failed attempt no longer held by the traceback.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _bytes(self, edges: Any, atoms: Any) -> Any:
        """Return what so many edges and atoms take in the gradient; numbers or tensors."""
        net = self.network
        return net.dtype.itemsize * (net.numbers_per_edge * edges + net.numbers_per_atom * atoms)

    def _is_large(self, ready: Prepared) -> bool:
        need = self._bytes(len(ready.topology.reverse), len(ready.positions))
        if need < SMALL:
            return False
        if need > SHARE * free_memory(self.device):
            give_back()
        return bool(need > SHARE * free_memory(self.device))

    def _limit(self) -> int:
        return self.memory_limit or int(min(SHARE * free_memory(self.device), MOST[self.device.type]))

    def _problems(self, batch: Batch) -> Failures:
        """Return what is wrong with structures, as far as it shows without a search for neighbors."""
        failures: Failures = {}
        known = self.abilities.elements or frozenset()
        strange = set(batch.numbers.tolist()) - known
        unknown = batch.index[np.isin(batch.numbers, list(strange))] if strange else batch.index[:0]
        for k in np.unique(unknown).tolist():
            own = batch.index == k
            try:
                MissingElementError.check(self.name, known, batch.numbers[own], batch.index[own])
            except MissingElementError as error:
                failures[k] = Failure.of(error)
        for atom in np.flatnonzero(~np.isfinite(batch.positions).all(axis=1)).tolist():
            k = int(batch.index[atom])
            words = (
                f"{self.name}: atom {atom - batch.offsets[k]} of structure {k} is at "
                f"{batch.positions[atom].tolist()} Å; positions must be finite"
            )
            failures.setdefault(k, Failure.of(ValueError(words)))
        for k in np.flatnonzero(_without_volume(batch)).tolist():
            words = f"the cell of structure {k} has no volume or is not finite: {batch.cell[k].tolist()}"
            failures.setdefault(k, Failure.of(ValueError(f"{self.name}: {words}")))
        return failures


def _without_volume(batch: Batch) -> Any:
    """Return (S,) which cells are not finite, or flat though periodic in three directions."""
    finite = np.asarray(np.isfinite(batch.cell).all(axis=(1, 2)))
    cell = np.where(finite[:, None, None], batch.cell, 0)
    flat = np.abs(np.linalg.det(cell)) <= FLAT * np.linalg.norm(cell, axis=2).prod(axis=1)
    return ~finite | (batch.pbc.all(axis=1) & flat)


def _assembled(batch: Batch, parts: Sequence[tuple[Ints, Output]], failures: Failures) -> Prediction:
    """Return the prediction of a batch from those of some of its structures."""
    energy, forces = np.full(len(batch), np.nan), np.full((len(batch.numbers), 3), np.nan)
    stress = np.full((len(batch), 3, 3), np.nan) if batch.pbc.all() else None
    for rows, found in parts:
        energy[rows] = _array(found.energy)
        forces[_atoms(batch, rows)] = _array(found.forces)
        if stress is not None:
            stress[rows] = _array(found.stress)
    return Prediction(energy, forces, stress, failures)


def _atoms(batch: Batch, rows: Ints) -> Any:
    """Return what selects the atoms of some structures, in order."""
    return slice(None) if len(rows) == len(batch) else np.isin(batch.index, rows)


def _array(values: torch.Tensor | None) -> Floats:
    assert values is not None
    return np.asarray(values.double().cpu().numpy())


class NetworkSession(Session):
    """Structures that move a little from call to call, with neighbors that are kept.

    Args:
        potential: of the network.
        batch: the structures.
        neighbors: of the structures.
    """

    potential: NetworkPotential

    def __init__(self, potential: NetworkPotential, batch: Batch, neighbors: Neighbors) -> None:
        super().__init__(potential, batch)
        self.neighbors = neighbors

    def predict(self, positions: Floats, cell: Floats | None = None) -> Prediction:
        """Evaluate the structures where their atoms are now; one that fails leaves the others as they are."""
        self.move(positions, cell)
        try:
            found = self.potential.follow(self.batch, self.neighbors)
        except Exception:  # noqa: BLE001 (whose fault it was is determined structure by structure)
            return self.potential.predict(self.batch)
        return found.checked(self.batch)

    def take(self, rows: Sequence[int] | Ints) -> NetworkSession:
        """Return a session of some of the structures; their neighbors are searched anew."""
        neighbors = Neighbors(self.neighbors.settings, self.neighbors.skin)
        return NetworkSession(self.potential, self.batch.take(rows), neighbors)


def from_file(path: str | Path) -> NetworkPotential:
    """Return the network of a checkpoint, named after the file.

    Raises:
        ValueError: what `load_model` refuses.
    """
    network, _ = load_model(path)
    return NetworkPotential(network, Path(path).stem)


@torch.inference_mode(False)
def untrained(text: str, architecture: str = DEFAULT) -> NetworkPotential:
    """Return a preset with random weights, always the same: smooth and symmetric, but of no use in physics.

    The unit of its output is the power of two that brings the force components in a molecule of ethanol
    closest to 1 eV/Å (root mean square), as in a real structure out of equilibrium: a defect could hide
    behind forces that are all but zero.

    Args:
        text: a preset, or a preset and one choice changed: a variant of its family ("nano:no-envelope" of
            eSEN), or else a rank other than its own ("nano:hard").
        architecture: the family of the preset.

    Raises:
        ValueError: an unknown preset, variant or rank.
    """
    from ase.build import molecule

    size, _, rank = text.partition(":")
    config, variants = preset(size, architecture), family(architecture).variants()
    if rank in variants:
        config = preset(size, architecture, **variants[rank])
    elif rank and variants:
        raise ValueError(f"{architecture} has no variant {rank!r}; {nearest(rank, variants)}")
    elif rank:
        config = preset(size, architecture, graph=replace(config.graph, rank=rank))  # type: ignore[arg-type]
    network = build(config)
    atoms = molecule("CH3CH2OH")
    force = predict(network, Batch.of([System(atoms.numbers, atoms.positions)])).forces
    assert force is not None
    # A power of two is the same on every machine, whatever the last digit of a force.
    network.scale.fill_(2.0 ** -round(math.log2(float(force.square().mean().sqrt()))))
    return NetworkPotential(network, "-".join([architecture, size, "random", *([rank] if rank else [])]))
