"""How many neighbors are nearer than a given one: in whole numbers, or differentiably.

All ranks act on a table of distances, one row per atom, whose first columns are the neighbors to rank.
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


def _chunks(table: Tensor, queries: int) -> Iterator[slice]:
    """Yield groups of rows whose (rows, width, queries) arrays are worked on at once."""
    rows = max(1, CHUNK.get(table.device.type, 2**16) // max(1, queries * table.shape[1]))
    for start in range(0, len(table), rows):
        yield slice(start, min(start + rows, len(table)))


def _apart(rows: Tensor, queries: int) -> Tensor:
    """Return (n, width, queries): by how much each ranked distance exceeds each of its row."""
    return rows[:, None, :queries] - rows[:, :, None]


class _Scratch:
    """Two arrays that hold the steps of one chunk after the other: fresh ones cost more than the sums."""

    def __init__(self, x: Tensor, queries: int) -> None:
        rows = next(_chunks(x, queries), slice(0, 0)).stop
        self.x, self.queries, self.one = x, queries, x.new_ones(())
        self.first, self.second = x.new_empty(2, rows, x.shape[1], queries)

    def parts(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return x and 1 − (x/4)² for the x_q − x_t of some rows, x no larger than where s is 0 or 1."""
        n, x = rows.stop - rows.start, self.x[rows]
        z = torch.sub(x[:, None, : self.queries], x[:, :, None], out=self.first[:n])
        z.clamp_(-SATURATED, SATURATED)
        return z, torch.addcmul(self.one, z, z, value=-1 / SUPPORT**2, out=self.second[:n])


class _SoftRank(torch.autograd.Function):
    """Σ_t s(x_q − x_t): keeps the distances only, and computes the steps again for each derivative."""

    @staticmethod
    def forward(x: Tensor, queries: int) -> Tensor:
        rank, scratch = x.new_empty(len(x), queries), _Scratch(x, queries)
        for rows in _chunks(x, queries):
            z, w = scratch.parts(rows)
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
    total = -pulls.sum(2)
    total[:, : pulls.shape[2]] += pulls.sum(1)
    return total


class _SoftRankGradient(torch.autograd.Function):
    """The gradient of Σ_q g_q rank_q with respect to the distances, itself differentiable.

    With w = 1 − (x/4)² and u = x/w, s′ = s(1 − s)u′ and s″ = s(1 − s)[(1 − 2s)u′² + u″], where
    u′ = (2 − w)/w² and u″ = x(4 − w)/(8w³).
    """

    @staticmethod
    def forward(grad: Tensor, x: Tensor) -> Tensor:
        queries = grad.shape[1]
        gradient, scratch = torch.empty_like(x), _Scratch(x, queries)
        for rows in _chunks(x, queries):
            z, w = scratch.parts(rows)
            inverse = w.reciprocal_()
            s = z.mul_(inverse).sigmoid_()
            pulls = inverse.addcmul_(inverse, inverse, value=-2).mul_(grad[rows, None, :])  # −g u′
            gradient[rows] = -_collect(s.addcmul_(s, s, value=-1).mul_(pulls))
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, ...]:
        grad, x = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _plain_second(grad, x, v)
        queries = grad.shape[1]
        by_grad, by_x, scratch = torch.empty_like(grad), torch.empty_like(x), _Scratch(x, queries)
        for rows in _chunks(x, queries):
            z, w = scratch.parts(rows)
            along = v[rows, None, :queries] - v[rows, :, None]
            s = torch.sigmoid(z / w)
            slope, rate = along.mul_(s * (1 - s)), (2 - w) / w**2
            by_grad[rows] = (slope * rate).sum(1)
            curvature = (1 - 2 * s).mul_(rate).mul_(rate) + z * (4 - w) / (8 * w**3)
            by_x[rows] = _collect(slope.mul_(curvature).mul_(grad[rows, None, :]))
        return by_grad, by_x


def _plain_second(grad: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of `_SoftRankGradient` by g and x, differentiable any number of times.

    Args:
        grad: (N, Q) g.
        x: (N, T).
        v: (N, T), what comes back for the gradient.
    """
    # Views, so that these derivatives end here, and those asked for later go on.
    grad, x = (
        part.view_as(part) if part.requires_grad else part.detach().requires_grad_() for part in (grad, x)
    )
    rank = compact_step(_apart(x, grad.shape[1])).sum(1)
    (gradient,) = torch.autograd.grad(rank, x, grad, create_graph=True)
    return torch.autograd.grad(gradient, (grad, x), v, create_graph=True)


def soft_rank(distance: Tensor, queries: int, d0: float) -> Tensor:
    """Return the compact soft rank of the first distances of each row.

    rank_q = Σ_t s((d_q − d_t)/d0) with s the compact step; the own term counts ½. Only the distances are
    kept for the backward pass. Differentiable any number of times; from the third derivative on in plain
    operations, which keep an array of (N, T, Q).

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
    """Return the soft rank with the logistic step, which every neighbor up to the horizon takes part in.

    rank_q = Σ_t w(d_t) σ((d_q − d_t)/d0). The taper w, absent in the source, makes it local: the logistic
    function itself never ends.

    Args:
        distance: (N, T) Å; all neighbors within the horizon; `FAR` where a row has fewer.
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
    """Return how many neighbors come before each of the first ones of its row; of equals, the first wins.

    It has no gradient, and it jumps where two neighbors swap: the baseline that fails.

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
    """Return what a neighbor nearer by x d0 adds to a rank, the taper aside: never falling with x."""
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
