"""Direct forces, stress and denoising, and the repulsion of nuclei."""

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers

from sfumato.graph.settings import GraphSettings
from sfumato.models import pair
from sfumato.models.network import evaluate, prepare
from sfumato.models.readout import ZBL, ZBL_REACH
from sfumato.systems import Batch, System
from tests.tiny_models import DIRECTIONAL, crystal, energy, model, molecule, moved, said

both = pytest.mark.parametrize("directional", DIRECTIONAL)
EVERYTHING = {"direct_forces": True, "direct_stress": True, "denoising": True}


def asked(of, *systems, known=None, stress=True):
    ready = prepare(of, Batch.of(systems))
    known = None if known is None else torch.as_tensor(known)
    return evaluate(of, ready.topology, ready.positions, ready.cell, stress=stress, known_forces=known)


@both
def test_direct_forces_have_no_net_force_and_are_no_gradient(directional):
    of = model(directional=directional, direct_forces=True)
    found = asked(of, molecule(), molecule(5, seed=2), stress=False)
    for rows in (slice(0, 9), slice(9, 14)):
        assert found.forces[rows].sum(0).abs().max() < 1e-13
    conservative = model(directional=directional)
    conservative.load_state_dict({k: v for k, v in of.state_dict().items() if "forces" not in k})
    assert asked(
        conservative, molecule(), molecule(5, seed=2), stress=False
    ).energy.tolist() == pytest.approx(found.energy.tolist())
    gradient = torch.tensor(said(conservative, molecule())[1])
    assert (found.forces[:9] - gradient).abs().max() > 0.01


def test_what_heads_of_invariant_tokens_say_turns_with_the_structure():
    of = model(directional="angular_bias", **EVERYTHING)
    system, known = crystal(), np.random.default_rng(0).normal(size=(4, 3))
    with torch.no_grad():
        for head in of.heads["encoding"].children():
            head.down.weight.normal_(generator=torch.Generator().manual_seed(0))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    plain = asked(of, system, known=known)
    turned = asked(of, moved(system, system.positions @ turn, system.cell @ turn), known=known @ turn)
    q = torch.tensor(turn)
    assert plain.energy == pytest.approx(turned.energy, abs=1e-10)
    assert (turned.forces - plain.forces @ q).abs().max() < 1e-10
    assert (turned.noise - plain.noise @ q).abs().max() < 1e-10
    assert (turned.stress[0] - q.T @ plain.stress[0] @ q).abs().max() < 1e-10
    assert min(part.abs().max() for part in (plain.forces, plain.noise, plain.stress)) > 1e-3


@both
def test_direct_stress_is_symmetric_and_intensive(directional):
    of, system = model(directional=directional, **EVERYTHING), crystal()
    double = System(
        np.tile(system.numbers, 2),
        np.concatenate([system.positions, system.positions + system.cell[0]]),
        system.cell * [[2], [1], [1]],
        system.pbc,
    )
    one, two = (asked(of, some).stress[0] for some in (system, double))
    assert one.abs().max() > 1e-3
    assert (one - one.T).abs().max() == 0
    assert (one - two).abs().max() < 1e-12


@both
def test_direct_stress_does_not_feel_the_company(directional):
    of, system = model(directional=directional, **EVERYTHING), crystal()
    alone, among = asked(of, system).stress, asked(of, system, system, system).stress
    assert (among.shape, alone.shape) == ((3, 3, 3), (1, 3, 3))
    assert alone.abs().max() > 1e-3
    assert (among - alone).abs().max() < 1e-12


@both
def test_direct_forces_are_smooth(directional):
    """Fourth differences of the forces as an atom leaves the reach of others: h and h/2 agree.

    A jump of the force would make them differ 16 times, of its slope 8 times, of its curvature 4 times.
    """
    of, base = model(directional=directional, direct_forces=True), molecule(8, spread=1.6)

    def at(x):
        return System(np.append(base.numbers, 8), np.vstack([base.positions, [x, 0.9, 0.7]]))

    found = []
    for h in (0.02, 0.01):
        forces = asked(of, *(at(x) for x in np.arange(2.4, 5.4, h)), stress=False).forces
        values = forces.view(-1, 9, 3).numpy()
        assert (np.ptp(values, axis=0).max(axis=1) > 1e-3).all()  # every atom feels the one that moves
        found.append(np.abs(np.diff(values, 4, axis=0)).max() / h**4)
    assert found[1] == pytest.approx(found[0], rel=0.3)


@both
def test_a_model_that_is_not_denoising_does_not_notice_it_could(directional):
    with_head, known = model(directional=directional, denoising=True), np.ones((9, 3))
    silent, told = (asked(with_head, molecule(), known=k, stress=False) for k in (None, known))
    assert silent.energy == told.energy
    with torch.no_grad():
        with_head.heads["encoding"].nodes.down.weight.fill_(0.1)
    assert asked(with_head, molecule(), known=known, stress=False).energy != silent.energy
    assert silent.noise.shape == (9, 3)


def test_known_forces_without_a_denoising_head_are_an_error():
    with pytest.raises(ValueError, match="no denoising head"):
        asked(model(), molecule(), known=np.ones((9, 3)), stress=False)


def zbl_pair(r, zi, zj):
    """φ times the switch from the numpy potential, in eV."""
    phi, _ = pair.ZBL()(np.array([r]), np.array([zi]), np.array([zj]))
    reach = 0.8 * float(pair.bond_length(np.array([zi]), np.array([zj]))[0])
    return float((phi * pair.switch(np.array([r]), reach / 2, reach)[0])[0])


@pytest.mark.parametrize(("zi", "zj"), [(6, 6), (1, 8), (14, 6)])
def test_the_repulsion_of_nuclei_is_that_of_the_pair_potential(zi, zj):
    """Times the envelope, 0.98 at these distances."""
    with_zbl, without = (model(zbl=flag, elements=(1, 6, 8, 14)) for flag in (True, False))
    without.load_state_dict(with_zbl.state_dict())
    for r in (0.1, 0.4, 0.7, 1.1, 2.3, 3.0):
        system = System([zi, zj], [[0, 0, 0], [0, 0, r]])
        ready = prepare(with_zbl, Batch.of([system]))
        e = np.exp(float(_bias(with_zbl, ready)[0]))
        found = energy(with_zbl, system) - energy(without, system)
        assert found == pytest.approx(e * zbl_pair(r, zi, zj), rel=1e-9, abs=1e-12)
        assert (found == 0) == (r > 0.8 * float(pair.bond_length(np.array(zi), np.array(zj))))


def _bias(of, ready):
    from sfumato.graph.layout import differentiable_stage

    return differentiable_stage(ready.topology, ready.positions, ready.cell, of.config.graph).bias


def test_forces_with_repulsion_are_the_gradient_through_both_ends_of_its_switch():
    of = model(zbl=True, elements=(6, 8))
    reach = 0.8 * float(pair.bond_length(np.array(6), np.array(8)))
    h = 1e-5
    for r in (0.3, reach / 2, 0.6 * reach, reach - 0.02, reach):
        at = [System([6, 8], [[0, 0, 0], [0, 0, r + s]]) for s in (-h, 0, h)]
        (low, _, high), forces, _ = said(of, *at)
        assert (high - low) / (2 * h) == pytest.approx(-forces[3, 2], rel=1e-6, abs=1e-6)


def test_the_switch_of_the_repulsion_has_no_corner():
    """Third differences across both ends; a jump of the third derivative would show as 1e3 or so."""
    zbl = ZBL((6,), 6.0)
    topology = prepare(model(), Batch.of([System([6, 6], [[0, 0, 0], [0, 0, 1.0]])])).topology
    reach = ZBL_REACH * float(2 * zbl.radii[6])
    for end in (reach / 2, reach):
        for h in (2e-3, 1e-3):
            r = end + h * torch.arange(-8, 9, dtype=torch.float64)
            values = torch.stack(
                [zbl(topology, x.repeat(2), torch.ones(2, dtype=torch.float64)).sum() for x in r]
            )
            bare = torch.as_tensor(pair.ZBL()(r.numpy(), *np.full((2, len(r)), 6))[0])
            rest = values - bare if end < reach else values
            assert np.abs(np.diff(rest.numpy(), 3)).max() / h**3 < 1e-2


def test_repulsion_needs_a_graph_that_reaches_as_far():
    with pytest.raises(ValueError, match=r"repulsion of two Cs reaches to 3\.90 Å, the graph to 3 Å"):
        model(zbl=True, elements=(1, 55), graph=GraphSettings(k=5, cutoff=3.0))
    model(zbl=True, elements=(1, 55))


@pytest.mark.parametrize(("symbols", "length"), [("NN", 1.098), ("CC", 1.203), ("CO", 1.128), ("HH", 0.741)])
def test_repulsion_does_not_move_the_shortest_bonds(symbols, length):
    """Lengths of N₂, C₂H₂, CO and H₂ by experiment; with 100 eV/Å² they move by less than 10⁻⁴ Å."""
    zi, zj = (atomic_numbers[symbol] for symbol in symbols)
    slope = (zbl_pair(length + 1e-5, zi, zj) - zbl_pair(length - 1e-5, zi, zj)) / 2e-5
    assert abs(slope) < 1e-2


def test_a_conservative_model_takes_the_weights_of_a_direct_one_without_its_heads():
    direct, last = model(seed=3, **EVERYTHING), model(seed=4)
    state = last.state_dict()
    last.load_state_dict(state | {k: v for k, v in direct.state_dict().items() if k in state})
    assert energy(last, molecule()) == pytest.approx(asked(direct, molecule()).energy.item(), abs=1e-12)
