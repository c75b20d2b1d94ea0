"""Dynamics through the ASE calculator: the error of the energy is of second order unless ranks are hard."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from sfumato.graph.settings import GraphSettings
from sfumato.potentials.network import NetworkPotential
from tests.tiny_models import crystal, model, molecule

GRAPH = GraphSettings(k=4, cutoff=4.0)
HEAVY = 40.0
"""amu of every atom."""


def potential(rank, directional):
    of = model(directional=directional, graph=dataclasses.replace(GRAPH, rank=rank), layers=1)
    return NetworkPotential(of, dtype="float64")


def deviation(of, system, step, femtoseconds):
    """Standard deviation of the total energy along velocity Verlet, eV."""
    atoms = Atoms(system.numbers, system.positions, cell=system.cell, pbc=system.pbc)
    atoms.set_masses(np.full(len(atoms), HEAVY))
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    Stationary(atoms)
    atoms.calc = of.calculator()
    total = []
    dynamics = VelocityVerlet(atoms, timestep=step * units.fs)
    dynamics.attach(lambda: total.append(atoms.get_total_energy()))
    dynamics.run(round(femtoseconds / step))
    return np.std(total)


@pytest.mark.slow
@pytest.mark.parametrize("make", [molecule, crystal])
@pytest.mark.parametrize("directional", ["harmonics", "angular_bias"])
def test_the_soft_rank_conserves_energy_to_second_order_and_the_hard_one_does_not(directional, make):
    """Half the step, a quarter of the error; of the hard rank the error stays, since its energy has steps."""
    soft, hard = (potential(rank, directional) for rank in ("compact", "hard"))
    coarse, fine = (deviation(soft, make(), step, 100.0) for step in (1.0, 0.5))
    assert coarse / fine == pytest.approx(4.0, rel=0.2)
    assert deviation(hard, make(), 1.0, 100.0) > 10 * coarse
