"""The two halves of a block as single operations: x + attention(norm x) and x + feed-forward(norm x).

Both act on a few rows at a time: the windows of some atoms, or any rows at all. So they are worked out piece
by piece, from the norm to the sum, on arrays that are used again before new memory is touched; of each half
autograd sees one operation and keeps what its gradient needs, no more. Gradient and second gradient are
written in terms of the pull and the second step of each part (see `calculus`). The same in plain operations
is in `layers`: what these are tested against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.autograd import Function

from sfumato.models.mindscaip import calculus
from sfumato.models.mindscaip.attention import (
    Bias,
    BiasGradient,
    Heads,
    attention,
    attention_pull,
    attention_second,
    spread,
)
from sfumato.models.mindscaip.windows import HOT, Part, Window, Windows

KEEP = 2**18
"""Up to so many attention weights of one part are kept for the gradient; more are computed again."""

Weights = Mapping[str, Tensor]
Totals = dict[str, Tensor] | None
Rows = slice | Tensor


def attend_rows(
    x: Tensor, windows: Windows, scale: float, weights: Weights, keep: bool = True, nodes_only: bool = False
) -> Tensor:
    """Return x + W attention(norm x), differentiable twice, but not twice by the weights.

    Args:
        x: (T, C).
        windows: which rows attend to each other, and their biases; every row is in one of them.
        scale: 1/(τ√d).
        weights: `qkv.weight`, `qkv.bias`, `out.weight`, `out.bias` and, with an angular bias, `angles`.
        keep: intermediate results for the gradient; else they are computed again, from x alone.
        nodes_only: only self tokens are updated.
    """
    for window in windows:
        plan = _AttentionPlan(keep, len(windows) == 1, window, scale, nodes_only)
        # A self token has no angle to another.
        x = _apply(x, window.bias, None if nodes_only else window.cosine, plan, weights)
    return x


def feed_rows(x: Tensor, nodes: int, gated: bool, weights: Weights, keep: bool = True) -> Tensor:
    """Return x + W₂ f(W₁ norm x), differentiable twice, but not twice by the weights.

    Args:
        x: (T, C).
        nodes: how many of the first rows have weights of their own, `node.…`; 0 for none.
        gated: f is gated, else SiLU.
        weights: `edge.up.weight`, … and, where nodes are apart, `node.up.weight`, ….
        keep: intermediate results for the gradient; else they are computed again, from x alone.
    """
    return _apply(x, None, None, _FeedPlan(keep, True, nodes, gated), weights)


class _Linear:
    """y = x Wᵀ + b, and where the gradients of W and b are summed."""

    def __init__(self, weights: Weights, name: str, total: Totals) -> None:
        self.weight, self.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        self.by_weight = None if total is None else total[f"{name}.weight"]
        self.by_bias = None if total is None else total[f"{name}.bias"]

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight.t())

    def pull(self, g: Tensor) -> Tensor:
        return g @ self.weight

    def push(self, a: Tensor) -> Tensor:
        return a @ self.weight.t()

    def count(self, g: Tensor, x: Tensor, constant: bool = True) -> None:
        """Add the gradient g of y = x Wᵀ, plus b if it is there."""
        if self.by_weight is not None and self.by_bias is not None:
            self.by_weight.addmm_(g.t(), x)
            if constant:
                self.by_bias.add_(g.sum(0))


@dataclass
class _Gradient:
    """What a piece adds to the gradients: by its rows, by log e and by the cosines of its windows."""

    x: Tensor
    bias: Tensor | None = None
    cosine: Tensor | None = None


class _Piece(Protocol):
    """A map from some rows to new ones with what its derivatives need."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Return y and the state that `pull` and `second` start from."""
        ...

    def pull(self, g: Tensor, state: Sequence[Tensor]) -> tuple[_Gradient, list[Tensor]]:
        """Return the gradient from that of y, and what `second` needs besides; count weights."""
        ...

    def second(
        self, a: _Gradient, g: Tensor, state: Sequence[Tensor], pulled: Sequence[Tensor]
    ) -> tuple[Tensor, _Gradient]:
        """Return the gradients of ⟨a, pulled g⟩ by g and by all else; count weights."""
        ...


class _Feed:
    def __init__(self, weights: Weights, name: str, gated: bool, total: Totals) -> None:
        self.up, self.down = (_Linear(weights, f"{name}.{part}", total) for part in ("up", "down"))
        kind = "glu" if gated else "silu"
        self.f, self.f_pull, self.f_second = (
            getattr(calculus, kind + step) for step in ("", "_pull", "_second")
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        n, r = calculus.norm(x)
        u = self.up(n)
        return self.down(self.f(u)).add_(x), [n, r, u]

    def pull(self, g: Tensor, state: Sequence[Tensor]) -> tuple[_Gradient, list[Tensor]]:
        n, r, u = state
        g_f = self.down.pull(g)
        g_u = self.f_pull(g_f, u)
        g_n = self.up.pull(g_u)
        if self.up.by_weight is not None:
            self.down.count(g, self.f(u))
            self.up.count(g_u, n)
        return _Gradient(calculus.norm_pull(g_n, n, r).add_(g)), [g_f, g_u, g_n]

    def second(
        self, a: _Gradient, g: Tensor, state: Sequence[Tensor], pulled: Sequence[Tensor]
    ) -> tuple[Tensor, _Gradient]:
        (n, r, u), (g_f, g_u, g_n) = state, pulled
        a_n, bend = calculus.norm_second(a.x, g_n, n, r)
        a_f, x_u = self.f_second(self.up.push(a_n), g_f, u)
        self.down.count(g, a_f, constant=False)
        self.up.count(g_u, a_n, constant=False)
        self.up.count(x_u, n)
        x = calculus.norm_pull(self.up.pull(x_u), n, r).add_(bend)
        return self.down.push(a_f).add_(a.x), _Gradient(x)


def _onto(values: Tensor, x: Tensor) -> Tensor:
    """Return x with values added to its first rows."""
    first = len(values)
    values.add_(x[:first])
    return values if first == len(x) else torch.cat([values, x[first:]])


class _Attend:
    """If only self tokens ask, the other rows stay as they are."""

    def __init__(
        self, weights: Weights, part: Part, bias: Bias, scale: float, nodes_only: bool, total: Totals
    ) -> None:
        self.qkv, self.out = _Linear(weights, "qkv", total), _Linear(weights, "out", total)
        self.part, self.bias, self.scale = part, bias, scale
        self.asking = len(part.present) if nodes_only else len(part.rows)
        self.by_angles = None if total is None or bias.weights is None else total["angles"]

    def spread(self, rows: Tensor) -> Heads:
        return spread(rows, self.part, self.asking < len(self.part.rows))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        n, r = calculus.norm(x)
        qkv = self.spread(self.qkv(n))
        o, p = attention(qkv, self.part, self.bias, self.scale)
        return _onto(self.out(o), x), [n, r, *qkv, o, p if p.numel() <= KEEP else None]

    def pull(self, g: Tensor, state: Sequence[Tensor]) -> tuple[_Gradient, list[Tensor]]:
        n, r, q, key, v, o, p = state
        asking = g[: self.asking]
        g_o = self.out.pull(asking)
        g_qkv, by = attention_pull(g_o, Heads(q, key, v), p, self.part, self.bias, self.scale)
        g_n = self.qkv.pull(g_qkv)
        self.out.count(asking, o)
        self.qkv.count(g_qkv, n)
        x = calculus.norm_pull(g_n, n, r).add_(g)
        return self._gradient(x, by), [g_o, g_qkv, g_n]

    def second(
        self, a: _Gradient, g: Tensor, state: Sequence[Tensor], pulled: Sequence[Tensor]
    ) -> tuple[Tensor, _Gradient]:
        (n, r, q, key, v, _, p), (g_o, g_qkv, g_n) = state, pulled
        a_n, bend = calculus.norm_second(a.x, g_n, n, r)
        a_qkv = self.spread(self.qkv.push(a_n))
        inputs = ((a.bias, a.cosine), g_o, Heads(q, key, v), p)
        a_o, x_qkv, by = attention_second(a_qkv, *inputs, self.part, self.bias, self.scale)
        self.out.count(g[: self.asking], a_o, constant=False)
        self.qkv.count(g_qkv, a_n, constant=False)
        self.qkv.count(x_qkv, n)
        x = calculus.norm_pull(self.qkv.pull(x_qkv), n, r).add_(bend)
        return _onto(self.out.push(a_o), a.x), self._gradient(x, by)

    def _gradient(self, x: Tensor, by: BiasGradient) -> _Gradient:
        if self.by_angles is not None and by.weights is not None:
            self.by_angles += by.weights[:, 1:]
        return _Gradient(x, by.edge, by.cosine)


class _Plan(Protocol):
    """Which pieces there are, each with its rows and the atoms whose biases it sees."""

    @property
    def keep(self) -> bool:
        """Whether the forward pass keeps what the gradient needs."""
        ...

    @property
    def whole(self) -> bool:
        """Whether the pieces have all rows; the others stay as they are."""
        ...

    def pieces(
        self, x: Tensor, bias: Tensor | None, weights: Weights, total: Totals
    ) -> Iterator[tuple[Rows, slice, _Piece]]: ...


@dataclass(frozen=True)
class _AttentionPlan:
    keep: bool
    whole: bool
    window: Window
    scale: float
    nodes_only: bool

    def pieces(
        self, x: Tensor, bias: Tensor | None, weights: Weights, total: Totals
    ) -> Iterator[tuple[Rows, slice, _Piece]]:
        assert bias is not None
        angles = None if self.nodes_only else self.window.angles
        # P_0 has no weight: it would only tell edges from the self token.
        polynomials = None if angles is None else torch.nn.functional.pad(weights["angles"], (1, 0))
        for part in self.window.table.parts:
            atoms = part.atoms
            local = Bias(bias[atoms], None if angles is None else angles.detach()[atoms], polynomials)
            yield part.rows, atoms, _Attend(weights, part, local, self.scale, self.nodes_only, total)


@dataclass(frozen=True)
class _FeedPlan:
    keep: bool
    whole: bool
    nodes: int
    gated: bool

    def pieces(
        self, x: Tensor, bias: Tensor | None, weights: Weights, total: Totals
    ) -> Iterator[tuple[Rows, slice, _Piece]]:
        step = max(256, HOT.get(x.device.type, HOT["cpu"]) // x.shape[1])
        for name, first, last in (("node", 0, self.nodes), ("edge", self.nodes, len(x))):
            for start in range(first, last, step):
                rows = slice(start, min(start + step, last))
                yield rows, slice(0), _Feed(weights, name, self.gated, total)


def _rows(x: Tensor, rows: Rows) -> Tensor:
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


def _put(x: Tensor, rows: Rows, values: Tensor) -> None:
    if isinstance(rows, slice):
        x[rows] = values
    else:
        x.index_copy_(0, rows, values)


def _apply(x: Tensor, bias: Tensor | None, cosine: Tensor | None, plan: _Plan, weights: Weights) -> Tensor:
    # Weights as views: their place in the graph tells the backward pass which of them are wanted.
    views = (weight.view_as(weight) for weight in weights.values())
    found: Tensor = _Blocked.apply(x, bias, cosine, plan, tuple(weights), *views)  # type: ignore[no-untyped-call]
    return found


def _totals(ctx: Any, names: Sequence[str], weights: Sequence[Tensor]) -> Totals:
    """Return zeros to sum the gradients of the weights in, or None if nobody asks for them in this pass.

    When forces are made, nobody does; `needs_input_grad` only says that they have one. Where torch does not
    tell, they are computed.
    """
    ask = getattr(torch._C, "_will_engine_execute_node", lambda node: True)
    if any(node is not None and ask(node) for node, _ in ctx.next_functions[-len(names) :]):
        return {name: torch.zeros_like(weight) for name, weight in zip(names, weights)}
    return None


@dataclass(frozen=True)
class _Kept:
    """What goes from one pass to the next besides tensors.

    Args:
        plan: the pieces.
        names: of the weights.
        state: tensors that each piece keeps from the forward pass.
        pulled: tensors that each piece keeps from the backward pass.
    """

    plan: _Plan
    names: tuple[str, ...]
    state: int = 0
    pulled: int = 0


class _Blocked(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        cosine: Tensor | None,
        plan: _Plan,
        names: tuple[str, ...],
        *weights: Tensor,
    ) -> Tensor:
        y = _start(plan, x)
        states: list[Tensor | None] = []
        size = 0
        keep = plan.keep and any(ctx.needs_input_grad)
        for rows, _, piece in plan.pieces(x, bias, dict(zip(names, weights)), None):
            values, state = piece.forward(_rows(x, rows))
            _put(y, rows, values)
            if keep:
                size = len(state)
                states += state
        ctx.kept = _Kept(plan, names, size)
        ctx.save_for_backward(x, bias, cosine, *weights, *states)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, bias, cosine, *rest = ctx.saved_tensors
        kept: _Kept = ctx.kept
        weights, states = rest[: len(kept.names)], rest[len(kept.names) :]
        total = _totals(ctx, kept.names, weights)
        static = (kept, total, torch.is_grad_enabled(), states)
        found = _BlockedPull.apply(grad, x, bias, cosine, static, *weights)  # type: ignore[no-untyped-call]
        return *found[:3], None, None, *found[3:]


class _BlockedPull(Function):
    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        x: Tensor,
        bias: Tensor | None,
        cosine: Tensor | None,
        static: tuple[_Kept, Totals, bool, list[Tensor]],
        *weights: Tensor,
    ) -> tuple[Tensor | None, ...]:
        kept, total, again, states = static
        found = _Found(_start(kept.plan, grad), bias, cosine)
        pulled: list[Tensor] = []
        size, width = kept.state, 0
        pieces = kept.plan.pieces(x, bias, dict(zip(kept.names, weights)), total)
        for step, (rows, atoms, piece) in enumerate(pieces):
            state = states[step * size : (step + 1) * size] or _state(piece, x, rows)
            by, more = piece.pull(_rows(grad, rows), state)
            found.put(rows, atoms, by)
            width = len(more)
            pulled += more if again else []
        if again:
            ctx.kept = _Kept(kept.plan, kept.names, size, width)
            ctx.save_for_backward(grad, x, bias, cosine, *weights, *states, *pulled)
            ctx.states = len(states)
            ctx.set_materialize_grads(False)
        return *found.all, *(None if total is None else total[name] for name in kept.names)

    @staticmethod
    @calculus.last
    def backward(ctx: Any, *along: Tensor | None) -> tuple[Any, ...]:
        if any(tensor is not None for tensor in along[3:]):
            raise RuntimeError(
                "gradients by the weights cannot be differentiated again; set model.method = 'plain'"
            )
        grad, x, bias, cosine, *rest = ctx.saved_tensors
        kept: _Kept = ctx.kept
        weights, rest = rest[: len(kept.names)], rest[len(kept.names) :]
        states, pulled = rest[: ctx.states], rest[ctx.states :]
        total = _totals(ctx, kept.names, weights)
        to_x = torch.zeros_like(x) if along[0] is None else along[0]
        by_grad, found = _start(kept.plan, to_x), _Found(_start(kept.plan, torch.zeros_like(x)), bias, cosine)
        pieces = kept.plan.pieces(x, bias, dict(zip(kept.names, weights)), total)
        for step, (rows, atoms, piece) in enumerate(pieces):
            a = _Gradient(_rows(to_x, rows), *(None if t is None else t[atoms] for t in along[1:3]))
            state = states[step * kept.state : (step + 1) * kept.state] or _state(piece, x, rows)
            more = pulled[step * kept.pulled : (step + 1) * kept.pulled]
            by_rows, by = piece.second(a, _rows(grad, rows), state, more)
            _put(by_grad, rows, by_rows)
            found.put(rows, atoms, by)
        weights_by = (None if total is None else total[name] for name in kept.names)
        return by_grad, *found.all, None, *weights_by


def _state(piece: _Piece, x: Tensor, rows: Rows) -> list[Tensor]:
    """Return what the forward pass did not keep."""
    return cast("list[Tensor]", piece.forward(_rows(x, rows))[1])


def _start(plan: _Plan, x: Tensor) -> Tensor:
    """Return an array for all rows, with those of x where no piece will write."""
    return torch.empty_like(x) if plan.whole else x.clone()


class _Found:
    """Gradients by tokens, log e and cosines, put together from pieces."""

    def __init__(self, x: Tensor, *others: Tensor | None) -> None:
        self.x = x
        self.others = [None if value is None else torch.empty_like(value) for value in others]

    @property
    def all(self) -> list[Tensor | None]:
        return [self.x, *self.others]

    def put(self, rows: Rows, atoms: slice, by: _Gradient) -> None:
        _put(self.x, rows, by.x)
        bias, cosine = self.others
        if bias is not None and by.bias is not None:
            bias[atoms] = by.bias
        if cosine is not None and by.cosine is not None:
            cosine[atoms] = by.cosine
