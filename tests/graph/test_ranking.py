"""Ranks: the step against its closed form, bounds proven on paper, and derivatives that stay finite."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.graph import ranking
from sfumato.graph.ranking import FAR, compact_step, hard_rank, ranks, sigmoid_rank, soft_rank, taper
from sfumato.graph.settings import GraphSettings
from tests.graph_oracle import step

F32, F64 = torch.float32, torch.float64


def shells(count, gap=2.0, dtype=F64) -> torch.Tensor:
    """One atom whose neighbors are so far apart that their order is beyond doubt."""
    return 1 + gap * torch.arange(count, dtype=dtype)[None]


def plain(distance, queries, d0) -> torch.Tensor:
    return compact_step((distance[:, None, :queries] - distance[:, :, None]) / d0).sum(1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 5e-16), (F32, 3e-7)])
def test_the_step_is_the_corrected_ratio_of_the_paper(dtype, tolerance):
    x = torch.linspace(-5, 5, 2001, dtype=F64)
    expected = torch.tensor([step(float(v)) for v in x], dtype=F64)
    assert (compact_step(x.to(dtype)).double() - expected).abs().max() <= tolerance


def test_the_step_is_one_half_with_slope_one_quarter_at_zero_and_odd_about_it():
    x = torch.zeros((), dtype=F64, requires_grad=True)
    value = compact_step(x)
    assert value == 0.5
    assert torch.autograd.grad(value, x)[0] == 0.25
    x = torch.linspace(0, 5, 101, dtype=F64)
    torch.testing.assert_close(compact_step(x) + compact_step(-x), torch.ones_like(x), rtol=0, atol=3e-16)


def test_the_step_stays_close_to_the_logistic_function():
    x = torch.linspace(-4, 4, 80001, dtype=F64)
    off = (compact_step(x) - torch.sigmoid(x)).abs()
    assert float(off.max()) == pytest.approx(0.060, abs=5e-4)
    assert float(x[off.argmax()].abs()) == pytest.approx(2.38, abs=0.01)
    assert 1 - float(torch.sigmoid(x[-1])) == pytest.approx(0.018, abs=5e-4)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_value_and_three_derivatives_of_the_step_are_finite_up_to_its_ends_and_beyond(dtype):
    ends = [4.0, 4 * (1 - 2**-24), 4 * (1 - 2**-12), 3.996, 3.9959, 3.99, 3.5, 0.0, 4.1, 1e6, 1e30]
    x = torch.tensor(ends + [-v for v in ends], dtype=dtype, requires_grad=True)
    value = compact_step(x)
    outside = x.detach().abs() >= 3.99
    assert (value[outside] == (x[outside] > 0)).all()
    for _ in range(3):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        assert value.isfinite().all()
        assert (value[outside] == 0).all()


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_well_separated_neighbors_have_ranks_one_half_apart_from_the_hard_ones(shift):
    settings_ = GraphSettings(rank_offset=shift)
    distance = shells(35)
    n = torch.arange(1, 36, dtype=F64)
    assert (ranks(distance, 35, settings_)[0] == n - 0.5 + shift).all()
    hard = GraphSettings(rank="hard", rank_offset=shift)
    assert (ranks(distance, 35, hard)[0] == n - 1 + shift).all()


COUNTING = {  # weights of the 20th, 25th, 27th, 28th and 29th neighbor, k = 30
    "as in eq. 4": (-0.5, [0.51, 0.17, 0.049, 0.014, 1e-3]),
    "as in eq. 6": (0.0, [0.48, 0.14, 0.029, 5e-3, 1e-4]),
    "with the atom itself": (1.0, [0.42, 0.074, 5e-3, 1e-4, 2e-13]),
}


@pytest.mark.parametrize(("offset", "weights"), COUNTING.values(), ids=COUNTING)
def test_weights_by_rank_alone(offset, weights):
    f = ranks(shells(35), 35, GraphSettings(rank_offset=offset))[0, [19, 24, 26, 27, 28]] / 30
    e = torch.exp(-(f**2) / (1 - f**2))
    assert e.tolist() == pytest.approx(weights, rel=0.2)
    assert e[:2].tolist() == pytest.approx(weights[:2], abs=6e-3)


def test_at_most_59_equidistant_neighbors_have_a_rank_below_30():
    for count, below in ((59, 59), (60, 0), (120, 0)):
        rank = soft_rank(torch.full((1, count), 2.0, dtype=F64), count, 0.2)
        assert (rank == count / 2).all()
        assert int((rank < 30).sum()) == below


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.floats(0.5, 3.0), min_size=1, max_size=60), st.floats(0.02, 1.0))
def test_never_more_than_2k_minus_1_have_a_rank_below_k(k, lengths, d0):
    distance = torch.tensor(sorted(lengths), dtype=F64)[None]
    rank = soft_rank(distance, len(lengths), d0)[0]
    assert int((rank < k).sum()) <= 2 * k - 1
    assert (rank.diff() >= -1e-12).all()  # the order of the distances is kept


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 5e-14), (F32, 1e-4)])
@pytest.mark.parametrize("chunk", [1, 700, 2**16])
def test_the_lean_rank_and_its_derivatives_are_those_of_the_plain_sum(dtype, tolerance, chunk, monkeypatch):
    monkeypatch.setitem(ranking.CHUNK, "cpu", chunk)
    rng = torch.Generator().manual_seed(0)
    x = (2 + 2 * torch.rand(7, 20, generator=rng, dtype=F64)).to(dtype)
    x[2, 15:] = FAR
    weight, direction = (torch.rand(shape, generator=rng, dtype=F64).to(dtype) for shape in ((7, 9), (7, 20)))

    def derivatives(rank):
        y = x.clone().requires_grad_()
        value = rank(y, 9, 0.2)
        (first,) = torch.autograd.grad((value * weight).square().sum(), y, create_graph=True)
        (last,) = torch.autograd.grad((first * direction).sum(), y, retain_graph=True)
        (second,) = torch.autograd.grad((first * direction).sum(), y, create_graph=True)
        (third,) = torch.autograd.grad((second * direction).sum(), y)
        return value, first, last, second, third

    for ours, theirs in zip(derivatives(soft_rank), derivatives(plain)):
        scale = theirs.abs().max()
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=tolerance)


def test_the_lean_rank_passes_gradcheck_twice():
    x = (torch.rand(3, 8, generator=torch.Generator().manual_seed(1), dtype=F64) * 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_rank(x, 5, 0.2), x)
    assert torch.autograd.gradgradcheck(lambda x: soft_rank(x, 5, 0.2), x)


def test_the_lean_rank_keeps_nothing_but_distances():
    kept = []
    x = torch.rand(50, 40, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        soft_rank(x, 30, 0.2)
    assert sum(kept) <= x.numel()


def test_the_lean_rank_works_under_functional_transforms():
    x = torch.rand(3, 8, dtype=F64)
    gradient = torch.func.grad(lambda x: soft_rank(x, 5, 0.2).square().sum())(x)
    y = x.clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(plain(y, 5, 0.2).square().sum(), y)[0])


@pytest.mark.parametrize("rank", ["compact", "sigmoid", "hard"])
def test_empty_places_and_their_number_change_nothing(rank):
    given_ = GraphSettings(rank=rank)
    x = 2 + 3 * torch.rand(6, 17, generator=torch.Generator().manual_seed(2))
    padded = torch.cat([x, torch.full((6, 30), FAR)], dim=1)
    assert torch.equal(ranks(padded, 9, given_), ranks(x, 9, given_))


@pytest.mark.parametrize("rank", ["compact", "sigmoid", "hard"])
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 0), (4, 3)])
def test_tables_without_rows_columns_or_queries(rank, shape):
    x = torch.ones(shape, requires_grad=True)
    assert ranks(x, 0, GraphSettings(rank=rank)).shape == (shape[0], 0)


def test_hard_ranks_are_places_in_the_list_the_first_of_equals_first():
    x = torch.tensor([[2.0, 1.0, 2.0, 3.0, 1.5]], requires_grad=True)
    rank = hard_rank(x, 4)
    assert rank.tolist() == [[2, 0, 3, 4]]
    assert not rank.requires_grad


def test_the_taper_goes_from_one_at_the_cutoff_to_zero_at_the_horizon():
    given_ = GraphSettings(cutoff=3.0, d0=0.25)
    assert taper(torch.tensor([0.1, 3.0, 3.5, 4.0, FAR], dtype=F64), given_).tolist() == [1, 1, 0.5, 0, 0]


def test_sigmoid_ranks_are_plain_sums_below_the_cutoff_and_feel_nothing_at_the_horizon():
    given_ = GraphSettings(rank="sigmoid", cutoff=3.0)
    x = torch.linspace(1, 2.9, 12, dtype=F64)[None]
    expected = torch.sigmoid((x[:, None, :] - x[:, :, None]) / 0.2).sum(1)
    torch.testing.assert_close(sigmoid_rank(x, 12, given_), expected, rtol=1e-15, atol=0)
    entering = torch.cat([x, torch.tensor([[3.8]], dtype=F64)], dim=1)
    assert torch.equal(sigmoid_rank(entering, 12, given_), sigmoid_rank(x, 12, given_))


def test_sigmoid_ranks_pass_gradcheck():
    x = (1 + 2.5 * torch.rand(2, 7, generator=torch.Generator().manual_seed(3), dtype=F64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sigmoid_rank(x, 4, GraphSettings(rank="sigmoid", cutoff=3)), x)


def test_two_swapping_neighbors_make_the_hard_rank_jump_and_the_soft_one_pass():
    def largest_step(rank, h):
        t = np.arange(-0.3, 0.3, h)
        x = torch.stack([torch.full((len(t),), 2.0), torch.tensor(2 + t), torch.full((len(t),), 2.5)], dim=1)
        return float(rank(x.double()).diff(dim=0).abs().max())

    soft = [largest_step(lambda x: soft_rank(x, 3, 0.2), h) for h in (1e-2, 1e-3)]
    assert soft[0] / soft[1] == pytest.approx(10, rel=0.01)
    hard = [largest_step(lambda x: hard_rank(x, 3), h) for h in (1e-2, 1e-3)]
    assert hard == [1, 1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": "compcat"}, "did you mean 'compact'"),
        ({"mode": "both"}, "mode: .both. is unknown"),
        ({"k": 0}, "k: expected a positive number"),
        ({"d0": -1.0}, "d0"),
        ({"beta": math.inf}, "beta"),
        ({"cutoff": math.nan}, "cutoff"),
        ({"rank_offset": math.nan}, "rank_offset"),
        ({"f_max": 1.1}, "f_max: with rank 'compact' expected a number from 0.98 to 1, got 1.1"),
        ({"f_max": 0.97}, "f_max: with rank 'compact'"),
        ({"f_max": 0.97, "rank": "sigmoid"}, "f_max: with rank 'sigmoid'"),
        ({"f_max": 0.0, "rank": "hard"}, "f_max: with rank 'hard' expected a number from 0 to 1, got 0.0"),
        ({"k": 2.5}, "k: expected a whole number, got 2.5"),
        ({"k": True}, "k: expected a whole number, got True"),
        ({"cutoff": "6"}, "cutoff: expected a number, got '6'"),
        ({"d0": None}, "d0: expected a number, got None"),
        ({"f_max": [1]}, "f_max: expected a number"),
    ],
)
def test_senseless_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GraphSettings(**wrong)
