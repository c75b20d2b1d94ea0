"""The energy is smooth where neighbors come and go and edges turn; what is known to cost that is seen to."""

import numpy as np
import pytest
import torch

from sfumato import load
from sfumato.graph.settings import GraphSettings
from sfumato.models.esen import so3
from sfumato.models.esen.config import radius_graph
from sfumato.models.network import prepare
from sfumato.systems import Batch, System
from sfumato.testing import check
from sfumato.testing.bench import Settings
from sfumato.testing.contract import CHECKS, Contract
from tests.models.esen.tiny import SOFT, model
from tests.tiny_models import molecule, said

FAR = {"envelope": "graph", "graph": GraphSettings(k=10_000_000, cutoff=4.0)}
"""An envelope of the distance alone that is smooth of any order."""


def energies(of, at, where):
    ready = prepare(of, Batch.of([at(x) for x in where]))
    with torch.no_grad():
        return of(ready.topology, ready.positions, ready.cell).energy.numpy()


def visitor(x):
    """An oxygen that leaves ten atoms: it swaps places with their neighbors, and goes over the cutoff."""
    hosts = molecule(10, spread=1.6)
    return System(np.append(hosts.numbers, 8), np.vstack([hosts.positions, [x, 0.9, 0.7]]))


def roughness(of, at, start, stop, step, levels=3):
    """Largest differences over h^order for h, h/2, h/4: converge to a derivative, or do not."""
    found = []
    for h in (step, step / 2, step / 4)[-levels:]:
        found.append(np.abs(np.diff(energies(of, at, np.arange(start, stop, h)), 4)).max() / h**4)
    return np.array(found)


def diverges(found):
    """A step grows with h⁻⁴, 16-fold, where a smooth energy settles."""
    return (found[1:] / found[:-1] > 8).all()


def test_fourth_differences_converge_where_neighbors_swap_and_go():
    coarse, middle, fine = roughness(model(**SOFT), visitor, 4.2, 5.6, 0.02)
    assert fine > 1
    assert fine == pytest.approx(middle, rel=0.1)
    assert middle == pytest.approx(coarse, rel=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        {"envelope": "none"},
        {"graph": GraphSettings(k=5, cutoff=4.0, rank="hard", f_max=1.0)},
        SOFT | {"graph": GraphSettings(k=5, cutoff=4.0, rank="hard")},
    ],
    ids=["no envelope", "neighbor limit", "neighbor limit with an envelope of ranks"],
)
def test_without_what_makes_it_smooth_the_energy_jumps(changes):
    assert diverges(roughness(model(**changes), visitor, 4.2, 5.6, 0.08))


def pair(x):
    return System([6, 8], [[0, 0, 0], [0.3 * x, -0.5 * x, (1 - 0.34) ** 0.5 * x]])


def test_the_polynomial_is_continuous_to_the_second_derivative_at_the_cutoff_and_no_further():
    """Beyond the cutoff there is nothing, so one-sided differences are derivatives times powers of h."""
    polynomial, smooth = model(), model(**FAR)
    lone = said(polynomial, pair(4.1))[0]
    h = np.array([0.04, 0.02, 0.01])
    bound = np.abs(energies(polynomial, pair, 4.0 - h) - lone)
    assert bound[-1] > 1e-10
    assert np.log2(bound[:-1] / bound[1:]) == pytest.approx([3, 3], abs=0.2)
    gone = np.abs(energies(smooth, pair, 4.0 - h) - said(smooth, pair(4.1))[0])
    assert gone.max() < 1e-13


def turning(x):
    """Three atoms that turn about y: each edge goes through the equator, where its frame changes."""
    c, s = np.cos(x), np.sin(x)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return System([6, 8, 1], np.array([[0, 0, 0], [1.2, 0.1, 0], [0.3, 1.1, 0.8]]) @ turn.T)


def test_an_edge_may_point_anywhere():
    """Through the poles and the equator, where the frame changes: exactly the same energy."""
    x = np.concatenate([np.linspace(-np.pi, np.pi, 41), [1e-7, -1e-7, np.pi / 2 - 1e-7, np.pi / 2 + 1e-7]])
    assert np.ptp(energies(model(), turning, x)) < 1e-12


def clipped(unit, l_max, m_max):
    """The planted fault: edges near the axis are moved onto it, and their direction has no gradient."""
    pole = torch.zeros_like(unit)
    pole[:, 2] = unit[:, 2].detach().sign()
    return so3.rotations(torch.where(unit[:, 2:].abs() > 0.999999, pole, unit), l_max, m_max)


def test_a_clipped_axis_is_seen(monkeypatch):
    system = System([6, 8, 1], [[0, 0, 0], [3e-4, 1e-4, 1.1], [0.9, 0.2, 0.4]])

    def force_and_slope(of, h=1e-4):
        step = np.zeros((3, 3))
        step[1, 0] = h
        e = said(of, *(System(system.numbers, system.positions + t * step) for t in (-1, 1)))[0]
        return said(of, system)[1][1, 0], -(e[1] - e[0]) / (2 * h)

    force, slope = force_and_slope(model())
    assert force == pytest.approx(slope, abs=1e-7)
    monkeypatch.setattr("sfumato.models.esen.network.rotations", clipped)
    assert abs(force_and_slope(model())[0] - force) > 1e-2
    of, pole = model(), 1.1 * np.sqrt(1 - 0.999999**2) / 0.999999
    near, far = energies(of, tilted, [0.999999 * pole, 1.000001 * pole])
    assert abs(near - far) > 1e-6


def tilted(x):
    """The second atom leaves the axis."""
    return System([6, 8, 1], [[0, 0, 0], [x, 0, 1.1], [0.9, 0.2, 0.4]])


@pytest.mark.parametrize("resolution", [6, 10, 14])
def test_a_grid_turns_with_the_structure_the_better_the_finer_it_is(resolution):
    of = model(nonlinearity="grid", grid_resolution=resolution)
    spread = np.ptp(energies(of, turning, np.linspace(0, 3, 13)))
    limits = {6: (1e-3, 1e-1), 10: (1e-5, 1e-3), 14: (1e-7, 5e-5)}
    assert limits[resolution][0] < spread < limits[resolution][1]


def broken(spec):
    """Which checks of the contract fail, required or not."""
    report = check(load(spec, dtype="float64"), settings=Settings(quick=True))
    return report.passed, {result.name for result in report.results if result.status == "failed"}


def test_the_default_keeps_the_contract():
    assert broken("esen:nano") == (True, set())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "fails"),
    [
        ("esen:nano:direct-forces", "force"),
        ("esen:nano:neighbor-limit", "neighbor swap"),
        ("esen:nano:no-envelope", "cutoff"),
        ("esen:small:direct-forces", "force"),
        ("esen:small:neighbor-limit", "neighbor swap"),
        ("esen:small:no-envelope", "cutoff"),
    ],
)
def test_what_the_source_calls_non_conserving_breaks_the_contract(spec, fails):
    passed, names = broken(spec)
    assert not passed
    assert fails in names


def angle(spec, quick):
    """What one check of the contract finds: three atoms turn so that a bond passes through every axis."""
    (row,) = (row for row in CHECKS if row.name == "angle")
    return Contract(load(spec, dtype="float64"), Settings(quick=quick)).result(row)


def test_a_clipped_axis_breaks_the_contract(monkeypatch):
    monkeypatch.setattr("sfumato.models.esen.network.rotations", clipped)
    found = angle("esen:nano", quick=True)
    assert found.breaks
    assert "three atoms that turn" in found.where
    assert "jump of the force" in found.where


@pytest.mark.parametrize("resolution", [6, *(pytest.param(n, marks=pytest.mark.slow) for n in (10, 14))])
def test_a_grid_breaks_the_contract_where_an_edge_crosses_the_equator(resolution):
    """Jumps of 2e-3, 2e-8 and 3e-7 eV."""
    found = angle(f"esen:nano:grid-{resolution}", quick=False)
    assert found.breaks
    assert "three atoms that turn" in found.where
    assert 1e-8 < found.measured < 1e-2


@pytest.mark.slow
def test_a_coarse_grid_fails_to_turn():
    passed, names = broken("esen:nano:grid-6")
    assert not passed
    assert names >= {"angle", "rotation", "torque"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        "esen:small",
        "esen:nano:bessel",
        "esen:nano:gaussian-64",
        "esen:nano:gaussian-512",
        "esen:nano:smooth-envelope",
        "esen:nano:soft-neighbors",
    ],
)
def test_smooth_variants_keep_the_contract(spec):
    assert broken(spec)[0]


def test_all_neighbors_within_the_cutoff_carry_an_edge():
    of = model(graph=radius_graph(4.0))
    system = visitor(5.0)
    distance = np.linalg.norm(system.positions[:, None] - system.positions, axis=2)
    expected = ((distance < 4.0) & (distance > 0)).sum()
    assert len(prepare(of, Batch.of([system])).topology.reverse) == expected
