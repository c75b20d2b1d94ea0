"""Attention among the tokens of one atom, each key weighted by its envelope; differentiable twice.

Tokens are the rows of one packed array, self tokens first, then edges. A `Table` says which rows attend to
each other: those with the same source, or those with the same destination. Weights are

    P_ab ∝ e_b exp(q_a·k_b/(τ√d) + Σ_l w_l P_l(cos θ_ab)),

so that a key fades out with its envelope e_b, with all derivatives. The self token has e = 1: it takes what
the others leave, also when it is alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Method = Literal["lean", "reference"]

NEVER = -1e30
"""Stands for log 0: its exponential is exactly 0 as that of −∞ is, but no difference of two is NaN."""

CHUNK = {"cpu": 2**18, "cuda": 2**27}
"""Weights computed at once: on a CPU what fits into its cache."""

KEEP = 2**21
"""Up to so many weights are kept for the backward pass rather than computed again."""

LANES = 16
"""Windows are padded to a multiple of this: a softmax over 14 takes ten times as long as one over 16."""


@dataclass(frozen=True)
class Table:
    """Which rows of the packed tokens attend to each other.

    Args:
        rows: (N, K) rows of every atom; 0 in empty places, whose weight is zero and whose result is dropped.
        present: (N, K) one, or zero in empty places.
        place: (T,) where each row lies in `rows`, counted row by row.
        heads: number of attention heads H.
        spread: (N, H, K) and (3, N, H, K), from (T, H, d) and (T, 3, H, d) rows to windows.
        collect: (T, H) and (T, 3, H), the way back.
    """

    rows: Tensor
    present: Tensor
    place: Tensor
    heads: int
    spread: tuple[Tensor, Tensor]
    collect: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, slots: Tensor, n_rows: int, heads: int, dtype: torch.dtype) -> Table:
        """Make the tables of a window.

        Args:
            slots: (N, K) rows, `n_rows` in empty places.
            n_rows: T.
            heads: H.
            dtype: of the tokens.
        """
        n, k = slots.shape
        width = -(-k // LANES) * LANES
        slots = torch.nn.functional.pad(slots, (0, width - k), value=n_rows)
        there = slots < n_rows
        place = torch.empty(n_rows, dtype=torch.long, device=slots.device)
        place[slots[there]] = torch.nonzero(there.reshape(-1)).squeeze(1)
        rows = torch.where(there, slots, 0)
        head = torch.arange(heads, device=slots.device)
        spread = rows[:, None, :] * heads + head[:, None]
        third = torch.arange(3, device=slots.device)[:, None, None, None] * heads
        collect = (place.div(width, rounding_mode="floor")[:, None] * heads + head) * width
        collect = collect + (place % width)[:, None]
        blocks = torch.arange(3, device=slots.device)[:, None] * (n * heads * width)
        return cls(
            rows,
            there.to(dtype),
            place,
            heads,
            (spread, rows[:, None, :] * (3 * heads) + head[:, None] + third),
            (collect, collect[:, None, :] + blocks),
        )


@dataclass(frozen=True)
class Window:
    """A table with what depends on the geometry.

    Args:
        table: the rows.
        bias: (N, K) log e, `NEVER` or less in empty places.
        angles: (N, degree + 1, K, K) Legendre polynomials of the angles between edges, zero for self tokens
            and empty places; None without an angular bias.
    """

    table: Table
    bias: Tensor
    angles: Tensor | None = None


def attend(
    qkv: Tensor, window: Window, weights: Tensor | None, scale: float, method: Method = "lean"
) -> Tensor:
    """Return the attention of every token to those of its window.

    Args:
        qkv: (T, 3·H·d) queries, keys and values, heads inside each.
        window: N windows of K places.
        weights: (H, degree + 1) of the Legendre polynomials; None without an angular bias.
        scale: 1/(τ√d), of the products of queries and keys only.
        method: "lean" keeps queries, keys and values for the backward pass and computes the weights again;
            "reference" is plain torch operations, differentiable any number of times.

    Returns:
        (T, H·d).

    Source: Liu et al. 2026, Section 5.1 (temperature).
    """
    if method == "reference":
        return _reference(qkv, window, weights, scale)
    found: Tensor = _Attention.apply(qkv, window.bias, window.angles, weights, window.table, scale)  # type: ignore[no-untyped-call]
    return found


def _reference(qkv: Tensor, window: Window, weights: Tensor | None, scale: float) -> Tensor:
    table = window.table
    n, k = table.rows.shape
    q, key, v = qkv[table.rows].view(n, k, 3, table.heads, -1).permute(2, 0, 3, 1, 4)
    logits = scale * q @ key.transpose(-1, -2) + window.bias[:, None, None, :]
    if window.angles is not None and weights is not None:
        logits = logits + torch.einsum("hl,nlab->nhab", weights, window.angles)
    out = logits.softmax(-1) @ v
    return out.transpose(1, 2).reshape(n * k, -1)[table.place]


def _parts(n: int, heads: int, k: int, device: str) -> Iterator[tuple[slice, slice]]:
    """Yield slices of atoms, and of atoms times heads, whose weights fit the cache."""
    step = max(1, CHUNK.get(device, CHUNK["cpu"]) // (heads * k * k))
    for start in range(0, n, step):
        yield slice(start, start + step), slice(start * heads, (start + step) * heads)


def _spread(rows: Tensor, table: Table) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values as (N·H, K, d)."""
    n, k = table.rows.shape
    flat = rows.view(len(rows) * 3 * table.heads, -1)
    q, key, v = flat.index_select(0, table.spread[1].view(-1)).view(3, n * table.heads, k, -1)
    return q, key, v


def _spread_one(rows: Tensor, table: Table) -> Tensor:
    """Return (T, H·d) rows as (N·H, K, d), zero in empty places."""
    n, k = table.rows.shape
    flat = rows.reshape(len(rows) * table.heads, -1)
    found = flat.index_select(0, table.spread[0].view(-1)).view(n, table.heads, k, -1)
    return found.mul_(table.present[:, None, :, None]).view(n * table.heads, k, -1)


def _collect(windows: Tensor, table: Table) -> Tensor:
    """Return (T, ·) rows from (N·H, K, d) or (3, N·H, K, d)."""
    index = table.collect[windows.dim() == 4]
    rows = windows.view(-1, windows.shape[-1]).index_select(0, index.view(-1))
    return rows.view(len(table.place), -1)


def _turned(windows: Tensor) -> Tensor:
    return windows.transpose(1, 2)


def _weights(q: Tensor, key: Tensor, bias: Tensor, angles: Tensor | None, weights: Tensor | None) -> Tensor:
    """Return P (n·H, K, K) of scaled queries."""
    n, k = bias.shape
    if angles is None or weights is None:
        logits = torch.bmm(q, _turned(key))
    else:
        logits = _each(weights, angles).view(-1, k, k)
        logits.baddbmm_(q, _turned(key))
    logits.view(n, -1, k, k).add_(bias[:, None, None, :])
    return torch.softmax(logits, -1)


def _through_softmax(grad: Tensor, p: Tensor) -> Tensor:
    """Return P ∘ (g − Σ P ∘ g)."""
    return torch._softmax_backward_data(grad, p, -1, p.dtype)


class _Attention(Function):
    """O = P V. Keeps P where it is small, else what P is made of."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        bias: Tensor,
        angles: Tensor | None,
        weights: Tensor | None,
        table: Table,
        scale: float,
    ) -> Tensor:
        n, k = bias.shape
        q, key, v = _spread(qkv, table)
        q.mul_(scale)
        out = torch.empty_like(v)
        keep = n * table.heads * k * k <= KEEP
        maps = []
        for atoms, heads in _parts(n, table.heads, k, qkv.device.type):
            part = None if angles is None else angles[atoms]
            p = _weights(q[heads], key[heads], bias[atoms], part, weights)
            torch.bmm(p, v[heads], out=out[heads])
            if keep:
                maps.append(p)
        ctx.save_for_backward(qkv, bias, angles, weights, *maps)
        ctx.table, ctx.scale = table, scale
        return _collect(out, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        qkv, bias, angles, weights, *maps = ctx.saved_tensors
        found = _AttentionBackward.apply(grad, qkv, bias, angles, weights, maps, ctx.table, ctx.scale)  # type: ignore[no-untyped-call]
        return *found, None, None


class _AttentionBackward(Function):
    """With G the gradient of O: dV = PᵀG, dP = GVᵀ, dS = P∘(dP − ΣP∘dP), dQ = dS K, dK = dSᵀQ."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        qkv: Tensor,
        bias: Tensor,
        angles: Tensor | None,
        weights: Tensor | None,
        maps: list[Tensor],
        table: Table,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        ctx.save_for_backward(grad, qkv, bias, angles, weights, *maps)
        ctx.table, ctx.scale = table, scale
        ctx.set_materialize_grads(False)
        n, k = bias.shape
        q, key, v = _spread(qkv, table)
        q.mul_(scale)
        g = _spread_one(grad, table)
        found = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device)
        by_bias = torch.empty_like(bias)
        by_angles = None if angles is None else torch.empty_like(angles)
        by_weights = None if weights is None else torch.zeros_like(weights)
        for step, (atoms, heads) in enumerate(_parts(n, table.heads, k, qkv.device.type)):
            part = None if angles is None else angles[atoms]
            p = maps[step] if maps else _weights(q[heads], key[heads], bias[atoms], part, weights)
            torch.bmm(_turned(p), g[heads], out=found[2, heads])
            ds = _through_softmax(torch.bmm(g[heads], _turned(v[heads])), p)
            torch.bmm(ds, key[heads], out=found[0, heads])
            torch.bmm(_turned(ds), q[heads], out=found[1, heads])
            by_bias[atoms] = ds.view(-1, table.heads * k, k).sum(1)
            if part is not None and weights is not None and by_angles is not None:
                _into_angles(ds, part, weights, by_angles[atoms], by_weights)
        found[0].mul_(scale)
        return _collect(found, table), by_bias, by_angles, by_weights

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        to_qkv: Tensor | None,
        to_bias: Tensor | None,
        to_angles: Tensor | None,
        to_weights: Tensor | None,
    ) -> tuple[Any, ...]:
        """Differentiate ⟨G, dO⟩, dO the change of O when qkv, bias, … change by what comes in.

        With T the change of the logits, dP = GVᵀ, D = ΣP∘dP, t = ΣP∘T, and e that of V:
        the change of P is P∘(T − t); the gradient by the logits is Z = P∘(W − ΣP∘W) with
        W = (dP − D)∘(T − t) + G eᵀ, and that by T is dS = P∘(dP − D).
        """
        grad, qkv, bias, angles, weights, *maps = ctx.saved_tensors
        table: Table = ctx.table
        n, k = bias.shape
        q, key, v = _spread(qkv, table)
        q.mul_(ctx.scale)
        g = _spread_one(grad, table)
        a, b, e = _spread(torch.zeros_like(qkv) if to_qkv is None else to_qkv.contiguous(), table)
        a.mul_(ctx.scale)
        by_grad = torch.empty_like(g)
        found = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device)
        by_bias = torch.empty_like(bias)
        by_angles = None if angles is None else torch.empty_like(angles)
        by_weights = None if weights is None else torch.zeros_like(weights)
        for step, (atoms, heads) in enumerate(_parts(n, table.heads, k, qkv.device.type)):
            part = None if angles is None else angles[atoms]
            p = maps[step] if maps else _weights(q[heads], key[heads], bias[atoms], part, weights)
            change = torch.bmm(a[heads], _turned(key[heads])).baddbmm_(q[heads], _turned(b[heads]))
            change_of = change.view(-1, table.heads, k, k)
            if to_bias is not None:
                change_of.add_(to_bias[atoms, None, None, :])
            if part is not None and weights is not None:
                if to_angles is not None:
                    change_of.add_(_each(weights, to_angles[atoms]).view_as(change_of))
                if to_weights is not None:
                    change_of.add_(_each(to_weights, part).view_as(change_of))
            dp = torch.bmm(g[heads], _turned(v[heads]))
            change.sub_(torch.linalg.vecdot(p, change)[..., None])
            dp.sub_(torch.linalg.vecdot(p, dp)[..., None])
            ds = p * dp
            w = torch.bmm(g[heads], _turned(e[heads])).addcmul_(dp, change)
            z = _through_softmax(w, p)
            dp_ = change.mul_(p)  # the change of P
            torch.bmm(dp_, v[heads], out=by_grad[heads]).baddbmm_(p, e[heads])
            torch.bmm(_turned(dp_), g[heads], out=found[2, heads])
            torch.bmm(z, key[heads], out=found[0, heads]).baddbmm_(ds, b[heads])
            torch.bmm(_turned(z), q[heads], out=found[1, heads]).baddbmm_(_turned(ds), a[heads])
            by_bias[atoms] = z.view(-1, table.heads * k, k).sum(1)
            if part is not None and weights is not None and by_angles is not None:
                _into_angles(z, part, weights, by_angles[atoms], by_weights)
                flat = ds.view(-1, table.heads, k, k)
                if to_weights is not None:
                    by_angles[atoms] += _each(to_weights.t(), flat).view_as(part)
                if to_angles is not None and by_weights is not None:
                    by_weights += _across(flat, to_angles[atoms])
        found[0].mul_(ctx.scale)
        return (
            _collect(by_grad, table),
            _collect(found, table),
            by_bias,
            by_angles,
            by_weights,
            None,
            None,
            None,
        )


def _into_angles(
    ds: Tensor, angles: Tensor, weights: Tensor, by_angles: Tensor, by_weights: Tensor | None
) -> None:
    """Write the gradient of the logits Σ_l w_l P_l into that of P, and add it to that of w."""
    n, _, k, _ = angles.shape
    logits = ds.view(n, -1, k, k)
    by_angles.copy_(_each(weights.t(), logits).view_as(by_angles))
    if by_weights is not None:
        by_weights += _across(logits, angles)


def _each(matrix: Tensor, maps: Tensor) -> Tensor:
    """Return (N, a, K²): a matrix (a, b) times the maps (N, b, K, K) of every atom."""
    return torch.bmm(matrix.expand(len(maps), -1, -1), maps.flatten(2))


def _across(left: Tensor, right: Tensor) -> Tensor:
    """Return (a, b): the products of maps (N, a, K, K) and (N, b, K, K), summed over all the rest."""
    return torch.bmm(left.flatten(2), _turned(right.flatten(2))).sum(0)
