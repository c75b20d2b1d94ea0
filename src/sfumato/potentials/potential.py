"""The one protocol that everything evaluates, and its bridges to and from ASE calculators."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from sfumato.io import from_ase as system_from_ase
from sfumato.io import to_ase
from sfumato.systems import Batch, Prediction, digest

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


@runtime_checkable
class Potential(Protocol):
    """Energies and forces of structures.

    Attributes:
        name: short, for tables.
        identity: SHA-256 of weights and settings; records are keyed by it.
        chunk: structures it prefers to get at once (1 for an ASE calculator).
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def chunk(self) -> int: ...

    def predict(self, batch: Batch) -> Prediction:
        """Return energies (eV), forces (eV/Å) and, where there is one, stress (eV/Å³)."""
        ...


class MissingElementError(ValueError):
    """A potential was asked about an element it does not know."""

    def __init__(self, potential: str, numbers: Any) -> None:
        from ase.data import chemical_symbols

        symbols = ", ".join(chemical_symbols[int(z)] for z in sorted(set(numbers)))
        super().__init__(f"{potential} has no parameters for {symbols}")


class FromASE:
    """An ASE calculator as a potential; every structure is computed from scratch.

    The calculator is reset before each structure, so that a result depends on the structure alone and not
    on what was computed before it (calculators restart from old densities otherwise).
    """

    chunk = 1

    def __init__(self, calculator: Calculator, name: str, identity: str | None = None) -> None:
        self.calculator, self.name = calculator, name
        self.identity = identity or fingerprint(calculator)

    def predict(self, batch: Batch) -> Prediction:
        """Evaluate structure by structure; whatever the calculator raises comes through unchanged."""
        energies, forces = [], []
        for system in batch:
            atoms = to_ase(system)
            if hasattr(self.calculator, "reset"):
                self.calculator.reset()
            atoms.calc = self.calculator
            energies.append(float(atoms.get_potential_energy()))
            forces.append(np.array(atoms.get_forces(apply_constraint=False), dtype=float))
        return Prediction(np.array(energies), np.concatenate(forces))


def from_ase(calculator: Calculator, name: str, identity: str | None = None) -> Potential:
    """Wrap an ASE calculator.

    Args:
        calculator: any object with ASE's calculator interface.
        name: short, for tables.
        identity: hash of its weights and settings; default `fingerprint(calculator)`.
    """
    return FromASE(calculator, name, identity)


def as_calculator(potential: Potential) -> Calculator:
    """Return an ASE calculator (energy, forces, and stress where the potential has it)."""
    from ase.calculators.calculator import Calculator, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class FromPotential(Calculator):  # type: ignore[misc]
        """The ASE face of a Potential."""

        name = potential.name
        implemented_properties = ("energy", "forces", "stress")

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            prediction = potential.predict(Batch.of([system_from_ase(self.atoms)]))
            self.results = {"energy": float(prediction.energy[0]), "forces": np.array(prediction.forces)}
            if prediction.stress is not None:
                self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress[0])

    return FromPotential()


def fingerprint(thing: object) -> str:
    """Return the SHA-256 of what a calculator computes with.

    That is: its class, the version of the package it comes from, its ASE parameters, and the weights of every
    torch module found on it. Two calculators that differ in something else need an explicit identity.
    """
    kind = type(thing)
    parts: list[Any] = [f"{kind.__module__}.{kind.__qualname__}", _package_version(kind.__module__)]
    parameters = getattr(thing, "parameters", None)
    if isinstance(parameters, dict):
        parts.append(json.dumps(parameters, sort_keys=True, default=repr))
    for name, weights in sorted(_weights(thing)):
        parts += [name, weights]
    return digest(parts)


def _package_version(module: str) -> str:
    try:
        return metadata.version(module.partition(".")[0])
    except metadata.PackageNotFoundError:
        return "unpackaged"


def _weights(thing: object) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors of the torch modules among a calculator's attributes, also in lists; never loads torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    for attribute, value in vars(thing).items() if hasattr(thing, "__dict__") else ():
        for k, module in enumerate(value if isinstance(value, list | tuple) else [value]):
            if isinstance(module, torch.nn.Module):
                for key, tensor in module.state_dict().items():
                    if isinstance(tensor, torch.Tensor):
                        data = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
                        yield f"{attribute}[{k}].{key}:{tensor.dtype}", data
