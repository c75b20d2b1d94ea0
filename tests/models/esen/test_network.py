"""The model as a whole: symmetries, forces, sizes, heads. Smoothness has a file of its own."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk

from sfumato import load
from sfumato.graph.settings import GraphSettings
from sfumato.models.checkpoint import load_model, save, weights_digest
from sfumato.models.esen.config import PRESETS, ESENConfig
from sfumato.models.esen.network import ESEN
from sfumato.models.families import preset, read_config
from sfumato.models.network import evaluate, prepare
from sfumato.systems import Batch, System
from sfumato.testing import structures
from tests.models.esen.tiny import SOFT, config, model
from tests.tiny_models import crystal, molecule, moved, said

KINDS = {
    "radius": {},
    "soft": SOFT,
    "out": {"envelope": "graph", "graph": GraphSettings(k=5, cutoff=4.0, mode="out")},
    "bessel, l 3": {"basis": "bessel", "l_max": 3},
}


def along_axes():
    """A cross of atoms around one, edges along all axes, and two more within 1e-6 of an axis."""
    around = 1.3 * np.vstack([np.eye(3), -np.eye(3)])
    near = [[0, 1e-6, 2.6], [2.6, -1e-6, 1e-6]]
    return System([6, 1, 8, 7, 1, 1, 6, 1, 8], np.vstack([[[0, 0, 0]], around, near]))


def parameters(made):
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize(("name", "published"), [("small", 3.2e6), ("medium", 6.5e6), ("large", 30_085_121)])
def test_the_sizes_of_the_paper(name, published):
    with torch.device("meta"):
        made = ESEN(preset(name, "esen"))
    assert parameters(made) == pytest.approx(published, rel=0.05)
    if name == "large":  # three tables have a row for atomic number 0, which the published ones do not
        assert parameters(made) == published + 3 * 128


def test_nano_is_small():
    assert parameters(ESEN(PRESETS["nano"])) == 179_489


@pytest.mark.parametrize("make", [molecule, along_axes])
@pytest.mark.parametrize("kind", KINDS)
def test_energy_stays_and_forces_turn_with_the_structure_and_its_mirror_image(kind, make):
    """Observed 4e-15 eV and 4e-15 eV/Å; the axes of `along_axes` also go where they came from."""
    of, system, rng = model(**KINDS[kind]), make(), np.random.default_rng(0)
    energy, forces, _ = said(of, system)
    assert np.abs(forces).max() > 0.02
    swap = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    for turn in (structures.rotation(rng), -structures.rotation(rng), swap, np.diag([1.0, 1, -1])):
        found, turned, _ = said(of, moved(system, system.positions @ turn.T))
        assert found == pytest.approx(energy, abs=1e-10)
        assert turned == pytest.approx(forces @ turn.T, abs=1e-10)


def test_the_published_mixing_of_sines_and_cosines_tells_mirror_images_apart():
    of, system = model(mirror=False), molecule()
    energy, forces, _ = said(of, system)
    turn = structures.rotation(np.random.default_rng(0))
    found, turned, _ = said(of, moved(system, system.positions @ turn.T))
    assert found == pytest.approx(energy, abs=1e-10)
    assert turned == pytest.approx(forces @ turn.T, abs=1e-10)
    assert abs(said(of, moved(system, -system.positions))[0] - energy) > 1e-4


@pytest.mark.parametrize("make", [molecule, crystal])
def test_order_place_company_and_wrapping_of_atoms_do_not_matter(make):
    of, system = model(), make()
    alone, forces, _ = said(of, system)
    order = np.random.default_rng(3).permutation(len(system))
    shuffled = System(system.numbers[order], system.positions[order], system.cell, system.pbc)
    shift = np.random.default_rng(4).integers(-2, 3, (len(system), 3)) * system.pbc
    elsewhere = moved(system, system.positions + [3.0, -20.0, 7.0] + shift @ system.cell)
    found, found_forces, _ = said(of, System([6], [[0, 0, 0]]), molecule(5, seed=2), shuffled, elsewhere)
    assert found[2:] == pytest.approx(alone[[0, 0]], abs=1e-11)
    assert found_forces[6:] == pytest.approx(np.concatenate([forces[order], forces]), abs=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_forces_and_stress_are_slopes_of_the_energy(kind):
    """Observed 2e-10 of the largest."""
    of, system, h = model(**KINDS[kind]), crystal(), 1e-4
    rng = np.random.default_rng(1)
    _, forces, stress = said(of, system)
    way = rng.normal(size=system.positions.shape)
    strain = rng.normal(size=(3, 3))
    strain += strain.T
    steps = h * np.array([-2, -1, 1, 2])
    ends = [moved(system, system.positions + t * way) for t in steps]
    grown = [np.eye(3) + t * strain for t in steps]
    ends += [moved(system, system.positions @ by, system.cell @ by) for by in grown]
    found = said(of, *ends)[0].reshape(2, 4) @ [1, -8, 8, -1] / (12 * h)
    expected = -(forces * way).sum(), abs(np.linalg.det(system.cell)) * (stress[0] * strain).sum()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_forces_near_an_axis_are_slopes_too():
    of, system, h = model(), along_axes(), 1e-4
    _, forces, _ = said(of, system)
    for atom in (3, 7, 8):
        for axis in range(3):
            step = np.zeros_like(system.positions)
            step[atom, axis] = h
            e = said(of, *(moved(system, system.positions + t * step) for t in (-1, 1)))[0]
            assert (e[1] - e[0]) / (2 * h) == pytest.approx(-forces[atom, axis], abs=1e-6)


def loss_of(of, ready):
    found = evaluate(of, ready.topology, ready.positions, ready.cell, create_graph=True)
    return found.energy.sum() + found.forces.square().sum()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_loss_of_forces_is_its_slope(kind):
    """Through the forces, by every weight at once along a random way; observed 3e-9."""
    of = model(**KINDS[kind])
    ready = prepare(of, Batch.of([molecule(5), crystal()]))
    loss_of(of, ready).backward()
    rng = torch.Generator().manual_seed(0)
    ways = [torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in of.parameters()]
    slope = sum((p.grad * way).sum() for p, way in zip(of.parameters(), ways) if p.grad is not None)
    ends = []
    for t in (-1e-5, 1e-5):
        other = copy.deepcopy(of)
        with torch.no_grad():
            for p, way in zip(other.parameters(), ways):
                p.add_(way, alpha=t)
        ends.append(loss_of(other, ready).item())
    assert (ends[1] - ends[0]) / 2e-5 == pytest.approx(slope.item(), rel=1e-6)


def test_direct_heads_turn_with_the_structure_and_add_up_to_no_force():
    of = model(direct_forces=True, direct_stress=True)
    system, turn = crystal(), structures.rotation(np.random.default_rng(2))
    (_, forces, stress) = said(of, system)
    (_, forces_, stress_) = said(of, moved(system, system.positions @ turn.T, system.cell @ turn.T))
    assert np.abs(forces).max() > 1e-3
    assert np.abs(stress).max() > 1e-3
    assert forces_ == pytest.approx(forces @ turn.T, abs=1e-12)
    assert stress_[0] == pytest.approx(turn @ stress[0] @ turn.T, abs=1e-12)
    assert stress[0] == pytest.approx(stress[0].T)
    assert np.abs(forces.sum(axis=0)).max() < 1e-12


def test_a_denoising_model_does_not_notice_known_forces_until_it_has_learned_to():
    of, plain = model(denoising=True), model()
    ready = prepare(of, Batch.of([molecule()]))
    known = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = (ready.topology, ready.positions, ready.cell, None)
    found = of(*inputs, known)
    assert found.noise.shape == (9, 3)
    assert torch.equal(found.energy, of(*inputs).energy)
    with torch.no_grad():
        for part in of.heads["encoding"].map.maps:
            part.weight.fill_(0.5)
    turn = torch.from_numpy(structures.rotation(np.random.default_rng(1)))
    seen, turned = (
        of(ready.topology, ready.positions @ r, ready.cell, None, known @ r)
        for r in (torch.eye(3).double(), turn)
    )
    assert abs((seen.energy - found.energy).item()) > 1e-3
    assert turned.energy.item() == pytest.approx(seen.energy.item(), abs=1e-10)
    assert (turned.noise - seen.noise @ turn).abs().max() < 1e-10
    with pytest.raises(ValueError, match="no denoising head"):
        plain(*inputs, known)


def test_layers_computed_again_give_the_same_energy_and_forces():
    of, batch = model(), Batch.of([molecule(), crystal()])
    ready = prepare(of, batch)
    kept = evaluate(of, ready.topology, ready.positions, ready.cell)
    of.checkpointing = True
    again = evaluate(of, ready.topology, ready.positions, ready.cell)
    assert torch.equal(kept.energy, again.energy)
    assert (kept.forces - again.forces).abs().max() < 1e-14
    loss_of(of, ready).backward()


def test_what_is_read_is_what_was_written(tmp_path):
    of = model(torch.float32, nonlinearity="grid", grid_resolution=6)
    save(tmp_path / "esen.safetensors", of)
    found, _ = load_model(tmp_path / "esen.safetensors")
    assert weights_digest(found) == weights_digest(of)
    assert said(found, molecule())[0] == said(of, molecule())[0]


def test_it_is_a_calculator():
    atoms = bulk("C", "diamond", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = load("esen:nano", dtype="float64").calculator()
    assert np.abs(atoms.get_forces()).max() > 1e-3
    assert atoms.get_stress().shape == (6,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m_max": 3}, "m_max: 3 is more than l_max, 2"),
        ({"l_max": 1, "m_max": 1, "direct_stress": True}, "direct_stress: needs features of degree 2"),
        ({"graph": {"k": 12, "cutoff": 5.0}}, "envelope: the polynomial knows nothing of ranks"),
        ({"nonlinearity": "grid", "grid_resolution": 4}, "grid_resolution: 4 points .* set it to 5"),
        ({"layer": 3}, "unknown setting 'layer'; did you mean 'layers'"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(changes, message):
    with pytest.raises(ValueError, match=message):
        read_config({"architecture": "esen", **changes})


def test_a_variant_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="esen has no variant 'no-envelop'; did you mean 'no-envelope'"):
        load("esen:nano:no-envelop")


def test_settings_survive_json():
    settings = config(**SOFT)
    assert ESENConfig.model_validate_json(settings.model_dump_json()) == settings
