"""Point defects as jobs: what they cost to form, and the barrier of their hops."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from sfumato.dynamics.relax import relax
from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk
from sfumato.io.ase_objects import from_ase, to_ase
from sfumato.jobs.job import Job
from sfumato.potentials.potential import Potential
from sfumato.reference.defects import hop_ends, with_defect
from sfumato.systems import Batch, System

STRETCH = 0.08
"""Of the lattice constant, within which its minimum is looked for."""

SPRING = 0.1
"""eV/Å², between the images of a path."""

LEVEL = 1e-3
"""eV by which an image must lie above both ends to be on a barrier."""


@dataclass(frozen=True)
class InCrystal(Job):
    """Something about a perfect crystal, the payload of an item, at the potential's own lattice constant.

    Args:
        kind: of defect or hop.
        repeat: cells of the crystal along each axis of the supercell.
        force: eV/Å, of the most pulled atom where that counts as rest.
        steps: made at most.
    """

    kind: str = "vacancy"
    repeat: int = 2
    force: float = 0.01
    steps: int = 1000

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """Do one crystal after the other; one that fails is a record with its reason."""
        records = []
        for item in chunk:
            start = time.perf_counter()
            try:
                found = self.measure(potential, item.payload.system())
                records.append(ok(item.key, seconds=time.perf_counter() - start, **found))
            except Exception as error:  # noqa: BLE001 (a potential may raise anything far from rest)
                seconds = time.perf_counter() - start
                records.append(failed(item.key, str(error) or type(error).__name__, seconds=seconds))
        return records

    def together(self, potential: Potential) -> int:
        """Return 1: each item takes long by itself."""
        return 1

    @abstractmethod
    def measure(self, potential: Potential, crystal: System) -> dict[str, Any]:
        """Return what the record holds.

        Raises:
            ValueError: no rest, or no answer of the potential.
        """

    def at_rest(self, potential: Potential, system: System) -> tuple[System, float]:
        """Return a structure where its atoms rest, and its energy in eV.

        Raises:
            ValueError: it does not come to rest in so many steps; the potential has no answer.
        """
        found = relax(potential, Batch.of([system]), self.force, self.steps)
        for failure in found.failures.values():
            raise ValueError(f"the potential has no answer: {failure.reason}")
        if not found.force[0] <= self.force:
            raise ValueError(f"{found.force[0]:.3g} eV/Å are left after {self.steps} steps of relaxation")
        return replace(system, positions=found.batch.positions), float(found.energy[0])


def at_own_size(potential: Potential, crystal: System) -> tuple[System, float]:
    """Return a crystal scaled to its lowest energy, and that energy per atom in eV.

    Raises:
        ValueError: no minimum within `STRETCH`; the potential has no answer.
    """

    def energy(scale: float) -> float:
        moved = replace(crystal, positions=crystal.positions * scale, cell=crystal.cell * scale)
        return float(potential.predict(Batch.of([moved])).require().energy[0]) / len(crystal)

    ends = 1 - STRETCH, 1 + STRETCH
    found = minimize_scalar(energy, bounds=ends, method="bounded", options={"xatol": 1e-6})
    scale = float(found.x)
    if min(abs(scale - end) for end in ends) < 1e-3:
        raise ValueError(f"the crystal has no lattice constant within {STRETCH:.0%} of the one given")
    moved = replace(crystal, positions=crystal.positions * scale, cell=crystal.cell * scale)
    return moved, float(found.fun)


@dataclass(frozen=True)
class Formation(InCrystal):
    """The energy to form a point defect: E − N e, with e of an atom in the perfect crystal."""

    name: ClassVar[str] = "formation"
    version: ClassVar[int] = 1

    def measure(self, potential: Potential, crystal: System) -> dict[str, Any]:
        """See `InCrystal`."""
        crystal, atom = at_own_size(potential, crystal)
        system, energy = self.at_rest(potential, with_defect(crystal, self.repeat, self.kind))
        return {
            "edge": float(np.linalg.norm(crystal.cell[0])),
            "atom": atom,
            "energy": energy,
            "formation": energy - len(system) * atom,
            "positions": encode(system.positions),
            "cell": encode(system.cell),
        }


@dataclass(frozen=True)
class Barrier(InCrystal):
    """The path of a hop by a nudged elastic band with a climbing image, at the size of the crystal.

    The barrier is from the lowest to the highest energy of the path, whose ends need not be the most stable
    places on it.

    Args:
        images: of the path, between its ends.

    Source: Henkelman & Jónsson 2000, J. Chem. Phys. 113, 9978 (improved tangent) and 9901 (climbing image).
    """

    images: int = 5
    name: ClassVar[str] = "barrier"
    version: ClassVar[int] = 1

    def measure(self, potential: Potential, crystal: System) -> dict[str, Any]:
        """See `InCrystal`."""
        crystal, atom = at_own_size(potential, crystal)
        ends = [self.at_rest(potential, end)[0] for end in hop_ends(crystal, self.repeat, self.kind)]
        path, left = self._band(potential, ends[0], ends[1])
        if not left <= self.force:
            raise ValueError(f"{left:.3g} eV/Å are left on the path after {self.steps} steps")
        found = potential.predict(Batch.of(path)).require()
        energy = found.energy - found.energy[0]
        return {
            "edge": float(np.linalg.norm(crystal.cell[0])),
            "atom": atom,
            "energies": encode(energy),
            "barrier": float(energy.max() - energy.min()),
            "uphill": float(energy[-1]),
            "left": left,
            "positions": encode(np.array([system.positions for system in path])),
            "cell": encode(path[0].cell),
        }

    def _band(self, potential: Potential, first: System, last: System) -> tuple[list[System], float]:
        """Return the images of the path at rest, ends included, and the force left (eV/Å)."""
        from ase.mep import NEB
        from ase.optimize import FIRE

        images = [to_ase(first)] + [to_ase(first) for _ in range(self.images)] + [to_ase(last)]
        for image in images:
            image.calc = potential.calculator()
        band = NEB(images, k=SPRING, method="improvedtangent")
        band.interpolate(mic=True)
        FIRE(band, logfile=None).run(fmax=5 * self.force, steps=self.steps)
        energy = [image.get_potential_energy() for image in images]
        # Where an end is the highest point an image that climbs would only run into it.
        climb = max(energy[1:-1]) > max(energy[0], energy[-1]) + LEVEL
        band = NEB(images, k=SPRING, climb=climb, method="improvedtangent")
        FIRE(band, logfile=None).run(fmax=self.force, steps=self.steps)
        left = float(np.linalg.norm(band.get_forces().reshape(-1, 3), axis=1).max())
        return [from_ase(image) for image in images], left
