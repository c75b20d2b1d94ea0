"""The energy is smooth where neighbors come, go and swap; without what makes it so it is seen to jump."""

import dataclasses

import numpy as np
import pytest
import torch

from sfumato.graph.layout import Geometry, differentiable_stage
from sfumato.models.mindscaip import network as mindscaip
from sfumato.models.mindscaip import windows
from sfumato.models.network import evaluate, prepare
from sfumato.systems import Batch, System
from tests.tiny_models import DIRECTIONAL, GRAPH, crystal, energy, model, molecule, moved, said

both = pytest.mark.parametrize("directional", DIRECTIONAL)


def energies(of, at, where):
    """Energies of the structures at(x)."""
    ready = prepare(of, Batch.of([at(x) for x in where]))
    with torch.no_grad():
        return of(ready.topology, ready.positions, ready.cell).energy.numpy()


def roughness(of, at, start, stop, step):
    """Largest fourth difference over h⁴ for h, h/2, h/4: converges to the fourth derivative, or does not."""
    found = []
    for h in (step, step / 2, step / 4):
        values = energies(of, at, np.arange(start, stop, h))
        rounding = np.spacing(np.abs(values).max())
        assert np.ptp(values) > 1e6 * rounding  # what moves is felt, …
        differences = np.diff(values, 4)
        assert np.abs(differences).max() > 100 * rounding  # … and it is not rounding that converges
        found.append(np.abs(differences).max() / h**4)
    return np.array(found)


def visitor(x):
    """An oxygen that leaves ten atoms: it swaps places with their neighbors, and goes over the cutoff."""
    hosts = molecule(10, spread=1.6)
    return System(np.append(hosts.numbers, 8), np.vstack([hosts.positions, [x, 0.9, 0.7]]))


def shell(x):
    """Eight neighbors of a carbon at exactly one distance, and a ninth that crosses their shell."""
    corners = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) * 1.6 / 3**0.5
    return System([6] + [1] * 8 + [8], np.vstack([[0, 0, 0], corners, [0, 0, x]]))


def breathing(x):
    """A crystal one of whose atoms moves: its own images and several of each neighbor come and go."""
    base = crystal()
    positions = base.positions.copy()
    positions[1] += [x, 0.3 * x, 0]
    return moved(base, positions)


PATHS = {
    "visitor": (visitor, 4.2, 5.6, 0.02),
    "shell": (shell, 1.45, 1.8, 0.005),
    "crystal": (breathing, 0.1, 0.5, 0.005),
}


@both
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("mode", ["mutual", "out"])
def test_fourth_differences_converge(directional, path, mode):
    """Observed: the last two within 4 %."""
    of = model(directional=directional, graph=dataclasses.replace(GRAPH, mode=mode))
    coarse, middle, fine = roughness(of, *PATHS[path])
    assert fine > 1
    assert fine == pytest.approx(middle, rel=0.1)
    assert middle == pytest.approx(coarse, rel=0.3)


def test_the_sigmoid_rank_is_smooth_too():
    of = model(graph=dataclasses.replace(GRAPH, rank="sigmoid"))
    _, middle, fine = roughness(of, *PATHS["visitor"])
    assert fine == pytest.approx(middle, rel=0.1)


def diverges(found):
    """A step grows with h⁻⁴, 16-fold, where a smooth energy settles."""
    return (found[1:] / found[:-1] > 8).all() and found[2] > 1e5


@both
def test_the_hard_rank_jumps(directional):
    of = model(directional=directional, graph=dataclasses.replace(GRAPH, rank="hard"))
    assert diverges(roughness(of, *PATHS["visitor"]))


@both
def test_without_the_self_token_to_take_the_weight_the_energy_jumps(monkeypatch, directional):
    monkeypatch.setattr(windows, "SELF_BIAS", windows.NEVER)
    assert diverges(roughness(model(directional=directional), *PATHS["visitor"]))


def test_without_the_envelope_the_energy_jumps(monkeypatch):
    def bare(topology, positions, cell, settings):
        found = differentiable_stage(topology, positions, cell, settings)
        return Geometry(found.vector, found.distance, torch.where(found.bias.isfinite(), 0.0, found.bias))

    monkeypatch.setattr(mindscaip, "differentiable_stage", bare)
    assert diverges(roughness(model(), *PATHS["visitor"]))


@both
def test_a_dimer_comes_apart_without_a_step(directional):
    of, lone = (
        model(directional=directional),
        energy(model(directional=directional), System([1], [[0, 0, 0]])),
    )
    r = np.array([1.0, 3.0, 3.6, 3.8, 3.9, 3.95, 3.99, 4.0, 4.01])
    bound = np.abs(energies(of, lambda x: System([1, 1], [[0, 0, 0], [0, 0, x]]), r) - 2 * lone)
    assert bound[0] > 1e-2
    assert (bound[1:6] < bound[:5]).all()
    assert (bound[6:] < 1e-12).all()


@both
def test_an_edge_fades_when_a_third_atom_comes_nearer(directional):
    """The edge from the carbon to its fifth neighbor goes while both stand still."""
    around = [[1.0, 0, 0], [0, 1.05, 0], [-1.1, 0, 0], [0, 0, 1.15], [0, -1.9, 0]]

    def at(x):
        return System([6, 1, 1, 1, 1, 9, 8], np.vstack([[0, 0, 0], around, [0, 0, -x]]))

    of = model(directional=directional)
    count = [len(prepare(of, Batch.of([at(x)])).topology.source) for x in (2.6, 1.2)]
    kept = [
        {(int(i), int(j)) for i, j in zip(topology.source, topology.target)}
        for topology in (prepare(of, Batch.of([at(x)])).topology for x in (3.6, 1.2))
    ]
    assert (0, 5) in kept[0]
    assert (0, 5) not in kept[1], count
    coarse, middle, fine = roughness(of, at, 1.2, 3.6, 0.02)
    assert fine == pytest.approx(middle, rel=0.1)
    assert middle == pytest.approx(coarse, rel=0.3)


@pytest.mark.parametrize("mode", ["mutual", "out"])
def test_edges_of_no_weight_can_be_left_out(mode):
    """All with e < 1e-12: f above 0.9825."""
    whole = dataclasses.replace(GRAPH, mode=mode)
    fewer = dataclasses.replace(whole, f_max=0.9825)
    rng = np.random.default_rng(0)
    systems = [molecule(12, seed=s, spread=1.3 + 0.1 * s) for s in rng.integers(0, 8, 12)]
    one, other = model(graph=whole), model(graph=fewer)
    edges = [len(prepare(of, Batch.of(systems)).topology.source) for of in (one, other)]
    assert edges[1] < edges[0]
    (e, f, _), (e2, f2, _) = said(one, *systems), said(other, *systems)
    assert e2 == pytest.approx(e, abs=1e-10)
    assert f2 == pytest.approx(f, abs=1e-8)


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_edges_that_a_skin_has_in_excess_change_nothing(directional, dtype):
    of, batch = model(dtype, directional=directional), Batch.of([crystal(), molecule()])
    exact, wide = prepare(of, batch), prepare(of, batch, skin=1.0)
    assert len(wide.topology.source) > 1.2 * len(exact.topology.source)
    found = [
        evaluate(of, ready.topology, ready.positions, ready.cell, create_graph=True)
        for ready in (exact, wide)
    ]
    tolerance = 1e-13 if dtype == torch.float64 else 2e-6
    assert (found[0].energy - found[1].energy).abs().max() < tolerance
    assert (found[0].forces - found[1].forces).abs().max() < 10 * tolerance
    found[1].forces.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in of.parameters() if p.grad is not None)


@pytest.mark.parametrize("step", [1e-3, 1e-5, 1e-7])
def test_no_step_where_the_visitor_swaps_with_a_neighbor(step):
    """Energy and force on either side of a swap differ by their slope times the step, and by rounding."""
    of = model()
    swap = 2 * 1.6 / 3**0.5 / 2
    near, far = (said(of, shell(swap + s)) for s in (0.0, 0.1))
    assert abs(near[0] - far[0]) > 1e-3
    assert (np.abs(near[1] - far[1]).max(axis=1) > 1e-4).all()  # the visitor is felt by every atom
    below, above = (said(of, shell(swap + s)) for s in (-step, step))
    assert abs(above[0] - below[0]) < 10 * step + 1e-12
    assert np.abs(above[1] - below[1]).max() < 100 * step + 1e-11
