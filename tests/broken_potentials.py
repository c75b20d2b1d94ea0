"""Tiny potentials, each with one defect, to show that every check of the contract bites."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sfumato.models.pair import PAIRS, PairPotential
from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, Prediction

INNER = PAIRS["morse"]


class Changed(Potential):
    """A smooth potential; each structure and its prediction pass through a function.

    Args:
        change: of a batch of one and its prediction; None for nothing wrong.
        precisions: what it is in float32 and in float64, for one that offers both.
        abilities: fields of its `Abilities`.
    """

    name, identity = "changed", "0"

    def __init__(
        self,
        change: Callable[[Batch, Prediction], Prediction] | None = None,
        precisions: dict[str, Potential] | None = None,
        **abilities,
    ):
        self.change, self.precisions = change, precisions
        self.abilities = Abilities(**({"dtypes": tuple(precisions or ()), "stress": True} | abilities))

    def compute(self, batch):
        if self.change is None:
            return INNER.compute(batch)
        one_by_one = [batch] if len(batch) == 1 else [Batch.of([system]) for system in batch]
        found = [self.change(one, INNER.compute(one)) for one in one_by_one]
        stress = [one.stress for one in found]
        return Prediction(
            np.concatenate([one.energy for one in found]),
            np.concatenate([one.forces for one in found]),
            None if any(tensor is None for tensor in stress) else np.concatenate(stress),
        )

    def to(self, *, device=None, dtype=None):
        if dtype in self.abilities.dtypes:
            return self.precisions[dtype]
        return super().to(device=device, dtype=dtype)


def add_energy(amount):
    """Return a change that adds an energy without a force: `amount` is a function of the batch."""
    return lambda batch, found: replace(found, energy=found.energy + amount(batch))


def adjacent(batch):
    """1 meV for every second atom that is heavier than the next: extensive, but not without an order."""
    first, second = batch.numbers[: len(batch.numbers) // 2 * 2].reshape(-1, 2).T
    return 1e-3 * (first > second).sum()


def square(periodic):
    """Return a change E → E + cE², forces and stress to match, of crystals or of molecules: not extensive."""

    def change(batch, found):
        if bool(batch.pbc.any()) != periodic:
            return found
        factor = 1 + 2e-4 * found.energy[0]
        stress = None if found.stress is None else found.stress * factor
        return Prediction(found.energy + 1e-4 * found.energy**2, found.forces * factor, stress)

    return change


def place(batch):
    """1 meV for every 4 Å that a small molecule is away from the origin, in steps."""
    small = 2 < len(batch.numbers) < 8 and not batch.pbc.any()
    return 1e-3 * np.round(batch.positions[:, 0].min() / 4) if small else 0.0


def unwrapped(batch):
    """1 meV for every atom of a small crystal given far from the first: not taken modulo the cell."""
    if not batch.pbc.any() or len(batch.numbers) > 4:
        return 0.0
    return 1e-3 * (np.linalg.norm(batch.positions - batch.positions[0], axis=1) > 6.5).sum()


def no_stress(batch, found):
    return replace(found, stress=None)


class Silent(Changed):
    """The same energy and no force whatever it is asked: as from a file that was not read."""

    def compute(self, batch):
        found = INNER.compute(batch)
        stress = None if found.stress is None else 0 * found.stress
        return Prediction(0 * found.energy, 0 * found.forces, stress)


def flipped_stress(batch, found):
    return replace(found, stress=None if found.stress is None else -found.stress)


def asymmetric_stress(batch, found):
    if found.stress is None:
        return found
    return replace(found, stress=found.stress + 1e-3 * np.eye(3)[[1, 2, 0]])


def wrong_factor(batch, found):
    return replace(found, forces=found.forces * (1 + 1e-5))


def pulled(batch, found):
    """A constant force on every atom of a crystal."""
    return replace(found, forces=found.forces + np.array([1e-3 * batch.pbc.all(), 0, 0]))


def swirl(batch, found):
    """Forces around an axis through formamide: no net force, but a curl."""
    if not 6 <= len(batch.numbers) <= 8:
        return found
    arms = batch.positions[:6] - batch.positions[:6].mean(axis=0)
    forces = found.forces.copy()
    forces[:6] += 0.3 * np.cross([0, 0, 1.0], arms)
    return replace(found, forces=forces)


def not_a_number(batch, found):
    lone = len(batch.numbers) == 1
    return replace(found, forces=found.forces * np.nan) if lone else found


def mutates(batch, found):
    batch.positions.flags.writeable = True
    batch.positions[:] += 1.0
    return found


def single(batch, found):
    """Everything rounded to single precision."""
    stress = None if found.stress is None else found.stress.astype(np.float32)
    return Prediction(found.energy.astype(np.float32), found.forces.astype(np.float32), stress)


def loud(batch, found, size=2e-3):
    """Numerical noise in eV/Å that depends on the last digits of the input."""
    seed = np.frombuffer(batch.positions.tobytes(), dtype=np.uint32)
    noise = np.random.default_rng(seed).normal(size=found.forces.shape)
    return replace(found, forces=found.forces + size * (noise - noise.mean(axis=0)))


class Restless:
    """Adds 0.2 meV times the sine of a counter of calls to the energy: never the same twice."""

    def __init__(self):
        self.calls = 0

    def __call__(self, batch, found):
        self.calls += 1
        return replace(found, energy=found.energy + 2e-4 * np.sin(1.7 * self.calls))


class Remembers:
    """An energy 1 meV higher if the structure before had other positions, as from a calculator not reset."""

    def __init__(self):
        self.last = b""

    def __call__(self, batch, found):
        now = batch.positions.tobytes()
        changed, self.last = now != self.last, now
        return replace(found, energy=found.energy + 1e-3 * changed)


class MixesBatches(Changed):
    """Removes the mean force of the whole batch."""

    def compute(self, batch):
        found = INNER.compute(batch)
        mean = found.forces.mean(axis=0) if len(batch) > 1 else 0.0
        return replace(found, forces=found.forces - mean + 1e-6 * (len(batch) - 1))


class Stretched(Changed):
    """Sees space stretched by a tenth of a percent along x: smooth and conservative, but not isotropic."""

    def compute(self, batch):
        factors = np.array([1.001, 1, 1])
        arrays = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
        arrays |= {"positions": batch.positions * factors, "cell": batch.cell * factors}
        found = INNER.compute(Batch(**arrays))
        return Prediction(found.energy, found.forces * factors)


class ForgivesNonsense(Changed):
    """Replaces positions that are not numbers by zeros."""

    def compute(self, batch):
        arrays = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
        return INNER.compute(Batch(**(arrays | {"positions": np.nan_to_num(batch.positions)})))


class RefusesPeriodic(Changed):
    """Raises for every structure with a cell."""

    def compute(self, batch):
        if batch.pbc.any():
            raise ValueError("too few neighbors")
        return INNER.compute(batch)


class RefusesClusters(Changed):
    """Another potential, that raises for molecules of more than thirty atoms."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def compute(self, batch):
        crowded = ~batch.pbc.any(axis=1) & (np.diff(batch.offsets) > 30)
        if crowded.any():
            raise ValueError("too many atoms")
        return self.inner.compute(batch)


class Hollow(Changed):
    """Attractive below 0.15 Å: a hole in the wall."""

    def compute(self, batch):
        found = INNER.compute(batch)
        if len(batch.numbers) != 2 or batch.pbc.any():
            return found
        r = np.linalg.norm(batch.positions[1] - batch.positions[0])
        sign = 1.0 if r > 0.15 else -1.0
        return Prediction(sign * found.energy, sign * found.forces)


class TruncatedForce(PairPotential):
    """Lennard-Jones switched off by a cubic: energy and force are continuous, the force has kinks."""

    def _switch(self, r):
        t = np.clip((r - self.switch_from) / (self.cutoff - self.switch_from), 0, 1)
        return 1 - 3 * t**2 + 2 * t**3, 6 * (t**2 - t) / (self.cutoff - self.switch_from)


class Iterative(Changed):
    """Forces inexact by up to 3e-7 eV/Å, with tiny jumps, as from a self-consistent field."""

    def compute(self, batch):
        found = INNER.compute(batch)
        if batch.pbc.any() or len(batch.numbers) < 2:
            return found
        error = 3e-7 * np.sin(3 * batch.positions) * np.sign(np.sin(7 * batch.positions))
        return replace(found, forces=found.forces + error)


# --- steps of the energy that no force shows


def _vectors(batch):
    return batch.positions[:, None] - batch.positions[None]


def pair_step(at, height, elements=None):
    """Every pair of atoms closer than `at` Å, of these elements if any are given, adds `height` eV."""

    def amount(batch):
        i, j = np.triu_indices(len(batch.numbers), 1)
        near = np.linalg.norm(_vectors(batch)[i, j], axis=1) < at
        if elements is not None:
            kinds = np.sort(np.stack([batch.numbers[i], batch.numbers[j]]), axis=0)
            near &= (kinds == np.sort(elements)[:, None]).all(axis=0)
        return 0.0 if batch.pbc.any() else height * near.sum()

    return Changed(add_energy(amount))


def angle_step(degrees, height, bonded=2.0):
    """Every angle between neighbors that is wider adds `height` eV."""

    def amount(batch):
        vectors = _vectors(batch)
        r = np.linalg.norm(vectors, axis=-1)
        wide = 0
        for center in range(len(r)):
            near = np.flatnonzero((r[center] < bonded) & (r[center] > 0))
            unit = vectors[near, center] / r[near, center, None]
            cosines = (unit @ unit.T)[np.triu_indices(len(near), 1)]
            wide += (cosines < np.cos(np.radians(degrees))).sum()
        return 0.0 if batch.pbc.any() else height * wide

    return Changed(add_energy(amount))


def coordination_step(count, at, height):
    """Every atom with that many neighbors or more within `at` Å adds `height` eV."""

    def amount(batch):
        neighbors = (np.linalg.norm(_vectors(batch), axis=-1) < at).sum(axis=1) - 1
        return 0.0 if batch.pbc.any() else height * (neighbors >= count).sum()

    return Changed(add_energy(amount))


# --- cells, lines, charge


def left_handed(batch, found):
    """The volume has the sign of the determinant."""
    if found.stress is None:
        return found
    return replace(found, stress=found.stress * np.sign(np.linalg.det(batch.cell))[:, None, None])


def straight_nan(batch, found):
    """An angle by arccos: no force where three atoms are exactly in line."""
    if len(batch.numbers) != 3 or batch.pbc.any():
        return found
    first, second = batch.positions[[0, 2]] - batch.positions[1]
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    return replace(found, forces=found.forces * (np.nan if cosine <= -1 else 1.0))


class AlwaysPeriodic(Changed):
    """Takes a slab as periodic in three directions."""

    def compute(self, batch):
        arrays = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
        found = INNER.compute(Batch(**(arrays | {"pbc": batch.pbc | batch.pbc.any(axis=1)[:, None]})))
        return Prediction(found.energy, found.forces, found.stress if batch.pbc.all() else None)


def feels_charge(batch, found):
    return replace(found, energy=found.energy + 0.1 * batch.charge)
