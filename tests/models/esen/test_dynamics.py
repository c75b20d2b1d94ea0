"""Dynamics through ASE: the error of the total energy is of second order, unless something breaks it."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from sfumato.graph.settings import GraphSettings
from sfumato.potentials.network import NetworkPotential
from tests.models.esen.tiny import model
from tests.tiny_models import molecule

HEAVY = 40.0
"""amu of every atom."""

BROKEN = {
    "direct forces": {"direct_forces": True},
    "neighbor limit": {"graph": GraphSettings(k=3, cutoff=4.0, rank="hard", f_max=1.0)},
    "no envelope": {"envelope": "none"},
}


def deviation(step, femtoseconds=100.0, **changes):
    """Standard deviation of the total energy along velocity Verlet, eV."""
    system = molecule()
    atoms = Atoms(system.numbers, system.positions, masses=np.full(len(system), HEAVY))
    thermalize_momenta(atoms, temperature_K=600, rng=np.random.default_rng(0))
    Stationary(atoms)
    atoms.calc = NetworkPotential(model(**changes), dtype="float64").calculator()
    total = []
    dynamics = VelocityVerlet(atoms, timestep=step * units.fs)
    dynamics.attach(lambda: total.append(atoms.get_total_energy()))
    dynamics.run(round(femtoseconds / step))
    return np.std(total)


@pytest.mark.slow
def test_the_default_conserves_energy_to_second_order():
    """Half the step, a quarter of the error."""
    assert deviation(2.0) / deviation(1.0) == pytest.approx(4.0, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_what_the_source_calls_non_conserving_is(kind):
    """A smaller step does not help, and the error is larger."""
    coarse, fine = (deviation(step, **BROKEN[kind]) for step in (2.0, 1.0))
    assert fine > 0.5 * coarse
    assert fine > 10 * deviation(1.0)
