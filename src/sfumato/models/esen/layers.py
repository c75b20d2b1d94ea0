"""The parts of the network: maps of features that turn with the structure, and the two blocks they make up.

Features of atoms are (N, n, C), n = (l_max + 1)², in the order of `so3.degrees`; in the frame of an edge they
are (E, R, C), in the order of `so3.orders`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.models.esen.config import ESENConfig
from sfumato.models.esen.so3 import degrees, places, sphere_grid

EPSILON = 1e-8
"""Added to mean squares; a row of zeros stays zero."""


@dataclass(frozen=True, eq=False)
class Edges:
    """What a layer knows of the edges; an edge carries a message from its target to its source.

    Args:
        source: (E,) atoms that get a message.
        target: (E,) atoms that it is about.
        frame: (E, R, n) Wigner matrices into the frame of the edge.
        scalars: (E, S) functions of the distance, and elements.
        back: (E, n, R) matrices out of it, times the envelope.
    """

    source: Tensor
    target: Tensor
    frame: Tensor
    scalars: Tensor
    back: Tensor

    def summed(self, messages: Tensor, atoms: int) -> Tensor:
        """Return (N, n, C) the sum of (E, R, C) messages, each turned back and weighted, at their atoms."""
        turned = torch.bmm(self.back, messages)
        return turned.new_zeros(atoms, *turned.shape[1:]).index_add(0, self.source, turned)


class Radial(nn.Module):
    """Three linear maps with norms and activations between: factors of features by what an edge is.

    Args:
        inputs: S.
        hidden: channels between.
        outputs: channels out.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        sizes = (inputs, hidden, hidden)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(Affine(hidden) for _ in self.hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (E, S) to (E, outputs)."""
        for linear, norm in zip(self.hidden, self.norms):
            x = functional.silu(norm(linear(x)))
        return self.out(x)  # type: ignore[no-any-return]


class Affine(nn.Module):
    """Rows with mean 0 and variance 1, times weights, plus a bias.

    Args:
        width: of a row.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(width)), nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, C)."""
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-5)


class Norm(nn.Module):
    """Features over one root mean square of each atom, in which every degree counts the same.

    Args:
        width: C.
        l_max: highest degree.
    """

    degree: Tensor
    share: Tensor

    def __init__(self, width: int, l_max: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(l_max + 1, width)), nn.Parameter(torch.empty(width))
        of = degrees(l_max)
        self.register_buffer("degree", torch.tensor(of, device="cpu"), persistent=False)
        shares = [1 / ((2 * l + 1) * (l_max + 1) * width) for l in of]  # noqa: E741
        share = torch.tensor(shares, dtype=torch.float64, device="cpu")
        self.register_buffer("share", share[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n, C) to (N, n, C)."""
        scalars, rest = torch.split(x, [1, x.shape[1] - 1], 1)
        x = torch.cat([scalars - scalars.mean(-1, keepdim=True), rest], 1)
        square = (x.square() * self.share.to(x.dtype)).sum((1, 2), keepdim=True)
        x = x * torch.rsqrt(square + EPSILON) * self.weight.index_select(0, self.degree)
        return torch.cat([x[:, :1] + self.bias, x[:, 1:]], 1)


class ByDegree(nn.Module):
    """A linear map of the channels for each degree, with a bias for scalars.

    Args:
        width: C in.
        out: channels out.
        l_max: highest degree.
    """

    degree: Tensor

    def __init__(self, width: int, out: int, l_max: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, out, bias=l == 0) for l in range(l_max + 1))  # noqa: E741
        self.register_buffer("degree", torch.tensor(degrees(l_max), device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n, C) to (N, n, out)."""
        weight = torch.stack([part.weight for part in self.maps]).index_select(0, self.degree)  # type: ignore[misc]
        found = torch.bmm(x.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)
        return torch.cat(
            [
                found[:, :1] + self.maps[0].bias,  # type: ignore[operator]
                found[:, 1:],
            ],
            1,
        )


class Gate(nn.Module):
    """SiLU of scalars, and gates for features of higher degree.

    Args:
        config: of the model.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.gates = config.l_max * config.hidden
        degree = torch.tensor([l - 1 for l in degrees(config.l_max)[1:]], device="cpu")  # noqa: E741
        self.register_buffer("degree", degree, persistent=False)
        self.l_max, self.hidden = config.l_max, config.hidden

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Map features of atoms (N, n, H) with gates (N, l_max H) to (N, n, H)."""
        opened = torch.sigmoid(gates.view(len(x), self.l_max, self.hidden)).index_select(1, self.degree)  # type: ignore[arg-type]
        return torch.cat([functional.silu(x[:, :1]), x[:, 1:] * opened], 1)

    def by_order(self, orders: list[Tensor], gates: Tensor) -> list[Tensor]:
        """Map features in the frame of an edge, as a convolution returns them, with (E, l_max H) gates."""
        opened = torch.sigmoid(gates.view(len(gates), self.l_max, self.hidden))
        scalars, rest = torch.split(orders[0], [1, orders[0].shape[1] - 1], 1)
        first = torch.cat([functional.silu(scalars), rest * opened], 1)
        pairs = [pair * opened[:, None, m:] for m, pair in enumerate(orders[1:])]
        return [first, *pairs]


class Grid(nn.Module):
    """SiLU on the points of a sphere; a coarse one changes as the structure turns.

    Args:
        config: of the model.
    """

    gates = 0

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.l_max = config.l_max
        there, back = sphere_grid(config.grid_resolution, config.l_max)
        row = places(config.l_max, config.m_max)
        parts = {"there": there, "back": back, "there_edge": there[:, row], "back_edge": back[row]}
        for name, part in parts.items():
            self.register_buffer(name, part.clone(), persistent=False)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Map features of atoms (N, n, H) to (N, n, H)."""
        return self.back.to(x.dtype) @ functional.silu(self.there.to(x.dtype) @ x)  # type: ignore[operator]

    def by_order(self, orders: list[Tensor], gates: Tensor) -> list[Tensor]:
        """Map features in the frame of an edge, as a convolution returns them."""
        x = joined(orders)
        x = self.back_edge.to(x.dtype) @ functional.silu(self.there_edge.to(x.dtype) @ x)  # type: ignore[operator]
        return parted(x, self.l_max)


def activation(config: ESENConfig) -> Gate | Grid:
    """Return the nonlinearity that a configuration asks for."""
    return Gate(config) if config.nonlinearity == "gate" else Grid(config)


def parted(x: Tensor, l_max: int) -> list[Tensor]:
    """Return the features (E, R, C) by order: (E, l_max + 1, C), and (E, 2, l_max + 1 − m, C) for m > 0."""
    counts, left = [l_max + 1], x.shape[1] - l_max - 1
    while left:
        counts.append(2 * (l_max + 1 - len(counts)))
        left -= counts[-1]
    first, *rest = torch.split(x, counts, 1)
    return [first, *(pair.view(len(x), 2, pair.shape[1] // 2, x.shape[2]) for pair in rest)]


def joined(orders: list[Tensor]) -> Tensor:
    """Return the features that `parted` took apart."""
    return torch.cat([orders[0], *(pair.flatten(1, 2) for pair in orders[1:])], 1)


class Convolution(nn.Module):
    """A linear map in the frame of an edge that commutes with turns about the edge.

    Features of one order and all degrees are mixed, alike for cosines and sines. Where mirror images may
    differ, cosines and sines are mixed with each other too, as the real and imaginary part of a number.

    Args:
        config: of the model.
        width: channels in.
        out: channels out.
        extra: scalars that come out besides.
    """

    def __init__(self, config: ESENConfig, width: int, out: int, extra: int = 0) -> None:
        super().__init__()
        self.count = [config.l_max + 1 - m for m in range(config.m_max + 1)]
        self.extra, self.out, self.mirror = extra, out, config.mirror
        self.zero = nn.Linear(self.count[0] * width, extra + self.count[0] * out)
        factor = 1 if config.mirror else 2
        self.others = nn.ModuleList(
            nn.Linear(n * width, factor * n * out, bias=False) for n in self.count[1:]
        )

    def forward(self, orders: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Map what `parted` returns to as much, and to (E, extra) scalars."""
        edges, n = len(orders[0]), self.count[0]
        extra, first = torch.split(self.zero(orders[0].flatten(1)), [self.extra, n * self.out], 1)
        found = [first.view(edges, n, self.out)]
        for linear, pair, n in zip(self.others, orders[1:], self.count[1:]):
            y = linear(pair.flatten(2))
            if not self.mirror:
                real, imaginary = y.chunk(2, -1)
                y = torch.stack([real[:, 0] - imaginary[:, 1], real[:, 1] + imaginary[:, 0]], 1)
            found.append(y.view(edges, 2, n, self.out))
        return found, extra


class Edgewise(nn.Module):
    """Messages of neighbors: two convolutions in the frame of each edge, with an activation between.

    Args:
        config: of the model.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.activation = activation(config)
        self.first = Convolution(config, 2 * config.width, config.hidden, self.activation.gates)
        self.second = Convolution(config, config.hidden, config.width)
        self.l_max, width = config.l_max, 2 * config.width
        inputs = config.radial + 2 * config.edge_width
        self.radial = Radial(inputs, config.edge_width, sum(self.first.count) * width)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Map (N, n, C) to the (N, n, C) messages that arrive."""
        # Each end is turned by itself: sums over the edges of an atom, the way back, want rows without gaps.
        ends = [torch.bmm(edges.frame, x.index_select(0, end)) for end in (edges.target, edges.source)]
        both = torch.cat(ends, 2)
        first, *pairs = parted(both, self.l_max)
        factors = self.radial(edges.scalars).view(len(both), sum(self.first.count), both.shape[2])
        factor, *others = torch.split(factors, self.first.count, 1)
        scaled = [first * factor, *(pair * other[:, None] for pair, other in zip(pairs, others))]
        messages, gates = self.first(scaled)
        messages, _ = self.second(self.activation.by_order(messages, gates))
        return edges.summed(joined(messages), len(x))


class Nodewise(nn.Module):
    """A feed-forward network of each atom.

    Args:
        config: of the model.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.activation = activation(config)
        gates = self.activation.gates
        self.gates = nn.Linear(config.width, gates) if gates else None
        self.up = ByDegree(config.width, config.hidden, config.l_max)
        self.down = ByDegree(config.hidden, config.width, config.l_max)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n, C) to (N, n, C)."""
        gates = x.new_empty(0) if self.gates is None else functional.silu(self.gates(x[:, 0]))
        return self.down(self.activation(self.up(x), gates))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Messages, then a feed-forward network, each of normalized features and added to them.

    Args:
        config: of the model.

    Source: Fu et al. 2025, Section 4.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList(Norm(config.width, config.l_max) for _ in range(2))
        self.edgewise, self.nodewise = Edgewise(config), Nodewise(config)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """Map (N, n, C) to (N, n, C)."""
        x = x + self.edgewise(self.norms[0](x), edges)
        return x + self.nodewise(self.norms[1](x))  # type: ignore[no-any-return]
