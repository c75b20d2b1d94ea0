"""Which pairs are looked at: none that matters is missed, within the skin and after a search cut short."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.graph import candidates
from sfumato.graph.candidates import Candidates, find_candidates
from sfumato.graph.layout import GraphSettings, differentiable_stage, index_stage, select_edges
from sfumato.graph.neighbors import half_pairs
from sfumato.systems import Batch, System
from tests.graph_oracle import both_stages, cluster, crystal, graph, make, named, same, structures, tensors


@settings(max_examples=25, deadline=None)
@given(structures(), st.floats(0.05, 0.6), st.integers(0, 1000))
def test_a_skin_holds_until_atoms_have_moved_by_half_of_it(drawn, skin, seed):
    system, chosen = drawn
    step = np.random.default_rng(seed).normal(size=(len(system), 3))
    step *= 0.499 * skin / np.linalg.norm(step, axis=1)[:, None]
    moved = make(system.positions + step, system.cell, system.pbc)
    expected = graph(moved.positions, moved.cell, moved.pbc, chosen)
    before, now = tensors(system), tensors(moved)
    topology = index_stage(**before, settings=chosen, skin=skin)
    geometry = differentiable_stage(topology, now["positions"], now["cell"], chosen)
    same(named(topology, geometry), expected, 1e-9)
    del before["numbers"], now["pbc"]
    held = find_candidates(**before, settings=chosen, skin=skin)
    topology = select_edges(held, **now, settings=chosen)
    geometry = differentiable_stage(topology, now["positions"], now["cell"], chosen)
    same(named(topology, geometry), expected, 1e-9)


def test_a_witness_counts_that_comes_nearer_by_two_skins():
    # The neighbor on the left leaves, the atom follows the one on the right, which comes: the worst case.
    chosen, skin = GraphSettings(k=1, cutoff=2.7, mode="out"), 0.5
    before = make([[-2.0, 0, 0], [0, 0, 0], [3.55, 0, 0]])
    after = make(before.positions + 0.999 * skin / 2 * np.array([[-1, 0, 0], [1, 0, 0], [-1, 0, 0]]))
    topology = index_stage(**tensors(before), settings=chosen, skin=skin)
    geometry = differentiable_stage(topology, tensors(after)["positions"], tensors(after)["cell"], chosen)
    expected = graph(after.positions, after.cell, after.pbc, chosen)
    same(named(topology, geometry), expected, 1e-12)
    assert (1, 0, 0, 0, 0) in expected
    alone = graph(after.positions[:2], after.cell, after.pbc, chosen)
    assert abs(alone[1, 0, 0, 0, 0][1] - expected[1, 0, 0, 0, 0][1]) > 1e-4


@pytest.mark.parametrize("rank", ["compact", "sigmoid", "hard"])
@pytest.mark.parametrize("mode", ["mutual", "out"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_what_a_skin_adds_has_no_weight_and_no_gradient(rank, mode, dtype, tolerance):
    chosen = GraphSettings(k=6, cutoff=4.0, rank=rank, mode=mode)
    found = []
    for skin in (0.0, 0.5):
        parts = tensors(cluster(), dtype)
        topology = index_stage(**parts, settings=chosen, skin=skin)
        positions = parts["positions"].requires_grad_()
        geometry = differentiable_stage(topology, positions, parts["cell"], chosen)
        total = (geometry.bias.exp() * geometry.distance.sin()).sum()
        (gradient,) = torch.autograd.grad(total, positions)
        weights = {name: bias for name, (_, bias) in named(topology, geometry).items()}
        found.append((len(topology.reverse), gradient, weights))
    (few, gradient, weights), (many, gradient_too, weights_too) = found
    assert many > few == len(weights)
    assert weights_too == pytest.approx(weights, rel=tolerance, abs=tolerance)
    torch.testing.assert_close(gradient, gradient_too, rtol=0, atol=tolerance)


def test_trimming_the_neighbors_changes_no_rank_in_300_random_clusters():
    chosen, atoms = GraphSettings(k=6, cutoff=5.0, mode="out"), 45
    looked_at = 0
    for first in range(0, 300, 20):
        systems = [cluster(atoms, density=0.15, seed=first + n) for n in range(20)]
        topology, geometry = both_stages(Batch.of(systems), chosen)
        looked_at += len(topology.pair_source)
        found = torch.full((20, atoms, atoms), -math.inf, dtype=torch.float64)
        ends = topology.source % atoms, topology.target % atoms
        found[topology.system[topology.source], *ends] = geometry.bias
        x = torch.tensor(np.stack([system.positions for system in systems]))
        d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        d.diagonal(dim1=1, dim2=2).fill_(math.inf)
        gap = ((d[:, :, :, None] - d[:, :, None, :]) / chosen.d0).nan_to_num(-9)
        z = gap.clamp(-3.996, 3.996)
        rank = torch.where(gap.abs() < 4, torch.sigmoid(z / (1 - z**2 / 16)), (gap > 0).double()).sum(3)
        f = torch.logaddexp(10 * rank / chosen.k, 10 * d / chosen.cutoff) / 10
        expected = torch.where(f < chosen.f_max, -(f**2) / (1 - f**2), -math.inf)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert looked_at < 0.5 * 300 * atoms * (atoms - 1)


def searches(monkeypatch) -> list[float]:
    """Record the radius of every search from now on."""
    radii = []

    def recording(batch, radius):
        radii.extend(radius.tolist())
        return half_pairs(batch, radius)

    monkeypatch.setattr(candidates, "half_pairs", recording)
    return radii


def search_to_the_horizon(monkeypatch) -> None:
    monkeypatch.setattr(
        candidates, "_first_radius", lambda batch, given, skin: np.full(len(batch), given.horizon)
    )


def hole(radius) -> System:
    """A dense crystal with a hole in it, and one atom alone in the middle of the hole."""
    whole = crystal(repeat=3)
    middle = whole.cell.sum(axis=0) / 2
    kept = np.linalg.norm(whole.positions - middle, axis=1) > radius
    positions = np.concatenate([whole.positions[kept], middle[None]])
    return System(np.full(len(positions), 6), positions, whole.cell, whole.pbc)


@pytest.mark.parametrize("rank", ["compact", "hard"])
def test_in_a_dense_crystal_the_first_search_is_enough(rank, monkeypatch):
    chosen, radii = GraphSettings(rank=rank), searches(monkeypatch)
    near = both_stages(crystal(repeat=3), chosen)
    assert len(radii) == 1
    assert radii[0] < 5.0
    search_to_the_horizon(monkeypatch)
    same(named(*near), named(*both_stages(crystal(repeat=3), chosen)), 1e-14)


@pytest.mark.parametrize("mode", ["mutual", "out"])
def test_it_does_not_matter_how_far_the_first_search_goes(mode, monkeypatch):
    chosen, radii = GraphSettings(mode=mode), searches(monkeypatch)
    expected = named(*both_stages(crystal(), chosen))
    enough = []
    for first in np.arange(2.0, 6.8, 0.2):
        monkeypatch.setattr(candidates, "_first_radius", lambda batch, *_, first=first: np.array([first]))
        radii.clear()
        same(named(*both_stages(crystal(), chosen)), expected, 1e-13)
        enough.append(len(radii) == 1)
    assert enough == sorted(enough)
    assert 8 < sum(enough) < 16


@pytest.mark.parametrize("mode", ["mutual", "out"])
def test_a_first_search_that_is_too_short_is_noticed(mode, monkeypatch):
    chosen, holed = GraphSettings(mode=mode), hole(4.6)
    radii = searches(monkeypatch)
    found = named(*both_stages(holed, chosen))
    assert radii[0] < 5.5
    assert radii[1:] == [chosen.horizon]
    search_to_the_horizon(monkeypatch)
    same(found, named(*both_stages(holed, chosen)), 1e-14)
    if mode == "mutual":
        return
    # Left at the first radius, the lone atom would have got wrong weights.
    parts = tensors(holed)
    numbers, pbc = parts.pop("numbers"), parts.pop("pbc")
    held = find_candidates(pbc=pbc, **parts, settings=chosen)
    near = held.distance < radii[0]
    short = Candidates(*(part[near] for part in (held.i, held.j, held.shift, held.distance)))
    topology = select_edges(short, numbers=numbers, **parts, settings=chosen)
    wrong = named(topology, differentiable_stage(topology, parts["positions"], parts["cell"], chosen))
    assert {name: bias for name, (_, bias) in wrong.items()} != {n: bias for n, (_, bias) in found.items()}


def test_structures_of_a_batch_are_searched_as_far_as_each_needs(monkeypatch):
    chosen, radii = GraphSettings(), searches(monkeypatch)
    both_stages(Batch.of([crystal(repeat=3), cluster(), hole(4.6)]), chosen)
    (dense, molecule, holed), again = radii[:3], radii[3:]
    assert dense < holed < molecule == chosen.horizon
    assert again == [dense, chosen.horizon, chosen.horizon]


def test_with_a_skin_the_first_search_has_to_go_farther_by_four_of_them(monkeypatch):
    # Two for what the decisive neighbor loses against the others, two for what its witnesses gain.
    radii = searches(monkeypatch)
    shortest = []
    for skin in (0.0, 0.1):
        for first in np.arange(3.5, 6.0, 0.02):
            monkeypatch.setattr(candidates, "_first_radius", lambda batch, *_, first=first: np.array([first]))
            radii.clear()
            both_stages(crystal(), GraphSettings(), skin=skin)
            if len(radii) == 1:
                shortest.append(first)
                break
    assert shortest[1] - shortest[0] == pytest.approx(0.4, abs=0.021)


def test_the_second_search_has_room_for_the_skin(monkeypatch):
    chosen, radii = GraphSettings(), searches(monkeypatch)
    both_stages(hole(4.6), chosen, skin=0.05)
    assert radii[1:] == [chosen.horizon + 0.05]


def test_the_sigmoid_rank_is_searched_to_the_horizon(monkeypatch):
    chosen, radii = GraphSettings(rank="sigmoid"), searches(monkeypatch)
    both_stages(crystal(), chosen)
    assert radii == [chosen.horizon]
