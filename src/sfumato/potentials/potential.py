"""The one protocol that everything evaluates, and its bridges to and from ASE calculators."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from sfumato.io import from_ase as system_from_ase
from sfumato.io import to_ase
from sfumato.systems import Batch, Floats, Ints, Prediction, System, digest, symbols

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

VOLATILE = frozenset({"results", "atoms", "_directory", "prefix"})
"""Attributes of an ASE calculator that change with use or place, not with the model."""

TORCH_INTERNALS = frozenset({"_parameters", "_buffers", "_modules", "_version", "training"})
"""Attributes of a torch module that are followed under their own names, or are no settings of the model."""

DEEPEST = 50
"""Objects inside objects that `fingerprint` follows, well below Python's recursion limit."""


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

    @classmethod
    def check(cls, potential: str, known: Collection[int], numbers: Ints, index: Ints) -> None:
        """Raise this error where an element is unknown; it says which, where first, and what is known.

        Args:
            potential: its name.
            known: atomic numbers.
            numbers: (N,) atomic numbers.
            index: (N,) the structure of each atom.
        """
        unknown = set(np.unique(numbers).tolist()) - set(known)
        if unknown:
            first = index[np.isin(numbers, list(unknown)).argmax()]
            raise cls(
                f"{potential} has no parameters for {symbols(unknown)}, first met in structure {first} of "
                f"the batch; it knows {symbols(known)}"
            )


class FromASE:
    """An ASE calculator as a potential; every structure is computed from scratch.

    The calculator is reset before each structure, so that a result depends on the structure alone and not
    on what was computed before it (calculators restart from old densities otherwise). Total charge and
    multiplicity are passed in `Atoms.info` (`charge`, `multiplicity` and `spin`, both 2S+1).

    Args:
        calculator: any object with ASE's calculator interface.
        name: short, for tables.
        identity: hash of its weights and settings; default `fingerprint(calculator)`.
        elements: atomic numbers it knows; None: leave it to the calculator to complain.
    """

    chunk = 1

    def __init__(
        self,
        calculator: Calculator,
        name: str,
        identity: str | None = None,
        elements: Collection[int] | None = None,
    ) -> None:
        self.calculator, self.name = calculator, name
        self.identity = identity or fingerprint(calculator)
        self.elements = None if elements is None else frozenset(int(z) for z in elements)

    def predict(self, batch: Batch) -> Prediction:
        """Evaluate structure by structure; whatever the calculator raises comes through unchanged.

        Returns:
            Energies, forces, and stress if every structure is periodic in three directions and the
            calculator offers it.

        Raises:
            MissingElementError: an element outside `elements`.
            ValueError: forces for another number of atoms.
        """
        if self.elements is not None:
            MissingElementError.check(self.name, self.elements, batch.numbers, batch.index)
        offered = getattr(self.calculator, "implemented_properties", ())
        with_stress = bool(batch.pbc.all()) and "stress" in offered
        found = [self._one(system, with_stress) for system in batch]
        return Prediction(
            energy=np.array([energy for energy, _, _ in found]),
            forces=np.concatenate([np.zeros((0, 3)), *(forces for _, forces, _ in found)]),
            stress=np.stack([stress for _, _, stress in found]) if with_stress else None,
        )

    def _one(self, system: System, with_stress: bool) -> tuple[float, Floats, Floats]:
        atoms = to_ase(system)
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()
        atoms.calc = self.calculator
        energy = float(atoms.get_potential_energy())
        forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
        if forces.shape != (len(system), 3):
            raise ValueError(
                f"{self.name}: the calculator returned forces of shape {forces.shape} for {len(system)} "
                f"atoms; expected ({len(system)}, 3)"
            )
        stress = atoms.get_stress(voigt=False) if with_stress else np.zeros((3, 3))
        return energy, forces, np.asarray(stress, dtype=float)


def from_ase(
    calculator: Calculator,
    name: str,
    identity: str | None = None,
    elements: Collection[int] | None = None,
) -> Potential:
    """Wrap an ASE calculator.

    Args:
        calculator: any object with ASE's calculator interface.
        name: short, for tables.
        identity: hash of its weights and settings; default `fingerprint(calculator)`.
        elements: atomic numbers it knows; None: leave it to the calculator to complain.

    Returns:
        The potential; see `FromASE`.
    """
    return FromASE(calculator, name, identity, elements)


def as_calculator(potential: Potential) -> Calculator:
    """Return an ASE calculator (energy, forces, and stress where the potential has it).

    Args:
        potential: any potential; total charge and multiplicity are read from `Atoms.info`.

    Returns:
        A calculator. Asked for a stress that the potential does not have, it raises ASE's
        `PropertyNotImplementedError`.
    """
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class FromPotential(Calculator):  # type: ignore[misc]
        """The ASE face of a Potential."""

        name = potential.name
        implemented_properties = ("energy", "forces", "stress")

        def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
            """ASE does not look at `info`, which states charge and multiplicity."""
            changes: list[str] = super().check_state(atoms, tol)
            stated = ("charge", "multiplicity", "spin")
            if not changes and any(self.atoms.info.get(key) != atoms.info.get(key) for key in stated):
                changes.append("info")
            return changes

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            prediction = potential.predict(Batch.of([system_from_ase(self.atoms)]))
            self.results = {"energy": float(prediction.energy[0]), "forces": np.array(prediction.forces)}
            if prediction.stress is not None:
                self.results["stress"] = full_3x3_to_voigt_6_stress(prediction.stress[0])
            elif "stress" in properties:
                raise PropertyNotImplementedError(f"{potential.name} gives no stress for this structure")

    calculator = FromPotential()
    calculator.potential = potential  # also what `fingerprint` tells two of them apart by
    return calculator


def fingerprint(thing: object) -> str:
    """Return the SHA-256 of what a calculator or model computes with.

    That is its class, the version of its package, and all its attributes, followed down to numbers,
    strings, arrays, tensors, and the weights and settings of every torch module; not its last results.
    Functions count by name. torch is not imported. Take it before the first use: some calculators keep
    neighbour lists and the like on themselves.

    Args:
        thing: any object.

    Returns:
        The same hash in every process for the same weights and settings. An object that holds something
        different in every process (a time, a temporary path) needs an explicit identity instead.
    """
    return _hash(thing, {}, 0)


def _hash(value: Any, known: dict[int, tuple[Any, str]], depth: int) -> str:
    """Return the digest of a value; `known` keeps those of objects seen, and the objects, by id."""
    torch = sys.modules.get("torch")
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return digest([type(value).__name__, repr(value)])
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return digest([value])
    if torch is not None and isinstance(value, torch.Tensor):
        # Bytes, because numpy knows neither bfloat16 nor float8; flat, because a scalar has no byte view.
        flat = value.detach().to_dense().cpu().contiguous().reshape(-1).view(torch.uint8)
        return digest([f"{value.dtype}{tuple(value.shape)}", flat.numpy()])
    if isinstance(value, Path | np.dtype) or (torch and isinstance(value, torch.dtype | torch.device)):
        return digest([str(value)])
    if isinstance(value, logging.Logger):
        return digest([value.name])
    if isinstance(value, type | ModuleType) or (callable(value) and hasattr(value, "__name__")):
        name = getattr(value, "__qualname__", value.__name__)
        return digest([f"{getattr(value, '__module__', '')}.{name}"])
    if id(value) not in known:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        known[id(value)] = (value, digest([kind]))  # what a cycle, or the deepest object, counts as
        if depth < DEEPEST:
            parts = [part for name, item in _inside(value) for part in (name, _hash(item, known, depth + 1))]
            version = _package_version(type(value).__module__)
            known[id(value)] = (value, digest([kind, version, *parts]))
    return known[id(value)][1]


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named contents of a container, a torch module or any other object, in a fixed order."""
    torch = sys.modules.get("torch")
    held = _attributes(value)
    if isinstance(value, Mapping):
        yield from sorted(((repr(key), value[key]) for key in value), key=lambda item: item[0])
    elif isinstance(value, list | tuple):
        yield from ((str(k), item) for k, item in enumerate(value))
    elif isinstance(value, np.ndarray):
        yield "items", value.tolist()
    elif isinstance(value, set | frozenset):
        yield "items", sorted(_hash(item, {}, 0) for item in value)
    elif isinstance(value, functools.partial):
        yield "call", [value.func, value.args, value.keywords]
    elif torch is not None and isinstance(value, torch.nn.Module):
        for group in ("_parameters", "_buffers", "_modules"):
            yield from getattr(value, group).items()
        # Settings, but not the compiled graphs and the like that some packages keep on their modules.
        held = {k: v for k, v in held.items() if k not in TORCH_INTERNALS and _is_setting(v)}
    yield from ((name, held[name]) for name in sorted(held) if name not in VOLATILE)


def _is_setting(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_setting(item) for item in value)
    if isinstance(value, Mapping):
        return all(_is_setting(item) for item in value.values())
    torch = sys.modules["torch"]
    return value is None or isinstance(
        value, bool | int | float | complex | str | np.ndarray | np.generic | torch.Tensor | torch.nn.Module
    )


def _attributes(value: Any) -> dict[str, Any]:
    """Return what an object holds in its dict and its slots."""
    names: set[str] = set()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names.update([slots] if isinstance(slots, str) else slots)
    held = {name: getattr(value, name) for name in names if name[:2] != "__" and hasattr(value, name)}
    return held | dict(getattr(value, "__dict__", {}))


@functools.cache
def _package_version(module: str) -> str:
    """Return the version of the package that a module belongs to, empty where it has none."""
    top = module.partition(".")[0]
    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        # The import name may differ from the distribution's: mace comes with mace-torch.
        return str(getattr(sys.modules.get(top), "__version__", ""))
