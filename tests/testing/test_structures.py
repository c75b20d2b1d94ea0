"""The test structures are generic, and the paths of the smoothness checks go where they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.models.pair import PAIRS, bond_length
from sfumato.reference.swaps import Swap, chosen_swaps, swap_path
from sfumato.testing import structures
from sfumato.testing.bench import Bench, Settings, along
from sfumato.testing.paths import sliding

PALETTES = [(1, 6, 7, 8), (1, 8), (6,), (29,), (11, 17), (1,)]


def rng(seed=0):
    return np.random.default_rng(seed)


def distances(system):
    r = np.linalg.norm(system.positions[:, None] - system.positions[None], axis=-1)
    return r[np.triu_indices(len(system), 1)]


@pytest.mark.parametrize("palette", PALETTES)
def test_structures_use_their_elements_and_no_two_atoms_touch(palette):
    makers = (structures.molecule(palette), structures.cluster(palette, rng()), structures.fragment(palette))
    for made in makers:
        assert set(made.numbers.tolist()) <= set(palette)
        assert made.multiplicity == 1 + made.numbers.sum() % 2
        i, j = np.triu_indices(len(made), 1)
        assert (distances(made) > 0.8 * bond_length(made.numbers[i], made.numbers[j])).all()
    crystal = structures.crystal(palette, rng())
    assert len(crystal) == 2
    assert crystal.pbc.all()


@pytest.mark.parametrize("palette", PALETTES)
def test_a_cluster_has_enough_neighbors_for_any_usual_cap_at_distances_all_unlike(palette):
    cluster = structures.cluster(palette, rng())
    assert 35 <= len(cluster) <= 42
    center = np.sort(np.linalg.norm(cluster.positions - cluster.positions[0], axis=1))
    assert np.diff(center).min() > 1e-5


def test_the_bonds_of_a_crystal_are_unlike():
    images = structures.repeated(structures.crystal((6, 8), rng()), (3, 3, 3))
    bonds = np.sort(np.linalg.norm(images.positions - images.positions[26], axis=1))[1:5]
    assert np.diff(bonds).min() > 0.04


def test_a_slab_is_periodic_in_its_plane_only():
    slab = structures.slab((6, 8), rng())
    assert slab.pbc.tolist() == [True, True, False]
    np.testing.assert_allclose(slab.cell[:2] @ slab.cell[2], 0, atol=1e-12)
    assert np.linalg.norm(slab.cell[2]) == pytest.approx(15)


def test_a_supercell_has_every_image_once():
    crystal = structures.crystal((6, 8), rng())
    big = structures.repeated(crystal, (3, 2, 1))
    assert len(big) == 12
    assert np.linalg.det(big.cell) == pytest.approx(6 * np.linalg.det(crystal.cell))
    shifts = (big.positions.reshape(6, 2, 3) - crystal.positions) @ np.linalg.inv(crystal.cell)
    np.testing.assert_allclose(shifts, np.round(shifts), atol=1e-9)
    assert len(np.unique(np.round(shifts[:, 0]), axis=0)) == 6


@given(st.integers(0, 10))
@settings(max_examples=10, deadline=None)
def test_rotations_are_proper_and_lattice_shifts_are_lattice_vectors(seed):
    turn = structures.rotation(rng(seed))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    slab = structures.slab((6, 8), rng())
    steps = structures.lattice_shifts(slab, rng(seed)) @ np.linalg.inv(slab.cell)
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert np.abs(steps).max() <= 3 + 1e-9
    assert not steps[:, 2].round(9).any()


def test_spins_of_what_is_far_apart_add_up():
    atom = structures.system([1], np.zeros((1, 3)))
    assert atom.multiplicity == 2
    assert structures.apart(atom, atom, 100.0).multiplicity == 3


# --- swaps


def test_on_a_swap_path_the_mover_passes_the_other_at_zero():
    base = structures.system([6] * 4, np.array([[0, 0, 0], [1.5, 0, 0], [0, 1.7, 0], [0, 0, 2.4]]))
    path = swap_path(base, [Swap(center=0, mover=1, other=2, rank=1)])
    for s in (-0.1, 0.0, 0.1):
        r = np.linalg.norm(path.at(s).positions, axis=1)
        assert r[1] - r[2] == pytest.approx(s, abs=1e-12)
        assert r[[2, 3]].tolist() == [1.7, 2.4]


@pytest.mark.parametrize("palette", PALETTES)
def test_the_chosen_swaps_cover_nearly_every_rank_and_change_the_order(palette):
    cluster = structures.cluster(palette, rng())
    swaps = chosen_swaps(cluster)
    assert len({swap.rank for swap in swaps}) > 0.85 * len(cluster)
    for swap in swaps[:10]:
        orders = []
        for s in (-1e-4, 1e-4):
            positions = swap_path(cluster, [swap]).at(s).positions
            r = np.linalg.norm(positions - positions[swap.center], axis=1)
            orders.append(np.argsort(r)[[swap.rank, swap.rank + 1]].tolist())
        assert orders == [[swap.mover, swap.other], [swap.other, swap.mover]]


@pytest.mark.parametrize("palette", PALETTES)
def test_a_sliding_part_has_room_and_changes_ranks(palette):
    cluster = structures.cluster(palette, rng())
    path, length = sliding(cluster, structures.fragments(cluster, palette), rng())
    assert length >= 0.5
    moves = np.abs(path.direction).any(axis=1)
    assert 0 < moves.sum() <= 2

    def order(s):
        positions = path.at(s).positions[~moves]
        mover = path.at(s).positions[moves][0]
        return np.argsort(np.linalg.norm(positions - mover, axis=1))

    assert (order(0.0) != order(length)).sum() > 5


# --- the bench


def test_random_numbers_depend_on_their_purpose_and_the_seed():
    bench, other = Bench(PAIRS["lj"], Settings()), Bench(PAIRS["lj"], Settings(seed=1))
    assert bench.rng("a").random() == bench.rng("a").random()
    assert len({bench.rng("a").random(), bench.rng("b").random(), other.rng("a").random()}) == 3


def test_a_structure_is_evaluated_once():
    bench = Bench(PAIRS["lj"], Settings())
    molecule = bench.structure("molecule")
    before = bench.evaluations
    assert bench.point(molecule) is bench.point(structures.moved(molecule, molecule.positions))
    assert bench.evaluations == before
    bench.point(along(molecule, bench.direction(molecule, 0), 0.1))
    assert bench.evaluations == before + 1


def test_directions_are_unit_vectors_of_their_own():
    bench = Bench(PAIRS["lj"], Settings())
    u, v = (bench.direction(bench.reference, k) for k in (0, 1))
    assert np.linalg.norm(u) == pytest.approx(1)
    assert abs((u * v).sum()) < 0.9
    np.testing.assert_array_equal(u, bench.direction(bench.reference, 0))
