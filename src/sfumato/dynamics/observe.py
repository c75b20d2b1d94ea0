"""What is seen of a simulation, step by step; a step knows nothing of it.

An observer looks at every state and gives a sample now and then. What it remembers are arrays over all
replicas of the start, so that it can be stored, and goes on as if it had never stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sfumato.dynamics.state import State, atoms_of, by_structure
from sfumato.systems import Batch, Floats, Ints
from sfumato.units import AMU_A2_PER_FS2

POINTS = 8
"""Consecutive positions through which the path of `Work` is drawn."""


class Observer(ABC):
    """Looks at states, remembers what it needs, and gives samples.

    Attributes:
        memory: name → array; its first axis, or the second where the first counts the last few steps, goes
            over all replicas or atoms of the start. Those that left keep their last values.
    """

    memory: dict[str, NDArray[np.float64]]

    @abstractmethod
    def see(self, state: State, rows: Ints, atoms: Ints) -> None:
        """Take note of a state.

        Args:
            state: of the living replicas.
            rows: (S,) their numbers at the start.
            atoms: (N,) the numbers of their atoms at the start.
        """

    @abstractmethod
    def sample(self) -> dict[str, Floats]:
        """Return (R,) values by name of all replicas of the start; NaN for one not seen since."""

    def recall(self, memory: Mapping[str, Floats | None]) -> None:
        """Take over what was remembered when a segment ended; None where there is nothing."""
        for name, values in memory.items():
            if values is not None:
                self.memory[name][...] = values


class Energies(Observer):
    """Potential and kinetic energy in eV, and the largest change of the sum in a step since a sample."""

    def __init__(self, batch: Batch) -> None:
        r = len(batch)
        self.memory = {name: np.full(r, np.nan) for name in ("potential", "kinetic", "total", "energy_jump")}

    def see(self, state: State, rows: Ints, atoms: Ints) -> None:
        """See Observer."""
        m = self.memory
        total = state.energy + state.kinetic
        m["energy_jump"][rows] = np.fmax(m["energy_jump"][rows], np.abs(total - m["total"][rows]))
        for name, values in (("potential", state.energy), ("kinetic", state.kinetic), ("total", total)):
            m[name][rows] = values

    def sample(self) -> dict[str, Floats]:
        """See Observer."""
        names = ("potential", "kinetic", "energy_jump")
        found = {name: self.memory[name].copy() for name in names}
        for name in names:
            self.memory[name][:] = np.nan
        return found


class Swing(Observer):
    """The largest difference between two kinetic temperatures, in K, within a span of time.

    Args:
        batch: at the start.
        span: steps.
    """

    def __init__(self, batch: Batch, span: int) -> None:
        r = len(batch)
        self.memory = {
            "last": np.full((span + 1, r), np.nan),
            "swing": np.full(r, np.nan),
            "kelvin": np.full(r, np.nan),
            "count": np.zeros(1),
        }

    def see(self, state: State, rows: Ints, atoms: Ints) -> None:
        """See Observer."""
        m, now = self.memory, state.kelvin
        last = m["last"]
        last[int(m["count"][0]) % len(last), rows] = now
        m["count"] += 1
        seen = last[:, rows]
        largest = np.fmax(np.abs(now - np.nanmin(seen, axis=0)), np.abs(now - np.nanmax(seen, axis=0)))
        m["swing"][rows] = np.fmax(m["swing"][rows], largest)
        m["kelvin"][rows] = now

    def sample(self) -> dict[str, Floats]:
        """See Observer."""
        found = {name: self.memory[name].copy() for name in ("swing", "kelvin")}
        for name in found:
            self.memory[name][:] = np.nan
        return found


class Work(Observer):
    """What energy changes by without a force: r = U(x₂) − U(x₁) + ∫ F·dx along the path of the atoms.

    Positions are only places on a path here: whether the integrator was right does not matter, and whether
    the force is the gradient of the energy does. The path and the force along it are polynomials of degree 7
    through eight consecutive steps, integrated over the middle interval; a smooth surface leaves an error
    with the eighth power of the step. Beside it, the shadow energy

        H̃ = K + U − h²/12 v·dF/dt − h²/24 Σ F²/m,

    which velocity Verlet conserves to h⁴ where K + U is conserved to h² only, so that a drift shows early.

    Args:
        batch: at the start.
        timestep: h in fs.

    Samples:
        unexplained: eV, Σ r from the start to about four steps before; `unexplained_jump` the largest |r|
            since the last sample.
        shadow: eV, H̃ one step before.

    Source: Hairer, Lubich & Wanner 2003, "Geometric numerical integration illustrated by the Störmer–Verlet
        method", section 4 (the modified energy).
    """

    def __init__(self, batch: Batch, timestep: float) -> None:
        r, n = len(batch), len(batch.numbers)
        self.batch, self.timestep = batch, timestep
        self.memory = {
            "x": np.zeros((POINTS, n, 3)),
            "f": np.zeros((POINTS, n, 3)),
            "u": np.zeros((POINTS, r)),
            "v": np.zeros((n, 3)),
            "total": np.zeros(r),
            "sum": np.zeros(r),
            "shadow": np.full(r, np.nan),
            "unexplained": np.full(r, np.nan),
            "unexplained_jump": np.full(r, np.nan),
            "worst": np.zeros(r),
            "worst_from": batch.positions.copy(),
            "worst_to": batch.positions.copy(),
            "count": np.zeros(1),
        }

    def see(self, state: State, rows: Ints, atoms: Ints) -> None:
        """See Observer."""
        m, n = self.memory, int(self.memory["count"][0])
        slot = n % POINTS
        m["x"][slot, atoms] = state.batch.positions
        m["f"][slot, atoms] = state.forces
        m["u"][slot, rows] = state.energy
        if n >= 2:
            m["shadow"][rows] = self._shadow(state, atoms, n)[rows]
        if n >= POINTS - 1:
            r = self._unexplained(n)[rows]
            m["sum"][rows] += r
            m["unexplained"][rows] = m["sum"][rows]
            m["unexplained_jump"][rows] = np.fmax(m["unexplained_jump"][rows], np.abs(r))
            worse = np.abs(r) > np.abs(m["worst"][rows])
            self._keep_worst(rows[worse], r[worse], n)
        m["v"][atoms] = state.velocities
        m["total"][rows] = state.energy + state.kinetic
        m["count"] += 1

    def _keep_worst(self, rows: Ints, r: Floats, n: int) -> None:
        """Remember between which positions most was left unexplained."""
        if not len(rows):
            return
        m, atoms = self.memory, atoms_of(self.batch, rows)
        first = n - POINTS // 2
        m["worst"][rows] = r
        m["worst_from"][atoms] = m["x"][first % POINTS, atoms]
        m["worst_to"][atoms] = m["x"][(first + 1) % POINTS, atoms]

    def _shadow(self, state: State, atoms: Ints, n: int) -> Floats:
        """Return (R,) the shadow energy one step ago."""
        m, h = self.memory, self.timestep
        f = m["f"]
        change = f[n % POINTS] - f[(n - 2) % POINTS]
        middle = f[(n - 1) % POINTS][atoms]
        per_atom = np.zeros(len(self.batch.numbers))
        per_atom[atoms] = -h / 24 * (change[atoms] * m["v"][atoms]).sum(axis=1) - h**2 / 24 * (
            middle**2 / (AMU_A2_PER_FS2 * state.mass)
        ).sum(axis=1)
        return m["total"] + by_structure(self.batch, per_atom)

    def _unexplained(self, n: int) -> Floats:
        """Return (R,) energy change less work of the middle interval of the last steps."""
        m = self.memory
        slots = (n - POINTS + 1 + np.arange(POINTS)) % POINTS
        weights = np.zeros((POINTS, POINTS))
        weights[np.ix_(slots, slots)] = work_weights(POINTS)
        moved = (weights @ m["x"].reshape(POINTS, -1)).reshape(m["x"].shape)
        work = by_structure(self.batch, np.einsum("pna,pna->n", m["f"], moved))
        first, second = slots[POINTS // 2 - 1], slots[POINTS // 2]
        return np.asarray(m["u"][second] - m["u"][first] + work)

    def sample(self) -> dict[str, Floats]:
        """See Observer."""
        names = ("shadow", "unexplained", "unexplained_jump")
        found = {name: self.memory[name].copy() for name in names}
        for name in names:
            self.memory[name][:] = np.nan
        return found


@lru_cache
def work_weights(points: int) -> Floats:
    """Return (M, M) A, such that ∫ F·dx over the middle interval is Σ A_ij F_i·x_j.

    Exact where force and path are polynomials of degree M − 1 in the number of the step.

    Args:
        points: M, even.
    """
    middle = points // 2 - 0.5
    s = np.arange(points) - middle
    inverse = np.linalg.inv(np.vander(s, increasing=True))  # column i: coefficients of Lagrange polynomial i
    powers = np.arange(points)
    nodes, gauss = np.polynomial.legendre.leggauss(points)
    at = 0.5 * nodes
    values = np.vander(at, points, increasing=True) @ inverse
    slopes = (powers[1:] * np.vander(at, points - 1, increasing=True)) @ inverse[1:]
    weights: Floats = values.T @ (0.5 * gauss[:, None] * slopes)
    return weights
