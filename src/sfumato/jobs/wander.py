"""A defect that wanders through a hot crystal, as a job: how far all atoms have gone, in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sfumato.dynamics.integrators import langevin
from sfumato.dynamics.state import maxwell_boltzmann, stream_of
from sfumato.execution.records import encode
from sfumato.jobs.defects import InCrystal, at_own_size
from sfumato.metrics.diffusion import block_diffusivities
from sfumato.metrics.hops import THIRD, Sites, find_hops, laid_over, refined
from sfumato.potentials.potential import SKIN, Potential
from sfumato.reference.defects import supercell, with_defect
from sfumato.systems import Batch, Floats, System

FRICTION = 1.0
"""1/ps of the bath: weak, since friction slows hops down."""

EMPTY, MELTED = 1.2, 0.25
"""Å, and the share of sites with no atom this near from which on a crystal has melted."""


@dataclass(frozen=True)
class Wander(InCrystal):
    """Langevin dynamics of a supercell with one defect, after a relaxation and a time to settle.

    Args:
        kelvin: of the bath.
        picoseconds: that are observed.
        settle: ps before that.
        timestep: fs.
        every: fs from frame to frame.
        blocks: for the uncertainty.
        seed: of velocities and random forces.
    """

    kelvin: float = 1200.0
    picoseconds: float = 100.0
    settle: float = 1.0
    timestep: float = 2.0
    every: float = 20.0
    blocks: int = 5
    seed: int = 0
    name: ClassVar[str] = "wander"
    version: ClassVar[int] = 1

    def measure(self, potential: Potential, crystal: System) -> dict[str, Any]:
        """See `InCrystal`."""
        crystal, _ = at_own_size(potential, crystal)
        system, _ = self.at_rest(potential, with_defect(crystal, self.repeat, self.kind))
        positions, kelvin = self._frames(potential, system)
        perfect = supercell(crystal, self.repeat)
        sites = laid_over(Sites(perfect.positions, perfect.cell), system.positions)
        where, middle = [], []
        for x in positions:
            sites = refined(sites, x)
            near = sites.nearest(x)
            where.append(near.site)
            middle.append(near.t > THIRD)
        empty = len(sites.vacant(positions[-1], EMPTY)) / len(sites)
        if empty > MELTED:
            raise ValueError(f"it melted: {empty:.0%} of the sites are empty after {self.picoseconds:g} ps")
        spacing = self._steps_between * self.timestep * 1e-3
        return {
            "diffusivities": encode(block_diffusivities(positions, spacing, self.blocks)),
            "hops": len(find_hops(np.array(where), ~np.array(middle))),
            "picoseconds": spacing * len(positions),
            "mean_kelvin": kelvin,
        }

    @property
    def _steps_between(self) -> int:
        return max(1, round(self.every / self.timestep))

    def _frames(self, potential: Potential, system: System) -> tuple[Floats, float]:
        """Return (F, N, 3) Å at the frames, never wrapped, and the mean kinetic temperature.

        Raises:
            ValueError: the potential has no answer on the trajectory; says when.
        """
        batch, bath = Batch.of([system]), np.array([self.kelvin])
        stream = np.array([stream_of(self.seed, repr(self.kelvin), system.numbers.tolist())])
        integrator = langevin(self.timestep, FRICTION)
        session = potential.session(batch, SKIN)
        state = integrator.init(session, maxwell_boltzmann(batch, bath, stream), bath, stream)
        settle, between = round(1e3 * self.settle / self.timestep), self._steps_between
        total = settle + between * round(1e3 * self.picoseconds / (self.timestep * between))
        frames, kelvin = [], []
        for step in range(1, total + 1):
            state = integrator.step(session, state)
            for failure in state.failures.values():
                when = 1e-3 * step * self.timestep
                raise ValueError(f"the potential has no answer after {when:.3g} ps: {failure.reason}")
            if step > settle and (step - settle) % between == 0:
                frames.append(state.batch.positions)
                kelvin.append(float(state.kelvin[0]))
        return np.array(frames), float(np.mean(kelvin))
