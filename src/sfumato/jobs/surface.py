"""A potential energy surface under examination: values at any places, and how finely they can be told."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from sfumato.metrics.jumps import Curve, Sample
from sfumato.metrics.noise import Derivative, noise_along, ridders
from sfumato.potentials.potential import Potential
from sfumato.reference.paths import Path
from sfumato.systems import Batch, Failure, Floats, System

DOUBLE_NOISE = 1e-9
"""eV and eV/Å; what is noisier works in single precision, or iterates to a threshold."""

STEPS = {True: 1e-3, False: 0.03}
"""Å, the largest displacement of all atoms together in a derivative, by whether precision is double."""

LEVELS = 0.5 ** np.arange(4)
"""Of the largest displacement, those that are extrapolated."""

INEXACT, RELATIVE = 1e-6, 1e-6
"""eV/Å, and part of the force, by which a force may miss the gradient and still count as unconverged only:
ten times what GFN2-xTB has. A wrong force buys no more tolerance."""

VARIES = 0.1
"""Å over which the error of an inexact force changes by its own size."""

_twins: WeakKeyDictionary[Potential, Potential] = WeakKeyDictionary()


def finest(potential: Potential) -> Potential:
    """Return a potential in double precision where it offers that, since noise hides what is looked for."""
    if "float64" not in potential.abilities.dtypes or potential.abilities.dtype == "float64":
        return potential
    try:
        if potential not in _twins:
            _twins[potential] = potential.to(dtype="float64")
        return _twins[potential]
    except TypeError:  # a potential that cannot be a key
        return potential.to(dtype="float64")


class UnpredictedError(RuntimeError):
    """A structure could not be predicted.

    Args:
        reason: why.
        row: which of those that were asked for.
    """

    def __init__(self, reason: str, row: int = 0) -> None:
        super().__init__(reason)
        self.row = row


class OffPathError(UnpredictedError):
    """A structure on a path could not be predicted.

    Args:
        reason: why.
        place: where on the path.
    """

    def __init__(self, reason: str, place: float) -> None:
        super().__init__(reason)
        self.place = place


class Surface:
    """One potential, asked about many structures in batches of the size that it likes.

    Args:
        potential: any.
    """

    def __init__(self, potential: Potential) -> None:
        self.potential, self.evaluations = potential, 0

    def ask(self, systems: Sequence[System]) -> tuple[Floats, list[Floats], dict[int, Failure]]:
        """Return energies (S,) eV, forces (N, 3) eV/Å of each structure, and why some have none (NaN)."""
        size = max(1, self.potential.abilities.batch)
        energies, forces = [], []
        failures: dict[int, Failure] = {}
        for start in range(0, len(systems), size):
            batch = Batch.of(systems[start : start + size])
            found = self.potential.predict(batch)
            energies.append(found.energy)
            forces += np.split(found.forces, batch.offsets[1:-1])
            failures |= {start + k: failure for k, failure in found.failures.items()}
        self.evaluations += len(systems)
        return np.concatenate([*energies, np.zeros(0)]), forces, failures

    def values(self, systems: Sequence[System]) -> tuple[Floats, Floats]:
        """Return energies (S,) eV and forces (S, N, 3) eV/Å of structures of the same atoms.

        Raises:
            UnpredictedError: one of them failed.
        """
        energy, forces, failures = self.ask(systems)
        for row, failure in failures.items():
            raise UnpredictedError(failure.reason, row)
        return energy, np.array(forces)

    def curve(self, path: Path) -> Curve:
        """Return what the surface is along a path, for the search of jumps.

        It raises `OffPathError` where a structure on the path cannot be predicted.
        """

        def curve(places: Sequence[float]) -> list[Sample]:
            try:
                energy, forces = self.values([path.at(float(s)) for s in places])
            except UnpredictedError as error:
                raise OffPathError(str(error), float(places[error.row])) from None
            return [sample(path, float(s), e, f) for s, e, f in zip(places, energy.tolist(), forces)]

        return curve

    def noise(self, system: System, direction: Floats, reach: float = np.inf) -> tuple[float, float]:
        """Return the noise of the energy in eV and of a force component in eV/Å at a structure.

        Args:
            system: the structure.
            direction: (N, 3) of norm 1, in which it is moved.
            reach: Å that it may be moved by.
        """
        return noise_along(lambda s: self.values(displaced(system, direction, s)), reach)

    def slope(self, system: System, direction: Floats, double: bool) -> Derivative:
        """Return dE/du in eV/Å along a direction (N, 3) of norm 1."""
        steps: Floats = np.asarray(STEPS[double] * LEVELS, dtype=float)
        energy, _ = self.values(displaced(system, direction, np.concatenate([steps, -steps])))
        return ridders(steps, energy[: len(steps)], energy[len(steps) :])


def displaced(system: System, direction: Floats, distances: Floats) -> list[System]:
    """Return a structure moved along a direction (N, 3) by some distances in Å."""
    return [replace(system, positions=system.positions + s * direction) for s in distances]


def sample(path: Path, s: float, energy: float, forces: Floats) -> Sample:
    """Return what is known at one place of a path."""
    return Sample(s, energy, float((forces * path.tangent(s)).sum()), forces.ravel())


def random_direction(system: System, seed: int, purpose: str) -> Floats:
    """Return a random direction (N, 3) of norm 1 that depends on seed, purpose and structure alone."""
    words = f"{purpose} {system.identity}"
    u = np.random.default_rng([seed, zlib.crc32(words.encode())]).normal(size=system.positions.shape)
    unit: Floats = u / np.linalg.norm(u)
    return unit
