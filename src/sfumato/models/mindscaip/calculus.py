"""Norm and activation with their derivatives, each a few large operations.

For y = f(x) with Jacobian J there are three functions: the value; the *pull* Jᵀg of a gradient g of y; and
the *second* step, which for a gradient a of the pulled one returns its push J a and the gradient by x of
⟨g, J(x) a⟩, the curvature. Both Jacobians are symmetric row by row, so push and pull are the same map.
torch makes its own second derivatives of these out of some twenty small operations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

EPSILON = 1e-5
"""Added to the variance in a norm, so that it is smooth also where all channels are equal."""


def last(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward pass that cannot be differentiated say so, rather than be taken for a constant."""

    @wraps(backward)
    def guarded(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("this derivative cannot be differentiated again; set model.method = 'plain'")
        return backward(ctx, *grads)

    return guarded


def norm(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows y with mean 0 and variance 1, and (T, 1) r, one over their deviation."""
    y, _, r = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
    return y, r


def norm_pull(g: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Return r L(g), L(g) = g − mean(g) − y mean(g y)."""
    return _project(g, y).mul_(r)


def norm_second(a: Tensor, g: Tensor, y: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return r L(a) and −r² [mean(g y) L(a) + mean(a y) L(g) + mean(a L(g)) y]."""
    push, inner = _project(a, y), _project(g, y)
    scale = r.square().mul_(-1.0 / y.shape[-1])
    by_push, by_inner, by_y = (
        torch.linalg.vecdot(left, right)[:, None].mul_(scale) for left, right in ((g, y), (a, y), (a, inner))
    )
    curvature = (push * by_push).addcmul_(inner, by_inner).addcmul_(y, by_y)
    return push.mul_(r), curvature


def _project(g: Tensor, y: Tensor) -> Tensor:
    """Return L(g): the gradient through the norm of rows that have mean 0 and deviation 1 already."""
    found: Tensor = torch.ops.aten.native_layer_norm_backward(
        g, y, y.shape[-1:], y.new_zeros(len(y), 1), y.new_ones(len(y), 1), None, None, [True, False, False]
    )[0]
    return found


def silu(x: Tensor) -> Tensor:
    """Return x σ(x)."""
    return torch.nn.functional.silu(x)


def silu_pull(g: Tensor, x: Tensor) -> Tensor:
    """Return g (x σ)′."""
    found: Tensor = torch.ops.aten.silu_backward(g, x)
    return found


def silu_second(a: Tensor, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a (x σ)′ and a g (x σ)″, (x σ)″ = σ(1 − σ)(2 + x(1 − 2σ))."""
    s = torch.sigmoid(x)
    curvature = torch.ops.aten.sigmoid_backward(a * g, s)
    return silu_pull(a, x), curvature.mul_(s.mul_(-2).add_(1).mul_(x).add_(2))


def glu(x: Tensor) -> Tensor:
    """Return silu(u) v of rows x = (u, v)."""
    u, v = x.chunk(2, -1)
    return silu(u) * v


def glu_pull(g: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of rows (u, v) from that of silu(u) v."""
    u, v = x.chunk(2, -1)
    return torch.cat([silu_pull(g * v, u), g * silu(u)], -1)


def glu_second(a: Tensor, g: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the change of silu(u) v when (u, v) changes by a, and the curvature."""
    (u, v), (du, dv) = x.chunk(2, -1), a.chunk(2, -1)
    gv = g * v
    slope, bend = silu_second(du, gv, u)
    bend += silu_pull(g * dv, u)
    return torch.addcmul(slope * v, silu(u), dv), torch.cat([bend, g * slope], -1)


class _ScatterRows(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, owners: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(index, owners, place)
        ctx.length = len(rows)
        return torch.cat([rows, rows.new_zeros(1, rows.shape[1])]).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        found: Tensor = _GatherRows.apply(grad, ctx.length, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return found, None, None, None


class _GatherRows(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, length: int, index: Tensor, owners: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(index, owners, place)
        found = table.new_zeros(length, table.shape[1])
        return found.index_copy_(0, owners, table.index_select(0, place))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return scatter_rows(grad, *ctx.saved_tensors), None, None, None, None


def scatter_rows(rows: Tensor, index: Tensor, owners: Tensor, place: Tensor) -> Tensor:
    """Return rows at the places of a table, zero in the empty ones.

    As no row lies in two places, the gradient is a selection too: no sums, no atomics.

    Args:
        rows: (T, d).
        index: (M,) which row lies where; T in empty places.
        owners: (t,) the rows that occur, each once.
        place: (t,) where each of them lies.

    Returns:
        (M, d).
    """
    found: Tensor = _ScatterRows.apply(rows, index, owners, place)  # type: ignore[no-untyped-call]
    return found
