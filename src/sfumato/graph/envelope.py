"""The weight with which an edge enters attention: it fades to zero at rank k and at the cutoff."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.graph.settings import GraphSettings


def envelope_bias(
    rank_out: Tensor, rank_in: Tensor | None, distance: Tensor, settings: GraphSettings
) -> Tensor:
    """Return log e = −f²/(1 − f²), what to add to the attention logits of an edge as key.

    f = β⁻¹ log(e^{β rank_out/k} + e^{β rank_in/k} + e^{β d/r_c}), without the middle term in "out" mode; for
    the hard rank f is the largest of them. Where f reaches f_max, log e is −∞ and its gradient 0.

    Smooth: e and all its derivatives vanish as f → 1, and f_max cuts them where e < 1e-86. The inner `where`
    keeps 1/(1 − f²) and its derivatives finite on the branch that is not taken.

    Args:
        rank_out: (E,) rank among the neighbors of the source.
        rank_in: (E,) rank of the reversed edge, or None.
        distance: (E,) Å.
        settings: k, beta, cutoff, rank, f_max.

    Returns:
        (E,) log e.

    Source: Liu et al. 2026, Eqs. 7 and 8; the term rank_in/k makes the graph undirected.
    """
    terms = [rank_out / settings.k] if rank_in is None else [rank_out / settings.k, rank_in / settings.k]
    stacked = torch.stack([*terms, distance / settings.cutoff])
    if settings.rank == "hard":
        f = stacked.amax(0)
    else:
        f = torch.logsumexp(settings.beta * stacked, 0) / settings.beta
    near = f < settings.f_max
    square = torch.where(near, f, 0) ** 2
    return torch.where(near, -square / (1 - square), -math.inf)
