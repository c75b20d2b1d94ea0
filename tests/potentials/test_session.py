"""Sessions of networks: whatever moves, the numbers are those of a fresh evaluation."""

import numpy as np
import pytest
import torch

from sfumato.graph import GraphSettings
from sfumato.potentials.memory import MOST
from sfumato.potentials.network import NetworkPotential
from sfumato.systems import Batch, System
from tests.tiny_models import crystal, model, molecule

GRAPH = GraphSettings(k=4, cutoff=3.0)
POTENTIAL = NetworkPotential(model(graph=GRAPH, layers=1), "tiny", dtype="float64")
MOLECULES = Batch.of([molecule(n, seed) for seed, n in enumerate((5, 7, 3))])
CRYSTALS = Batch.of([crystal(seed) for seed in range(3)])


def agree(found, batch):
    expected = POTENTIAL.predict(batch)
    assert found.failures.keys() == expected.failures.keys()
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-10)
    assert (found.stress is None) == (expected.stress is None)
    if found.stress is not None:
        np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch", [MOLECULES, CRYSTALS], ids=["molecules", "crystals"])
def test_small_moves_jumps_and_other_images(batch):
    session, rng = POTENTIAL.session(batch, 0.6), np.random.default_rng(0)
    positions, searches = batch.positions, []
    for size in (0.02, 0.02, 1.0, 0.02):
        positions = positions + size * rng.uniform(-1, 1, positions.shape)
        agree(session.predict(positions), session.batch)
        searches.append(session.neighbors.searches)
    assert searches == [1, 1, 2, 2]
    positions = positions + batch.cell[batch.index, 0]
    agree(session.predict(positions), session.batch)
    assert session.neighbors.searches == 2 + batch.pbc.any()


def test_cells_that_change_with_their_atoms_or_alone():
    session = POTENTIAL.session(CRYSTALS, 0.6)
    for stretch in (1.0, 1.001, 1.3):
        agree(session.predict(stretch * CRYSTALS.positions, stretch * CRYSTALS.cell), session.batch)
    agree(session.predict(session.batch.positions, CRYSTALS.cell), session.batch)
    assert session.neighbors.searches == 4


@pytest.mark.parametrize("rows", [[1], [2, 0], [0, 0, 1]])
def test_some_of_the_structures(rows):
    session = POTENTIAL.session(MOLECULES, 0.6)
    session.predict(MOLECULES.positions + 0.05)
    some = session.take(rows)
    assert some.neighbors.skin == 0.6
    agree(some.predict(some.batch.positions), session.batch.take(rows))
    agree(some.predict(some.batch.positions + 0.1), some.batch)
    agree(session.predict(MOLECULES.positions), MOLECULES)


def test_a_structure_that_explodes_leaves_the_others_and_may_come_back():
    session, positions = POTENTIAL.session(MOLECULES, 0.6), MOLECULES.positions.copy()
    session.predict(positions)
    positions[6] = np.nan
    found = session.predict(positions)
    assert set(found.failures) == {1}
    agree(found, session.batch)
    positions[6] = positions[5]
    found = session.predict(positions)
    assert "tiny: atoms 0 and 1 of structure 1 are at the same place" in found.failures[1].reason
    agree(found, session.batch)
    agree(session.predict(MOLECULES.positions), MOLECULES)


def test_a_batch_that_does_not_fit_is_evaluated_in_parts(monkeypatch):
    from sfumato.potentials import network

    seen, evaluate = [], network.evaluate

    def counting(net, topology, *args, **kwargs):
        seen.append(topology.n_systems)
        return evaluate(net, topology, *args, **kwargs)

    monkeypatch.setattr(network, "evaluate", counting)
    monkeypatch.setattr(network, "SMALL", 0)
    monkeypatch.setattr(network, "free_memory", lambda device: 10)
    found = POTENTIAL.session(MOLECULES, 0.6).predict(MOLECULES.positions)
    assert seen == [1, 1, 1]
    monkeypatch.setattr(network, "free_memory", lambda device: MOST["cuda"])
    agree(found, MOLECULES)


def test_an_unknown_element_fails_in_a_session_too():
    one = NetworkPotential(model(graph=GRAPH, layers=1, elements=(1, 6, 7, 8)), "tiny", dtype="float64")
    batch = Batch.of([molecule(4), System([79], [[0.0, 0, 0]])])
    found = one.session(batch, 0.3).predict(batch.positions)
    assert "tiny has no parameters for Au" in found.failures[1].reason
    assert np.isfinite(found.energy[0])


@torch.inference_mode()
def test_inference_mode_of_torch_changes_nothing():
    session = POTENTIAL.session(MOLECULES, 0.6)
    for shift in (0.0, 0.1):
        agree(session.predict(MOLECULES.positions + shift), session.batch)
