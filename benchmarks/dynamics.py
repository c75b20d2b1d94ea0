"""Replicas that move together against ASE's own loop, and what steps cost besides predictions.

    python benchmarks/dynamics.py --replicas 64 --steps 40 --rounds 7 [--threads 2]

A molecule of 21 atoms (aspirin) at 500 K, velocity Verlet, one model. ASE moves one replica after the other
with `ase.md.verlet.VelocityVerlet` and the model's ASE calculator; a `Simulation` moves all of them in one
batch. Both sides of a round are timed one after the other, in an order that changes from round to round.
Reported are medians [smallest, largest] over rounds: in processor time with one thread, in time on the clock
with several, which the compiled core shares the replicas among; one molecule it computes with one thread.

The overhead is that of a segment as `run nve` makes it (steps, observers, stop conditions) over the same
number of bare `session.predict` at the same positions, in blocks of a few steps that take turns: of all
blocks together, with a 95 % interval from a bootstrap of the blocks.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet

from sfumato.datasets.structures import load_structures
from sfumato.dynamics.conditions import Broken, Collapsed, Exploded
from sfumato.dynamics.integrators import velocity_verlet
from sfumato.dynamics.observe import Energies, Work
from sfumato.dynamics.simulation import Simulation
from sfumato.dynamics.state import maxwell_boltzmann
from sfumato.potentials.potential import SKIN, Potential, as_calculator
from sfumato.potentials.specs import ModelSpec
from sfumato.systems import Batch

KELVIN, STEP = 500.0, 1.0
"""K and fs."""

BLOCK = 5
"""Steps, then as many bare predictions."""


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of some work on one thread, or its time on the clock on several."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    return clock() - start


def begun(potential: Potential, batch: Batch, watched: bool) -> Simulation:
    """Return replicas at their start, with everything that `run nve` looks at, or with nothing."""
    s = len(batch)
    integrator = velocity_verlet(STEP)
    kelvin = np.full(s, KELVIN)
    velocities = maxwell_boltzmann(batch, kelvin, np.arange(s))
    session = potential.session(batch, SKIN)
    state = integrator.init(session, velocities, kelvin, np.arange(s))
    observers = [Energies(batch), Work(batch, STEP)] if watched else []
    conditions = [Exploded(), Collapsed(), Broken(batch, fatal=False)] if watched else []
    return Simulation(session, state, integrator, batch, np.arange(s), observers, conditions)


def travelled(potential: Potential, batch: Batch, steps: int) -> list[np.ndarray]:
    """Return where the replicas are at each step."""
    path: list[np.ndarray] = []
    begun(potential, batch, False).advance(steps, lambda state: path.append(state.batch.positions))
    return path


def in_turns(potential: Potential, batch: Batch, steps: int, watched: bool) -> list[tuple[float, float]]:
    """Return seconds of blocks of steps and of bare predictions at the same positions."""
    path = travelled(potential, batch, steps)
    simulation, session = begun(potential, batch, watched), potential.session(batch, SKIN)
    session.predict(batch.positions)
    taken = []
    for k in range(0, steps, BLOCK):
        block = path[k : k + BLOCK]
        works = {
            "steps": partial(simulation.advance, len(block)),
            "bare": partial(deque, map(session.predict, block), maxlen=0),
        }
        order = list(works) if k // BLOCK % 2 else list(works)[::-1]
        spent = {name: seconds(works[name]) for name in order}
        taken.append((spent["steps"], spent["bare"]))
    return taken


def overhead(taken: list[tuple[float, float]]) -> str:
    """Return in percent what steps take more, with its interval."""
    pairs = np.array(taken)
    drawn = pairs[np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))].sum(axis=1)
    low, high = np.percentile(100 * (drawn[:, 0] / drawn[:, 1] - 1), [2.5, 97.5])
    total = pairs.sum(axis=0)
    return f"{100 * (total[0] / total[1] - 1):.1f} [{low:.1f}, {high:.1f}] from {len(pairs)} blocks"


def by_ase(potential: Potential, batch: Batch, replicas: int, steps: int) -> Callable[[], None]:
    """Return ASE's loop over some of the replicas."""
    velocities = maxwell_boltzmann(batch, np.full(len(batch), KELVIN), np.arange(len(batch)))
    movers = []
    for k, system in enumerate(list(batch)[:replicas]):
        own = slice(batch.offsets[k], batch.offsets[k + 1])
        atoms = Atoms(system.numbers, system.positions, calculator=as_calculator(potential))
        atoms.set_velocities(velocities[own] / units.fs)
        atoms.get_forces()
        movers.append(VelocityVerlet(atoms, STEP * units.fs))

    def work() -> None:
        for mover in movers:
            mover.run(steps)

    return work


def said(values: list[float], digits: int = 2) -> str:
    """Return the median and the range."""
    return f"{np.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def main() -> None:
    """Print rates, their ratio, and the overhead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mindscaip-nano")
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--alone", type=int, default=8, help="replicas that ASE moves in a round")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    potential = ModelSpec(asked.model, "", "").resolve()
    (setup,) = load_structures("aspirin", "dev")
    batch = Batch.of([setup.system] * asked.replicas)
    atoms = len(setup.system)
    rates: dict[str, list[float]] = {"ase": [], "together": []}
    blocks: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for k in range(asked.rounds):
        watched = begun(potential, batch, True)
        works = {
            "ase": by_ase(potential, batch, asked.alone, asked.steps),
            "together": lambda one=watched: one.advance(asked.steps),
        }
        order = list(works) if k % 2 else list(works)[::-1]
        taken = {name: seconds(works[name]) for name in order}
        rates["ase"].append(asked.alone * atoms * asked.steps / taken["ase"])
        rates["together"].append(asked.replicas * atoms * asked.steps / taken["together"])
        for looked_at in blocks:
            blocks[looked_at] += in_turns(potential, batch, asked.steps, looked_at)
    ratios = [b / a for a, b in zip(rates["ase"], rates["together"])]
    print(
        f"{asked.model}, {asked.replicas} replicas of {atoms} atoms, {asked.rounds} rounds of {asked.steps}, "
        f"{asked.threads} threads"
    )
    for name, values in rates.items():
        print(f"atom-steps/s, {name}: {said(values, 0)}")
    print(f"together over ase: {said(ratios)}")
    print(f"overhead of steps over bare predictions, %: {overhead(blocks[False])}")
    print(f"with observers and conditions, %: {overhead(blocks[True])}")


if __name__ == "__main__":
    main()
