"""Structures in motion: positions, velocities and forces of a batch, and what follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from ase.data import atomic_masses
from scipy.special import chdtri

from sfumato.systems import Batch, Failure, Floats, Ints
from sfumato.units import AMU_A2_PER_FS2, KELVIN

LINEAR = 1e-4
"""Of the largest moment of inertia; a molecule with a smaller one is linear and turns about two axes."""


@dataclass(frozen=True, eq=False)
class State:
    """A batch of replicas at one moment.

    Args:
        batch: the structures, where their atoms are now; positions are never wrapped into the cell.
        velocities: (N, 3) Å/fs.
        energy: (S,) eV, potential; NaN where the potential had no answer.
        forces: (N, 3) eV/Å.
        bath: (S,) K, the temperature that a thermostat holds or the velocities were drawn at.
        stream: (S,) each replica's own stream of random numbers, see `stream_of`.
        free: (S,) degrees of freedom that hold kinetic energy.
        step: how many steps were made, the same for all.
        failures: replica → why the potential had no answer at the last step.
    """

    batch: Batch
    velocities: Floats
    energy: Floats
    forces: Floats
    bath: Floats
    stream: Ints
    free: Ints
    step: int = 0
    failures: Mapping[int, Failure] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def mass(self) -> Floats:
        """(N, 1) amu."""
        return masses(self.batch.numbers)

    @cached_property
    def kinetic(self) -> Floats:
        """(S,) eV."""
        return kinetic_energy(self.batch, self.velocities)

    @cached_property
    def kelvin(self) -> Floats:
        """(S,) kinetic temperature."""
        return temperature(self.kinetic, self.free)

    def take(self, rows: Sequence[int] | Ints) -> State:
        """Return some of the replicas, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        atoms = atoms_of(self.batch, rows)
        places = {int(row): k for k, row in enumerate(rows)}
        return State(
            batch=self.batch.take(rows),
            velocities=self.velocities[atoms],
            energy=self.energy[rows],
            forces=self.forces[atoms],
            bath=self.bath[rows],
            stream=self.stream[rows],
            free=self.free[rows],
            step=self.step,
            failures={places[k]: why for k, why in self.failures.items() if k in places},
        )

    def at(self, kelvin: Floats) -> State:
        """Return the same with another temperature of the bath, (S,) K."""
        return replace(self, bath=kelvin)


def masses(numbers: Ints) -> Floats:
    """Return (N, 1) standard atomic weights in amu."""
    return np.asarray(atomic_masses[numbers], dtype=float)[:, None]


def atoms_of(batch: Batch, rows: Ints) -> Ints:
    """Return the places of the atoms of some structures in the flat arrays, in the order of `rows`."""
    offsets = batch.offsets
    sizes = np.diff(offsets)[rows]
    starts = np.repeat(offsets[rows] - np.cumsum(sizes) + sizes, sizes)
    places: Ints = starts + np.arange(sizes.sum())
    return places


def by_structure(batch: Batch, values: Floats) -> Floats:
    """Return (S,) sums of (N,) values of the atoms of each structure, in the order of the atoms."""
    return np.bincount(batch.index, values, minlength=len(batch)).astype(float)


def sums(batch: Batch, rows: Floats) -> Floats:
    """Return (S, 3) sums of (N, 3) vectors of the atoms of each structure."""
    return np.stack([by_structure(batch, rows[:, k]) for k in range(3)], axis=1)


def kinetic_energy(batch: Batch, velocities: Floats) -> Floats:
    """Return (S,) ½ Σ m v² in eV, of (N, 3) Å/fs."""
    squares = (masses(batch.numbers) * velocities**2).sum(axis=1)
    return 0.5 * AMU_A2_PER_FS2 * by_structure(batch, squares)


def freedoms(batch: Batch, *, thermostat: bool = False) -> Ints:
    """Return (S,) degrees of freedom that hold kinetic energy.

    Args:
        batch: structures.
        thermostat: whether random forces drive the motion as a whole too; without them momentum is zero, and
            of a molecule angular momentum.
    """
    sizes = np.diff(batch.offsets)
    if thermostat:
        return 3 * sizes
    held = np.where(batch.pbc.any(axis=1), 3, 6)
    for k in np.flatnonzero(held == 6):
        held[k] = 3 + np.linalg.matrix_rank(_inertia(batch, int(k))[0], tol=LINEAR * _largest(batch, int(k)))
    free: Ints = np.maximum(3 * sizes - held, 1)
    return free


def temperature(kinetic: Floats, free: Ints) -> Floats:
    """Return kinetic temperatures in K, of energies in eV and degrees of freedom."""
    kelvin: Floats = 2 * kinetic / (free * KELVIN)
    return kelvin


def hottest(kelvin: Floats, free: Ints, chance: float) -> Floats:
    """Return (S,) kinetic temperatures that a canonical ensemble exceeds with a chance.

    Twice the kinetic energy over kT is χ² distributed with as many degrees of freedom as hold it, whatever
    the potential energy is.

    Args:
        kelvin: (S,) K, of the bath.
        free: (S,) degrees of freedom.
        chance: of one state.
    """
    above: Floats = kelvin * chdtri(free, chance) / free
    return above


def stream_of(*words: object) -> int:
    """Return the stream of random numbers that belongs to some words, for example a seed and a name."""
    text = "/".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def normals(stream: Ints, step: int, sizes: Ints) -> Floats:
    """Return (N, 3) standard normal numbers: a function of each replica's stream and the step alone.

    Args:
        stream: (S,) of each replica; two of one stream get the same numbers.
        step: any number ≥ 0.
        sizes: (S,) atoms of each replica.

    Source: Salmon et al. 2011 (Philox, a generator without a state besides its counter).
    """
    drawn = [
        np.random.Generator(np.random.Philox(key=int(key), counter=[0, 0, 0, step])).standard_normal((n, 3))
        for key, n in zip(stream.tolist(), sizes.tolist())
    ]
    return np.concatenate([*drawn, np.zeros((0, 3))])


def maxwell_boltzmann(batch: Batch, kelvin: Floats, stream: Ints) -> Floats:
    """Return (N, 3) velocities in Å/fs at a temperature, without net momentum.

    A structure without a periodic direction does not turn either. What is left is scaled to the temperature
    exactly, so that what several potentials are measured at is the same.

    Args:
        batch: structures.
        kelvin: (S,) of each.
        stream: (S,) of each; the numbers depend on it alone.

    Raises:
        ValueError: a temperature that is not positive.
    """
    if not (np.isfinite(kelvin) & (kelvin > 0)).all():
        raise ValueError(f"temperature: must be more than 0 K, got {np.min(kelvin):g}; at 0 K nothing moves")
    mass = masses(batch.numbers)
    drawn = normals(stream, 0, np.diff(batch.offsets)) / np.sqrt(mass)
    still = without_rotation(batch, without_momentum(batch, drawn))
    now = temperature(kinetic_energy(batch, still), freedoms(batch))
    factor = np.sqrt(np.divide(kelvin, now, out=np.zeros_like(now), where=now > 0))
    return np.asarray(still * factor[batch.index][:, None])


def without_momentum(batch: Batch, velocities: Floats) -> Floats:
    """Return velocities, (N, 3), from which the motion of each structure's center of mass is taken."""
    mass = masses(batch.numbers)
    total = by_structure(batch, mass[:, 0])
    drift = sums(batch, mass * velocities) / total[:, None]
    return np.asarray(velocities - drift[batch.index])


def without_rotation(batch: Batch, velocities: Floats) -> Floats:
    """Return velocities, (N, 3), from which the rotation of each structure without a cell is taken."""
    velocities = velocities.copy()
    mass = masses(batch.numbers)
    for k in np.flatnonzero(~batch.pbc.any(axis=1)).tolist():
        own = slice(batch.offsets[k], batch.offsets[k + 1])
        inertia, arms = _inertia(batch, k)
        momentum = (mass[own] * np.cross(arms, velocities[own])).sum(axis=0)
        turn = np.linalg.pinv(inertia, rcond=LINEAR, hermitian=True) @ momentum
        velocities[own] -= np.cross(turn, arms)
    return velocities


def angular_momentum(batch: Batch, velocities: Floats) -> Floats:
    """Return (S, 3) Σ m (x − center) × v in amu Å²/fs."""
    mass = masses(batch.numbers)
    center = sums(batch, mass * batch.positions) / by_structure(batch, mass[:, 0])[:, None]
    return sums(batch, mass * np.cross(batch.positions - center[batch.index], velocities))


def _inertia(batch: Batch, k: int) -> tuple[Floats, Floats]:
    """Return the tensor of inertia (3, 3) of a structure, amu Å², and its atoms from the center of mass."""
    own = slice(batch.offsets[k], batch.offsets[k + 1])
    mass, x = masses(batch.numbers[own]), batch.positions[own]
    arms = x - (mass * x).sum(axis=0) / mass.sum()
    inertia = (mass * arms**2).sum() * np.eye(3) - (mass * arms).T @ arms
    return inertia, arms


def _largest(batch: Batch, k: int) -> float:
    return float(np.abs(_inertia(batch, k)[0]).max())
