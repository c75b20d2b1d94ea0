"""Integrators as pairs of functions over batches: `init` makes a state, `step` the next one.

| symbol | variable |
|---|---|
| x, v | `state.batch.positions` (Å), `state.velocities` (Å/fs) |
| a = F/m | `acceleration(state)` (Å/fs²) |
| h | `step` (fs) |
| γ | `friction` (1/ps) |
| T | `state.bath` (K) |
| ξ | `normals(state.stream, …)`, of each replica its own |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sfumato.dynamics.state import State, freedoms, normals
from sfumato.potentials.potential import Session
from sfumato.systems import Floats, Ints
from sfumato.units import AMU_A2_PER_FS2, KELVIN


@dataclass(frozen=True)
class Integrator:
    """How a state goes on.

    Args:
        name: for people.
        timestep: fs.
        init: of a session, velocities (N, 3) in Å/fs, temperatures (S,) in K and streams (S,).
        step: of the session and a state; a structure that the potential has no answer for is named in the
            failures of the new state, and its energy and forces are NaN.
        thermostat: whether random forces act.
    """

    name: str
    timestep: float
    init: Callable[[Session, Floats, Floats, Ints], State]
    step: Callable[[Session, State], State]
    thermostat: bool = False


def begin(
    session: Session, velocities: Floats, bath: Floats, stream: Ints, *, thermostat: bool = False
) -> State:
    """Return the first state: energies and forces where the atoms are."""
    found = session.predict(session.batch.positions)
    free = freedoms(session.batch, thermostat=thermostat)
    return State(session.batch, velocities, found.energy, found.forces, bath, stream, free, 0, found.failures)


def acceleration(state: State) -> Floats:
    """Return (N, 3) Å/fs²."""
    return np.asarray(state.forces / (AMU_A2_PER_FS2 * state.mass))


def velocity_verlet(timestep: float) -> Integrator:
    """Return velocity Verlet: v += ½ha, x += hv, new a, v += ½ha. Reversible, symplectic, error in h².

    Args:
        timestep: h in fs.

    Raises:
        ValueError: a step that is not positive.

    Source: Swope, Andersen, Berens & Wilson 1982.
    """
    h = _positive(timestep)

    def step(session: Session, state: State) -> State:
        half = state.velocities + 0.5 * h * acceleration(state)
        moved = _moved(session, state, state.batch.positions + h * half, half)
        return replace(moved, velocities=half + 0.5 * h * acceleration(moved))

    return Integrator("velocity Verlet", h, begin, step)


def langevin(timestep: float, friction: float) -> Integrator:
    """Return Langevin dynamics, split as B A O A B: kick, drift, bath, drift, kick.

    O is exact: v → e^(−γh) v + √((1 − e^(−2γh)) kT/m) ξ. Positions of a harmonic oscillator are distributed
    exactly for any stable step.

    Args:
        timestep: h in fs.
        friction: γ in 1/ps, ≥ 0.

    Raises:
        ValueError: a step that is not positive, or a negative friction.

    Source: Leimkuhler & Matthews 2013, Appl. Math. Res. Express 34.
    """
    h = _positive(timestep)
    if not (math.isfinite(friction) and friction >= 0):
        raise ValueError(f"friction: expected 0 or more per ps, got {friction}")
    keep = math.exp(-1e-3 * friction * h)
    spread = math.sqrt(-math.expm1(-2e-3 * friction * h))

    def step(session: Session, state: State) -> State:
        batch = state.batch
        v = state.velocities + 0.5 * h * acceleration(state)
        x = batch.positions + 0.5 * h * v
        thermal = np.sqrt(KELVIN * state.bath[batch.index][:, None] / (AMU_A2_PER_FS2 * state.mass))
        # Number 0 of a stream drew the velocities at the start.
        v = keep * v + spread * thermal * normals(state.stream, state.step + 1, np.diff(batch.offsets))
        moved = _moved(session, state, x + 0.5 * h * v, v)
        return replace(moved, velocities=v + 0.5 * h * acceleration(moved))

    return Integrator("Langevin", h, partial(begin, thermostat=True), step, thermostat=True)


def _moved(session: Session, state: State, positions: Floats, velocities: Floats) -> State:
    """Return a state with atoms elsewhere, one step later, and the forces there."""
    found = session.predict(positions)
    return replace(
        state,
        batch=session.batch,
        velocities=velocities,
        energy=found.energy,
        forces=found.forces,
        step=state.step + 1,
        failures=found.failures,
    )


def _positive(timestep: float) -> float:
    if not (math.isfinite(timestep) and timestep > 0):
        raise ValueError(f"time step: expected more than 0 fs, got {timestep}")
    return float(timestep)
