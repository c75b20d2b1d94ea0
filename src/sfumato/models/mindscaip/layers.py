"""The parts of the network: feed-forward networks, attention, and the blocks they make up.

Each block can be computed in two ways. The plain one is torch operations, to be read and to be differentiated
any number of times; the blocked one is the same in single operations with hand-written derivatives.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.models.mindscaip.attention import attend
from sfumato.models.mindscaip.blocked import attend_rows, feed_rows
from sfumato.models.mindscaip.calculus import EPSILON
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.windows import Windows
from sfumato.models.readout import FeedForward

Method = Literal["blocked", "plain"]
"""How a block is computed in torch."""


def normalize(x: Tensor, method: Method) -> Tensor:
    """Return rows with mean 0 and variance 1, without weights: the linear map that follows has them.

    torch takes part of the second derivative of its own norm for a constant, so "plain" spells it out.
    """
    if method == "blocked":
        return functional.layer_norm(x, x.shape[-1:], eps=EPSILON)
    x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)


class Attention(nn.Module):
    """Maps to queries, keys and values and from what the heads return, and the weights of angles.

    Args:
        config: of the model.
    """

    def __init__(self, config: MinDScAIPConfig) -> None:
        super().__init__()
        inner = config.width * config.attention_factor
        self.qkv = nn.Linear(config.width, 3 * inner)
        self.out = nn.Linear(inner, config.width)
        if config.directional == "angular_bias":
            self.angles = nn.Parameter(torch.empty(config.heads, config.angular_degree))
        self.heads = config.heads
        self.scale = 1 / (config.temperature * (inner / config.heads) ** 0.5)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        """Map (T, C) to (T, C)."""
        weights = functional.pad(self.angles, (1, 0)) if hasattr(self, "angles") else None
        return self.out(attend(self.qkv(x), windows, weights, self.heads, self.scale))  # type: ignore[no-any-return]


class Block(nn.Module):
    """One neighborhood attention and its feed-forward network, each on a normalized input and added to it.

    Args:
        config: of the model.
    """

    def __init__(self, config: MinDScAIPConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.width * config.hidden_factor
        self.attention = Attention(config)
        feeds = {"edge": FeedForward(width, hidden, width, config.gated)}
        if config.node_ffn:
            feeds["node"] = FeedForward(width, hidden, width, config.gated)
        self.feed = nn.ModuleDict(feeds)
        self.gated = config.gated

    def forward(
        self, x: Tensor, windows: Windows, method: Method, keep: bool = True, nodes_only: bool = False
    ) -> Tensor:
        """Update (T, C) tokens, the self tokens first; see `attend_rows` for `keep`.

        With `nodes_only` the (N, C) self tokens alone are updated and returned.
        """
        atoms = sum(len(window.bias) for window in windows)
        nodes = atoms if "node" in self.feed else 0
        last = atoms if nodes_only else len(x)
        # Under autocast operations differ in precision among each other; the blocked ones keep to one.
        if method == "blocked" and not torch.is_autocast_enabled(x.device.type):
            attention, feed = (dict(part.named_parameters()) for part in (self.attention, self.feed))
            x = attend_rows(x, windows, self.attention.scale, attention, keep, nodes_only)
            return feed_rows(x[:last], nodes, self.gated, feed, keep)
        x = (x + self.attention(normalize(x, method), windows))[:last]
        h = normalize(x, method)
        if not nodes:
            return x + self.feed["edge"](h)  # type: ignore[no-any-return]
        return x + torch.cat([self.feed["node"](h[:nodes]), self.feed["edge"](h[nodes:])])


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
        self,
        x: Tensor,
        windows: tuple[Windows, Windows],
        method: Method,
        keep: bool = True,
        nodes_only: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the (T, C) tokens and what this layer adds to the (N, C) node vectors.

        With `nodes_only` the edges of the last attention, which nothing reads, are left out: (N, C) tokens.
        """
        x = self.leaving(x, windows[0], method, keep)
        x = self.arriving(x, windows[1], method, keep, nodes_only)
        n = sum(len(window.bias) for window in windows[0])
        return x, None if self.readout is None else self.readout(normalize(x[:n], method))
