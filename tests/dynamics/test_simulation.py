"""Replicas that leave: why, when, and that the rest goes on as if they had never been there."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from sfumato.dynamics.conditions import Broken, Collapsed, Exploded, bonds
from sfumato.dynamics.integrators import langevin, velocity_verlet
from sfumato.dynamics.observe import Energies, Swing, Work
from sfumato.dynamics.simulation import Simulation
from sfumato.dynamics.state import maxwell_boltzmann
from sfumato.io import from_ase
from sfumato.models.pair import PAIRS, LennardJones, PairPotential
from sfumato.systems import Batch, Failure, Prediction
from tests.dynamics.springs import at_rest

ETHANOL, METHANE, WATER = (from_ase(molecule(name)) for name in ("CH3CH2OH", "CH4", "H2O"))
LJ = PAIRS["lj"]
PLAIN, MARKED, SMALL = at_rest(LJ), at_rest(LJ, first=8), at_rest(LJ, first=8, size=5)
SYSTEMS = (PLAIN, MARKED, SMALL, PLAIN)


class Spoiled(PairPotential):
    """Lennard-Jones; of structures with oxygen, what a function says."""

    def compute(self, batch):
        found = super().compute(batch)
        energy, forces, failures = found.energy.copy(), found.forces.copy(), {}
        for k, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:])):
            if 8 in batch.numbers[a:b]:
                spoil(self.identity_word, k, slice(a, b), energy, forces, failures)
        return Prediction(energy, forces, None, failures)


CALLS = {"count": 0}


def spoil(how, k, atoms, energy, forces, failures):
    CALLS["count"] += 1
    if CALLS["count"] < 20:
        return
    if how == "nan":
        energy[k] = np.nan
    elif how == "raises":
        raise RuntimeError("the field did not converge")
    elif how == "fails":
        failures[k] = Failure("out of memory")
    elif how == "kick":
        forces[atoms] *= 1e4
    elif how == "huge":
        forces[atoms] = 1e300


def spoiled(how):
    CALLS["count"] = 0
    made = Spoiled("spoiled", LennardJones())
    object.__setattr__(made, "identity_word", how)
    return made


def simulate(potential, systems, streams, steps=60, conditions=None, thermostat=False, kelvin=300.0):
    batch = Batch.of(systems)
    integrator = langevin(2.0, 5.0) if thermostat else velocity_verlet(2.0)
    bath = np.full(len(batch), kelvin)
    session = potential.session(batch, 0.0)
    state = integrator.init(session, maxwell_boltzmann(batch, bath, streams), bath, streams)
    made = [Exploded(), Collapsed(), Broken(batch)] if conditions is None else conditions(batch)
    seen = [Energies(batch), Swing(batch, 20), Work(batch, 2.0)]
    simulation = Simulation(session, state, integrator, batch, np.arange(len(batch)), seen, made, save=10)
    simulation.advance(steps)
    return simulation


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("nan", "no answer", "the predicted energy is not finite"),
        ("raises", "no answer", "RuntimeError: the field did not converge"),
        ("fails", "no answer", "out of memory"),
        ("kick", "exploded", "the kinetic temperature ran away"),
        ("huge", "exploded", "the kinetic temperature ran away"),
    ],
)
@pytest.mark.parametrize("thermostat", [False, True])
def test_who_leaves_has_a_reason_and_the_rest_is_untouched(how, kind, words, thermostat):
    streams = np.arange(4) + 3
    with_them = simulate(spoiled(how), SYSTEMS, streams, thermostat=thermostat)
    assert sorted(with_them.left) == [1, 2]
    for row in (1, 2):
        left = with_them.left[row]
        assert left.kind == kind
        assert words in left.reason
        assert 5 < left.step < 30
    alone = simulate(LJ, SYSTEMS[::3], streams[::3], thermostat=thermostat)
    assert with_them.rows.tolist() == [0, 3]
    assert (with_them.state.batch.positions == alone.state.batch.positions).all()
    assert (with_them.state.velocities == alone.state.velocities).all()
    for name, values in alone.seen.series.items():
        np.testing.assert_array_equal(np.array(with_them.seen.series[name])[:, [0, 3]], np.array(values))


def test_samples_of_those_who_left_end():
    simulation = simulate(spoiled("nan"), SYSTEMS, np.arange(4))
    energy = np.array(simulation.seen.series["potential"])
    step = simulation.left[1].step
    assert np.isfinite(energy[:step, 1]).all()
    assert np.isnan(energy[step:, 1]).all()
    assert np.isfinite(energy[:, 0]).all()
    assert [rows.tolist() for step, rows, _ in simulation.seen.frames][-1] == [0, 3]


def test_nobody_left_is_the_end():
    simulation = simulate(spoiled("nan"), [SMALL], np.array([1]))
    assert simulation.over
    assert simulation.state.step == simulation.left[0].step == simulation.seen.steps[-1]


def test_a_potential_without_an_answer_at_the_start():
    potential = spoiled("raises")
    CALLS["count"] = 100
    simulation = simulate(potential, [SMALL, PLAIN], np.arange(2))
    assert simulation.left[0].step == 0
    assert simulation.rows.tolist() == [1]


def squeezed(factor):
    """Ethanol with its O–H bond at a part of its length."""
    positions = ETHANOL.positions.copy()
    o, h = np.flatnonzero(ETHANOL.numbers == 8)[0], 3
    assert ETHANOL.numbers[h] == 1
    positions[h] = positions[o] + factor * (positions[h] - positions[o])
    return replace(ETHANOL, positions=positions), o, h


def test_atoms_on_top_of_each_other():
    system, o, h = squeezed(0.3)
    simulation = simulate(LJ, [system, PLAIN], np.arange(2), conditions=lambda b: [Collapsed()])
    left = simulation.left[0]
    assert left.kind == "collapsed"
    assert f"O{o} and H{h} came within 0.29 Å" in left.reason or f"H{h} and O{o} came within" in left.reason
    assert 1 not in simulation.left


def test_collapse_is_seen_across_a_cell():
    from ase.build import bulk

    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.positions[0] += atoms.cell[0] * 1.49 + [0, 0.05, 0]
    state = velocity_verlet(1.0).init(
        PAIRS["lj"].session(batch := Batch.of([from_ase(atoms)])),
        np.zeros((8, 3)),
        np.array([300.0]),
        np.array([0]),
    )
    assert batch.positions[0, 0] > atoms.cell[0, 0]
    assert "Cu0 and Cu4" in Collapsed().look(state, np.array([0]))[0]


def test_bonds_are_those_of_the_molecule():
    atoms, lengths = bonds(Batch.of([ETHANOL]))
    assert len(atoms) == 8
    assert (lengths < 1.6).all()
    water_box = replace(WATER, cell=10 * np.eye(3), pbc=[True] * 3)
    assert len(bonds(Batch.of([water_box]))[0]) == 0


def test_a_bond_that_breaks_is_named_and_may_be_only_noted():
    hot = {"kelvin": 6000.0, "steps": 60, "streams": np.arange(3)}
    few = [at_rest(LJ, size=5)] * 3
    noted = simulate(LJ, few, conditions=lambda batch: [Broken(batch, stretch=1.2, fatal=False)], **hot)
    fatal = simulate(LJ, few, conditions=lambda batch: [Broken(batch, stretch=1.2)], **hot)
    assert not noted.left
    assert noted.noted.keys() == fatal.left.keys() != set()
    for row, left in fatal.left.items():
        assert noted.noted[row]["bond broken"] == left
        assert "the bond of Ar" in left.reason


def test_conditions_are_looked_at_in_their_order():
    system, _, _ = squeezed(0.2)
    order = simulate(
        PAIRS["lj"], [system], np.array([1]), conditions=lambda b: [Collapsed(every=1), Exploded()]
    )
    assert order.left[0].kind == "collapsed"
    assert order.left[0].step == 0
