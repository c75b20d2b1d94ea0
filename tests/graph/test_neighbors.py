"""Neighbor pairs: counted by hand where possible, against ASE and matscipy elsewhere."""

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from matscipy.neighbours import neighbour_list as matscipy_list

from sfumato.graph import neighbors
from sfumato.graph.neighbors import half_pairs, neighbor_pairs
from sfumato.systems import Batch, System


def make(positions, cell=None, pbc=(False, False, False)) -> System:
    return System(np.ones(len(positions)), positions, np.zeros((3, 3)) if cell is None else cell, pbc)


def rows(i, j, shift) -> list[tuple[int, ...]]:
    return sorted(zip(np.asarray(i).tolist(), np.asarray(j).tolist(), *np.asarray(shift).T.tolist()))


def ours(system: System, cutoff: float) -> list[tuple[int, ...]]:
    pairs = neighbor_pairs(system, cutoff)
    return rows(pairs.i, pairs.j, pairs.shift)


def oracle(system: System, cutoff: float, find=neighbor_list) -> list[tuple[int, ...]]:
    atoms = Atoms(
        numbers=system.numbers, positions=system.positions, cell=np.array(system.cell), pbc=system.pbc
    )
    return rows(*find("ijS", atoms, cutoff))


def test_an_atom_in_a_one_angstrom_cell_sees_every_lattice_point_within_the_cutoff():
    # Points of the integer lattice at 0 < r < 2.1: 6 + 12 + 8 + 6 at r² = 1, 2, 3, 4.
    pairs = neighbor_pairs(make([[0.3, 0.1, 0.7]], np.eye(3), (True, True, True)), 2.1)
    assert len(pairs) == 32
    assert (np.abs(pairs.shift).sum(axis=1) > 0).all()


def test_a_pair_at_exactly_the_cutoff_is_not_a_neighbor():
    system = make([[0.0, 0, 0]], np.eye(3), (True, True, True))
    assert len(neighbor_pairs(system, 1.0)) == 0
    assert len(neighbor_pairs(system, 1.0 + 1e-12)) == 6


def test_the_shift_refers_to_positions_as_given():
    system = make([[0.2, 0, 0], [40.9, 0, 0]], 4 * np.eye(3), (True, True, True))
    pairs = neighbor_pairs(system, 1.0)
    assert ours(system, 1.0) == [(0, 1, -10, 0, 0), (1, 0, 10, 0, 0)]
    np.testing.assert_allclose(pairs.vectors(Batch.of([system])), [[0.7, 0, 0], [-0.7, 0, 0]], atol=1e-12)


def test_a_molecule_that_carries_a_cell_has_no_images():
    system = make([[0.1, 0, 0], [1.9, 0, 0]], 2 * np.eye(3))
    assert ours(system, 1.0) == []
    assert ours(system, 1.9) == [(0, 1, 0, 0, 0), (1, 0, 0, 0, 0)]


def test_a_slab_has_images_in_its_plane_only():
    system = make([[0.5, 0.5, 0.1], [0.5, 0.5, 2.9]], 3 * np.eye(3), (True, True, False))
    assert ours(system, 2.0) == []
    in_plane = {row[2:] for row in ours(system, 3.5) if row[0] == row[1] == 0}
    assert in_plane == {(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)}


@pytest.mark.parametrize("c", [[0, 0, 0], [1.0, 2.0, 0.0], [3, 2, 0.5], [0, 0, -7]])
def test_the_vector_of_a_direction_that_is_not_periodic_does_not_matter(c):
    positions = np.random.default_rng(1).normal(size=(6, 3)) * 4
    cell = np.array([[4, 0, 0], [1.9, 3, 0], c], dtype=float)
    reference = np.array([[4, 0, 0], [1.9, 3, 0], [0, 0, 1]], dtype=float)
    pbc = (True, True, False)
    assert ours(make(positions, cell, pbc), 4.0) == oracle(make(positions, reference, pbc), 4.0)


CELLS = {
    "left-handed": [[0, 4, 0], [4, 0, 0], [0, 0, 5]],
    "sheared": [[4, 0, 0], [7.9, 3, 0], [-5, 6, 5]],
    "flat": [[9, 0, 0], [0, 9, 0], [0.3, 0.2, 0.9]],
    "small": [[1.1, 0, 0.2], [0, 1.3, 0], [0.4, 0, 0.9]],
}


@pytest.mark.parametrize("find", [neighbor_list, matscipy_list], ids=["ase", "matscipy"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_periodic_cells_agree_with_other_lists(cell, find):
    positions = np.random.default_rng(2).normal(size=(7, 3)) * 3
    system = make(positions, cell, (True, True, True))
    found = ours(system, 3.7)
    assert len(found) > 10
    assert found == oracle(system, 3.7, find)


@st.composite
def structures(draw) -> tuple[System, float]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.tuples(*[st.floats(0.8, 12.0)] * 3))
    cell = (np.eye(3) + draw(st.floats(0, 1.5)) * rng.uniform(-1, 1, (3, 3))) * np.array(lengths)[:, None]
    if np.linalg.det(cell) == 0 or (np.linalg.norm(np.linalg.inv(cell), axis=0) > 2).any():
        cell = np.diag(lengths)
    positions = rng.uniform(-1, 1, (draw(st.integers(1, 12)), 3)) * draw(st.floats(0.5, 30.0))
    pbc = draw(st.tuples(*[st.booleans()] * 3))
    return make(positions, cell, pbc), draw(st.floats(0.3, 5.0))


@settings(max_examples=150, deadline=None)
@given(structures())
def test_any_structure_agrees_with_ase_and_both_directions_are_there(drawn):
    system, cutoff = drawn
    found = ours(system, cutoff)
    assert found == oracle(system, cutoff)
    assert set(found) == {(j, i, -a, -b, -c) for i, j, a, b, c in found}
    assert len(set(found)) == len(found)


@settings(max_examples=50, deadline=None)
@given(structures())
def test_half_the_pairs_are_each_pair_once(drawn):
    system, cutoff = drawn
    half = half_pairs(Batch.of([system]), cutoff)
    once = rows(half.i, half.j, half.shift)
    back = rows(half.j, half.i, -half.shift)
    assert not set(once) & set(back)
    assert sorted(once + back) == ours(system, cutoff)


def test_each_structure_may_have_a_cutoff_of_its_own():
    crystal = make([[0.0, 0, 0]], np.eye(3), (True, True, True))
    half = half_pairs(Batch.of([crystal] * 3), np.array([1.1, 2.1, 0.5]))
    assert np.bincount(half.i, minlength=3).tolist() == [3, 16, 0]
    with pytest.raises(ValueError, match="cutoff"):
        half_pairs(Batch.of([crystal] * 2), np.array([1.0, -1.0]))


def test_a_batch_is_its_structures_one_after_the_other():
    crystal = make([[0, 0, 0], [0.5, 0.5, 0.5]], 1.5 * np.eye(3), (True, True, True))
    molecule = make([[0, 0, 0], [0, 0, 1.0], [0, 0, 9.0]])
    batch = Batch.of([molecule, crystal, molecule])
    pairs = neighbor_pairs(batch, 1.6)
    expected = [
        (i + first, j + first, *shift)
        for system, first in ((molecule, 0), (crystal, 3), (molecule, 5))
        for i, j, *shift in ours(system, 1.6)
    ]
    assert list(zip(pairs.i.tolist(), pairs.j.tolist(), *pairs.shift.T.tolist())) == expected
    assert (np.linalg.norm(pairs.vectors(batch), axis=1) < 1.6).all()


def test_small_molecules_are_searched_together_and_large_ones_give_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    batch = Batch.of([make(rng.normal(scale=2, size=(n, 3))) for n in (5, 1, 60, 5, 0, 17, 48, 49, 5)])
    cutoffs = rng.uniform(1, 4, len(batch))
    asked = []
    finder = neighbors._table
    monkeypatch.setattr(neighbors, "_table", lambda x, *more: asked.append(len(x)) or finder(x, *more))
    together = half_pairs(batch, cutoffs)
    assert asked == [60, 49]
    monkeypatch.setattr(neighbors, "FEW", 0)
    one_by_one = half_pairs(batch, cutoffs)
    assert len(together) == len(one_by_one) > 100
    for pairs in (together, one_by_one):
        assert not pairs.shift.any()
    assert {frozenset(pair) for pair in zip(together.i.tolist(), together.j.tolist())} == {
        frozenset(pair) for pair in zip(one_by_one.i.tolist(), one_by_one.j.tolist())
    }


@pytest.mark.parametrize("positions", [np.zeros((0, 3)), [[1.0, 2, 3]], [[0.0, 0, 0], [0, 0, 6.5]]])
def test_nothing_near_gives_no_pairs(positions):
    pairs = neighbor_pairs(make(positions), 6.0)
    assert len(pairs) == 0
    assert pairs.shift.shape == (0, 3)


def test_two_atoms_at_the_same_place_are_a_pair():
    assert ours(make([[1.0, 1, 1], [1, 1, 1]]), 1.0) == [(0, 1, 0, 0, 0), (1, 0, 0, 0, 0)]


@pytest.mark.parametrize("pbc", [(False,) * 3, (True, True, False), (True, True, True)])
@pytest.mark.parametrize("away", [1e4, 1e6])
def test_atoms_that_have_flown_apart_in_a_plane_are_no_problem(pbc, away):
    # A grid of search cells over this much empty, flat space makes vesin divide by zero.
    system = make([[0, 0, 0], [away, 0.1, 0.2], [away, away, 0.5], [0.5, 0.1, 0.2]], 5 * np.eye(3), pbc)
    bound = {(0, 3, 0, 0, 0), (3, 0, 0, 0, 0)}
    near = set(ours(system, 1.0))
    assert bound <= near
    if not any(pbc):
        assert near == bound


def test_a_long_straight_chain_along_a_diagonal_has_its_two_neighbors_each():
    place = 1.3 * np.arange(1000) / np.sqrt(2)
    pairs = neighbor_pairs(make(np.stack([place, place, 0 * place], axis=1)), 1.5)
    assert len(pairs) == 2 * 999


def test_a_periodic_structure_too_thin_to_search_is_an_error_not_a_crash():
    system = make([[0, 0, 0], [0, 9e7, 0], [0, 0, 9e7]], np.eye(3), (True, False, False))
    with pytest.raises(ValueError, match="flown apart"):
        neighbor_pairs(system, 5.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.nan, np.inf])
def test_a_senseless_cutoff_is_refused(cutoff):
    with pytest.raises(ValueError, match="cutoff"):
        neighbor_pairs(make([[0.0, 0, 0]]), cutoff)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2e8])
def test_an_atom_that_is_nowhere_is_named(bad):
    good = make([[0.0, 0, 0], [1, 0, 0]])
    batch = Batch(
        numbers=[1, 1],
        positions=[[0, 0, 0], [bad, 0, 0]],
        index=[0, 0],
        cell=[good.cell],
        pbc=[good.pbc],
        charge=[0],
        multiplicity=[1],
    )
    with pytest.raises(ValueError, match="structure 0: atom 1 is at"):
        neighbor_pairs(batch, 5.0)


@pytest.mark.parametrize("b", [[2, 0.2, 0.6], [3, 0.3, 0.9]])
def test_dependent_periodic_vectors_are_an_error(b):
    system = make([[0.0, 0, 0]], [[1, 0.1, 0.3], b, [0, 0, 1]], (True, True, False))
    with pytest.raises(ValueError, match="independent"):
        neighbor_pairs(system, 5.0)
