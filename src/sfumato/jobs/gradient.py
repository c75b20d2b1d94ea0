"""Whether forces are the gradient of the energy: slopes, closed loops, the Jacobian; any size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from sfumato.execution.records import Record, encode, failed, ok
from sfumato.execution.runner import Chunk, Item, each
from sfumato.jobs.job import Job
from sfumato.jobs.surface import (
    DOUBLE_NOISE,
    Surface,
    UnpredictedError,
    displaced,
    finest,
    random_direction,
)
from sfumato.potentials.potential import Potential
from sfumato.systems import Floats, System

RADIUS = 0.03
"""Å, root mean square displacement of a coordinate on a closed loop: as far as atoms swing."""

LOOP_POINTS = 24
"""The trapezoid rule on a closed loop converges geometrically: twice the points square the error."""

UNCONVERGED = 0.1
"""Of what half the points miss, that all of them miss at most."""

PUSHES = {True: 4e-3, False: 0.04}
"""Å, root mean square displacement of a coordinate in the derivative of the force, by whether precision is
double; half and a quarter of it are evaluated too."""


@dataclass(frozen=True)
class Gradient(Job):
    """Energy against force around a structure, in double precision where the potential offers it.

    Args:
        loops: closed loops, each in a random plane.
        vectors: random vectors that the Jacobian of the force is applied to.
        seed: of all of them.
    """

    loops: int = 2
    vectors: int = 4
    seed: int = 0
    name: ClassVar[str] = "gradient"
    version: ClassVar[int] = 1

    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """See `Job`."""

        def one(item: Item) -> Record:
            start = time.perf_counter()
            try:
                found = self._examined(potential, item.payload.system())
            except UnpredictedError as error:
                return failed(item.key, str(error), seconds=time.perf_counter() - start)
            return ok(item.key, seconds=time.perf_counter() - start, **found)

        return each(chunk, one)

    def together(self, potential: Potential) -> int:
        """See `Job`."""
        return 1

    def _examined(self, potential: Potential, system: System) -> dict[str, Any]:
        direction = random_direction(system, self.seed, "noise")
        as_run = Surface(potential)
        plain = as_run.noise(system, direction)
        surface = Surface(finest(potential))
        fine = plain if surface.potential is potential else surface.noise(system, direction)
        double = max(fine) <= DOUBLE_NOISE
        _, (forces,) = surface.values([system])
        slopes = self._slopes(surface, system, forces, double)
        loops = [self._loop(surface, system, k, fine[1]) for k in range(self.loops)]
        return {
            "noise_as_run": list(plain),
            "noise": list(fine),
            "dtype_as_run": potential.abilities.dtype,
            "dtype": surface.potential.abilities.dtype,
            "force": float(np.sqrt(np.mean(forces**2))),
            "slopes": encode(slopes),
            "loops": encode(np.array(loops).reshape(-1, 4)),
            **self._curl(surface, system, double),
            "evaluations": as_run.evaluations + surface.evaluations,
        }

    def _slopes(self, surface: Surface, system: System, forces: Floats, double: bool) -> Floats:
        """Return (K, 6): element, component, dE/du, F·u, error of the former, its smallest step."""
        rng = np.random.default_rng(self.seed)
        rows = []
        for z in np.unique(system.numbers).tolist():
            some = np.flatnonzero(system.numbers == z)
            for component in range(3):
                u = np.zeros_like(system.positions)
                u[some, component] = rng.choice([-1.0, 1.0], len(some)) / np.sqrt(len(some))
                slope = surface.slope(system, u, double)
                rows.append([z, component, slope.value, (forces * u).sum(), slope.error, slope.step])
        return np.array(rows)

    def _loop(self, surface: Surface, system: System, k: int, noise: float) -> list[float]:
        """Return work and absolute work in eV on a closed loop, their noise, and what is not converged."""
        scale = RADIUS * np.sqrt(3 * len(system))
        u, v = (random_direction(system, self.seed, f"loop {k} {part}") for part in ("u", "v"))
        v = v - (u * v).sum() * u
        v = v / np.linalg.norm(v)
        angle = 2 * np.pi * np.arange(LOOP_POINTS) / LOOP_POINTS
        out = [np.cos(a) * u + np.sin(a) * v for a in angle]
        along = np.array([np.cos(a) * v - np.sin(a) * u for a in angle])
        _, forces = surface.values([moved for d in out for moved in displaced(system, d, np.array([scale]))])
        power = (forces * along).sum(axis=(1, 2)) * 2 * np.pi * scale
        work, coarse = float(power.mean()), float(power[::2].mean())
        spread = noise * 2 * np.pi * scale / np.sqrt(LOOP_POINTS)
        absolute = float(np.abs(power).mean())
        return [work, absolute, spread, UNCONVERGED * abs(work - coarse)]

    def _curl(self, surface: Surface, system: System, double: bool) -> dict[str, Any]:
        """Return u·(J − Jᵀ)·v for pairs of random vectors, what differences leave of it, and |J·v|.

        Of standard normal vectors ⟨(u·(J − Jᵀ)·v)²⟩ = ‖J − Jᵀ‖² and ⟨|J·v|²⟩ = ‖J‖².
        """
        steps = PUSHES[double] * np.array([1.0, 0.5, 0.25])
        size = np.sqrt(3 * len(system))
        vectors = [size * random_direction(system, self.seed, f"curl {k}") for k in range(self.vectors)]
        pushed, errors = [], []
        for v in vectors:
            _, forces = surface.values(displaced(system, v, np.concatenate([steps, -steps])))
            first = [(forces[k] - forces[k + 3]) / (2 * steps[k]) for k in range(3)]
            second = [(4 * fine - coarse) / 3 for coarse, fine in pairwise(first)]
            third = (16 * second[1] - second[0]) / 15
            pushed.append(third)
            errors.append(third - second[1])
        pairs = [(a, b) for a in range(len(vectors)) for b in range(a)]
        curl = [_twist(vectors, pushed, a, b) for a, b in pairs]
        error = [abs(_twist(vectors, errors, a, b)) for a, b in pairs]
        return {
            "curl": encode(np.array(curl)),
            "curl_error": encode(np.array(error)),
            "stiffness": encode(np.array([float(np.linalg.norm(p)) for p in pushed])),
            "push": float(steps[-1]),
        }


def _twist(vectors: list[Floats], pushed: list[Floats], a: int, b: int) -> float:
    return float((vectors[a] * pushed[b]).sum() - (vectors[b] * pushed[a]).sum())
