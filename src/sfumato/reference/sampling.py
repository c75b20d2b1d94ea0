"""Structures around molecules and crystals to train on: minima, vibrations, short dynamics, stretched bonds.

Pure functions; an engine gives energies and forces, a generator the random numbers. Å, eV, amu, fs, K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from ase import units as ase_units
from ase.calculators.calculator import Calculator, all_changes
from ase.data import atomic_masses, covalent_radii
from ase.geometry import find_mic
from ase.md.langevin import Langevin
from ase.optimize import BFGS

from sfumato.frames import SPLITS, draw
from sfumato.io import from_ase, to_ase
from sfumato.potentials.engines import Engine
from sfumato.reference.scans import bridge_bonds, scan_lengths, scan_positions
from sfumato.systems import Bools, Floats, Ints, System
from sfumato.units import AMU_A2_PER_FS2, KELVIN

LIGHT_CM_PER_FS = 2.99792458e-5
"""Speed of light, which turns an angular frequency into the wavenumber of spectroscopists."""

LINEAR = 0.02
"""A molecule whose atoms lie closer to an axis than this (Å, mass-weighted root mean square) is linear."""

SOFTEST = 200.0
"""Wavenumber (cm⁻¹) as which softer modes are displaced: their straight lines leave the surface soon."""

CLASH_FACTOR = 0.6
"""A structure with two atoms closer than this times their radii sum is dropped."""

DUPLICATE = 0.01
"""Two structures whose atom–atom distances differ by less than this (Å, root mean square) are one."""


class SamplingError(ValueError):
    """A structure that cannot be sampled; the message says why."""


class EngineCalculator(Calculator):  # type: ignore[misc]
    """An engine as ASE's optimizers and integrators want it.

    Args:
        engine: labels every structure.
        system: gives charge and multiplicity.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(self, engine: Engine, system: System) -> None:
        super().__init__()
        self._engine, self._system = engine, system

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Label the structure that ASE asks for."""
        super().calculate(atoms, properties, system_changes)
        cell, pbc = np.asarray(self.atoms.cell), self.atoms.pbc
        moved = replace(self._system, positions=self.atoms.positions, cell=cell, pbc=pbc)
        energy, forces = _labeled(self._engine, moved)
        self.results = {"energy": energy, "forces": forces}


def _labeled(engine: Engine, system: System) -> tuple[float, Floats]:
    label = engine.label(system)
    if not label.converged:
        what = ":" if label.raised else " did not converge:"
        raise SamplingError(f"{engine.level}{what} {label.message}")
    return label.energy, label.forces


def relax(system: System, engine: Engine, *, force: float = 0.01, steps: int = 500) -> System:
    """Move a structure to the nearest minimum by BFGS; the cell of a crystal stays.

    Args:
        system: where to start.
        engine: gives energies and forces.
        force: largest force (eV/Å) on any atom at which it counts as relaxed.
        steps: after which it counts as not relaxed.

    Returns:
        The minimum.

    Raises:
        SamplingError: not relaxed after `steps`, or a point that the engine cannot label.
    """
    atoms = to_ase(system)
    atoms.calc = EngineCalculator(engine, system)
    optimizer = BFGS(atoms, logfile=None)
    if not optimizer.run(fmax=force, steps=steps):
        largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
        raise SamplingError(f"not relaxed after {steps} steps: a force of {largest:.3f} eV/Å is left")
    return from_ase(atoms)


def hessian(system: System, engine: Engine, *, step: float = 0.01) -> Floats:
    """Differentiate the forces of a structure by central differences.

    Args:
        system: the structure, 6N points around which are labeled.
        engine: gives forces.
        step: displacement of each coordinate in Å.

    Returns:
        (3N, 3N) eV/Å², symmetrized.

    Raises:
        SamplingError: a point that the engine cannot label.
    """
    size = system.positions.size
    matrix = np.empty((size, size))
    for k in range(size):
        shift = np.zeros(size)
        shift[k] = step
        plus, minus = (
            _labeled(engine, replace(system, positions=system.positions + sign * shift.reshape(-1, 3)))[1]
            for sign in (1, -1)
        )
        matrix[k] = (minus - plus).ravel() / (2 * step)
    return (matrix + matrix.T) / 2


def rigid_motions(system: System) -> Floats:
    """Return the motions that leave a structure as it is.

    Args:
        system: a molecule, or a crystal periodic in any direction, which cannot turn.

    Returns:
        (K, 3N) orthonormal in mass-weighted coordinates: K is 6, or 5 for a linear molecule, 3 for an atom or
        a crystal.
    """
    mass = atomic_masses[system.numbers]
    root = np.sqrt(mass)
    found = [np.kron(root / np.sqrt(mass.sum()), np.eye(3)[axis]) for axis in range(3)]
    if not system.pbc.any():
        arms = system.positions - mass @ system.positions / mass.sum()
        turns = np.stack([(root[:, None] * np.cross(np.eye(3)[axis], arms)).ravel() for axis in range(3)])
        _, size, motions = np.linalg.svd(turns, full_matrices=False)
        found += list(motions[size > LINEAR * np.sqrt(mass.sum())])
    return np.stack(found)


@dataclass(frozen=True, eq=False)
class Modes:
    """Harmonic vibrations of a structure, rigid motions taken out exactly.

    Args:
        omega2: (M,) squared angular frequencies in eV/(amu Å²), rising; negative where unstable.
        vectors: (M, N, 3) orthonormal in mass-weighted coordinates, largest component positive.
    """

    omega2: Floats
    vectors: Floats

    @property
    def wavenumbers(self) -> Floats:
        """(M,) cm⁻¹; imaginary ones are negative."""
        omega = np.sign(self.omega2) * np.sqrt(np.abs(self.omega2) / AMU_A2_PER_FS2)
        return omega / (2 * np.pi * LIGHT_CM_PER_FS)


def modes(system: System, hessian: Floats) -> Modes:
    """Find the harmonic vibrations of a structure.

    Args:
        system: a minimum.
        hessian: (3N, 3N) eV/Å².

    Returns:
        3N − 6 modes, 3N − 5 of a linear molecule, 3N − 3 of a crystal at its Γ point.
    """
    root = np.sqrt(np.repeat(atomic_masses[system.numbers], 3))
    rigid = rigid_motions(system)
    rest = np.linalg.svd(rigid)[2][len(rigid) :]  # an orthonormal basis of all other motions
    omega2, coefficients = np.linalg.eigh(rest @ (hessian / np.outer(root, root)) @ rest.T)
    vectors = coefficients.T @ rest
    if len(vectors):
        largest = np.abs(vectors).argmax(axis=1)
        vectors *= np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
    return Modes(omega2, vectors.reshape(len(omega2), len(system), 3))


def thermal(
    system: System, modes: Modes, temperature: float, rng: np.random.Generator, *, softest: float = SOFTEST
) -> System:
    """Displace a minimum by a classical harmonic sample: x = Σ_k √(kT/ω_k²) ξ_k e_k / √m.

    On average every mode holds kT/2 of potential energy. Modes softer than `softest`, imaginary ones too, are
    displaced as if they were that stiff.

    Args:
        system: the minimum.
        modes: its vibrations.
        temperature: K.
        rng: gives the ξ.
        softest: cm⁻¹.

    Returns:
        The displaced structure.
    """
    floor = (2 * np.pi * LIGHT_CM_PER_FS * softest) ** 2 * AMU_A2_PER_FS2
    amplitude = np.sqrt(KELVIN * temperature / np.maximum(modes.omega2, floor))
    shift = np.tensordot(amplitude * rng.standard_normal(len(amplitude)), modes.vectors, axes=1)
    shift = shift / np.sqrt(atomic_masses[system.numbers])[:, None]
    return replace(system, positions=system.positions + shift)


@dataclass(frozen=True)
class Dynamics:
    """How short dynamics runs.

    Args:
        timestep: fs.
        friction: of the Langevin thermostat in 1/fs.
        interval: steps before each snapshot.
    """

    timestep: float = 0.5
    friction: float = 0.02
    interval: int = 100


def dynamics(
    system: System,
    engine: Engine,
    temperature: float,
    snapshots: int,
    rng: np.random.Generator,
    settings: Dynamics = Dynamics(),
) -> list[System]:
    """Run Langevin dynamics from a structure with Maxwell–Boltzmann velocities.

    Args:
        system: where to start; a thermal sample needs no equilibration.
        engine: gives forces.
        temperature: K.
        snapshots: how many to take.
        rng: gives velocities and random forces.
        settings: time step, friction, interval.

    Returns:
        The snapshots, with the centroid where it was at the start.

    Raises:
        SamplingError: a point that the engine cannot label.
    """
    atoms = to_ase(system)
    atoms.calc = EngineCalculator(engine, system)
    heat = np.sqrt(KELVIN * temperature * atoms.get_masses())[:, None]
    atoms.set_momenta(heat * rng.standard_normal((len(atoms), 3)))
    integrator = Langevin(
        atoms,
        settings.timestep * ase_units.fs,
        temperature_K=temperature,
        friction=settings.friction / ase_units.fs,
        fixcm=False,
        rng=rng,
    )
    found = []
    for _ in range(snapshots):
        integrator.run(settings.interval)
        drift = (atoms.positions - system.positions).mean(axis=0)
        found.append(replace(system, positions=atoms.positions - drift))
    return found


def stretched(
    system: System, bonds: Ints, span: tuple[float, float], rng: np.random.Generator
) -> System | None:
    """Draw a frame of a bond scan: a random bridge bond at a random length.

    Args:
        system: a molecule.
        bonds: (B, 2) its bonds.
        span: shortest and longest bond in sums of covalent radii.
        rng: draws bond and length.

    Returns:
        The frame; None if no bond splits the molecule into two fragments of two or more atoms.

    Source: Liu et al. 2026, Eq. 1.
    """
    bridges = bridge_bonds(len(system), bonds)
    if not bridges:
        return None
    bridge = bridges[rng.integers(len(bridges))]
    unit = scan_lengths(system.numbers, bridge.bond, 2)[1] / 2
    return replace(system, positions=scan_positions(system, bridge, [unit * rng.uniform(*span)])[0])


def supercell(system: System, repeats: tuple[int, int, int]) -> System:
    """Repeat a crystal along its lattice vectors.

    Args:
        system: the crystal.
        repeats: how often along each; 1 where it is not periodic.

    Raises:
        ValueError: less than one repeat, or more along a direction that is not periodic.
    """
    times = np.asarray(repeats)
    if (times < 1).any() or (times[~system.pbc] != 1).any():
        raise ValueError(f"supercell: {repeats} repeats do not fit periodic directions {system.pbc.tolist()}")
    cells = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), axis=-1).reshape(-1, 3)
    return replace(
        system,
        numbers=np.tile(system.numbers, len(cells)),
        positions=(system.positions[None] + (cells @ system.cell)[:, None]).reshape(-1, 3),
        cell=times[:, None] * system.cell,
    )


def strained(system: System, size: float, rng: np.random.Generator) -> System:
    """Deform a crystal by a random symmetric strain, atoms and cell alike.

    Args:
        system: the crystal.
        size: standard deviation of each strain component.
        rng: draws the strain.
    """
    raw = rng.normal(scale=size, size=(3, 3))
    deformation = np.eye(3) + np.triu(raw) + np.triu(raw, 1).T
    return replace(system, positions=system.positions @ deformation, cell=system.cell @ deformation)


def pair_distances(system: System) -> Floats:
    """Return the nearest distance of every pair of atoms (P,) in Å, pairs ordered as in `pdist`."""
    first, second = np.triu_indices(len(system), 1)
    vectors = system.positions[second] - system.positions[first]
    if system.pbc.any() and len(vectors):
        vectors = find_mic(vectors, system.cell, system.pbc)[0]
    return np.asarray(np.linalg.norm(vectors, axis=1))


def clashing(system: System, factor: float = CLASH_FACTOR) -> bool:
    """Tell whether two atoms are closer than `factor` times the sum of their covalent radii."""
    first, second = np.triu_indices(len(system), 1)
    radii = covalent_radii[system.numbers]
    return bool((pair_distances(system) < factor * (radii[first] + radii[second])).any())


def _fingerprint(system: System) -> Floats:
    """Distances between atoms and, in a crystal, between periodic images of one."""
    lattice = system.cell[system.pbc]
    sums = [a + b for k, a in enumerate(lattice) for b in lattice[k + 1 :]]
    images = np.array([np.linalg.norm(vector) for vector in [*lattice, *sums]])
    return np.concatenate([pair_distances(system), images])


def distinct(systems: Sequence[System], threshold: float = DUPLICATE) -> Bools:
    """Mark the structures that are not rigid copies, or mirror images, of an earlier one.

    Args:
        systems: structures of the same atoms in the same order.
        threshold: Å by which their distances differ in root mean square.

    Returns:
        (S,) true for the first of each kind.
    """
    kept: list[Floats] = []
    new = np.zeros(len(systems), dtype=bool)
    for k, system in enumerate(systems):
        one = _fingerprint(system)
        if not any(((one - other) ** 2).sum() < threshold**2 * len(one) or not len(one) for other in kept):
            kept.append(one)
            new[k] = True
    return new


def split_of(molecule: str, fractions: tuple[float, float, float], seed: int = 0) -> str:
    """Choose the split of a molecule by its name and a seed alone, so that overlapping sets agree.

    Args:
        molecule: what all its configurations share, for example the canonical SMILES.
        fractions: of "train", "val" and "test", summing to 1.
        seed: draws another division.

    Returns:
        One of `SPLITS`.

    Raises:
        ValueError: fractions that are negative or do not sum to 1.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"split_of: fractions must be positive and sum to 1, got {fractions}")
    place = draw(molecule, seed)
    return SPLITS[int(place >= fractions[0]) + int(place >= fractions[0] + fractions[1])]
