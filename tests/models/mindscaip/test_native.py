"""The compiled core against torch in double precision: every variant, any structure, and what it refuses."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sfumato.graph.layout import differentiable_stage, find_candidates, select_edges
from sfumato.graph.settings import GraphSettings
from sfumato.models.families import build
from sfumato.models.mindscaip import native
from sfumato.models.mindscaip.config import PRESETS, MinDScAIPConfig
from sfumato.models.mindscaip.native import compiled, core
from sfumato.models.mindscaip.native.select import select_compiled
from sfumato.models.network import TorchTape, evaluate, prepare
from sfumato.systems import Batch, System

built = pytest.mark.skipif(native.library() is None, reason="the compiled core was not built here")

GRAPH = GraphSettings(k=8, cutoff=4.0)
SMALL = {"width": 32, "heads": 2, "layers": 2, "radial": 24, "graph": GRAPH}
VARIANTS = {
    "angles": {"directional": "angular_bias"},
    "one degree": {"directional": "angular_bias", "angular_degree": 1},
    "twelve degrees": {"directional": "angular_bias", "angular_degree": 12},
    "harmonics": {"directional": "harmonics", "l_max": 4},
    "isotropic": {"directional": "harmonics", "l_max": 0},
    "out": {"directional": "angular_bias", "graph": replace(GRAPH, mode="out")},
    "harmonics, out": {"directional": "harmonics", "graph": replace(GRAPH, mode="out")},
    "A": {"attention_factor": 2, "gated": True, "node_ffn": False, "layer_readout": False},
    "C": {"attention_factor": 2, "node_ffn": False},
    "gated, angles": {"gated": True, "directional": "angular_bias"},
    "temperature": {"temperature": 10.0, "smearing": 5.0},
    "repulsion": {"zbl": True, "elements": (1, 6, 8, 14, 29), "directional": "angular_bias"},
    "one layer": {"layers": 1, "directional": "angular_bias"},
    "rank offset": {"graph": replace(GRAPH, rank_offset=-0.5), "hidden_factor": 3},
}


def made(**changes) -> MinDScAIPConfig:
    return MinDScAIPConfig(**(SMALL | changes))


def both(config, seed=0):
    """A network in single precision, and the same numbers in double."""
    single = build(config, torch.Generator().manual_seed(seed))
    single.scale.fill_(1.7)
    single.reference.copy_(torch.linspace(-1, 1, len(single.reference)))
    return single, copy.deepcopy(single).double()


def molecules(rng, count=3, most=9) -> Batch:
    systems = []
    for _ in range(count):
        n = int(rng.integers(1, most + 1))
        grid = rng.permutation(27)[:n]
        places = 1.4 * np.stack(np.unravel_index(grid, (3, 3, 3)), axis=1) + rng.normal(0, 0.12, (n, 3))
        systems.append(System(rng.choice([1, 6, 8], n), places))
    return Batch.of(systems)


def crystals(rng) -> Batch:
    """A cell smaller than the reach, a skew one, a left-handed one, and one with an atom alone in it."""
    cells = [2.4 * np.eye(3), [[4, 0, 0], [1.1, 3.8, 0], [0.4, 0.9, 4.1]], np.diag([4.0, 4.0, -4.0])]
    systems = [System([29], rng.normal(0, 1, (1, 3)), 9.0 * np.eye(3), [True] * 3)]
    for cell in cells:
        n = 1 if len(systems) == 1 else 4
        grid = rng.permutation(8)[:n]
        inside = np.stack(np.unravel_index(grid, (2, 2, 2)), axis=1) / 2 + rng.normal(0, 0.03, (n, 3))
        systems.append(System(rng.choice([14, 29], n), inside @ np.array(cell), cell, [True] * 3))
    return Batch.of(systems)


def crowd() -> Batch:
    """An atom with a hundred others within the cutoff."""
    rng = np.random.default_rng(5)
    return Batch.of([System([6] * 101, 2.6 * rng.uniform(-1, 1, (101, 3)))])


def tapes(config, batch, stress):
    single, double = both(config)
    ready = prepare(double, batch)
    inputs = (ready.topology, ready.positions, ready.cell, stress)
    return single, double, single.tape(*inputs), TorchTape(double, *inputs)


def gradient(model):
    grads = (torch.zeros_like(w) if w.grad is None else w.grad for w in model.parameters())
    return torch.cat([grad.double().flatten() for grad in grads])


def off(found, expected):
    return float((found - expected).norm() / expected.norm())


@built
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_energies_slopes_and_gradients_of_every_variant(name, periodic):
    rng = np.random.default_rng(1)
    batch = crystals(rng) if periodic else molecules(rng)
    single, double, ours, theirs = tapes(made(**VARIANTS[name]), batch, periodic)
    assert single.backend == "native"
    assert isinstance(ours, compiled.CompiledTape)
    here, there = ours.output, theirs.output
    assert there.forces.norm() > 0.1
    assert off(here.energy, there.energy) < 1e-6
    assert off(here.forces, there.forces) < 1e-5
    generator = torch.Generator().manual_seed(2)
    draw = [torch.randn(part.shape, generator=generator) for part in (here.energy, here.forces)]
    pull = torch.randn(here.stress.shape, generator=generator) if periodic else None
    if periodic:
        assert off(here.stress, there.stress) < 1e-5
    ours.backward(*draw, pull)
    theirs.backward(*draw, pull)
    assert gradient(double).norm() > 0.1
    assert off(gradient(single), gradient(double)) < 1e-6  # observed 2e-7 to 7e-7


@built
@pytest.mark.parametrize(("energy", "forces"), [(1.0, 0.0), (0.0, 1.0)])
def test_each_part_of_a_loss_alone(energy, forces):
    single, double, ours, theirs = tapes(PRESETS["nano"], molecules(np.random.default_rng(3)), False)
    generator = torch.Generator().manual_seed(4)
    pull = torch.randn(ours.output.forces.shape, generator=generator) if forces else None
    slopes = energy * torch.ones(3), pull, None
    ours.backward(*slopes)
    theirs.backward(*slopes)
    assert off(gradient(single), gradient(double)) < 1e-6


@built
@pytest.mark.parametrize("name", ["angles", "harmonics", "out"])
def test_an_atom_with_a_hundred_neighbors_and_one_with_none(name):
    config = made(**(VARIANTS[name] | {"graph": GraphSettings(k=90, cutoff=6.0, mode="mutual")}))
    alone = System([6], [[0.0, 0, 0]])
    for batch in (crowd(), Batch.of([alone]), Batch.of([alone, *crowd(), alone])):
        single, double = both(config)
        ready = prepare(double, batch)
        here, there = (evaluate(of, ready.topology, ready.positions, ready.cell) for of in (single, double))
        assert off(here.energy, there.energy) < 1e-6
        assert (here.forces - there.forces).abs().max() < 1e-5 * max(1.0, float(there.forces.abs().max()))


def spread(rng) -> Batch:
    """Anything: molecules, tiny and large cells, slabs, lone atoms, some atoms close to each other."""
    systems = []
    for _ in range(4):
        n = int(rng.integers(1, 12))
        lengths = rng.uniform(1.5, 7.0, 3)
        cell = np.diag(lengths) + rng.normal(0, 0.3, (3, 3))
        pbc = rng.random(3) < rng.choice([0.0, 0.5, 1.0])
        grid = np.stack(np.unravel_index(rng.permutation(64)[:n], (4, 4, 4)), axis=1) / 4
        places = (grid + rng.normal(0, 0.02, (n, 3))) @ cell
        systems.append(System(rng.choice([1, 6, 8, 14, 29], n), places, cell, pbc))
    return Batch.of(systems)


def compare(config, rng):
    single, double = both(config, int(rng.integers(2**31)))
    ready = prepare(double, spread(rng))
    here, there = (evaluate(of, ready.topology, ready.positions, ready.cell) for of in (single, double))
    scale = max(1.0, float(there.forces.abs().max()))
    assert (here.energy - there.energy).abs().max() < 1e-6 * max(1.0, float(there.energy.abs().max()))
    assert (here.forces - there.forces).abs().max() < 1e-5 * scale
    return len(there.energy)


@built
@pytest.mark.parametrize("name", ["angles", "harmonics", "A", "repulsion"])
def test_random_structures(name):
    rng = np.random.default_rng(11)
    for _ in range(6):
        compare(made(**VARIANTS[name]), rng)


@built
@pytest.mark.slow
def test_a_thousand_random_structures():
    rng, seen = np.random.default_rng(12), 0
    while seen < 1000:
        for changes in VARIANTS.values():
            seen += compare(made(**changes), rng)


def edges_of(topology):
    """(i, j, *S) → its reverse, or None."""
    columns = topology.source[:, None], topology.target[:, None], topology.shift
    names = [tuple(row) for row in torch.cat(columns, dim=1).tolist()]
    return {name: names[r] if r >= 0 else None for name, r in zip(names, topology.reverse.tolist())}


@built
@pytest.mark.parametrize("mode", ["mutual", "out"])
def test_edges_are_those_of_the_plain_search(mode):
    rng = np.random.default_rng(4)
    settings = replace(GRAPH, mode=mode)
    for batch in (
        molecules(rng, 5),
        crystals(rng),
        crowd(),
        spread(rng),
        Batch.of([System([1], [[0.0, 0, 0]])]),
    ):
        arrays = (batch.positions, batch.cell, batch.pbc, batch.numbers, batch.index)
        positions, cell, pbc, numbers, system = (torch.tensor(part) for part in arrays)
        candidates = find_candidates(positions, cell, pbc, system, settings, skin=0.4)
        inputs = (candidates, positions, cell, numbers, system, settings)
        ours, theirs = select_compiled(*inputs), select_edges(*inputs)
        assert torch.equal(ours.source, theirs.source)
        mine, named = edges_of(ours), edges_of(theirs)  # those of equal length in any order
        assert mine.keys() == named.keys()
        assert mine == named
        lengths = [differentiable_stage(t, positions, cell, settings) for t in (ours, theirs)]
        assert torch.allclose(lengths[0].distance, lengths[1].distance, rtol=1e-12)
        assert torch.allclose(lengths[0].bias, lengths[1].bias, rtol=1e-9)


@built
def test_two_threads_give_the_same_energies_and_forces_to_the_bit():
    batch, before = molecules(np.random.default_rng(6), 7), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            single, _, tape, _ = tapes(PRESETS["nano"], batch, False)
            tape.backward(torch.ones(7), tape.output.forces, None)
            found.append((tape.output, gradient(single)))
    finally:
        torch.set_num_threads(before)
    (one, slopes), *others = found
    for output, other in others:
        assert torch.equal(one.energy, output.energy)
        assert torch.equal(one.forces, output.forces)
        assert off(other, slopes) < 1e-6


@built
def test_weights_that_change_or_move_are_read_again():
    single, double = both(made())
    ready = prepare(double, molecules(np.random.default_rng(7)))

    def agree():
        here, there = (evaluate(m, ready.topology, ready.positions, ready.cell) for m in (single, double))
        assert off(here.forces, there.forces) < 1e-5
        return here.energy

    first = agree()
    for of in (single, double):
        with torch.no_grad():
            of.mix.weight.mul_(1.3)
    second = agree()
    for of in (single, double):
        of.mix.weight = torch.nn.Parameter(0.5 * of.mix.weight.detach())
    third = agree()
    double.load_state_dict(copy.deepcopy(single).double().state_dict())
    single.load_state_dict(pickle.loads(pickle.dumps(single)).state_dict(), assign=True)
    assert torch.equal(agree(), third)
    assert len({round(float(e.sum()), 4) for e in (first, second, third)}) == 3


def test_what_the_core_does_not_know_is_left_to_torch():
    for changes, reason in (
        ({"width": 40, "heads": 2}, "width: 40 is not a multiple of 16"),
        ({"heads": 4}, "channels of a head: 8"),
        ({"graph": replace(GRAPH, rank="hard")}, "rank: hard"),
        ({"graph": replace(GRAPH, rank="sigmoid")}, "rank: sigmoid"),
        ({"direct_forces": True}, "direct_forces"),
        ({"denoising": True}, "denoising"),
    ):
        assert reason in core.obstacle(made(**changes))
        assert build(made(**changes)).backend == "torch"
    single, double = both(made())
    assert double.backend == "torch"
    single.method = "blocked"
    assert single.backend == "torch"
    assert isinstance(single.tape(*_inputs(single)), TorchTape)


def _inputs(model):
    ready = prepare(model, molecules(np.random.default_rng(8)))
    return ready.topology, ready.positions, ready.cell


def test_without_a_core_everything_works_in_torch(monkeypatch):
    with_core, _ = both(made())
    inputs = _inputs(with_core)
    expected = evaluate(with_core, *inputs)
    monkeypatch.setattr(compiled, "library", lambda: None)
    without, _ = both(made())
    assert without.backend == "torch"
    found = evaluate(without, *inputs)
    assert off(found.forces, expected.forces) < 1e-5
    assert without.select is select_edges


@built
def test_the_portable_build_agrees_with_that_for_this_processor(monkeypatch):
    if not (native.FOLDER / "libsfumato.so").exists():
        pytest.skip("there is no portable build here")
    here, _ = both(made())
    inputs = _inputs(here)
    expected = evaluate(here, *inputs)
    monkeypatch.setattr(native, "FAST", ())
    native.library.cache_clear()
    try:
        assert native.build_name() == "libsfumato.so"
        there, _ = both(made())
        assert off(evaluate(there, *inputs).forces, expected.forces) < 1e-6
    finally:
        monkeypatch.undo()
        native.library.cache_clear()


SANITIZED = """
import sys
from pathlib import Path
from sfumato.models.mindscaip import native
native.FOLDER = Path(sys.argv[1])
import numpy as np, torch
from tests.models.mindscaip.test_native import VARIANTS, compare, made, tapes, molecules, crystals
rng, seen = np.random.default_rng(0), 0
while seen < 1000:
    for changes in VARIANTS.values():
        seen += compare(made(**changes), rng)
for changes in VARIANTS.values():
    for batch, stress in ((molecules(rng), False), (crystals(rng), True)):
        _, _, tape, _ = tapes(made(**changes), batch, stress)
        out = tape.output
        tape.backward(torch.ones_like(out.energy), out.forces, out.stress)
print("clean")
"""


@built
@pytest.mark.slow
def test_no_address_is_read_or_written_out_of_place(tmp_path):
    flags = [
        "-std=c++17",
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-shared",
        "-fPIC",
    ]
    library = tmp_path / "libsfumato.so"
    source = native.FOLDER / "core.cpp"
    try:
        subprocess.run(["g++", *flags, str(source), "-o", str(library)], check=True, capture_output=True)
        asan = subprocess.run(
            ["g++", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler with sanitizers: {error}")
    ended = subprocess.run(
        [sys.executable, "-c", SANITIZED, str(tmp_path)],
        env={"LD_PRELOAD": asan.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.strip() == "clean", ended.stderr[-3000:]
