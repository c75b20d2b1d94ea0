"""Weights to start from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sfumato.models.harmonics import gaussians, smearing
from sfumato.models.mindscaip.config import MinDScAIPConfig

ANGULAR_SPREAD = 0.5
"""Standard deviation of the angular weights."""

ROUGHEST = 0.2
"""Å; functions of the distance start no rougher than Gaussians of this width."""


def initialize(model: nn.Module, config: MinDScAIPConfig, generator: torch.Generator) -> None:
    """Draw all weights.

    Linear maps as usual, uniform within ±1/√(inputs), but those that end a block smaller by √(4L); the last
    maps of a force encoding are zero. What a token sees of its distance starts with unit variance (see
    `radial_weights`): the usual 1/√(inputs) drowns it in the elements, and a small model then takes several
    times as long to learn.

    Args:
        model: a `MinDScAIP`.
        config: its settings.
        generator: of random numbers.
    """
    for name, parameter in model.named_parameters():
        module, _, kind = name.rpartition(".")
        if kind == "angles":
            parameter.data.normal_(0, ANGULAR_SPREAD, generator=generator)
        elif kind == "itself" or module in ("sources", "targets"):
            parameter.data.normal_(0, 1 / math.sqrt(2), generator=generator)
        elif module.startswith("heads.encoding") and module.endswith("down"):
            parameter.data.zero_()
        else:
            bound = 1 / math.sqrt(int(model.get_submodule(module).in_features))  # type: ignore[arg-type]
            parameter.data.uniform_(-bound, bound, generator=generator)
            if module.endswith(("attention.out", "edge.down", "node.down", "readout.down")):
                parameter.data.mul_((4 * config.layers) ** -0.5)
    weight = model.get_parameter("geometry.weight")
    if weight.device.type != "meta":
        weight.data[:, : config.radial] = radial_weights(config, generator).to(weight)


def radial_weights(config: MinDScAIPConfig, generator: torch.Generator) -> Tensor:
    """Return (C, R) weights of the Gaussians that make random functions of the distance of unit variance.

    Narrow Gaussians get weights that vary slowly from one to the next, so that no smearing scale starts with
    functions rougher than `ROUGHEST`.
    """
    centers, width, height = smearing(config.radial, config.graph.cutoff, config.smearing)
    draws = torch.randn(config.width, config.radial, dtype=torch.float64, generator=generator)
    if width < ROUGHEST:
        spread = math.sqrt(ROUGHEST**2 - width**2)
        draws = draws @ gaussians(centers, centers, spread, 1.0)
    return draws / (draws @ gaussians(centers, centers, width, height)).square().mean().sqrt()
