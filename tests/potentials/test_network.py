"""A network as a potential: the same numbers in any company, memory, precision; bad input."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato import load
from sfumato.graph import GraphSettings
from sfumato.io import to_ase
from sfumato.models.checkpoint import save
from sfumato.models.harmonics import legendre_slope
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import predict, prepare
from sfumato.potentials import network as module
from sfumato.potentials.memory import is_out_of_memory, pack
from sfumato.potentials.network import NetworkPotential, untrained
from sfumato.potentials.potential import MissingElementError, Potential
from sfumato.systems import Batch, System
from sfumato.testing import structures

SMALL = {"width": 8, "heads": 2, "layers": 2, "radial": 8, "directional": "angular_bias"}
GRAPH = GraphSettings(k=5, cutoff=3.5)
RNG = np.random.default_rng(0)
WATER = System([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
CLUSTER = structures.cluster((1, 8), RNG)
CRYSTALS = [structures.crystal((1, 8), RNG) for _ in range(3)]
FLAT_CELL = [[4.0, 0, 0], [0, 4.0, 0], [2.0, 2.0, 4e-10]]
"""Its volume is not 0, but 1e-10 of that of a box of its lengths."""
MANY = [WATER, CLUSTER, System([1], [[0.0, 0, 0]]), *CRYSTALS, WATER, CLUSTER]


def network(dtype=torch.float64, seed=3, scale=20.0, **changes):
    config = MinDScAIPConfig(**{"elements": (1, 8), "graph": GRAPH, **SMALL, **changes})
    model = MinDScAIP(config, torch.Generator().manual_seed(seed), dtype)
    model.scale.fill_(scale)
    model.reference[1], model.reference[8] = -13.6, -2041.8
    return model


def potential(dtype="float64", model=None, **settings):
    return NetworkPotential(model or network(), "tiny", dtype=dtype, **settings)


def same(found, expected, tolerance):
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=tolerance)
    assert (found.stress is None) == (expected.stress is None)
    if expected.stress is not None:
        np.testing.assert_allclose(found.stress, expected.stress, rtol=0, atol=tolerance)


@pytest.fixture
def evaluated(monkeypatch):
    """The structures and edges of every evaluation, and a limit of edges that memory suffices for."""
    seen, limit, original = [], {"edges": 10**9, "lean": 10**9}, module.evaluate

    def counting(model, topology, *args, **kwargs):
        edges = len(topology.reverse)
        if edges > limit["lean" if model.checkpointing else "edges"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        seen.append((topology.n_systems, edges))
        return original(model, topology, *args, **kwargs)

    monkeypatch.setattr(module, "evaluate", counting)
    return seen, limit


# --- the numbers


def test_without_a_scale_the_energy_is_that_of_the_atoms_alone():
    found = potential(model=network(scale=0.0)).predict(Batch.of(MANY))
    atoms = [(-13.6 * (s.numbers == 1) - 2041.8 * (s.numbers == 8)).sum() for s in MANY]
    np.testing.assert_allclose(found.energy, atoms, rtol=1e-14)
    assert not found.forces.any()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_a_structure_is_the_same_alone_and_in_company(dtype, tolerance):
    one = potential(dtype)
    alone = [one.predict(Batch.of([system])) for system in MANY]
    found = one.predict(Batch.of(MANY))
    np.testing.assert_allclose(found.energy, [p.energy[0] for p in alone], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.forces, np.concatenate([p.forces for p in alone]), atol=tolerance)
    assert np.abs(found.forces).max() > 0.1


def test_force_and_stress_are_derivatives_of_the_energy():
    one, crystal, h = potential(), CRYSTALS[0], 1e-4
    found = one.predict(Batch.of([crystal]))

    def energy(positions, cell):
        moved = System(crystal.numbers, positions, cell, crystal.pbc)
        return one.predict(Batch.of([moved])).energy[0]

    step = np.zeros_like(crystal.positions)
    step[1, 2] = h
    slope = energy(crystal.positions + step, crystal.cell) - energy(crystal.positions - step, crystal.cell)
    assert found.forces[1, 2] == pytest.approx(-slope / (2 * h), abs=1e-6)
    volume = abs(np.linalg.det(crystal.cell))
    for a, b in ((0, 0), (1, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += h / 2
        strain[b, a] += h / 2
        up, down = (np.eye(3) + sign * strain for sign in (1, -1))
        slope = energy(crystal.positions @ up, crystal.cell @ up) - energy(
            crystal.positions @ down, crystal.cell @ down
        )
        assert found.stress[0, a, b] == pytest.approx(slope / (2 * h * volume), abs=1e-7)


def test_there_is_a_stress_where_all_structures_are_crystals():
    one = potential()
    assert one.predict(Batch.of(CRYSTALS)).stress.shape == (3, 3, 3)
    assert one.predict(Batch.of([CRYSTALS[0], WATER])).stress is None
    slab = dataclasses.replace(CRYSTALS[0], pbc=[True, True, False])
    assert one.predict(Batch.of([slab])).stress is None


def test_direct_forces_come_from_their_head():
    found = potential(model=network(direct_forces=True)).predict(Batch.of(CRYSTALS))
    other = potential(model=network()).predict(Batch.of(CRYSTALS))
    assert np.abs(found.forces - other.forces).max() > 0.01
    assert found.stress is not None


def test_inference_mode_of_torch_changes_nothing(tmp_path):
    one, model = potential(), network()
    save(tmp_path / "m.safetensors", model)
    before, atoms = one.predict(Batch.of(MANY)), to_ase(CLUSTER)
    legendre_slope.cache_clear()
    with torch.inference_mode():
        model(*(getattr(prepare(model, Batch.of(MANY)), part) for part in ("topology", "positions", "cell")))
        same(one.predict(Batch.of(MANY)), before, 0)
        same(potential().predict(Batch.of(MANY)), before, 0)
        same(load(tmp_path / "m.safetensors", dtype="float64").predict(Batch.of(MANY)), before, 0)
        assert np.array_equal(predict(model, Batch.of(MANY)).forces.numpy(), before.forces)
        random = load("mindscaip:nano").predict(Batch.of([WATER]))
        atoms.calc = one.calculator()
        atoms.get_forces()
    same(load("mindscaip:nano").predict(Batch.of([WATER])), random, 0)
    np.testing.assert_allclose(atoms.get_forces(), one.predict(Batch.of([CLUSTER])).forces, atol=1e-11)
    same(one.predict(Batch.of(MANY)), before, 0)


def test_structures_without_atoms_have_no_energy():
    nothing = System(np.zeros(0, dtype=int), np.zeros((0, 3)))
    found = potential().predict(Batch.of([nothing, WATER, nothing]))
    assert found.energy[[0, 2]].tolist() == [0, 0]
    alone = potential().predict(Batch.of([nothing]))
    assert (alone.energy.tolist(), alone.forces.shape) == ([0], (0, 3))


# --- memory


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 60))
def test_parts_are_as_long_as_the_limit_allows(sizes, limit):
    stops = pack(np.array(sizes), limit)
    starts = [0, *stops[:-1]]
    assert stops[-1] == len(sizes)
    for start, stop in zip(starts, stops, strict=True):
        assert start < stop
        part = sizes[start:stop]
        assert sum(part) <= limit or sum(size > 0 for size in part) == 1
        if stop < len(sizes):
            assert sum(part) + sizes[stop] > limit


def test_a_batch_is_evaluated_in_parts_by_the_number_of_its_edges(evaluated):
    seen, _ = evaluated
    one = potential()
    whole = one.predict(Batch.of(MANY))
    assert [systems for systems, _ in seen] == [len(MANY)]
    total = seen.pop()[1]
    limit = 8 * one.network.numbers_per_edge * total // 3
    same(potential(memory_limit=limit).predict(Batch.of(MANY)), whole, 1e-10)
    assert len(seen) >= 3
    assert sum(edges for _, edges in seen) == total
    assert all(edges <= total // 3 or systems == 1 for systems, edges in seen)


def test_what_does_not_fit_is_halved(evaluated):
    seen, limit = evaluated
    whole = potential().predict(Batch.of(MANY))
    total = seen.pop()[1]
    limit["edges"] = total // 2
    same(potential().predict(Batch.of(MANY)), whole, 1e-10)
    assert len(seen) >= 2
    assert all(edges <= total // 2 for _, edges in seen)


def test_one_structure_that_does_not_fit_is_tried_with_less_memory_and_then_named(evaluated):
    seen, limit = evaluated
    one = potential()
    expected = one.predict(Batch.of([CLUSTER]))
    edges = seen.pop()[1]
    limit["edges"] = edges - 1
    same(one.predict(Batch.of([CLUSTER])), expected, 1e-10)
    limit["lean"] = edges - 1
    found = one.predict(Batch.of([WATER, CLUSTER, WATER]))
    assert set(found.failures) == {1}
    assert found.failures[1].reason.startswith("out of memory: ")
    assert np.array_equal(found.energy[[0, 2]], one.predict(Batch.of([WATER, WATER])).energy)
    with pytest.raises(
        MemoryError, match=rf"tiny: structure 1 of the batch \({len(CLUSTER)} atoms, {edges} "
    ):
        found.require()
    with pytest.raises(
        MemoryError, match=rf"structure 0 .* {edges} edges\) .* memory of cpu, even alone; use"
    ):
        one.session(Batch.of([CLUSTER])).predict(CLUSTER.positions).require()


def test_memory_that_will_not_suffice_is_saved_beforehand(evaluated, monkeypatch):
    seen, limit = evaluated
    one = potential()
    expected = one.predict(Batch.of([CLUSTER]))
    limit["edges"] = 0  # an attempt without saving would be seen
    monkeypatch.setattr(module, "free_memory", lambda _: 1000)
    seen.clear()
    same(one.predict(Batch.of([CLUSTER])), expected, 1e-10)
    assert len(seen) == 1


def test_torchs_own_words_for_out_of_memory_are_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_other_errors_come_through_unchanged(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("an internal assertion")

    monkeypatch.setattr(module, "evaluate", broken)
    with pytest.raises(RuntimeError, match="an internal assertion"):
        potential().predict(Batch.of([WATER])).require()


# --- bad input


def batch(**changed):
    arrays = {
        f.name: np.array(getattr(Batch.of([WATER, *CRYSTALS]), f.name)) for f in dataclasses.fields(Batch)
    }
    for name, (place, value) in changed.items():
        arrays[name][place] = value
    return Batch(**arrays)


@pytest.mark.parametrize("skin", [None, 0.5])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"positions": ((4, 1), np.nan)}, r"tiny: atom 1 of structure 1 is at \[.*nan.*\] Å; .* be finite"),
        ({"positions": ((0, 0), np.inf)}, "tiny: atom 0 of structure 0"),
        ({"positions": (4, CRYSTALS[0].positions[0])}, "are at the same place"),
        ({"positions": (4, CRYSTALS[0].positions[0] + 5e-7)}, "are at the same place"),
        ({"cell": ((2, 2), [0, 0, 0])}, "cell of structure 2 has no volume or is not finite"),
        ({"cell": (2, FLAT_CELL)}, "cell of structure 2 has no volume or is not finite"),
        ({"cell": ((0, 0, 1), np.nan)}, "cell of structure 0 has no volume or is not finite"),
        ({"cell": ((3, 0, 1), np.nan)}, "cell of structure 3 has no volume or is not finite"),
    ],
)
def test_input_without_meaning_costs_its_structure_and_no_other(changed, message, skin):
    one, bad = potential(), batch(**changed)
    found = one.predict(bad) if skin is None else one.session(bad, skin).predict(bad.positions, bad.cell)
    (lost,) = found.failures
    with pytest.raises(ValueError, match=message):
        found.require()
    rows = [k for k in range(len(bad)) if k != lost]
    alone, atoms = one.predict(bad.take(rows)), bad.index != lost
    np.testing.assert_allclose(found.energy[rows], alone.energy, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.forces[atoms], alone.forces, rtol=0, atol=1e-10)
    assert np.isnan(found.energy[lost])
    assert np.isnan(found.forces[~atoms]).all()


def test_every_structure_has_its_own_reason():
    systems = [System([79], [[0.0, 0, 0]]), CLUSTER, CRYSTALS[0], WATER, CRYSTALS[1]]
    bad = Batch.of(systems)
    positions, (_, first, second, third, fourth, _) = bad.positions.copy(), bad.offsets
    positions[first + 1] = positions[first]
    positions[second] = np.nan
    positions[third + 1] = [0, 2e8, 0]
    found = potential().predict(dataclasses.replace(bad, positions=positions))
    reasons = {k: failure.reason for k, failure in found.failures.items()}
    assert set(reasons) == {0, 1, 2, 3}
    assert "no parameters for Au, first met in structure 0" in reasons[0]
    assert "tiny: atoms 0 and 1 of structure 1 are at the same place" in reasons[1]
    assert "tiny: atom 0 of structure 2 is at [nan, nan, nan] Å" in reasons[2]
    assert "tiny: structure 3: atom 1 is at" in reasons[3]
    np.testing.assert_allclose(found.forces[fourth:], potential().predict(bad).forces[fourth:], atol=1e-10)


def test_a_stress_that_fails_with_its_structure_leaves_those_of_the_others():
    whole = Batch.of(CRYSTALS)
    cell = whole.cell.copy()
    cell[1] = FLAT_CELL
    found = potential().predict(dataclasses.replace(whole, cell=cell))
    sound = potential().predict(whole)
    assert set(found.failures) == {1}
    assert np.isnan(found.stress[1]).all()
    np.testing.assert_allclose(found.stress[[0, 2]], sound.stress[[0, 2]], rtol=0, atol=1e-10)


def test_elements_that_the_model_does_not_know_are_named():
    with pytest.raises(
        MissingElementError,
        match=r"tiny has no parameters for C, Au, first met in structure 1 of .* knows H, O",
    ):
        potential().predict(batch(numbers=([3, 4], [6, 79]))).require()
    with pytest.raises(MissingElementError, match="has no parameters for Og"):
        untrained("nano").predict(Batch.of([System([118], [[0.0, 0, 0]])])).require()


def test_with_repulsion_elements_without_a_radius_are_unknown():
    model = network(elements=None, zbl=True, graph=GraphSettings(k=5, cutoff=6.0))
    one, heavy = potential(model=model), Batch.of([System([97], [[0.0, 0, 0]])])
    assert one.abilities.elements == set(range(1, 97))
    with pytest.raises(
        MissingElementError,
        match="tiny has no parameters for Bk, first met in structure 0 of the batch; it knows H to Cm",
    ):
        one.predict(heavy).require()
    with pytest.raises(ValueError, match="does not know Bk"):
        predict(model, heavy)
    potential(model=network(elements=None)).predict(heavy).require()


def test_a_prediction_that_is_not_finite_is_an_error():
    model = network()
    model.reference[8] = np.inf
    found = potential(model=model).predict(Batch.of([System([1], [[0.0, 0, 0]]), WATER]))
    assert found.energy[0] == pytest.approx(-13.6, abs=100)
    with pytest.raises(ValueError, match="structure 1: the predicted energy is not finite"):
        found.require()


# --- precision, device, identity


def test_precisions_agree_and_each_is_rounded_once_from_what_was_given():
    double = potential()
    single = double.to(dtype="float32")
    assert (double.abilities.dtype, single.abilities.dtype) == ("float64", "float32")
    low, high = single.predict(Batch.of(MANY)), double.predict(Batch.of(MANY))
    same(low, high, 1e-3)
    assert np.abs(low.forces - high.forces).max() > 1e-9
    back = single.to(dtype="float64")
    assert back.identity == double.identity != single.identity
    same(back.predict(Batch.of(MANY)), high, 0)


def test_the_potential_keeps_its_weights_when_the_model_is_trained_on():
    model = network()
    one = potential(model=model)
    identity, before = one.identity, one.predict(Batch.of([WATER]))
    for weight in model.parameters():
        weight.data += 0.1
    assert model.itself.requires_grad
    same(one.predict(Batch.of([WATER])), before, 0)
    assert potential(model=network()).identity == identity != potential(model=model).identity


def test_it_is_a_potential_that_says_what_it_knows():
    one = potential()
    assert isinstance(one, Potential)
    assert one.abilities.elements == {1, 8}
    assert potential(model=network(elements=None)).abilities.elements == set(range(1, 101))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float16"}, "'float16' is unknown; did you mean 'float"),
        ({"device": "gpu"}, "device: 'gpu' is unknown"),
        ({"device": "meta"}, "'meta' is unknown; write cpu, cuda"),
        ({"device": "cuda:99"}, r"'cuda:99' is not there; torch sees \d+ GPUs"),
    ],
)
def test_devices_and_precisions_that_there_are_not_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        potential(**settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-3)])
def test_a_gpu_gives_the_same_numbers(dtype, tolerance):
    one = potential(dtype)
    there = one.to(device="cuda")
    assert there.identity == one.identity
    for systems in (MANY, CRYSTALS):
        same(there.predict(Batch.of(systems)), one.predict(Batch.of(systems)), tolerance)
