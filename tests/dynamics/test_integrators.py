"""Integrators against exact results: the harmonic oscillator, free Brownian motion, time reversal."""

import math
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from sfumato.dynamics.integrators import langevin, velocity_verlet
from sfumato.dynamics.state import angular_momentum, kinetic_energy, masses, maxwell_boltzmann, sums
from sfumato.io import from_ase
from sfumato.models.pair import PAIRS
from sfumato.systems import Batch
from sfumato.units import AMU_A2_PER_FS2, KELVIN
from tests.dynamics.springs import Springs, lone

SPRING = 5.0
CARBON = 12.011
OMEGA = math.sqrt(SPRING / (AMU_A2_PER_FS2 * CARBON))
"""1/fs."""


def start(potential, batch, integrator, velocities=None, kelvin=300.0, streams=None):
    session = potential.session(batch, 0.0)
    if velocities is None:
        velocities = np.zeros_like(batch.positions)
    streams = np.arange(len(batch)) if streams is None else streams
    return session, integrator.init(session, velocities, np.full(len(batch), kelvin), streams)


def oscillate(timestep, steps):
    """x of one atom on a spring, released at 1 Å, and its total energy."""
    integrator = velocity_verlet(timestep)
    session, state = start(Springs(SPRING), lone(), integrator)
    x, energy = [], []
    for _ in range(steps + 1):
        x.append(state.batch.positions[0, 0])
        energy.append(state.energy[0] + state.kinetic[0])
        state = integrator.step(session, state)
    return np.array(x), np.array(energy)


@pytest.mark.parametrize("timestep", [0.5, 2.0, 5.0])
def test_the_oscillator_follows_the_exact_solution_of_the_difference_equation(timestep):
    """x_n = cos(nθ) with cos θ = 1 − (ωh)²/2: the period of velocity Verlet, exactly."""
    x, _ = oscillate(timestep, 200)
    theta = math.acos(1 - (OMEGA * timestep) ** 2 / 2)
    assert x == pytest.approx(np.cos(theta * np.arange(201)), abs=1e-11)


def test_the_period_converges_to_the_true_one():
    x, _ = oscillate(0.1, 2000)
    assert x == pytest.approx(np.cos(OMEGA * 0.1 * np.arange(2001)), abs=2e-3)
    assert np.ptp(x) > 1.9


def test_the_energy_error_is_the_exact_one_and_falls_with_the_square_of_the_step():
    """½mv² + ½kx²(1 − (ωh)²/4) is conserved, so E errs by ½k(ωh)²/4 (x² − 1)."""
    size = {}
    for timestep in (4.0, 2.0, 1.0):
        x, energy = oscillate(timestep, 400)
        exact = 0.5 * SPRING * (OMEGA * timestep) ** 2 / 4 * (x**2 - 1)
        assert energy - energy[0] == pytest.approx(exact, abs=1e-12)
        size[timestep] = np.ptp(energy)
    assert size[4.0] / size[2.0] == pytest.approx(4, rel=0.02)
    assert size[2.0] / size[1.0] == pytest.approx(4, rel=0.02)


def cluster():
    """Two argon clusters that move, of nine and five atoms, in one batch."""
    from ase.cluster import Octahedron

    rng = np.random.default_rng(0)
    made = []
    for atoms in (Octahedron("Ar", 2), Octahedron("Ar", 3, cutoff=1)):
        atoms.positions *= 0.56 * 2.12 / 1.8
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        made.append(from_ase(atoms))
    return Batch.of(made)


def test_verlet_is_reversible():
    batch, integrator = cluster(), velocity_verlet(1.0)
    v = maxwell_boltzmann(batch, np.full(2, 300.0), np.array([1, 2]))
    session, first = start(PAIRS["lj"], batch, integrator, v)
    state = first
    for _ in range(200):
        state = integrator.step(session, state)
    assert np.abs(state.batch.positions - first.batch.positions).max() > 0.1
    state = replace(state, velocities=-state.velocities)
    for _ in range(200):
        state = integrator.step(session, state)
    assert np.abs(state.batch.positions - first.batch.positions).max() < 1e-10
    assert np.abs(state.velocities + first.velocities).max() < 1e-10


def test_momenta_are_conserved():
    batch, integrator = cluster(), velocity_verlet(2.0)
    v = maxwell_boltzmann(batch, np.full(2, 500.0), np.array([1, 2]))
    session, state = start(PAIRS["lj"], batch, integrator, v)
    for _ in range(300):
        state = integrator.step(session, state)
    assert np.abs(sums(state.batch, state.mass * state.velocities)).max() < 1e-12
    assert np.abs(angular_momentum(state.batch, state.velocities)).max() < 1e-11
    assert np.abs(state.velocities - v).max() > 1e-3


def many_springs(timestep, friction, replicas, steps, settle):
    """(samples, replicas, 3) positions and velocities of atoms on springs in a bath of 300 K."""
    integrator = langevin(timestep, friction)
    batch = lone(replicas, x=0.0)
    session, state = start(Springs(SPRING), batch, integrator)
    x, v = [], []
    for k in range(settle + steps):
        state = integrator.step(session, state)
        if k >= settle:
            x.append(state.batch.positions)
            v.append(state.velocities)
    return np.array(x), np.array(v)


def within(values, exact, errors=4.0):
    """Whether the mean over independent replicas, (…, R, 3), agrees with the exact value."""
    each = values.mean(axis=0).ravel()
    error = each.std(ddof=1) / math.sqrt(len(each))
    assert error < 0.1 * exact, "too few replicas to say anything"
    assert abs(each.mean() - exact) < errors * error, (each.mean(), exact, error)


@pytest.mark.parametrize("timestep", [1.0, 8.0])
def test_langevin_holds_equipartition_exactly_at_any_step(timestep):
    """BAOAB on a spring: ⟨x²⟩ = kT/k without error in h, ⟨v²⟩ = kT/m (1 − (ωh)²/4)."""
    assert 0.02 < OMEGA * timestep < 1
    x, v = many_springs(timestep, friction=100.0, replicas=300, steps=200, settle=round(100 / timestep))
    thermal = KELVIN * 300.0
    within(x**2, thermal / SPRING)
    within(v**2, thermal / (AMU_A2_PER_FS2 * CARBON) * (1 - (OMEGA * timestep) ** 2 / 4))


def test_the_velocity_of_a_free_atom_forgets_exponentially():
    """⟨v(0)v(t)⟩ = kT/m e^(−γt), the Ornstein–Uhlenbeck process, exactly at any step."""
    friction, timestep, replicas = 20.0, 2.0, 600
    integrator = langevin(timestep, friction)
    batch = lone(replicas, x=0.0)
    v = np.random.default_rng(1).normal(size=(replicas, 3))
    v *= math.sqrt(KELVIN * 300.0 / (AMU_A2_PER_FS2 * CARBON))
    session, state = start(Springs(0.0), batch, integrator, v)
    for k in range(1, 41):
        state = integrator.step(session, state)
        if k in (5, 20, 40):
            product = (state.velocities * v).ravel()
            exact = KELVIN * 300.0 / (AMU_A2_PER_FS2 * CARBON) * math.exp(-1e-3 * friction * k * timestep)
            error = product.std(ddof=1) / math.sqrt(len(product))
            assert error < 0.1 * KELVIN * 300.0 / (AMU_A2_PER_FS2 * CARBON)
            assert abs(product.mean() - exact) < 4 * error


def test_without_friction_langevin_is_verlet():
    batch = cluster()
    v = maxwell_boltzmann(batch, np.full(2, 300.0), np.array([1, 2]))
    ends = []
    for integrator in (velocity_verlet(1.0), langevin(1.0, 0.0)):
        session, state = start(PAIRS["lj"], batch, integrator, v)
        for _ in range(50):
            state = integrator.step(session, state)
        ends.append(state.batch.positions)
    assert ends[0] == pytest.approx(ends[1], abs=1e-11)


def test_one_step_of_langevin_by_hand():
    """B A O A B in a bath of all but 0 K: kick, drift, decay, drift, kick."""
    integrator = langevin(2.0, 50.0)
    session, state = start(Springs(SPRING), lone(), integrator, np.array([[0.01, 0, 0]]), kelvin=1e-30)
    after = integrator.step(session, state)
    a = -SPRING / (AMU_A2_PER_FS2 * CARBON)
    v = 0.01 + a  # half a step of 2 fs
    x = 1.0 + v
    v *= math.exp(-0.1)
    x += v
    assert after.batch.positions[0, 0] == pytest.approx(x, abs=1e-14)
    assert after.velocities[0, 0] == pytest.approx(v + x * a, abs=1e-14)


def test_a_replica_does_not_depend_on_its_neighbors_in_the_batch():
    """To the last bit, with a potential whose sums do not mix structures."""
    from ase.build import molecule as of

    integrator = langevin(1.0, 5.0)
    systems = [from_ase(of(name)) for name in ("CH3CH2OH", "CH4", "C6H6")]
    streams = np.array([11, 12, 13])

    def run(rows):
        batch = Batch.of([systems[k] for k in rows])
        v = maxwell_boltzmann(batch, np.full(len(rows), 300.0), streams[rows])
        session, state = start(PAIRS["morse"], batch, integrator, v, streams=streams[rows])
        for _ in range(40):
            state = integrator.step(session, state)
        return state

    whole, part = run([0, 1, 2]), run([2])
    assert (whole.take([2]).batch.positions == part.batch.positions).all()
    assert (whole.take([2]).velocities == part.velocities).all()


@pytest.mark.parametrize("timestep", [0.0, -1.0, math.nan, math.inf])
def test_a_step_is_positive(timestep):
    with pytest.raises(ValueError, match="time step: expected more than 0 fs"):
        velocity_verlet(timestep)


def test_friction_is_not_negative():
    with pytest.raises(ValueError, match="friction: expected 0 or more"):
        langevin(1.0, -1.0)


def test_kinetic_energy_is_half_m_v_squared():
    batch = Batch.of([from_ase(molecule("H2"))])
    v = np.array([[0.01, 0, 0], [0, 0, 0.02]])
    expected = 0.5 * 1.008 * 103.6426967 * (0.01**2 + 0.02**2)
    assert kinetic_energy(batch, v)[0] == pytest.approx(expected, rel=1e-8)
    assert masses(batch.numbers).shape == (2, 1)
