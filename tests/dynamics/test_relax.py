"""Relaxation in batches."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from sfumato.dynamics.relax import relax
from sfumato.io import from_ase
from sfumato.models.pair import PAIRS, bond_length
from sfumato.potentials.specs import load
from sfumato.systems import Batch, System
from tests.dynamics.springs import Springs


def dimer(r):
    return System([6, 8], [[0, 0, 0], [0, 0, r]])


def test_dimers_come_to_the_minimum_of_the_pair():
    batch = Batch.of([dimer(1.1), dimer(1.9), dimer(2.6)])
    found = relax(PAIRS["morse"], batch, force=1e-4, steps=500)
    r = np.linalg.norm(found.batch.positions[1::2] - found.batch.positions[::2], axis=1)
    assert r == pytest.approx(bond_length(6, 8), abs=1e-5)
    assert found.energy == pytest.approx(-4.0, abs=1e-8)
    assert (found.force <= 1e-4).all()
    assert not found.failures
    assert (found.steps > 0).all()


def test_each_goes_its_own_way():
    systems = [dimer(1.1), dimer(1.9), from_ase(molecule("CH3OH"))]
    together = relax(PAIRS["lj"], Batch.of(systems), force=1e-3, steps=300)
    for k, system in enumerate(systems):
        alone = relax(PAIRS["lj"], Batch.of([system]), force=1e-3, steps=300)
        own = together.batch.take([k])
        assert (own.positions == alone.batch.positions).all()
        assert together.steps[k] == alone.steps[0]
        assert together.energy[k] == alone.energy[0]


def test_a_spring_comes_to_rest_at_its_origin():
    found = relax(Springs(3.0), Batch.of([System([6], [[1.0, -2.0, 0.5]])]), force=1e-3, steps=200)
    assert np.abs(found.batch.positions).max() < 4e-4


def test_a_structure_without_an_answer_stops_with_its_reason():
    curium = replace(dimer(1.1), numbers=[97, 8])
    found = relax(PAIRS["morse"], Batch.of([curium, dimer(1.1)]), force=1e-3, steps=300)
    assert "no parameters for Bk" in found.failures[0].reason
    assert np.isnan(found.energy[0])
    assert found.force[1] <= 1e-3


def test_too_few_steps_leave_a_force():
    found = relax(PAIRS["lj"], Batch.of([dimer(2.6)]), force=1e-6, steps=3)
    assert found.steps[0] == 3
    assert found.force[0] > 1e-6


def test_it_agrees_with_the_relaxation_of_ase():
    from ase.optimize import BFGS

    potential = load("gfn2-xtb") if _has("tblite") else PAIRS["morse"]
    atoms = molecule("CH3OH")
    found = relax(potential, Batch.of([from_ase(atoms)]), force=0.01, steps=300)
    atoms.calc = potential.calculator()
    BFGS(atoms, logfile=None).run(fmax=0.001)
    assert found.energy[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
    assert found.steps[0] < 150


def _has(package):
    import importlib.util

    return importlib.util.find_spec(package) is not None
