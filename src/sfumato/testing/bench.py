"""The bench a potential is put on: settings, counted evaluations, structures it knows, its noise."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sfumato.metrics.noise import MARGIN, Derivative, noise_level, ridders
from sfumato.systems import Batch, Floats, Prediction, System
from sfumato.testing import structures
from sfumato.testing.result import Measured, NotApplicableError

if TYPE_CHECKING:
    from sfumato.potentials.potential import Potential

DOUBLE_NOISE = 1e-9
"""eV and eV/Å; what is noisier works in single precision, or iterates to a threshold."""

SYMMETRY = {"double": 1e-10, "single": 1e-4}
"""eV and eV/Å by which equivalent inputs may differ."""

RELATIVE = 1e-6
"""By which a force may differ from the gradient, over the largest force component."""

NOISE_STEPS = (5e-5, 1e-3, 2e-2)
"""Å; the first is small enough that the sixth difference of a smooth potential is below rounding, and large
enough that a position in single precision (3e-7 Å) is another one. The others are for energies so coarsely
rounded that most steps of the one before left them unchanged."""

INEXACT = 1e-6
"""eV/Å by which a force may be inexact and still widen other tolerances: ten times what GFN2-xTB has."""

VARIES = 0.1
"""Å over which the error of an inexact force changes by its own size."""

STEPS = {"double": 1e-3, "single": 0.03}
"""Å, the largest displacement of all atoms together in a derivative. Small, so that an energy that jumps
nearby is not taken for a wrong force; as large as noise demands."""

LINES = np.sqrt(2)
"""A central difference of step h has the noise σ / (√2 h)."""

LEVELS = 0.5 ** np.arange(5)
"""Of the largest displacement, those that are extrapolated."""


class Settings(BaseModel):
    """What decides the contract's results besides the potential.

    Args:
        elements: symbols the test structures are made of, at most four; by default H C N O, or the first of
            a few other sets that the potential knows.
        periodic: whether to test crystals and slabs; by default unless the potential says it has none
            (`abilities.periodic` is false), refuses them, or is a reference method. To refuse them is a
            failure if this, or `abilities.periodic`, is true.
        reach: Å to which atoms are pulled apart in search of a cutoff.
        points: of each path that is searched for jumps.
        seed: of displacements, rotations, orders.
        own: most of the user's structures that are checked; with `quick` a third.
        quick: a quarter of the structures: fewer and coarser paths, and some checks left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    elements: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=4)
    periodic: bool | None = None
    reach: float = Field(default=8.0, gt=3)
    points: int = Field(default=61, ge=20)
    seed: int = Field(default=0, ge=0)
    own: int = Field(default=10, ge=1)
    quick: bool = False

    @field_validator("elements")
    @classmethod
    def _known(cls, elements: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from ase.data import atomic_numbers

        from sfumato.words import nearest

        for symbol in elements or ():
            if symbol not in atomic_numbers:
                raise ValueError(f"{symbol!r} is not an element; {nearest(symbol, atomic_numbers)}")
        return elements


@dataclass(frozen=True, eq=False)
class Point:
    """What the potential says about one structure: eV, (N, 3) eV/Å, (3, 3) eV/Å³ or None."""

    energy: float
    forces: Floats
    stress: Floats | None


@dataclass(frozen=True)
class Floor:
    """What cannot be told from noise, per energy and per force component.

    Args:
        energy: eV, standard deviation of the noise.
        force: eV/Å, likewise.
        inexact: eV/Å by which, beyond noise, the force is not the gradient of the energy, as for an
            unconverged self-consistent field, here or at the reference structure; no more than `RELATIVE`
            allows and never more than `INEXACT`, so that a wrong force buys no tolerance.
    """

    energy: float
    force: float
    inexact: float

    @property
    def roughness(self) -> tuple[float, float]:
        """eV and eV/Å: energy and force are as rough as they are noisy or inexact."""
        return max(self.energy, VARIES * self.inexact), max(self.force, self.inexact)


@dataclass(frozen=True)
class Slope:
    """dE/du along one direction, by differences and by the force.

    Args:
        difference: dE/du by differences of the energy, eV/Å.
        force: F·u, eV/Å.
        largest: force component, eV/Å.
    """

    difference: Derivative
    force: float
    largest: float

    @property
    def mismatch(self) -> float:
        """|dE/du + F·u| in eV/Å."""
        return abs(self.difference.value + self.force)

    @property
    def scale(self) -> float:
        """eV/Å that a relative error refers to; a force that is zero throughout must not pass."""
        return max(self.largest, abs(self.difference.value), 1e-3)


def same(first: Batch, second: Batch) -> bool:
    """Return whether two batches hold the same bits."""
    names = ("numbers", "positions", "index", "cell", "pbc", "charge", "multiplicity")
    return all(getattr(first, n).tobytes() == getattr(second, n).tobytes() for n in names)


class Bench:
    """One potential under test.

    Args:
        potential: any potential.
        settings: see `Settings`.
        own: structures of the user, by their numbers.
        guard: called with each number of structures before they are evaluated; it may raise to end the check.

    Raises:
        ValueError: the potential can evaluate none of the structures.
    """

    def __init__(
        self,
        potential: Potential,
        settings: Settings,
        own: Sequence[tuple[int, System]] = (),
        guard: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.potential, self.settings, self.own, self.guard = potential, settings, own, guard
        self.evaluations = self.mutated = 0
        self.cutoffs: list[float] | None = None
        """Å, distances at which the search for cutoffs found a jump; None before it was made."""
        self._points: dict[str, Point] = {}
        self._noise: dict[str, tuple[float, float]] = {}
        self._slopes: dict[tuple[str, int], Slope] = {}
        self.elements = self._choose_elements()
        self._structures: dict[str, System | str] = {}

    # --- precision

    @property
    def claims(self) -> str:
        """The precision that the potential says it has, or nothing."""
        return self.potential.abilities.dtype

    @property
    def count(self) -> int:
        """Points of a searched path."""
        return self.settings.points * 2 // 5 if self.settings.quick else self.settings.points

    @cached_property
    def double(self) -> Bench:
        """The bench of the same potential in double precision; this one if it has no other."""
        if "float64" not in self.potential.abilities.dtypes or self.claims == "float64":
            return self
        return Bench(self.potential.to(dtype="float64"), self.settings, self.own, self.guard)

    @property
    def few(self) -> bool:
        """Whether the fewest structures are to be evaluated."""
        return self.settings.quick

    @property
    def counted(self) -> int:
        """Evaluations so far, in all precisions."""
        twin = self.__dict__.get("double", self)
        return self.evaluations + (0 if twin is self else int(twin.evaluations))

    # --- evaluations

    def predict(self, batch: Batch, failing: bool = False) -> Prediction:
        """Evaluate a batch as it is, count its structures, and note if the potential changed its input.

        Args:
            batch: structures.
            failing: whether a structure may fail, with NaN for its numbers; otherwise what it raised is.
        """
        systems = len(batch)
        self.guard(systems)
        handed = Batch(*(np.array(getattr(batch, n)) for n in batch.__dataclass_fields__))
        self.evaluations += systems
        found = self.potential.predict(handed)
        self.mutated += not same(handed, batch)
        return found if failing else found.require()

    def points(self, systems: Sequence[System], together: bool = False, failing: bool = False) -> list[Point]:
        """Evaluate structures, in batches of the size the potential prefers, or all in one batch."""
        size = len(systems) if together else max(1, self.potential.abilities.batch)
        found = []
        for start in range(0, len(systems), size):
            batch = Batch.of(systems[start : start + size])
            prediction = self.predict(batch, failing)
            stress = prediction.stress
            for k, (first, last) in enumerate(zip(batch.offsets, batch.offsets[1:])):
                tensor = None if stress is None else stress[k]
                found.append(Point(float(prediction.energy[k]), prediction.forces[first:last], tensor))
        return found

    def point(self, system: System) -> Point:
        """Evaluate one structure, once."""
        if system.identity not in self._points:
            (self._points[system.identity],) = self.points([system])
        return self._points[system.identity]

    # --- structures

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator that depends on the seed and the purpose, not on the order of checks."""
        return np.random.default_rng([self.settings.seed, zlib.crc32(purpose.encode())])

    def structure(self, kind: str) -> System:
        """Return a structure by the name of its maker in `structures`.

        Raises:
            NotApplicableError: the potential refuses it, or is not to be tested on it.
        """
        found = self._found(kind)
        if isinstance(found, str):
            raise NotApplicableError(found)
        return found

    def available(self, *kinds: str) -> dict[str, System]:
        """Return those structures that the potential takes.

        Raises:
            NotApplicableError: it takes none of them.
        """
        found, reasons = {}, []
        for kind in kinds:
            try:
                found[kind] = self.structure(kind)
            except NotApplicableError as error:
                reasons.append(str(error))
        if not found:
            raise NotApplicableError("; ".join(dict.fromkeys(reasons)))
        return found

    def require_molecules(self) -> None:
        """Leave a check of a few atoms in vacuum.

        Raises:
            NotApplicableError: the potential takes no molecules.
        """
        self.structure("molecule")

    def must_take(self, kind: str) -> bool:
        """Return whether refusing a structure is a failure: nobody said that the potential has none like it.

        Without periodic structures it must take molecules, and who takes one takes a cluster of several.
        """
        if kind in ("crystal", "slab"):
            return self._periodic is True
        if kind == "molecule":
            return self._periodic is False
        return isinstance(self._found("molecule"), System)

    @property
    def _periodic(self) -> bool | None:
        """Whether crystals and slabs belong to the potential, as the settings or itself say.

        Methods of quantum chemistry are for molecules unless something else is said: a crystal takes them
        minutes.
        """
        asked, can = self.settings.periodic, self.potential.abilities
        if asked is None and can.periodic is None and can.level:
            return False
        return can.periodic if asked is None else asked

    def _found(self, kind: str) -> System | str:
        """Return a structure, or why there is none."""
        if kind not in self._structures:
            self._structures[kind] = self._make(kind)
        return self._structures[kind]

    def _make(self, kind: str) -> System | str:
        if kind in ("crystal", "slab") and self._periodic is False:
            if self.settings.periodic is False:
                return "periodic structures were not asked for"
            if self.potential.abilities.periodic is None:
                return (
                    f"{self.potential.name} is a reference method; ask for periodic structures to check them"
                )
            return f"{self.potential.name} says it has no periodic structures"
        makers: dict[str, Callable[[], System]] = {
            "molecule": lambda: structures.molecule(self.elements),
            "cluster": lambda: structures.cluster(self.elements, self.rng("cluster")),
            "crystal": lambda: structures.crystal(self.elements, self.rng("crystal")),
            "slab": lambda: structures.slab(self.elements, self.rng("crystal")),
        }
        made = makers[kind]()
        try:
            self.point(made)
        except (ValueError, NotImplementedError) as error:
            return f"{kind}: {error}"
        return made

    def _choose_elements(self) -> tuple[int, ...]:
        """Return the elements of the structures: those asked for, or the first set the potential takes."""
        known = self.potential.abilities.elements
        palettes = structures.PALETTES
        if self.settings.elements is not None:
            from ase.data import atomic_numbers

            palettes = (tuple(atomic_numbers[symbol] for symbol in self.settings.elements),)
        elif known:
            numbers = sorted(known)
            palettes = (*(p for p in palettes if set(p) <= known), tuple(numbers[:2]))
        reasons: list[str] = []
        for palette in palettes:
            for make in (structures.molecule, lambda p: structures.crystal(p, self.rng("crystal"))):
                try:
                    self.point(make(palette))
                except Exception as error:  # noqa: BLE001 (calculators raise anything for unknown elements)
                    reasons.append(f"{type(error).__name__}: {error}")
                else:
                    return palette
        raised = "; ".join(dict.fromkeys(reasons[-2:]))
        raise ValueError(
            f"{self.potential.name}: none of the test structures can be evaluated; name elements it knows "
            f"(--elements Au Pt, or the setting `elements`). It raised {raised}"
        )

    # --- noise and tolerances

    def noise(self, system: System, reach: float = np.inf) -> tuple[float, float]:
        """Return the noise of the energy in eV and of a force in eV/Å, from values along one direction.

        Args:
            system: any.
            reach: Å that it may be moved by, so that a jump nearby is not taken for noise.
        """
        if system.identity not in self._noise:
            direction = self.direction(system, 0)
            for step in (step for step in NOISE_STEPS if 4 * step < reach):
                found = self.points([along(system, direction, k * step) for k in range(-4, 5)])
                energy, forces = np.array([p.energy for p in found]), np.array([p.forces for p in found])
                if (np.diff(energy) == 0).mean() <= 0.5:
                    break
            self._noise[system.identity] = noise_level(energy), noise_level(forces)
        return self._noise[system.identity]

    def floor(self, system: System, reach: float = np.inf) -> Floor:
        """Return what cannot be told from noise at a structure; see `noise` for `reach`."""
        directions = [(system, 0), *((self.reference, k) for k in range(3))]
        inexact = max(self._inexact(where, k) for where, k in directions)
        allowed = min(RELATIVE * self.slope(system, 0).scale, INEXACT)
        return Floor(*self.noise(system, reach), min(inexact, allowed))

    def _inexact(self, system: System, k: int) -> float:
        """Return eV/Å by which, beyond noise, the force misses the gradient along one direction."""
        energy, force = self.noise(system)
        slope = self.slope(system, k)
        return max(0.0, slope.mismatch - MARGIN * (energy / slope.difference.step + force))

    def slope(self, system: System, k: int) -> Slope:
        """Return dE/du and F·u along the k-th random direction of a structure."""
        if (system.identity, k) not in self._slopes:
            u = self.direction(system, k)
            above, below = (
                np.array([p.energy for p in self.points([along(system, u, s * h) for h in self.steps])])
                for s in (1, -1)
            )
            forces = self.point(system).forces
            work, largest = float((forces * u).sum()), float(np.abs(forces).max())
            self._slopes[system.identity, k] = Slope(ridders(self.steps, above, below), work, largest)
        return self._slopes[system.identity, k]

    def gradient(self, base: System, k: int, name: str) -> Measured:
        """Return how far F·u is from −dE/du along the k-th random direction, over the largest force."""
        slope, floor = self.slope(base, k), self.floor(base)
        noise = floor.energy / (LINES * slope.difference.step) + floor.force
        tolerance = RELATIVE + MARGIN * noise / slope.scale
        where = f"{name}, F·u = {slope.force:.3g} eV/Å"
        return Measured(slope.mismatch / slope.scale, tolerance, "relative", where)

    def direction(self, system: System, k: int) -> Floats:
        """Return the k-th random direction of a structure, (N, 3) of norm 1."""
        u = self.rng(f"direction {system.identity} {k}").normal(size=system.positions.shape)
        unit: Floats = u / np.linalg.norm(u)
        return unit

    @property
    def reference(self) -> System:
        """The molecule, or for a potential without molecules the crystal."""
        return next(iter(self.available("molecule", "crystal").values()))

    @property
    def precision(self) -> Literal["double", "single"]:
        """ "double", unless energies or forces of the reference structure are noisier than that."""
        return "double" if max(self.noise(self.reference)) <= DOUBLE_NOISE else "single"

    @property
    def steps(self) -> Floats:
        """Å, displacements for derivatives."""
        levels = LEVELS[:3] if self.settings.quick else LEVELS
        steps: Floats = np.asarray(STEPS[self.precision] * levels, dtype=float)
        return steps

    def tolerances(self, system: System) -> tuple[float, float]:
        """Return eV and eV/Å by which energy and forces of equivalent inputs may differ."""
        energy, force = self.floor(system).roughness
        low = SYMMETRY[self.precision]
        return low + MARGIN * energy, low + MARGIN * force


def along(base: System, direction: Floats, distance: float) -> System:
    """Return a structure displaced along a direction."""
    return structures.moved(base, base.positions + distance * direction)
