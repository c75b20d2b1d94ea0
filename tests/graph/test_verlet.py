"""Neighbors that are kept: never an edge lost, never an atom that moved too far unnoticed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.graph.settings import GraphSettings
from sfumato.graph.verlet import Neighbors


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    skin=st.floats(0.05, 1.5),
    rank=st.sampled_from(["compact", "sigmoid", "hard"]),
    periodic=st.booleans(),
)
def test_moves_within_half_the_skin_never_lose_an_edge(seed, skin, rank, periodic):
    rng = np.random.default_rng(seed)
    chosen = GraphSettings(k=4, cutoff=3.0, rank=rank)
    n, side = 12, 4.0
    start = torch.from_numpy(rng.uniform(0, side, (n, 3)))
    cell = (torch.eye(3) * side * periodic).double()[None]
    rest = (torch.full((1, 3), periodic), torch.ones(n, dtype=torch.long), torch.zeros(n, dtype=torch.long))
    kept, new = Neighbors(chosen, skin), Neighbors(chosen, 0.0)
    kept.topology(start, cell, *rest)
    direction = rng.normal(size=(n, 3))
    moved = start + torch.from_numpy(direction / np.linalg.norm(direction, axis=1)[:, None]) * skin * 0.4999
    found, expected = kept.topology(moved, cell, *rest), new.topology(moved, cell, *rest)
    assert kept.searches == 1
    assert edges(found) == edges(expected)


def edges(topology):
    rows = torch.cat([topology.source[:, None], topology.target[:, None], topology.shift], dim=1)
    return sorted(map(tuple, rows.tolist()))


def test_positions_that_are_no_numbers_do_not_pass_as_unmoved():
    neighbors = Neighbors(GraphSettings(k=4, cutoff=3.0), 1.0)
    positions = torch.tensor([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    rest = (
        torch.zeros(1, 3, 3).double(),
        torch.zeros(1, 3, dtype=torch.bool),
        torch.tensor([8, 1, 1]),
        torch.zeros(3, dtype=torch.long),
    )
    neighbors.topology(positions, *rest)
    with pytest.raises(ValueError, match="must be finite"):
        neighbors.topology(positions * np.nan, *rest)


def atoms(n=12, seed=0, side=4.0):
    """A periodic cell of atoms at random, as `Neighbors.topology` takes it."""
    rng = np.random.default_rng(seed)
    cell = (torch.eye(3) * side).double()[None]
    rest = (torch.full((1, 3), True), torch.ones(n, dtype=torch.long), torch.zeros(n, dtype=torch.long))
    return torch.from_numpy(rng.uniform(0, side, (n, 3))), cell, rest


@pytest.mark.parametrize("change", ["jump", "cell", "image"])
def test_whatever_changes_the_edges_are_those_of_a_search(change):
    kept, new = Neighbors(GraphSettings(k=4, cutoff=3.0), 0.8), Neighbors(GraphSettings(k=4, cutoff=3.0), 0.0)
    positions, cell, rest = atoms()
    kept.topology(positions, cell, *rest)
    if change == "jump":
        positions = torch.from_numpy(np.random.default_rng(5).uniform(0, 4.0, (12, 3)))
    elif change == "cell":
        positions, cell = positions * 1.3, cell * 1.3
    else:
        positions = positions + cell[0, 0] * (torch.arange(12) % 2)[:, None]
    assert edges(kept.topology(positions, cell, *rest)) == edges(new.topology(positions, cell, *rest))
    assert kept.searches == 2
