"""Weights to start from."""

from __future__ import annotations

import math

import torch
from torch import nn

from sfumato.models.esen.config import ESENConfig


def initialize(model: nn.Module, config: ESENConfig, generator: torch.Generator) -> None:
    """Draw all weights.

    Linear maps are uniform within ±√(3/inputs), which keeps the size of what they act on, those that end a
    block smaller by √(4L), norms are one; the maps of a force encoding are zero. What an edge knows of its
    elements starts as large as what it knows of its distance.

    Args:
        model: an `ESEN`.
        config: its settings.
        generator: of random numbers.
    """
    for name, parameter in model.named_parameters():
        module, _, kind = name.rpartition(".")
        last = module.rpartition(".")[2]
        if parameter.is_meta:
            continue
        if kind == "frequencies":
            parameter.data.copy_(math.pi * torch.arange(1, config.radial + 1))
        elif module in ("sources", "targets"):
            parameter.data.normal_(0, 1 / math.sqrt(config.edge_width), generator=generator)
        elif module == "atoms":
            parameter.data.normal_(0, 1, generator=generator)
        elif module.startswith("heads.encoding") or (kind == "bias" and "norm" not in module):
            parameter.data.zero_()
        elif "norm" in module:
            parameter.data.fill_(1.0 if kind == "weight" else 0.0)
        else:
            bound = math.sqrt(3 / int(model.get_submodule(module).in_features))  # type: ignore[arg-type]
            parameter.data.uniform_(-bound, bound, generator=generator)
            ends = "edgewise.second" in module or "nodewise.down" in module
            if ends:
                parameter.data.mul_((4 * config.layers) ** -0.5)
            elif last == "out" and module.startswith("heads"):
                parameter.data.mul_(0.5)
