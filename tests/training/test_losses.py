"""Loss terms by hand, and three ways to the gradient that must agree."""

import copy

import numpy as np
import pytest
import torch

from sfumato.datasets.loader import Loader
from sfumato.datasets.named import load
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import Output
from sfumato.training.batches import Batches
from sfumato.training.gradients import SKIN, backward, skin, total
from sfumato.training.losses import (
    Counts,
    Targets,
    bend_penalty,
    energy_loss,
    stress_loss,
    terms,
    vector_loss,
)
from sfumato.training.stages import Smoothness
from tests import made_training as made


def test_energy_is_per_atom_and_a_mean_over_the_whole_batch():
    found = energy_loss(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]), torch.tensor([2, 3]), count=4)
    assert found == pytest.approx((1 / 2 + 3 / 3) / 4)


def test_vectors_are_compared_by_length_and_unknown_ones_left_out():
    found = torch.zeros(3, 3, requires_grad=True)
    target = torch.tensor([[3.0, 4.0, 0.0], [torch.nan] * 3, [0.0, 0.0, 0.0]])
    loss = vector_loss(found, target, count=2)
    assert loss.item() == pytest.approx(5 / 2)
    loss.backward()
    assert found.grad.tolist() == [[pytest.approx(-0.3), pytest.approx(-0.4), 0], [0, 0, 0], [0, 0, 0]]


def test_a_part_without_any_label_adds_nothing():
    found = torch.ones(2, 3, requires_grad=True)
    loss = vector_loss(found, torch.full((2, 3), torch.nan), count=0)
    loss.backward()
    assert loss == 0
    assert not found.grad.any()


def test_stress_is_a_mean_over_nine_components():
    target = torch.stack([torch.full((3, 3), 2.0), torch.full((3, 3), torch.nan)])
    assert stress_loss(torch.zeros(2, 3, 3), target, count=1) == pytest.approx(2.0)


def test_terms_of_parts_add_up_to_those_of_the_batch():
    rng = np.random.default_rng(0)
    energy, forces, sizes = torch.tensor(rng.normal(size=5)), torch.tensor(rng.normal(size=(10, 3))), [2] * 5
    counts = Counts(structures=5, atoms=10)

    def of(structures, atoms):
        targets = Targets(
            torch.zeros(len(energy[structures])),
            torch.zeros_like(forces[atoms]),
            None,
            None,
            torch.tensor(sizes[structures]),
            counts,
        )
        return terms(Output(energy[structures], forces[atoms]), targets)

    parts = [of(slice(0, 2), slice(0, 4)), of(slice(2, 5), slice(4, 10))]
    whole = of(slice(0, 5), slice(0, 10))
    for name in ("energy", "forces"):
        assert parts[0][name] + parts[1][name] == pytest.approx(whole[name].item())


def test_the_bend_of_a_cubic_force_is_its_second_derivative():
    # F(h) = a h³ + b h² + c h + d bends by 2b at 0, whatever the step.
    a, b, c, d = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 6.0, 8.0]]), 3.0, 4.0

    def force(h):
        return (a * h**3 + b * h**2 + c * h + d).double()

    for h in (0.1, 0.3):
        found = bend_penalty(force(-h), force(0.0), force(h), h, floor=0.0, count=1)
        assert found == pytest.approx(20.0**2, rel=1e-4)
        assert bend_penalty(force(-h), force(0.0), force(h), h, floor=10.0, count=1) == pytest.approx(
            1.0, rel=1e-4
        )
        assert bend_penalty(force(-h), force(0.0), force(h), h, floor=21.0, count=1) == 0


def sample_of(tmp_path, stage, systems=None, dtype=torch.float64, **changes):
    path = made.written(tmp_path / "set.h5", systems)
    settings = made.settings(path, {"name": "s", "steps": 1, "batch": 6, "lr": 1e-3} | stage, **changes)
    stage = settings.stages[0]
    batches = Batches(Loader(path, "train", settings.loader(stage)), settings, stage, skin(stage))
    return settings, stage, batches.sample(next(batches.epoch(0)), dtype)


def model_of(settings, stage, dtype=torch.float64):
    model = MinDScAIP(settings.network(stage), torch.Generator().manual_seed(3), dtype)
    model.scale.fill_(2.0)
    return model


def gradient(model, sample, stage):
    model = copy.deepcopy(model)
    found = backward(model, sample, stage)
    grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in model.parameters()]
    return torch.cat([g.flatten() for g in grads]), found


def off(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("directional", ["angular_bias", "harmonics"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-4), (torch.float32, 1e-2)])
def test_a_finite_difference_gives_the_gradient_of_double_backward(tmp_path, directional, dtype, most):
    """In single precision off by rounding over the step, in double by its square."""
    stage = {"gradient": "finite_difference"}
    model = made.MODEL | {"directional": directional}
    settings, difference, sample = sample_of(tmp_path, stage, dtype=dtype, model=model)
    exact = difference.model_copy(update={"gradient": "double_backward"})
    made_model = model_of(settings, exact, dtype)
    found, by_difference = gradient(made_model, sample, difference)
    expected, by_double = gradient(made_model, sample, exact)
    assert off(found, expected) < most
    for name, term in by_double.items():
        assert float(by_difference[name]) == pytest.approx(float(term), rel=1e-4)


def test_the_same_with_stress(tmp_path):
    loss = {"energy": 1, "forces": 4, "stress": 10}
    stage = {"gradient": "finite_difference", "displacement": 1e-3, "loss": loss}
    settings, difference, sample = sample_of(tmp_path, stage, made.crystals(16))
    exact = difference.model_copy(update={"gradient": "double_backward"})
    model = model_of(settings, exact)
    found, by_difference = gradient(model, sample, difference)
    expected, by_double = gradient(model, sample, exact)
    assert off(found, expected) < 1e-3  # in crystals four of many neighbors decide: the energy is rough
    assert float(by_difference["stress"]) == pytest.approx(float(by_double["stress"]))
    only_forces = exact.model_copy(update={"loss": exact.loss.model_copy(update={"stress": 0.0})})
    assert off(gradient(model, sample, only_forces)[0], expected) > 1e-2  # it does count


def test_a_large_displacement_is_noticed(tmp_path):
    """Guards the test above: the difference is taken over what the settings say."""
    settings, stage, sample = sample_of(tmp_path, {"gradient": "finite_difference", "displacement": 1.0})
    exact = stage.model_copy(update={"gradient": "double_backward"})
    model = model_of(settings, exact)
    assert off(gradient(model, sample, stage)[0], gradient(model, sample, exact)[0]) > 1e-2


def test_gradients_of_the_loss_are_its_slope(tmp_path):
    """Against the loss itself at other weights, along one direction of all of them."""
    settings, stage, sample = sample_of(tmp_path, {"loss": {"energy": 1.0, "forces": 3.0}})
    model = model_of(settings, stage)
    found, _ = gradient(model, sample, stage)
    generator = torch.Generator().manual_seed(0)
    along = torch.randn(len(found), generator=generator, dtype=torch.float64)

    def loss(step):
        at, start = copy.deepcopy(model), 0
        with torch.no_grad():
            for weight in at.parameters():
                part = along[start : start + weight.numel()].view_as(weight)
                weight.add_(step * part)
                start += weight.numel()
        return float(total(backward(at, sample, stage), stage))

    h = 1e-6
    assert float(found @ along) == pytest.approx((loss(h) - loss(-h)) / (2 * h), rel=1e-5)


def test_half_precision_changes_the_gradient_by_its_rounding(tmp_path):
    """8 bits of mantissa: the direction stays. Found 0.99."""
    settings, stage, sample = sample_of(tmp_path, {"objective": "direct"}, dtype=torch.float32)
    model = model_of(settings, stage, torch.float32)
    exact, _ = gradient(model, sample, stage)
    half, _ = gradient(model, sample, stage.model_copy(update={"precision": "bf16"}))
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert float(torch.cosine_similarity(half, exact, dim=0)) > 0.95


def test_smoothness_adds_a_penalty_on_a_stretched_bond(tmp_path):
    smooth = {"weight": 1.0, "step": 0.05, "floor": 0.0}
    settings, stage, sample = sample_of(tmp_path, {"smoothness": smooth})
    assert sample.stretch is not None
    moved = sample.stretch.norm(dim=1)
    assert set(np.round(moved.tolist(), 6)) <= {0.0, 0.5}
    assert moved.any()
    model = model_of(settings, stage)
    _, found = gradient(model, sample, stage)
    assert float(found["bend"]) > 0
    assert skin(stage) == pytest.approx(SKIN * 0.05)


def test_the_default_floor_lets_reference_forces_pass():
    """At most 1 in 10 scans of DFT bends faster within 0.2 Å of its minimum; a floor of 50 stops them all."""
    default, free, stopped = Smoothness(weight=1.0).floor, [], []
    for scan in load("bsct-medium"):
        b, forces = scan.coordinate, torch.from_numpy(np.array(scan.forces))
        step, near = float(np.median(np.diff(b))), np.abs(b - b[scan.energy.argmin()]) <= 0.2
        middle = [k for k in np.flatnonzero(near).tolist() if 0 < k < len(b) - 1]
        for floor, found in ((default, free), (50.0, stopped)):
            bends = [
                float(bend_penalty(forces[k - 1], forces[k], forces[k + 1], step, floor, len(forces[k])))
                for k in middle
            ]
            found.append(max(bends) == 0)
    assert np.mean(free) >= 0.85
    assert not any(stopped)
