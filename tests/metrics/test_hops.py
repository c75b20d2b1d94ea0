"""Hops between lattice sites: a chain and a crystal by hand, and the flags of the published sets."""

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.metrics.hops import Hop, Sites, find_hops, in_hops, laid_over, migrating, refined

CELL = np.diag([8.0, 4.0, 4.0])
CHAIN = Sites([[0, 0, 0], [2, 0, 0], [4, 0, 0], [6, 0, 0]], CELL)


def test_the_projected_coordinate_by_hand():
    near = CHAIN.nearest([[0.5, 0, 0], [2.9, 0, 0], [7.4, 0, 0], [-0.2, 0, 0], [4.0, 0.3, 0]])
    assert near.site.tolist() == [0, 1, 0, 0, 2]  # 7.4 is near the image of the first site at 8
    assert near.t == pytest.approx([0.25, 0.45, 0.3, 0.1, 0.075])  # the last one leans to the next chain
    assert near.target[:4].tolist() == [1, 2, 3, 3]
    assert near.distance[:4] == pytest.approx([0.5, 0.9, 0.6, 0.2])
    assert migrating(near).tolist() == [False, True, False, False, False]


def test_sites_that_make_no_sense():
    with pytest.raises(ValueError, match="at least two are needed, got 1"):
        Sites([[0, 0, 0]], CELL)
    with pytest.raises(ValueError, match="the cell has no volume"):
        Sites([[0, 0, 0], [1, 0, 0]], np.zeros((3, 3)))


def test_vacant_sites_by_hand():
    assert CHAIN.vacant([[0, 0, 0], [2.5, 0, 0], [4.9, 0, 0], [-1.9, 0, 0]]).tolist() == [2]


def diamond(shift, rng, spread=0.1):
    atoms = bulk("Si", "diamond", 5.43, cubic=True).repeat(2)
    sites = Sites(atoms.positions, atoms.cell.array)
    return sites, atoms.positions + shift + rng.normal(0, spread, size=atoms.positions.shape)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_lattice_is_laid_over_a_structure_wherever_it_is(seed):
    rng = np.random.default_rng(seed)
    sites, x = diamond(rng.uniform(-5, 5, size=3), rng)
    near = laid_over(sites, np.delete(x, 3, axis=0)).nearest(x)
    assert sorted(near.site.tolist()) == list(range(64))
    assert np.abs(near.off.mean(axis=0)).max() < 0.05
    assert not migrating(near).any()


def test_a_drift_is_followed():
    rng = np.random.default_rng(0)
    sites, x = diamond(np.array([0.3, -0.2, 0.1]), rng)
    assert np.abs(refined(sites, x).nearest(x).off.mean(axis=0)).max() < 0.03


def test_hops_by_hand():
    """The first atom hops, the second leaves its site for a frame, the third jumps between two frames."""
    sites = np.array([[0, 5, 8], [0, 5, 8], [0, 5, 8], [0, 6, 9], [1, 5, 9], [1, 5, 9], [1, 5, 9]])
    resting = np.ones((7, 3), bool)
    resting[2:5, 0] = False
    found = find_hops(sites, resting)
    assert found == [Hop(2, 8, 9, 2, 3), Hop(0, 0, 1, 1, 5)]
    off_site = ~resting
    flags = in_hops(found, off_site)
    assert np.argwhere(flags).tolist() == [[2, 0], [3, 0], [4, 0]]
    assert [hop.atom for hop in find_hops(sites, resting, persist=1)] == [1, 2, 1, 0]
    assert find_hops(sites[:2], resting[:2]) == []
    with pytest.raises(ValueError, match=r"shape \(F, N\)"):
        find_hops(sites, resting[:3])
    with pytest.raises(ValueError, match="at least one frame"):
        find_hops(sites, resting, persist=0)
