"""What is seen of a simulation: work along the path, shadow energy, swings of the temperature."""

from dataclasses import replace

import numpy as np
import pytest

from sfumato.dynamics.integrators import velocity_verlet
from sfumato.dynamics.observe import POINTS, Energies, Swing, Work, work_weights
from sfumato.dynamics.simulation import Simulation
from sfumato.dynamics.state import maxwell_boltzmann
from sfumato.models.pair import PAIRS, LennardJones, PairPotential
from sfumato.systems import Batch, Prediction
from tests.dynamics.springs import at_rest

CLUSTER = at_rest(PAIRS["lj"])


class Wrong(PairPotential):
    """Lennard-Jones with a defect: `scale` times its forces; a step of `height` eV for pairs below `at`."""

    scale, height, at = 1.0, 0.0, 0.0

    def compute(self, batch):
        found = super().compute(batch)
        energy = found.energy
        if self.height:
            pairs = np.linalg.norm(batch.positions[:, None] - batch.positions[None], axis=-1)
            same = batch.index[:, None] == batch.index[None]
            near = np.triu((pairs < self.at) & same, 1).sum(axis=1)
            energy = energy + self.height * np.bincount(batch.index, near, minlength=len(batch))
        return Prediction(energy, self.scale * found.forces)


def wrong(**defects):
    made = Wrong("wrong", LennardJones())
    for name, value in defects.items():
        object.__setattr__(made, name, value)
    return made


def run(potential, timestep=2.0, steps=200, systems=(CLUSTER,), kelvin=500.0, observers=None):
    batch = Batch.of(systems)
    integrator = velocity_verlet(timestep)
    session = potential.session(batch, 0.0)
    streams = np.arange(len(batch)) + 5
    v = maxwell_boltzmann(batch, np.full(len(batch), kelvin), streams)
    state = integrator.init(session, v, np.full(len(batch), kelvin), streams)
    made = observers(batch) if observers else [Energies(batch), Work(batch, timestep)]
    simulation = Simulation(session, state, integrator, batch, np.arange(len(batch)), made, [])
    simulation.advance(steps)
    return {name: np.array(values) for name, values in simulation.seen.series.items()}


def steps_of(unexplained):
    """The residual of each interval, from the sums."""
    return np.diff(unexplained[POINTS - 1 :, 0])


def test_weights_integrate_polynomials_exactly():
    rng = np.random.default_rng(0)
    s = np.arange(POINTS)
    f, x = (np.polynomial.Polynomial(rng.normal(size=POINTS) / 4.0 ** np.arange(POINTS)) for _ in range(2))
    exact = (f * x.deriv()).integ()
    middle = POINTS // 2
    found = f(s) @ work_weights(POINTS) @ x(s)
    assert found == pytest.approx(exact(middle) - exact(middle - 1), rel=1e-9)
    assert np.abs(work_weights(POINTS) @ np.ones(POINTS)).max() < 1e-12  # nothing moves, no work


def test_work_explains_a_smooth_surface_to_the_eighth_power_of_the_step():
    seen = {h: run(PAIRS["lj"], h, round(400 / h)) for h in (2, 1, 0.5)}
    rough = {h: np.abs(steps_of(one["unexplained"])).max() for h, one in seen.items()}
    assert 1e-9 < rough[1] < 1e-7
    assert rough[2] / rough[1] > 100
    assert rough[0.5] < 1e-10
    assert np.ptp(seen[1]["potential"]) > 0.1


def test_a_force_that_is_a_hundredth_too_large_shows_as_a_hundredth_of_the_work():
    seen = run(wrong(scale=1.01), 1.0)
    change = np.diff(seen["potential"][:, 0])[4:-3]
    assert steps_of(seen["unexplained"]) == pytest.approx(-0.01 * change, abs=2e-5 * np.abs(change).max())


def test_a_step_of_the_energy_shows_in_one_interval_with_its_height():
    height = 1e-5
    r = steps_of(run(wrong(height=height, at=2.2), 0.5, 600)["unexplained"])
    jumps = np.abs(r)[np.abs(r) > 1e-8]
    assert len(jumps) > 2
    assert jumps / height == pytest.approx(np.round(jumps / height), abs=1e-3)


def test_the_shadow_energy_is_conserved_to_the_fourth_power_of_the_step():
    spread = {}
    for h in (4.0, 2.0):
        seen = run(PAIRS["lj"], h, round(600 / h))
        total = seen["potential"] + seen["kinetic"]
        spread[h] = np.std(seen["shadow"][2:]), np.std(total)
    assert spread[2.0][0] < 0.1 * spread[2.0][1]
    assert spread[4.0][0] / spread[2.0][0] == pytest.approx(16, rel=0.5)
    assert spread[4.0][1] / spread[2.0][1] == pytest.approx(4, rel=0.2)


def test_the_shadow_energy_of_an_oscillator_is_that_of_the_theory():
    """½mv²(1 + (ωh)²/6) + ½kx²(1 − (ωh)²/12), but for the difference that stands for dF/dt."""
    from tests.dynamics.springs import Springs, lone
    from tests.dynamics.test_integrators import OMEGA, SPRING

    h = 2.0
    integrator = velocity_verlet(h)
    session = Springs(SPRING).session(lone())
    state = integrator.init(session, np.zeros((1, 3)), np.array([300.0]), np.array([1]))
    simulation = Simulation(
        session, state, integrator, lone(), np.array([0]), [Energies(lone()), Work(lone(), h)], []
    )
    simulation.advance(100)
    seen = {name: np.array(values)[:, 0] for name, values in simulation.seen.series.items()}
    square = (OMEGA * h) ** 2
    exact = seen["kinetic"] * (1 + square / 6) + seen["potential"] * (1 - square / 12)
    assert seen["shadow"][2:] == pytest.approx(exact[1:-1], rel=square**2 / 20)
    assert np.ptp(seen["shadow"][2:]) < 0.2 * square * np.ptp(seen["kinetic"] + seen["potential"])


def test_a_swing_is_the_largest_change_within_the_span():
    batch = Batch.of([CLUSTER, CLUSTER])
    swing = Swing(batch, span=3)
    kelvin = np.array([[300, 310, 290, 500, 480, 470, 465, 200], [300] * 8], dtype=float)
    session = PAIRS["morse"].session(batch)
    state = velocity_verlet(1.0).init(session, np.zeros((26, 3)), np.full(2, 300.0), np.arange(2))
    atoms = np.arange(26)
    found = []
    for t in range(8):
        now = replace(state)
        now.__dict__["kelvin"] = kelvin[:, t]
        swing.see(now, np.arange(2), atoms)
        found.append(swing.sample()["swing"])
    assert np.array(found)[:, 0].tolist() == [0, 10, 20, 210, 190, 180, 35, 280]
    assert not np.array(found)[:, 1].any()


def test_energies_tell_the_largest_change_in_one_step():
    seen = run(PAIRS["lj"], 1.0, 50)
    total = (seen["potential"] + seen["kinetic"])[:, 0]
    assert seen["energy_jump"][1:, 0] == pytest.approx(np.abs(np.diff(total)), abs=1e-14)
    assert np.isnan(seen["energy_jump"][0, 0])


def test_the_interval_with_most_left_unexplained_is_remembered():
    potential = wrong(height=1e-3, at=2.2)
    batch = Batch.of([CLUSTER, CLUSTER])
    seen = Work(batch, 1.0)
    run(potential, 1.0, 300, (CLUSTER, CLUSTER), observers=lambda b: [seen])
    for k in range(2):
        own = slice(13 * k, 13 * k + 13)
        r = seen.memory["worst"][k]
        assert abs(r) > 0.9e-3
        ends = [seen.memory[f"worst_{end}"][own] for end in ("from", "to")]
        assert 1e-4 < np.abs(ends[1] - ends[0]).max() < 0.1
        found = potential.compute(Batch.of([replace(CLUSTER, positions=x) for x in ends]))
        smooth = PAIRS["lj"].compute(Batch.of([replace(CLUSTER, positions=x) for x in ends]))
        extra = found.energy - smooth.energy
        assert extra[1] - extra[0] == pytest.approx(r, abs=1e-6)
