"""The model as a whole: symmetries, forces, sizes, bad input. Smoothness has a file of its own."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch.autograd import gradgradcheck

from sfumato.graph.settings import GraphSettings
from sfumato.models.families import preset
from sfumato.models.mindscaip.config import PRESETS, MinDScAIPConfig
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import evaluate, predict, prepare
from sfumato.systems import Batch, System
from tests.tiny_models import DIRECTIONAL, GRAPH, config, crystal, energy, model, molecule, moved, said

both = pytest.mark.parametrize("directional", DIRECTIONAL)


def parameters(made):
    return sum(parameter.numel() for parameter in made.parameters())


def meta(settings):
    """A model whose weights take no memory."""
    with torch.device("meta"):
        return MinDScAIP(settings)


@pytest.mark.parametrize(("name", "millions"), [("small", 3.8), ("medium", 15.0), ("large", 60.0)])
@pytest.mark.parametrize(
    "arrangement",
    [
        {},
        {"attention_factor": 2, "gated": True, "node_ffn": False, "layer_readout": False},
        {"attention_factor": 2, "node_ffn": False},
    ],
)
def test_the_sizes_of_the_paper_in_each_arrangement(name, millions, arrangement):
    changed = preset(name, **arrangement)
    # Weights of L layers, from the widths alone: 28 or 30 C² each, and what is outside.
    assert parameters(meta(changed)) / 1e6 == pytest.approx(millions, rel=0.05)


def test_nano_is_small():
    assert parameters(meta(PRESETS["nano"])) == 220_045


TABLE_7 = {
    "Direct-Force": {"width": 512, "heads": 32, "rank": "hard", "direct_forces": True},
    "Grad. kNN": {"width": 512, "heads": 32, "rank": "hard"},
    "Grad. Diff-kNN": {"width": 512, "heads": 32},
    "Small": {"width": 128, "heads": 8},
    "Medium": {"width": 256, "heads": 16},
    "Smearing": {"width": 512, "heads": 32, "smearing": 5.0},
    "Temperature": {"width": 512, "heads": 32, "temperature": 10.0},
    "Smear. & Temp.": {"width": 512, "heads": 32, "smearing": 5.0, "temperature": 10.0},
    "MPTrj strong": {"width": 256, "heads": 16, "smearing": 10.0, "temperature": 10.0},
    "MPTrj pretraining": {"width": 512, "heads": 32, "smearing": 10.0, "temperature": 10.0}
    | {"direct_forces": True, "direct_stress": True, "denoising": True},
}


@pytest.mark.parametrize("column", TABLE_7)
def test_every_column_of_table_7_is_a_config(column):
    changes = dict(TABLE_7[column])
    graph = GraphSettings(k=30, d0=0.2, beta=10.0, cutoff=6.0, rank=changes.pop("rank", "sigmoid"))
    made = preset("large", graph=graph, **changes)
    assert (made.layers, made.hidden_factor, made.radial, made.l_max) == (8, 2, 128, 5)
    assert made.width // made.heads == 16
    assert MinDScAIPConfig.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: preset("smal"), "no preset 'smal'; did you mean 'small'"),
        (lambda: preset("small", widht=3), "unknown setting 'widht'; did you mean 'width'"),
        (lambda: MinDScAIPConfig(widht=3), "unknown setting 'widht'; did you mean 'width'"),
        (lambda: config(graph={"k": "many"}), "k: expected a whole number, got 'many'"),
        (lambda: config(graph={"cutof": 3.0}), "unknown key 'cutof'; did you mean 'cutoff'"),
        (lambda: config(graph={"rank": "soft"}), "rank: 'soft' is unknown"),
        (lambda: config(heads=3), "3 heads do not divide 16 channels"),
        (lambda: config(elements=(1, 101)), "atomic numbers from 1 to 100"),
        (lambda: config(elements=()), "atomic numbers from 1 to 100"),
        (
            lambda: model(zbl=True, graph=GraphSettings(k=5, cutoff=4.0)),
            "zbl: the repulsion of two Fr reaches",
        ),
        (lambda: model(zbl=True, elements=(6, 98)), "no covalent radius is known for Cf"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@both
@pytest.mark.parametrize("mode", ["mutual", "out"])
@pytest.mark.parametrize("make", [molecule, crystal])
def test_order_place_company_and_wrapping_of_atoms_do_not_matter(directional, mode, make):
    """Observed 2e-15 eV and 1e-14 eV/Å."""
    of = model(directional=directional, graph=dataclasses.replace(GRAPH, mode=mode))
    system = make()
    alone, forces, _ = said(of, system)
    assert np.abs(forces).max() > 0.02
    order = np.random.default_rng(3).permutation(len(system))
    shuffled = System(system.numbers[order], system.positions[order], system.cell, system.pbc)
    shift = np.random.default_rng(4).integers(-2, 3, (len(system), 3)) * system.pbc
    elsewhere = moved(system, system.positions + [3.0, -20.0, 7.0] + shift @ system.cell)
    found, found_forces, _ = said(of, molecule(5, seed=2), shuffled, elsewhere)
    assert found[1:] == pytest.approx(alone[[0, 0]], abs=1e-12)
    assert found_forces[5:] == pytest.approx(np.concatenate([forces[order], forces]), abs=1e-12)


@both
def test_fragments_far_apart_add_up(directional):
    of, one, other = model(directional=directional), molecule(), molecule(6, seed=5)
    together = System(
        np.concatenate([one.numbers, other.numbers]),
        np.concatenate([one.positions, other.positions + np.array([60.0, 0, 0])]),
    )
    apart = energy(of, one) + energy(of, other)
    near = moved(together, together.positions - np.outer(np.arange(15) >= 9, [57.0, 0, 0]))
    assert abs(energy(of, near) - apart) > 1e-3  # they are felt where they are near
    assert energy(of, together) == pytest.approx(apart, abs=1e-12)


@both
def test_a_supercell_has_as_many_times_the_energy_and_the_same_stress(directional):
    of, system = model(directional=directional), crystal()
    shifts = [np.array(s) @ system.cell for s in np.ndindex(2, 1, 2)]
    double = System(
        np.tile(system.numbers, 4),
        np.concatenate([system.positions + s for s in shifts]),
        system.cell * [[2], [1], [2]],
        system.pbc,
    )
    (one, forces, stress), (four, more, same) = said(of, system), said(of, double)
    assert np.abs(forces).max() > 0.02
    assert np.abs(stress).max() > 1e-4
    assert four[0] == pytest.approx(4 * one[0], rel=1e-12)
    assert more == pytest.approx(np.tile(forces, (4, 1)), abs=1e-12)
    assert same == pytest.approx(stress, abs=1e-13)


@pytest.mark.parametrize("handed", [1, -1])
def test_one_atom_in_a_small_sheared_cell_and_its_mirror_image(handed):
    cell = np.array([[1.1, 0.3, 0.0], [0.0, 1.0, 0.2], [0.3, 0.0, handed * 1.2]])
    of = model(directional="angular_bias")
    one = System([6], [[0.1, 0.2, 0.3]], cell, [True] * 3)
    eight = System([6] * 8, one.positions + np.array(list(np.ndindex(2, 2, 2))) @ cell, 2 * cell, [True] * 3)
    assert abs(energy(of, one) - energy(of, System([6], [[0, 0, 0]]))) > 1e-3  # its images are felt
    assert energy(of, eight) == pytest.approx(8 * energy(of, one), rel=1e-12)


@both
def test_lone_atoms_have_the_energy_of_their_element_and_no_force(directional):
    of = model(directional=directional)
    gas = System([1, 6], [[0, 0, 0], [50.0, 0, 0]])
    found, forces, _ = said(of, System([1], [[1.0, 2.0, 3.0]]), System([6], [[0, 0, 0]]), gas)
    assert not forces.any()
    assert found[2] == pytest.approx(found[0] + found[1], abs=1e-13)
    lone = System([6], [[0, 0, 0]], 40 * np.eye(3), [True] * 3)
    assert energy(of, lone) == pytest.approx(found[1], abs=1e-13)
    mixed = System([6], [[0, 0, 0]], np.diag([40.0, 40.0, 0]), [True, True, False])
    assert energy(of, mixed) == pytest.approx(found[1], abs=1e-13)
    assert said(of, mixed)[2] is None


def test_a_structure_without_atoms_has_no_energy():
    found, forces, _ = said(model(), System(np.zeros(0, int), np.zeros((0, 3))), molecule(3))
    assert found[0] == 0
    assert forces.shape == (3, 3)


def rotations(n=4, seed=0):
    """Random orthogonal matrices, proper and improper."""
    rng = np.random.default_rng(seed)
    return [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(n)]


@pytest.mark.parametrize("make", [molecule, crystal])
def test_angular_bias_is_invariant_and_its_forces_and_stress_turn(make):
    """Observed 2e-15 eV, 2e-14 eV/Å."""
    of, system = model(directional="angular_bias"), make()
    alone, forces, stress = said(of, system)
    assert np.abs(forces).max() > 0.02
    assert stress is None or np.abs(stress).max() > 1e-4
    for turn in rotations():
        found, turned, strained = said(of, moved(system, system.positions @ turn, system.cell @ turn))
        assert found == pytest.approx(alone, abs=1e-10)
        assert turned == pytest.approx(forces @ turn, abs=1e-10)
        if stress is not None:
            assert strained[0] == pytest.approx(turn.T @ stress[0] @ turn, abs=1e-10)


def test_harmonics_are_not_invariant_but_conserve_momentum():
    of, system = model(), molecule()
    spread = [energy(of, moved(system, system.positions @ turn)) for turn in rotations()]
    assert np.ptp(spread) > 1e-3
    assert np.abs(said(of, system)[1].sum(axis=0)).max() < 1e-13


@both
@pytest.mark.parametrize("make", [molecule, crystal])
def test_forces_are_the_gradient(directional, make):
    of, system, h = model(directional=directional), make(), 1e-4
    forces = said(of, system)[1]
    assert min(abs(forces[0, 0]), abs(forces[2, 1]), abs(forces[3, 2])) > 1e-4
    for atom, axis in [(0, 0), (2, 1), (3, 2)]:
        steps = np.zeros((4, *system.positions.shape))
        steps[:, atom, axis] = np.array([1, -1, 2, -2]) * h
        a, b, c, d = said(of, *(moved(system, system.positions + s) for s in steps))[0]
        slope = (8 * (a - b) - (c - d)) / (12 * h)
        assert -slope == pytest.approx(forces[atom, axis], rel=1e-6, abs=1e-8)


@both
def test_stress_is_the_strain_derivative(directional):
    of, system, h = model(directional=directional), crystal(), 1e-4
    stress = said(of, system)[2][0]
    assert min(abs(stress[0, 0]), abs(stress[1, 2]), abs(stress[2, 0])) > 1e-6
    assert stress == pytest.approx(stress.T, abs=1e-14)
    volume = abs(np.linalg.det(system.cell))
    for a, b in [(0, 0), (1, 2), (2, 0)]:
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        maps = [np.eye(3) + s * h * strain for s in (1, -1, 2, -2)]
        e = said(of, *(moved(system, system.positions @ m, system.cell @ m) for m in maps))[0]
        slope = (8 * (e[0] - e[1]) - (e[2] - e[3])) / (12 * h)
        assert slope / volume == pytest.approx(stress[a, b], rel=1e-6, abs=1e-8)


@both
@pytest.mark.parametrize("make", [molecule, crystal])
def test_single_precision_is_double_precision_to_rounding(directional, make):
    """Observed 4e-7 of the energy and 2e-6 of the largest force."""
    double, single = model(directional=directional), model(torch.float32, directional=directional)
    single.load_state_dict(double.state_dict())
    (e, f, _), (e32, f32, _) = said(double, make()), said(single, make())
    assert e32 == pytest.approx(e, rel=1e-5, abs=1e-5)
    assert f32 == pytest.approx(f, abs=1e-4 * np.abs(f).max())


@both
def test_a_tiny_model_passes_gradgradcheck_where_ranks_and_envelopes_are_active(directional):
    graph = GraphSettings(k=3, cutoff=3.5, d0=0.3)
    of = model(directional=directional, width=8, heads=2, layers=1, radial=8, graph=graph)
    ready = prepare(of, Batch.of([molecule(5, spread=1.2)]))

    def everything(positions, weight):
        of.layers[0].leaving.attention.qkv.weight.data = weight.detach()
        return of(ready.topology, positions, ready.cell).energy

    positions = ready.positions.clone().requires_grad_()
    weight = of.layers[0].leaving.attention.qkv.weight.detach().clone()
    assert gradgradcheck(lambda p: everything(p, weight), positions, fast_mode=True, atol=1e-4)


@both
@pytest.mark.parametrize("make", [molecule, crystal])
def test_the_plain_method_has_a_third_derivative_and_the_blocked_one_says_that_it_has_none(directional, make):
    """Along a random direction, against central differences of the second; observed 3e-5 off."""
    of, h = model(directional=directional), 1e-4
    ready = prepare(of, Batch.of([make()]))
    generator = torch.Generator().manual_seed(1)
    along = torch.randn(ready.positions.shape, generator=generator, dtype=torch.float64)

    def derivative(order, t):
        t = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        value = of(ready.topology, ready.positions + t * along, ready.cell).energy.sum()
        for _ in range(order):
            (value,) = torch.autograd.grad(value, t, create_graph=True)
        return value.item()

    of.method = "plain"
    slope = (derivative(2, h) - derivative(2, -h)) / (2 * h)
    assert derivative(3, 0.0) == pytest.approx(slope, rel=1e-4)
    of.method = "blocked"
    with pytest.raises(RuntimeError, match=r"set model\.method = 'plain'"):
        derivative(3, 0.0)


@both
def test_training_gradients_are_the_change_of_the_loss(directional):
    """Through forces and stress, by central differences along random directions of all weights."""
    of = model(directional=directional)
    ready = prepare(of, Batch.of([crystal(), crystal(2)]))

    def loss():
        found = evaluate(of, ready.topology, ready.positions, ready.cell, stress=True, create_graph=True)
        return found.energy.square().sum() + found.forces.square().sum() + 10 * found.stress.square().sum()

    loss().backward()
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in of.parameters()]
        slope = sum((p.grad * a).sum() for p, a in zip(of.parameters(), along) if p.grad is not None)
        h, values = 1e-5, []
        for step in (h, -2 * h, h):
            for p, a in zip(of.parameters(), along):
                p.data.add_(a, alpha=step)
            values.append(loss().item())
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope.item(), rel=1e-6)


@both
def test_every_method_is_one_model(directional):
    of = model(directional=directional)
    ready = prepare(of, Batch.of([molecule(), molecule(5, seed=3)]))
    found = []
    for method, checkpointing in (("plain", False), ("blocked", False), ("blocked", True)):
        of.method, of.checkpointing = method, checkpointing
        of.zero_grad()
        out = evaluate(of, ready.topology, ready.positions, ready.cell, create_graph=True)
        (out.energy.sum() + out.forces.square().sum()).backward()
        grads = torch.cat([p.grad.flatten() for p in of.parameters() if p.grad is not None])
        found.append((out.energy.detach(), out.forces.detach(), grads))
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert (one - same).abs().max() < 1e-12 * max(1.0, one.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("create_graph", [True, False])
def test_checkpointing_changes_no_bit_whether_weights_are_trained_or_not(dtype, trained, create_graph):
    of = model(dtype).requires_grad_(trained)
    ready = prepare(of, Batch.of([molecule(), molecule(5, seed=3)]))
    found = []
    for of.checkpointing in (False, True):
        out = evaluate(of, ready.topology, ready.positions, ready.cell, create_graph=create_graph)
        if create_graph and trained:
            of.zero_grad()
            out.forces.square().sum().backward()
            found.append([out.energy, out.forces, of.layers[0].leaving.attention.qkv.weight.grad.clone()])
        else:
            found.append([out.energy, out.forces])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_training_under_autocast_gives_the_gradient_to_two_digits():
    """Linear maps in bfloat16, which has eight bits; observed 0.6 % off."""
    of = model(torch.float32)
    ready = prepare(of, Batch.of([molecule()]))

    def gradient(enabled):
        of.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled):
            found = evaluate(of, ready.topology, ready.positions, ready.cell, create_graph=True)
        (found.forces.square().sum() + found.energy.sum()).backward()
        return torch.cat([p.grad.flatten() for p in of.parameters() if p.grad is not None])

    exact, rough = gradient(False), gradient(True)
    assert 0 < (rough - exact).norm() < 0.05 * exact.norm()


def test_the_same_seed_is_the_same_model_and_nothing_global_is_touched():
    torch.manual_seed(7)
    state, dtype = torch.get_rng_state(), torch.get_default_dtype()
    one, other, third = model(), model(), model(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype
    assert energy(one, molecule()) == energy(other, molecule()) != energy(third, molecule())


def test_predicting_changes_neither_model_nor_batch():
    of, batch = model(), Batch.of([molecule()])
    before = copy.deepcopy(of.state_dict())
    first = predict(of, batch)
    assert torch.equal(first.forces, predict(of, batch).forces)
    assert not first.forces.requires_grad
    assert all(parameter.requires_grad and parameter.grad is None for parameter in of.parameters())
    assert all(torch.equal(before[name], value) for name, value in of.state_dict().items())


def test_energies_keep_their_digits_in_single_precision():
    of = model(torch.float32)
    of.reference[6] = -1037.123456789012
    of.to(torch.float32)
    lone = energy(of, System([6], [[0, 0, 0]]))
    of.reference[6] = 0.0
    assert lone - energy(of, System([6], [[0, 0, 0]])) == pytest.approx(-1037.123456789012, abs=1e-12)


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        (
            [molecule(), System([9], [[0, 0, 0]])],
            "structure 1: the model does not know F; it knows H, C, N, O",
        ),
        (
            [System([6], [[0, 0, 0]]), System([6, 1], [[0, 0, 0], [0, 0, 1e-8]])],
            "atoms 0 and 1 of structure 1",
        ),
        (
            [System([6, 1], [[0, 0, 0], [5.0, 0, 1e-9]], 5 * np.eye(3), [True] * 3)],
            "atoms 0 and 1 of structure 0",
        ),
        *(
            ([molecule(), System([1] * n, np.zeros((n, 3)))], "of structure 1 are at the same place")
            for n in (2, 4, 5, 25, 30)
        ),
        (
            [System([8] + [1] * 28, [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59], *np.full((26, 3), 1.0)])],
            r"atoms \d+ and \d+ of structure 0",
        ),
    ],
)
def test_bad_input_is_an_error_that_says_where(systems, message):
    with pytest.raises(ValueError, match=message):
        predict(model(elements=(1, 6, 7, 8)), Batch.of(systems))


def test_positions_that_are_no_numbers_and_flat_cells_are_errors():
    batch = Batch.of([crystal()])
    lost = batch.positions.copy()
    lost[2, 1] = np.nan
    with pytest.raises(ValueError, match="structure 0: atom 2 is at"):
        predict(model(), dataclasses.replace(batch, positions=lost))
    flat = batch.cell.copy()
    flat[0, 2] = flat[0, 1]
    with pytest.raises(ValueError, match="structure 0: a cell periodic in three directions has no volume"):
        predict(model(), dataclasses.replace(batch, cell=flat))
    of, ready = model(), prepare(model(), Batch.of([molecule()]))
    with pytest.raises(ValueError, match="a cell has no volume"):
        evaluate(of, ready.topology, ready.positions, ready.cell, stress=True)
