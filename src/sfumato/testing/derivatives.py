"""Checks that force and stress are derivatives of the energy, three independent ways."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sfumato.metrics.noise import MARGIN, ridders
from sfumato.systems import Floats, System
from sfumato.testing import structures
from sfumato.testing.bench import LINES, RELATIVE, VARIES, Bench, along
from sfumato.testing.result import Measured, NotApplicableError

DIRECTIONS = {"molecule": 3, "cluster": 1, "crystal": 2, "slab": 1}

STRAINS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))

PER_STRAIN = 5.0
"""Å by which the images that matter move for a strain of 1."""

LOOP = {"double": 3e-4, "single": 0.03}
"""Å, radius of a closed loop, of all atoms together: small, like the steps of derivatives."""

LOOP_POINTS = 12
"""The trapezoid rule on a closed loop converges faster than any power of the number of points."""


def force(bench: Bench) -> Iterator[Measured]:
    """F·u = −dE/du along random directions."""
    kinds = ("molecule", "crystal") if bench.few else tuple(DIRECTIONS)
    for kind, base in bench.available(*kinds).items():
        for k in range(1 if bench.few else DIRECTIONS[kind]):
            yield bench.gradient(base, k, kind)


def stress(bench: Bench) -> Iterator[Measured]:
    """V σ = dE/dε for the six strains, and σ symmetric."""
    base = bench.structure("crystal")
    tensor = bench.point(base).stress
    if tensor is None:
        raise NotApplicableError(f"{bench.potential.name} gives no stress")
    work = tensor * abs(np.linalg.det(base.cell))
    floor = bench.floor(base)
    slopes, strains = {}, bench.steps / PER_STRAIN
    for a, b in STRAINS[:: 2 if bench.few else 1]:
        above, below = (
            np.array([p.energy for p in bench.points([strained(base, a, b, s * e) for e in strains])])
            for s in (1, -1)
        )
        slopes[a, b] = ridders(strains, above, below)
    scale = max(float(np.sqrt((work**2).mean())), *(abs(s.value) for s in slopes.values()), 1e-3)
    for (a, b), slope in slopes.items():
        noise = floor.energy / (LINES * slope.step) + floor.roughness[1] * float(np.linalg.norm(base.cell))
        error = max(abs(work[a, b] - slope.value), abs(work[b, a] - slope.value))
        tolerance = RELATIVE + MARGIN * noise / scale
        where = f"crystal, σ_{'xyz'[a]}{'xyz'[b]}: V σ = {work[a, b]:.3g} eV, dE/dε = {slope.value:.3g} eV"
        yield Measured(error / scale, tolerance, "relative", where)


def stress_given(bench: Bench) -> Iterator[Measured]:
    """A potential that says that it gives a stress does."""
    if not bench.potential.abilities.stress:
        raise NotApplicableError(f"{bench.potential.name} does not say that it gives a stress")
    tensor = bench.point(bench.structure("crystal")).stress
    yield Measured(int(tensor is None), 0, "missing", "crystal")


def strained(base: System, a: int, b: int, amount: float) -> System:
    """Return a crystal under a symmetric strain whose work is V σ_ab times `amount`."""
    strain = np.eye(3)
    strain[a, b] += amount / 2
    strain[b, a] += amount / 2
    return structures.moved(base, base.positions @ strain, base.cell @ strain)


def closed_loop(bench: Bench) -> Iterator[Measured]:
    """The work of the force along a closed loop is zero, whatever the energy says."""
    theta, radius = 2 * np.pi * np.arange(LOOP_POINTS) / LOOP_POINTS, LOOP[bench.precision]
    length = 2 * np.pi * radius
    for kind, base in bench.available("molecule", "crystal").items():
        floor = bench.floor(base)
        noise = floor.force / np.sqrt(LOOP_POINTS)
        for k in (1, 5):
            u, v = _orthonormal(bench.direction(base, k), bench.direction(base, k + 1))
            loop = [along(base, np.cos(t) * u + np.sin(t) * v, radius) for t in theta]
            tangents = [np.cos(t) * v - np.sin(t) * u for t in theta]
            forces = [point.forces for point in bench.points(loop)]
            power = np.array([(f * t).sum() for f, t in zip(forces, tangents, strict=True)])
            typical = max(float(np.sqrt(np.mean(np.square(forces)))), 1e-3)
            smooth = (RELATIVE * typical + MARGIN * floor.inexact) * radius / VARIES
            tolerance = length * float(smooth + MARGIN * noise)
            yield Measured(abs(float(power.mean())) * length, tolerance, "eV", kind)


def _orthonormal(u: Floats, v: Floats) -> tuple[Floats, Floats]:
    v = v - (u * v).sum() * u
    return u, v / np.linalg.norm(v)


def jacobian(bench: Bench) -> Iterator[Measured]:
    """u·(∂F/∂x)·v = v·(∂F/∂x)·u: the force has no curl at this point.

    Source: Bigi, Langer & Ceriotti 2025, "The dark side of the forces", on the antisymmetric part of the
    Jacobian as a measure of non-conservative forces.
    """
    for kind, base in bench.available("molecule", "crystal").items():
        u, v = _orthonormal(bench.direction(base, 3), bench.direction(base, 4))
        pushed: dict[tuple[str, int], Floats] = {}
        for name, direction in (("u", u), ("v", v)):
            for sign in (1, -1):
                path = [along(base, direction, sign * h) for h in bench.steps]
                pushed[name, sign] = np.array([point.forces for point in bench.points(path)])
        above, below = (
            (pushed["v", sign] * u).sum(axis=(1, 2)) - (pushed["u", sign] * v).sum(axis=(1, 2))
            for sign in (1, -1)
        )
        curl = ridders(bench.steps, above, below)
        stiffness = (pushed["v", 1][-1] - pushed["v", -1][-1]) / (2 * bench.steps[-1])
        scale = max(float(np.sqrt((stiffness**2).mean())), 1e-3)
        floor = bench.floor(base)
        noise = floor.force / curl.step + floor.inexact / VARIES
        where = f"{kind}, typical u·(∂F/∂x)·v {scale:.3g} eV/Å²"
        yield Measured(abs(curl.value) / scale, RELATIVE + MARGIN * noise / scale, "relative", where)
