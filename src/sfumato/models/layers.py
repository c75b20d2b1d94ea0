"""The parts between two attentions: norms, activations, feed-forward networks, and the blocks they make up.

Norm and activation are our own where derivatives are concerned: torch builds the second derivative of its
own from some twenty small operations each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from sfumato.models.attention import Method, Window, attend
from sfumato.models.config import MinDScAIPConfig

EPSILON = 1e-5
"""Added to the variance in a norm, so that it is smooth also where all channels are equal."""


def normalise(x: Tensor) -> Tensor:
    """Return rows with mean 0 and variance 1, without weights: the linear map that follows has them."""
    found: Tensor = _Normalise.apply(x)  # type: ignore[no-untyped-call]
    return found


def silu(x: Tensor) -> Tensor:
    """Return x σ(x)."""
    found: Tensor = _SiLU.apply(x)  # type: ignore[no-untyped-call]
    return found


def scatter_rows(rows: Tensor, index: Tensor, place: Tensor) -> Tensor:
    """Return rows at the places of a table, zero in the empty ones.

    Args:
        rows: (T, d).
        index: (M,) which row lies where; T in empty places.
        place: (T,) where each row lies, each once.

    Returns:
        (M, d).
    """
    found: Tensor = _ScatterRows.apply(rows, index, place)  # type: ignore[no-untyped-call]
    return found


class _ScatterRows(Function):
    """As no row lies in two places, the transpose is a selection too: no sums, no atomics."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(index, place)
        return torch.cat([rows, rows.new_zeros(1, rows.shape[1])]).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        index, place = ctx.saved_tensors
        return _GatherRows.apply(grad, index, place), None, None  # type: ignore[no-untyped-call]


class _GatherRows(Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(index, place)
        return table.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return scatter_rows(grad, *ctx.saved_tensors), None, None


class _SiLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.silu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        found: Tensor = _SiLUBackward.apply(grad, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return found


class _SiLUBackward(Function):
    """g (x σ)′; the second derivative is (x σ)″ = σ(1 − σ)(2 + x(1 − 2σ))."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.silu_backward(grad, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        s = torch.sigmoid(x)
        curved = torch.ops.aten.sigmoid_backward(grad * outer, s)
        curved.mul_(s.mul_(-2).add_(1).mul_(x).add_(2))
        return torch.ops.aten.silu_backward(outer, x), curved


class _Normalise(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, _, inverse = torch.native_layer_norm(x, x.shape[-1:], None, None, EPSILON)
        ctx.save_for_backward(x, y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, y, inverse = ctx.saved_tensors
        found: Tensor = _NormaliseBackward.apply(grad, x, y.detach(), inverse)  # type: ignore[no-untyped-call]
        return found


class _NormaliseBackward(Function):
    """With r one over the deviation and L(g) = g − mean(g) − y mean(g y), which is symmetric: dx = r L(g).

    The derivative of ⟨a, r L(g)⟩ by g is r L(a), and that by x is
    −r² [mean(g y) L(a) + mean(a y) L(g) + mean(a L(g)) y].
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(grad, y, inverse)
        return _project(grad, y).mul_(inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad, y, inverse = ctx.saved_tensors
        by_grad, inner = _project(outer, y), _project(grad, y)
        scale = inverse.square().mul_(-1.0 / y.shape[-1])
        weights = [
            (torch.linalg.vecdot(a, b)[..., None]).mul_(scale)
            for a, b in ((grad, y), (outer, y), (outer, inner))
        ]
        by_x = (by_grad * weights[0]).addcmul_(inner, weights[1]).addcmul_(y, weights[2])
        return by_grad.mul_(inverse), by_x, None, None


def _project(grad: Tensor, y: Tensor) -> Tensor:
    """Return g − mean(g) − y mean(g y), rows of y having mean 0: the kernel for a norm that changes nothing."""
    zeros, ones = y.new_zeros(len(y), 1), y.new_ones(len(y), 1)
    found: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad.contiguous(), y, y.shape[-1:], zeros, ones, None, None, [True, False, False]
    )[0]
    return found


class FeedForward(nn.Module):
    """Linear, SiLU, linear; gated: the activation multiplies a second linear map.

    Args:
        width: C in.
        hidden: channels between.
        out: C out.
        gated: with a gate.
    """

    def __init__(self, width: int, hidden: int, out: int, gated: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden * (2 if gated else 1))
        self.down = nn.Linear(hidden, out)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, out)."""
        if self.gated:
            gate, value = self.up(x).chunk(2, dim=-1)
            return self.down(silu(gate.contiguous()) * value)  # type: ignore[no-any-return]
        return self.down(silu(self.up(x)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Queries, keys and values, attention, and the output map.

    Args:
        config: of the model.
    """

    def __init__(self, config: MinDScAIPConfig) -> None:
        super().__init__()
        inner = config.width * config.attention_factor
        self.qkv = nn.Linear(config.width, 3 * inner)
        self.out = nn.Linear(inner, config.width)
        self.angles: nn.Parameter | None = None
        if config.directional == "angular_bias":
            self.angles = nn.Parameter(torch.empty(config.heads, config.angular_degree))
        self.scale = 1 / (config.temperature * (inner / config.heads) ** 0.5)

    def forward(self, x: Tensor, window: Window, method: Method) -> Tensor:
        """Map (T, C) to (T, C)."""
        # P_0 has no weight: it would only tell edges from the self token.
        weights = None if self.angles is None else nn.functional.pad(self.angles, (1, 0))
        return self.out(attend(self.qkv(x), window, weights, self.scale, method))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One neighbourhood attention and its feed-forward network, each on a normalised input and added to it.

    Args:
        config: of the model.
    """

    def __init__(self, config: MinDScAIPConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.hidden_factor
        self.attention = Attention(config)
        self.feed = FeedForward(width, hidden, width, config.gated)
        self.node_feed = FeedForward(width, hidden, width, config.gated) if config.node_ffn else None

    def forward(self, x: Tensor, window: Window, method: Method) -> Tensor:
        """Update (T, C) tokens, the self tokens first."""
        x = x + self.attention(normalise(x), window, method)
        h = normalise(x)
        if self.node_feed is None:
            return x + self.feed(h)  # type: ignore[no-any-return]
        n = len(window.bias)
        nodes, edges = h.split([n, len(h) - n])
        return x + torch.cat([self.node_feed(nodes), self.feed(edges)])


class Layer(nn.Module):
    """Attention among the edges that leave an atom, then among those that arrive.

    Args:
        config: of the model.

    Source: Liu et al. 2026, Section 4.1 and Figure 3.
    """

    def __init__(self, config: MinDScAIPConfig) -> None:
        super().__init__()
        self.leaving, self.arriving = Block(config), Block(config)
        width = config.width
        self.readout = (
            FeedForward(width, width * config.hidden_factor, width) if config.layer_readout else None
        )

    def forward(
        self, x: Tensor, windows: tuple[Window, Window], method: Method
    ) -> tuple[Tensor, Tensor | None]:
        """Return the (T, C) tokens and what this layer adds to the (N, C) node vectors."""
        x = self.arriving(self.leaving(x, windows[0], method), windows[1], method)
        n = len(windows[0].bias)
        return x, None if self.readout is None else self.readout(normalise(x[:n]))
