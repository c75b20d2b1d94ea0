"""Potentials with one planted fault each, which dynamics or static tests must catch and blame rightly."""

from dataclasses import replace

import numpy as np

from sfumato.graph.neighbors import Pairs, neighbor_pairs
from sfumato.models.pair import PAIRS, LennardJones, PairPotential
from sfumato.potentials.potential import Abilities, Potential, Session
from sfumato.systems import Batch, Prediction

LJ = PAIRS["lj"]


class Around(Potential):
    """Lennard-Jones, its prediction changed by a function of the batch."""

    def __init__(self, name, change, inner=LJ, **abilities):
        self.name, self.change, self.inner = name, change, inner
        self.identity = f"planted {name}"
        self.abilities = Abilities(
            batch=64, elements=inner.abilities.elements, periodic=True, stress=True, **abilities
        )

    def compute(self, batch):
        return self.change(batch, self.inner.compute(batch))


def pairs_within(batch, cutoff):
    pairs = neighbor_pairs(batch, cutoff)
    vectors = pairs.vectors(batch)
    return pairs, vectors, np.linalg.norm(vectors, axis=1)


def add_pairs(at, term):
    """Return a change: every pair closer than `at` Å adds term(r) = (eV, eV/Å)."""

    def change(batch, found):
        pairs, vectors, r = pairs_within(batch, at)
        phi, slope = term(r)
        energy = found.energy + 0.5 * np.bincount(batch.index[pairs.i], phi, minlength=len(batch))
        pull = (slope / r)[:, None] * vectors
        forces = found.forces.copy()
        np.add.at(forces, pairs.i, pull)
        return replace(found, energy=energy, forces=forces)

    return change


def step(at, height):
    """Every pair closer than `at` adds an energy, and no force."""
    return add_pairs(at, lambda r: (np.full(len(r), height), np.zeros(len(r))))


def kink(at, slope):
    """Every pair closer than `at` is pushed apart with a constant force: the force jumps at `at`."""
    return add_pairs(at, lambda r: (slope * (at - r), np.full(len(r), -slope)))


def curve(at, stiffness):
    """Every pair closer than `at` feels a spring that begins there: the slope of the force jumps at `at`."""
    return add_pairs(at, lambda r: (0.5 * stiffness * (at - r) ** 2, -stiffness * (at - r)))


def hole(at, width, depth):
    """A well of `depth` eV inside `at` Å: the repulsive wall has a hole that atoms fall into."""

    def term(r):
        t = np.clip((at - r) / width, 0, 1)
        phi = -depth * t**3 * (10 - 15 * t + 6 * t**2)
        return phi, depth / width * 30 * t**2 * (1 - t) ** 2

    return add_pairs(at, term)


def scaled(factor):
    """Forces that are not quite those of the energy."""
    return lambda batch, found: replace(found, forces=factor * found.forces)


def wrong_virial(batch, found):
    """The stress of a crystal with the wrong sign."""
    return replace(found, stress=None if found.stress is None else -found.stress)


def single(offset):
    """Energies that are added up in single precision, far from zero."""

    def change(batch, found):
        atoms = np.diff(batch.offsets)
        energy = (found.energy + offset * atoms).astype(np.float32).astype(float)
        return replace(found, energy=energy, forces=found.forces.astype(np.float32).astype(float))

    return change


class TwoPrecisions(Around):
    """One that computes in single precision unless asked otherwise."""

    def __init__(self, name, change, dtype="float32"):
        super().__init__(name, change, dtype=dtype, dtypes=("float32", "float64"))
        self.in_single = change
        self.identity += dtype

    def to(self, *, device=None, dtype=None):
        if dtype == "float64":
            return TwoPrecisions(self.name, lambda batch, found: found, "float64")
        return self


class NearestImages(PairPotential):
    """Every atom sees of another one only the nearest image, and only those within the cutoff."""

    def compute(self, batch):
        found = [self._one(system) for system in batch]
        return Prediction(np.array([e for e, _ in found]), np.concatenate([f for _, f in found]))

    def _one(self, system):
        pairs, vectors, r = pairs_within(Batch.of([system]), self.cutoff)
        order = np.lexsort((r, pairs.j, pairs.i))
        first = np.ones(len(order), dtype=bool)
        i, j = pairs.i[order], pairs.j[order]
        first[1:] = (np.diff(i) != 0) | (np.diff(j) != 0)
        keep = order[first & (i != j)]
        z = system.numbers
        phi, slope = self.form(r[keep], z[pairs.i[keep]], z[pairs.j[keep]])
        s, ds = self._switch(r[keep])
        pull = ((slope * s + phi * ds) / r[keep])[:, None] * vectors[keep]
        forces = np.zeros((len(system), 3))
        np.add.at(forces, pairs.i[keep], pull)
        return 0.5 * float((phi * s).sum()), forces


class KeepsPairs(PairPotential):
    """Lennard-Jones whose sessions keep pairs for half a skin, rightly or with a fault.

    Set `fault` to "stale" (pairs are searched without a skin, and kept for an ångström) or "wraps" (positions
    are put back into the cell, the pairs are kept as they were).
    """

    fault = ""

    def session(self, batch, skin=0.3):
        return PairSession(self, batch, skin, self.fault)

    def with_pairs(self, batch, pairs):
        vectors = pairs.vectors(batch)
        r = np.linalg.norm(vectors, axis=1)
        near = r < self.cutoff
        pairs, vectors, r = Pairs(pairs.i[near], pairs.j[near], pairs.shift[near]), vectors[near], r[near]
        phi, slope = self.form(r, batch.numbers[pairs.i], batch.numbers[pairs.j])
        s, ds = self._switch(r)
        pull = 0.5 * ((slope * s + phi * ds) / r)[:, None] * vectors
        forces = np.zeros((len(batch.numbers), 3))
        np.add.at(forces, pairs.i, pull)
        np.add.at(forces, pairs.j, -pull)
        return Prediction(np.bincount(batch.index[pairs.i], 0.5 * phi * s, minlength=len(batch)), forces)


class PairSession(Session):
    """Pairs that are kept while atoms move by less than half the skin."""

    def __init__(self, potential, batch, skin, fault):
        super().__init__(potential, batch)
        self.skin, self.fault, self.pairs = skin, fault, None

    def predict(self, positions, cell=None):
        self.move(positions, cell)
        batch = self.batch
        if self.fault == "wraps" and batch.pbc.all():
            cells = batch.cell[batch.index]
            inside = np.linalg.solve(cells.transpose(0, 2, 1), batch.positions[:, :, None])[:, :, 0] % 1.0
            batch = replace(batch, positions=np.einsum("na,nab->nb", inside, cells))
        limit, skin = (1.0, 0.0) if self.fault == "stale" else (0.5 * self.skin, self.skin)
        if self.pairs is None or np.linalg.norm(positions - self.then, axis=1).max() > limit:
            self.pairs = neighbor_pairs(batch, self.potential.cutoff + skin)
            self.then = np.array(positions)
        return self.potential.with_pairs(batch, self.pairs)

    def take(self, rows):
        return PairSession(self.potential, self.batch.take(rows), self.skin, self.fault)


def keeps(fault):
    made = KeepsPairs(f"lj-{fault or 'kept'}", LennardJones())
    object.__setattr__(made, "fault", fault)
    return made


FAULTS = {
    "hard cutoff": PAIRS["lj-hard-cutoff"],
    "hard neighbor cap": PAIRS["lj-neighbor-cap"],
    "direct force with noise": PAIRS["lj-direct-noise"],
    "virial of the wrong sign": Around("virial", wrong_virial),
    "missing periodic image": NearestImages("nearest-images", LennardJones()),
    "stale neighbor list": keeps("stale"),
    "positions wrapped, pairs kept": keeps("wraps"),
    "float32 sums": TwoPrecisions("float32", single(-1e4)),
    "kink of the energy": Around("kink", kink(2.6, 0.1)),
    "kink of the force": Around("curve", curve(2.6, 5.0)),
    "step of 1e-5 eV": Around("step", step(2.6, 1e-5)),
    "hole": Around("hole", hole(2.3, 0.5, 30.0)),
    "force off by 1 %": Around("scaled", scaled(1.01)),
}
