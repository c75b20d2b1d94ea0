"""Attention among the tokens of one atom, each key weighted by its envelope.

Tokens are the rows of one packed array, self tokens first, then edges. A window holds those with the same
source, or those with the same destination. Weights are

    P_ab ∝ e_b exp(q_a·k_b/(τ√d) + Σ_l w_l P_l(cos θ_ab)),

so that a key fades out with its envelope e_b, with all derivatives. The self token has e = 1: it takes what
the others leave, also when it is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.models.harmonics import legendre_slope
from sfumato.models.mindscaip.windows import Part, Window


class Heads(NamedTuple):
    """Queries (n·H, Q, d), keys and values (n·H, K, d); Q is K, or 1 if only self tokens ask."""

    q: Tensor
    key: Tensor
    v: Tensor


class Bias(NamedTuple):
    """What is added to the products of queries and keys: log e + Σ_l w_l P_l(cosine).

    Args:
        edge: (n, K) log e.
        angles: (n, degree + 1, K, K) P_l, or None.
        weights: (H, degree + 1) w, or None.
    """

    edge: Tensor
    angles: Tensor | None
    weights: Tensor | None


class BiasGradient(NamedTuple):
    """Gradients by log e (n, K), by the cosines (n, K, K) and by the weights (H, degree + 1)."""

    edge: Tensor
    cosine: Tensor | None
    weights: Tensor | None


def attend(
    qkv: Tensor, windows: Sequence[Window], weights: Tensor | None, heads: int, scale: float
) -> Tensor:
    """Return the attention of every token to those of its window, in plain operations.

    Args:
        qkv: (T, 3·H·d) queries, keys and values, heads inside each.
        windows: of all atoms, by size.
        weights: (H, degree + 1) of the Legendre polynomials; None without an angular bias.
        heads: H.
        scale: 1/(τ√d), of the products of queries and keys only.

    Returns:
        (T, H·d).

    Source: Liu et al. 2026, Section 5.1 (temperature).
    """
    found = qkv.new_zeros(len(qkv), qkv.shape[1] // 3)
    for window in windows:
        table = window.table
        n, k = table.slots.shape
        rows = torch.where(table.present > 0, table.slots, 0)  # weight zero as keys, dropped as queries
        q, key, v = qkv[rows].view(n, k, 3, heads, -1).permute(2, 0, 3, 1, 4)
        logits = scale * q @ key.transpose(-1, -2) + window.bias[:, None, None, :]
        if window.angles is not None and weights is not None:
            logits = logits + torch.einsum("hl,nlab->nhab", weights, window.angles)
        out = (logits.softmax(-1) @ v).transpose(1, 2).reshape(n * k, -1)
        found = found.index_copy(0, table.rows, out[table.place])
    return found


def attention(qkv: Heads, part: Part, bias: Bias, scale: float) -> tuple[Tensor, Tensor]:
    """Return the attention of the rows that ask, and its weights.

    Args:
        qkv: queries, keys and values.
        part: the rows.
        bias: of the logits.
        scale: 1/(τ√d).

    Returns:
        (t, H·d), or (n, H·d) if only self tokens ask; P (n·H, Q, K).
    """
    p = _weights(qkv, bias, scale)
    return _collect(torch.bmm(p, qkv.v), part), p


def attention_pull(
    g: Tensor, qkv: Heads, p: Tensor | None, part: Part, bias: Bias, scale: float
) -> tuple[Tensor, BiasGradient]:
    """Return the gradients of queries, keys and values, and of what was added to the logits.

    With G the gradient of O: dV = PᵀG, dP = GVᵀ, dS = P∘(dP − ΣP∘dP), dQ = dS K, dK = dSᵀQ.

    Args:
        g: of the result.
        qkv: queries, keys and values.
        p: P, or None to compute it again.
        part: the rows.
        bias: of the logits.
        scale: 1/(τ√d).
    """
    p = _weights(qkv, bias, scale) if p is None else p
    g = _spread_one(g, part)
    found, by = _empty(qkv)
    _collected(p, g, out=by.v)
    ds = _through_softmax(torch.bmm(g, _turned(qkv.v)), p)
    torch.bmm(ds, qkv.key, out=by.q)
    _collected(ds, qkv.q, out=by.key)
    found[:2] *= scale
    return _collect(found, part), _of_bias(ds, bias, _slope(bias))


def attention_second(
    a: Heads,
    along: tuple[Tensor | None, Tensor | None],
    g: Tensor,
    qkv: Heads,
    p: Tensor | None,
    part: Part,
    bias: Bias,
    scale: float,
) -> tuple[Tensor, Tensor, BiasGradient]:
    """Return the change of the attention, and the gradients of ⟨G, that change⟩.

    With a, b and e the changes of Q, K and V and T = aKᵀ + Qbᵀ + … that of the logits, D = ΣP∘dP, t = ΣP∘T:
    P changes by P∘(T − t); the gradient by T is dS = P∘(dP − D), that by the logits Z = P∘(W − ΣP∘W)
    with W = (dP − D)∘(T − t) + G eᵀ.

    Args:
        a: changes of queries, keys and values.
        along: (n, K) and (n, K, K) changes of log e and of the cosines; None for none.
        g: of the result, G.
        qkv: queries, keys and values.
        p: P, or None to compute it again.
        part: the rows.
        bias: of the logits.
        scale: 1/(τ√d).

    Returns:
        The change, as the result; (t, 3·H·d) and those of the bias, gradients.
    """
    q, key, v = qkv
    p = _weights(qkv, bias, scale) if p is None else p
    g = _spread_one(g, part)
    n, k = bias.edge.shape
    change = torch.bmm(a.q, _turned(key)).baddbmm_(q, _turned(a.key)).mul_(scale)
    by_head = change.view(n, -1, *p.shape[1:])
    to_edge, to_cosine = along
    if to_edge is not None:
        by_head.add_(to_edge[:, None, None, :])
    slope = _slope(bias)
    if to_cosine is not None and slope is not None:
        by_head.addcmul_(slope, to_cosine[:, None])
    dp = torch.bmm(g, _turned(v))
    change.sub_(torch.linalg.vecdot(p, change)[..., None])
    dp.sub_(torch.linalg.vecdot(p, dp)[..., None])
    z = _through_softmax(torch.bmm(g, _turned(a.v)).addcmul_(dp, change), p)
    ds, to_p = dp.mul_(p), change.mul_(p)
    found, by_qkv = _empty(qkv)
    torch.bmm(z, key, out=by_qkv.q).baddbmm_(ds, a.key)
    _collected(z, q, out=by_qkv.key).add_(_collected(ds, a.q))
    _collected(to_p, g, out=by_qkv.v)
    found[:2] *= scale
    by = _of_bias(z, bias, slope)
    if to_cosine is not None:
        _add_turning(by, ds.view(n, -1, k, k) * to_cosine[:, None], bias)
    return _collect(torch.bmm(to_p, v).baddbmm_(p, a.v), part), _collect(found, part), by


def _collected(p: Tensor, asked: Tensor, out: Tensor | None = None) -> Tensor:
    """Return (n·H, K, d): Pᵀ times what asks; with one row of it, a product without a sum is much faster."""
    product = torch.mul if p.shape[1] == 1 else torch.bmm
    return product(_turned(p), asked, out=out)


def _turned(windows: Tensor) -> Tensor:
    return windows.transpose(1, 2)


def spread(rows: Tensor, part: Part, nodes_only: bool = False) -> Heads:
    """Return queries, keys and values of (t, 3·H·d) rows.

    Args:
        rows: heads inside each third.
        part: the rows.
        nodes_only: only self tokens ask.
    """
    k, heads = part.present.shape[2], len(part.collect_one) // len(part.rows)
    flat = rows.view(len(rows) * 3 * heads, -1)
    length = len(flat) - 2 * heads
    q, key, v = (
        flat.narrow(0, c * heads, length).index_select(0, part.take).view(-1, k, flat.shape[1])
        for c in range(3)
    )
    return Heads(q[:, :1] if nodes_only else q, key, v)


def _spread_one(rows: Tensor, part: Part) -> Tensor:
    """Return (n·H, K, d) of (t, H·d) rows, zero in empty places; (n·H, 1, d) of (n, H·d)."""
    n, _, k, _ = part.present.shape
    if len(rows) < len(part.rows):
        return rows.view(len(part.collect_one) // len(part.rows) * n, 1, -1)
    found = rows.view(len(part.collect_one), -1).index_select(0, part.take_one)
    found.view(n, -1, k, found.shape[1]).mul_(part.present)
    return found.view(-1, k, found.shape[1])


def _collect(windows: Tensor, part: Part) -> Tensor:
    """Return (t, ·) rows of (n·H, K, d) or (3, n·H, K, d), or (n, ·) of (n·H, 1, d)."""
    if windows.shape[-2] < part.present.shape[2]:
        return windows.view(len(part.present), -1)
    index = part.collect if windows.dim() == 4 else part.collect_one
    return windows.view(-1, windows.shape[-1]).index_select(0, index).view(len(part.rows), -1)


def _empty(qkv: Heads) -> tuple[Tensor, Heads]:
    """Return (3, n·H, K, d) to be filled, zero for rows that do not ask, and its three parts."""
    found = qkv.v.new_empty(3, *qkv.v.shape)
    asking = qkv.q.shape[1]
    found[0, :, asking:] = 0
    return found, Heads(found[0, :, :asking], found[1], found[2])


def _weights(qkv: Heads, bias: Bias, scale: float) -> Tensor:
    """Return P (n·H, Q, K)."""
    n, k = bias.edge.shape
    if bias.angles is None or bias.weights is None:
        logits = torch.bmm(qkv.q, _turned(qkv.key)).mul_(scale)
    else:
        logits = (
            _each(bias.weights, bias.angles).view(-1, k, k).baddbmm_(qkv.q, _turned(qkv.key), alpha=scale)
        )
    logits.view(n, -1, *logits.shape[1:]).add_(bias.edge[:, None, None, :])
    return torch.softmax(logits, -1)


def _through_softmax(grad: Tensor, p: Tensor) -> Tensor:
    """Return P∘(g − ΣP∘g)."""
    return torch._softmax_backward_data(grad, p, -1, p.dtype)


def _of_bias(ds: Tensor, bias: Bias, slope: Tensor | None) -> BiasGradient:
    """Return the gradients of what was added to the logits from that of the logits."""
    n, k = bias.edge.shape
    edge = ds.view(n, -1, k).sum(1)
    if bias.angles is None or slope is None:
        return BiasGradient(edge, None, None)
    maps = ds.view(n, -1, k, k)
    return BiasGradient(edge, (maps * slope).sum(1), _across(maps, bias.angles))


def _add_turning(by: BiasGradient, turning: Tensor, bias: Bias) -> None:
    """Add the gradients of ⟨dS, change of the angular bias⟩ by cosines and weights; turning = dS∘(change)."""
    curvature = _slope(bias, 2)
    if by.cosine is not None and by.weights is not None and curvature is not None and bias.angles is not None:
        by.cosine.add_((turning * curvature).sum(1))
        slope = legendre_slope(bias.angles.shape[1] - 1).to(turning)
        by.weights.add_(_across(turning, bias.angles) @ slope)


def _slope(bias: Bias, order: int = 1) -> Tensor | None:
    """Return (n, H, K, K) the derivative of the angular bias by the cosines."""
    if bias.angles is None or bias.weights is None:
        return None
    n, degrees, k, _ = bias.angles.shape
    slope = legendre_slope(degrees - 1).to(bias.weights).t()
    weights = bias.weights @ (slope if order == 1 else slope @ slope)
    return _each(weights, bias.angles).view(n, -1, k, k)


def _each(matrix: Tensor, maps: Tensor) -> Tensor:
    """Return (n, a, K²): a matrix (a, b) times the maps (n, b, K, K) of every atom."""
    return torch.bmm(matrix.expand(len(maps), -1, -1), maps.flatten(2))


def _across(left: Tensor, right: Tensor) -> Tensor:
    """Return (a, b): the products of maps (n, a, K, K) and (n, b, K, K), summed over all the rest."""
    return torch.bmm(left.flatten(2), _turned(right.flatten(2))).sum(0)
