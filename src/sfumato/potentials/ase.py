"""ASE calculators as potentials."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize

import numpy as np

from sfumato.files import new_folder, remove_folder
from sfumato.io import to_ase
from sfumato.potentials.fingerprint import fingerprint
from sfumato.potentials.potential import Abilities, MissingElementError, Potential
from sfumato.systems import Batch, Failure, Floats, Prediction, System

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator


class FromASE(Potential):
    """An ASE calculator as a potential; every structure is computed from scratch.

    The calculator is reset before each structure, so that a result depends on the structure alone and not
    on what was computed before it (calculators restart from old densities otherwise). Total charge and
    multiplicity are stated where calculators look for them: in `Atoms.info` (`charge`, and 2S+1 as
    `multiplicity` and `spin`) and, where they are not those of a neutral singlet, as initial charges and
    magnetic moments, spread over all atoms. A calculator that runs a program and exchanges files with it
    gets a working folder of its own in every process, inside the one it was set up with if that is not the
    current folder; it is removed at the end.

    Args:
        calculator: any object with ASE's calculator interface.
        name: short, for tables.
        identity: hash of its weights and settings; default `fingerprint(calculator)`.
        elements: atomic numbers it knows; None: leave it to the calculator to complain.
        device: where it computes.
        charge: whether total charge and multiplicity may change what it computes.
    """

    name: str
    identity: str
    abilities: Abilities

    def __init__(
        self,
        calculator: Calculator,
        name: str,
        identity: str | None = None,
        elements: Collection[int] | None = None,
        device: str = "cpu",
        charge: bool = True,
    ) -> None:
        self.inner, self.name = calculator, name
        self.identity = identity or fingerprint(calculator)
        self.abilities = Abilities(
            elements=None if elements is None else frozenset(int(z) for z in elements),
            stress="stress" in getattr(calculator, "implemented_properties", ()),
            charge=charge,
            device=device,
        )
        # Of each calculator that works with files; as it was set up, so that a copy finds its own.
        self._stated = [str(part.directory) for part in _with_files(calculator)]

    def compute(self, batch: Batch) -> Prediction:
        """Evaluate structure by structure; whatever the calculator raises is the failure of that one.

        Returns:
            Energies, forces, and stress if every structure is periodic in three directions and the
            calculator gives it; one that offers a stress and then has none has none.
        """
        _give_folders(self, self._stated)
        asked = bool(batch.pbc.all()) and self.abilities.stress
        return Prediction.join([self._predicted(system, asked) for system in batch])

    def _predicted(self, system: System, asked: bool) -> Prediction:
        try:
            energy, forces, stress = self._one(system, asked)
        except Exception as error:  # noqa: BLE001 (calculators raise anything)
            return Prediction.failed(Batch.of([system]), Failure.of(error))
        return Prediction(np.array([energy]), forces, None if stress is None else stress[None])

    def _one(self, system: System, asked: bool) -> tuple[float, Floats, Floats | None]:
        if self.abilities.elements is not None:
            index = np.zeros(len(system), dtype=np.int64)
            MissingElementError.check(self.name, self.abilities.elements, system.numbers, index)
        atoms = _atoms(system)
        before = atoms.copy()
        if hasattr(self.inner, "reset"):
            self.inner.reset()
        atoms.calc = self.inner
        energy = _numbers(atoms.get_potential_energy(), (), f"{self.name}: energy")
        # Not by way of Atoms, which takes for granted that forces are an array.
        forces = _numbers(self.inner.get_forces(atoms), (len(system), 3), f"{self.name}: forces")
        stress = None
        if asked:
            # Packages list a stress for all of their models, whether or not a model has it.
            with suppress(NotImplementedError, KeyError, AttributeError):
                stress = np.asarray(atoms.get_stress(voigt=False), dtype=float)
        kept = ("numbers", "positions")
        same = all((atoms.arrays[name] == before.arrays[name]).all() for name in kept)
        self.meddled += not (same and (atoms.cell == before.cell).all() and (atoms.pbc == before.pbc).all())
        return float(energy), forces, stress


def from_ase(
    calculator: Calculator,
    name: str = "",
    identity: str | None = None,
    elements: Collection[int] | None = None,
) -> Potential:
    """Wrap an ASE calculator.

    Args:
        calculator: any object with ASE's calculator interface.
        name: short, for tables; default the name of its class, in lower case.
        identity: hash of its weights and settings; default `fingerprint(calculator)`.
        elements: atomic numbers it knows; None: leave it to the calculator to complain.

    Returns:
        The potential; see `FromASE`.

    Raises:
        TypeError: something else, for example Atoms.
    """
    methods = all(hasattr(calculator, method) for method in ("get_potential_energy", "get_forces"))
    if isinstance(calculator, type) or hasattr(calculator, "get_positions") or not methods:
        what = (
            f"the class {calculator.__name__}" if isinstance(calculator, type) else type(calculator).__name__
        )
        raise TypeError(
            f"from_ase takes an ASE calculator, such as atoms.calc, got {what}; structures are read by "
            "sfumato.io.from_ase"
        )
    return FromASE(calculator, name or type(calculator).__name__.lower(), identity, elements)


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> Floats:
    """Return a calculator's result as an array, whatever kind of array, tensor or list it is.

    Args:
        value: the result; axes of length one before those of `shape`, and no axes at all, are accepted.
        shape: what it must have.
        what: what to call it in an error.

    Raises:
        ValueError: no numbers, or another shape; a transposed array is not turned, because of three atoms
            nobody could tell.
    """
    if value is None:
        raise ValueError(f"{what}: the calculator returned None")
    value = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: the calculator returned no numbers: {error}") from None
    flat = array.ndim == 1 and array.size == int(np.prod(shape))
    if not flat and array.shape != (1,) * (array.ndim - len(shape)) + shape:
        raise ValueError(f"{what}: the calculator returned shape {array.shape}, expected {shape}")
    return array.reshape(shape)


_FOLDERS: WeakKeyDictionary[FromASE, int] = WeakKeyDictionary()
"""The process in which each potential's calculators were given their folders."""


def _give_folders(potential: FromASE, stated: Sequence[str]) -> None:
    """Let every calculator that works with files work in a folder of this process."""
    if not stated or _FOLDERS.get(potential) == os.getpid():
        return
    for part, place in zip(_with_files(potential.inner), stated, strict=True):
        here = Path(place).resolve() == Path.cwd()
        folder = new_folder("ase", None if here else Path(place).resolve())
        finalize(potential, remove_folder, folder)
        part.directory = type(part.directory)(folder)
    _FOLDERS[potential] = os.getpid()


def _with_files(calculator: Any, depth: int = 3) -> list[Any]:
    """Return the calculators that write files, those inside of others too (sums, corrections)."""
    writes = any(hasattr(calculator, word) for word in ("write_input", "write_inputfiles"))
    found = [calculator] if writes and hasattr(calculator, "directory") else []
    if depth:
        held = getattr(calculator, "__dict__", {})
        for name in ("mixer", "calcs", "calculators", "calc", "dft", "calculator"):
            inner = held.get(name)
            for part in inner if isinstance(inner, list | tuple) else [inner] * (inner is not None):
                found += _with_files(part, depth - 1)
    return found


def _atoms(system: System) -> Atoms:
    """Return a structure for ASE, with charge and multiplicity wherever calculators look for them."""
    atoms = to_ase(system)
    for total, put in (
        (system.charge, atoms.set_initial_charges),
        (system.multiplicity - 1, atoms.set_initial_magnetic_moments),
    ):
        if total and len(system):
            share = np.full(len(system), total / len(system))
            share[0] += total - share.sum()  # the sum is what calculators take, some without rounding
            put(share)
    return atoms
