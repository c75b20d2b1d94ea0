"""The envelope: tabulated values, ties, and the end at f = 1, where unguarded derivatives are not numbers."""

import math

import pytest
import torch

from sfumato.graph.envelope import envelope_bias
from sfumato.graph.settings import GraphSettings

F32, F64 = torch.float32, torch.float64
SHARP = GraphSettings(beta=1e3, f_max=1.0, mode="out")  # f is the larger term


def by_rank(f, settings=SHARP, dtype=F64) -> torch.Tensor:
    """log e where the rank alone decides."""
    f = torch.as_tensor(f, dtype=dtype)
    return envelope_bias(f * settings.k, None, torch.full_like(f, 1e-3), settings)


def test_tabulated_weights():
    table = {0.2: 0.959, 0.4: 0.827, 0.5: 0.717, 0.6: 0.570, 0.7: 0.383, 0.8: 0.169, 0.85: 0.074, 0.9: 0.014}
    assert by_rank(list(table)).exp().tolist() == pytest.approx(list(table.values()), abs=6e-4)
    assert by_rank([0.95, 0.98]).exp().tolist() == pytest.approx([9.5e-5, 3e-11], rel=0.08)


def test_the_distance_alone():
    length = torch.tensor([1.2, 3.0, 5.4, 5.99, 6.0, 7.0], dtype=F64)
    bias = envelope_bias(torch.zeros(6, dtype=F64), None, length, SHARP)
    f = length[:4] / 6
    torch.testing.assert_close(bias[:4], -(f**2) / (1 - f**2))
    assert bias[4:].tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize(("terms", "raised"), [(2, math.log(2) / 10), (3, math.log(3) / 10)])
def test_terms_that_tie_raise_f(terms, raised):
    settings = GraphSettings()
    rank = torch.tensor([0.5 * settings.k], dtype=F64)
    length = torch.tensor([0.5 * settings.cutoff], dtype=F64)
    f = 0.5 + raised
    bias = envelope_bias(rank, rank if terms == 3 else None, length, settings)
    assert bias.item() == pytest.approx(-(f**2) / (1 - f**2), rel=1e-14)
    assert raised == pytest.approx([0.069, 0.110][terms - 2], abs=5e-4)


def test_the_hard_envelope_is_of_the_largest_term():
    settings = GraphSettings(rank="hard")
    rank = torch.tensor([[6.0, 24.0], [24.0, 6.0], [6.0, 6.0]])
    length = torch.tensor([3.0, 3.0, 4.8])
    bias = envelope_bias(rank[:, 0], rank[:, 1], length, settings)
    assert bias.tolist() == pytest.approx([-(0.8**2) / (1 - 0.8**2)] * 3)


@pytest.mark.parametrize("rank", ["compact", "hard"])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_an_edge_and_its_reverse_weigh_the_same_to_the_last_bit(dtype, rank):
    rng = torch.Generator().manual_seed(0)
    a, b, d = (torch.rand(1000, generator=rng, dtype=dtype) for _ in range(3))
    settings = GraphSettings(rank=rank)
    forth, back = (envelope_bias(30 * x, 30 * y, 6 * d, settings) for x, y in ((a, b), (b, a)))
    assert torch.equal(forth, back)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("f_max", [1.0, 0.9975])
@pytest.mark.parametrize("into", [torch.exp, lambda b: torch.softmax(torch.cat([b.new_zeros(1), b]), 0)])
def test_three_derivatives_are_finite_at_the_end_and_beyond_and_vanish_there(dtype, f_max, into):
    settings = GraphSettings(beta=1e3, f_max=f_max)
    f = [0.3, 0.9974, 0.9975, 0.9976, 1 - 2**-12, 1 - 2**-24, 1.0, 1.2, 40.0, 1e6]
    rank = (torch.tensor(f, dtype=dtype) * settings.k).requires_grad_()
    length = torch.full_like(rank, 0.5).requires_grad_()
    value = into(envelope_bias(rank, None, length, settings))
    for _ in range(3):
        slopes = torch.autograd.grad(value.square().sum(), (rank, length), create_graph=True)
        assert all(slope.isfinite().all() for slope in slopes)
        assert all((slope[3:].abs() <= 1e-60).all() for slope in slopes)
        value = sum(slopes)


def test_without_the_inner_guard_the_derivative_is_not_a_number():
    f = torch.tensor([1.0], requires_grad=True)
    bias = torch.where(f < 1, -(f**2) / (1 - f**2), -math.inf)
    assert torch.autograd.grad(bias.exp().sum(), f)[0].isnan()


def test_f_max_bounds_the_bias():
    finite = by_rank(torch.linspace(0.9, 1.1, 10001, dtype=F64), GraphSettings(beta=1e3, mode="out"))
    finite = finite[finite.isfinite()]
    assert -200 < float(finite.min()) < -195


def test_gradcheck_twice():
    rng = torch.Generator().manual_seed(1)
    out, into, length = (
        (s * torch.rand(6, generator=rng, dtype=F64) * 0.7).requires_grad_() for s in (30, 30, 6)
    )

    def weight(*terms):
        return envelope_bias(*terms, GraphSettings()).exp()

    assert torch.autograd.gradcheck(weight, (out, into, length))
    assert torch.autograd.gradgradcheck(weight, (out, into, length))
