"""How many neighbours are nearer than a given one: in whole numbers, or differentiably.

All ranks act on a table of distances, one row per atom, whose first columns are the neighbours to rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sfumato.graph.settings import GraphSettings

SUPPORT = 4.0
"""The compact step is constant outside ±4."""

SATURATED = 0.999 * SUPPORT
"""From here on the compact step is 0 or 1 to the last bit and its derivatives are 0: e^−1999 underflows."""

FAR = 1e6
"""Å, what stands in the empty places of a table of distances."""

CHUNK = {"cpu": 2**16, "cuda": 2**26}
"""Numbers worked on at once: on a CPU what fits into its cache."""


def compact_step(x: Tensor) -> Tensor:
    """Return s(x) = σ(x/(1 − (x/4)²)) for |x| < 4, 0 before and 1 after: a step without a corner.

    It has the value and the slope of σ(x) at 0. All its derivatives vanish at ±4, so it is smooth of any
    order. The clamp does not change that: beyond `SATURATED` value and derivatives are exactly 0 or 1 and
    0 in double precision already, and inside it is the identity.

    Source: Liu et al. 2026, Eq. 10, with the exponent of its second term corrected to −2/(1 − x).
    """
    z = x.clamp(-SATURATED, SATURATED)
    return torch.sigmoid(z / (1 - (z / SUPPORT) ** 2))


def _slope(x: Tensor, weight: Tensor) -> Tensor:
    """Return −weight·s′, s′ = s(1 − s)(2r² − r) with r = 1/(1 − (x/4)²), in few passes; x is used up."""
    x.clamp_(-SATURATED, SATURATED)
    r = torch.addcmul(x.new_ones(()), x, x, value=-1 / SUPPORT**2).reciprocal_()
    s = x.mul_(r).sigmoid_()
    slope: Tensor = torch.ops.aten.sigmoid_backward(r.addcmul_(r, r, value=-2).mul_(weight), s)
    return slope


def _curvature(x: Tensor) -> Tensor:
    """Return s″ = s(1 − s)[(1 − 2s)u′² + u″] with u = x/w, u′ = (2 − w)/w², u″ = x(4 − w)/(8w³)."""
    z = x.clamp(-SATURATED, SATURATED)
    w = 1 - (z / SUPPORT) ** 2
    s = torch.sigmoid(z / w)
    return s * (1 - s) * ((1 - 2 * s) * ((2 - w) / w**2) ** 2 + z * (4 - w) / (8 * w**3))


def _chunks(table: Tensor, queries: int) -> Iterator[slice]:
    """Yield groups of rows whose (rows, width, queries) arrays are worked on at once."""
    rows = max(1, CHUNK.get(table.device.type, 2**16) // max(1, queries * table.shape[1]))
    for start in range(0, len(table), rows):
        yield slice(start, start + rows)


def _apart(rows: Tensor, queries: int) -> Tensor:
    """Return (n, width, queries): by how much each ranked distance exceeds each of its row."""
    return rows[:, None, :queries] - rows[:, :, None]


class _SoftRank(torch.autograd.Function):
    """Σ_t s(x_q − x_t): keeps the distances only, and computes the steps again for each derivative."""

    @staticmethod
    def forward(x: Tensor, queries: int) -> Tensor:
        rank = x.new_empty(len(x), queries)
        for rows in _chunks(x, queries):
            z = _apart(x[rows], queries).clamp_(-SATURATED, SATURATED)
            w = torch.addcmul(z.new_ones(()), z, z, value=-1 / SUPPORT**2)
            rank[rows] = z.div_(w).sigmoid_().sum(1)
        return rank

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        gradient: Tensor = _SoftRankGradient.apply(grads[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return gradient, None


def _collect(pulls: Tensor) -> Tensor:
    """Return (n, width): what (n, width, queries) pulls between distances add up to on each of them."""
    total = pulls.sum(2)
    total[:, : pulls.shape[2]] -= pulls.sum(1)
    return total


class _SoftRankGradient(torch.autograd.Function):
    """The gradient of Σ_q g_q rank_q with respect to the distances, differentiable once more."""

    @staticmethod
    def forward(grad: Tensor, x: Tensor) -> Tensor:
        queries = grad.shape[1]
        gradient = torch.empty_like(x)
        for rows in _chunks(x, queries):
            gradient[rows] = _collect(_slope(_apart(x[rows], queries), grad[rows, None, :]))
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        queries = grad.shape[1]
        by_grad, by_x = torch.empty_like(grad), torch.empty_like(x)
        for rows in _chunks(x, queries):
            apart, along = _apart(x[rows], queries), _apart(v[rows], queries)
            by_x[rows] = -_collect(_curvature(apart) * along * grad[rows, None, :])
            by_grad[rows] = -_slope(apart, along).sum(1)
        return by_grad, by_x


def soft_rank(distance: Tensor, queries: int, d0: float) -> Tensor:
    """Return the compact soft rank of the first distances of each row.

    rank_q = Σ_t s((d_q − d_t)/d0) with s the compact step; the own term counts ½. Only the distances are
    kept for the backward pass. Twice differentiable.

    Args:
        distance: (N, T) Å; `FAR` where a row has fewer.
        queries: Q, how many columns to rank.
        d0: Å.

    Returns:
        (N, Q).

    Source: Liu et al. 2026, Eqs. 9 and 10.
    """
    rank: Tensor = _SoftRank.apply(distance / d0, queries)  # type: ignore[no-untyped-call]
    return rank


def taper(distance: Tensor, settings: GraphSettings) -> Tensor:
    """Return a smooth weight: 1 up to the cutoff, 0 from the horizon on, 4 d0 farther out."""
    return compact_step(2 * ((settings.cutoff - distance) / settings.d0 + 2))


def sigmoid_rank(distance: Tensor, queries: int, settings: GraphSettings) -> Tensor:
    """Return the soft rank with the logistic step, which every neighbour up to the horizon takes part in.

    rank_q = Σ_t w(d_t) σ((d_q − d_t)/d0). The taper w, absent in the source, makes it local: the logistic
    function itself never ends.

    Args:
        distance: (N, T) Å; all neighbours within the horizon; `FAR` where a row has fewer.
        queries: Q, how many columns to rank.
        settings: d0 and cutoff.

    Returns:
        (N, Q).

    Source: Liu et al. 2026, Eq. 6.
    """
    weight = taper(distance, settings)
    ranks = [
        (torch.sigmoid(_apart(distance[rows], queries) / settings.d0) * weight[rows, :, None]).sum(1)
        for rows in _chunks(distance, queries)
    ]
    return torch.cat(ranks) if ranks else distance.new_zeros(0, queries)


def hard_rank(distance: Tensor, queries: int) -> Tensor:
    """Return how many neighbours come before each of the first ones of its row; of equals, the first wins.

    It has no gradient, and it jumps where two neighbours swap: the baseline that fails.

    Args:
        distance: (N, T) Å; `FAR` where a row has fewer.
        queries: Q, how many columns to rank.

    Returns:
        (N, Q).

    Source: Liu et al. 2026, Eq. 4.
    """
    distance = distance.detach()
    column = torch.arange(distance.shape[1], device=distance.device)
    first = column[:, None] < column[None, :queries]
    rank = distance.new_empty(len(distance), queries)
    for rows in _chunks(distance, queries):
        apart = _apart(distance[rows], queries)
        rank[rows] = ((apart > 0) | ((apart == 0) & first)).sum(1).to(rank.dtype)
    return rank


def step(x: Tensor, settings: GraphSettings) -> Tensor:
    """Return what a neighbour nearer by x d0 adds to a rank, the taper aside: never falling with x."""
    if settings.rank == "compact":
        return compact_step(x)
    return torch.sigmoid(x) if settings.rank == "sigmoid" else (x > 0).to(x.dtype)


def ranks(distance: Tensor, queries: int, settings: GraphSettings) -> Tensor:
    """Return (N, Q) ranks of the first Q of (N, T) distances, as the settings say."""
    if settings.rank == "compact":
        rank = soft_rank(distance, queries, settings.d0)
    elif settings.rank == "sigmoid":
        rank = sigmoid_rank(distance, queries, settings)
    else:
        rank = hard_rank(distance, queries)
    return rank + settings.rank_offset if settings.rank_offset else rank
