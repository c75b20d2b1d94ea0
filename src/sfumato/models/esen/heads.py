"""What is read from the features of atoms, and known forces as input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato.models.esen.config import ESENConfig
from sfumato.models.esen.layers import ByDegree
from sfumato.models.esen.so3 import quadrupoles
from sfumato.models.harmonics import solid_harmonics


class Energy(nn.Module):
    """Three linear maps of the scalars with activations between.

    Args:
        width: C.
        hidden: channels between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, scalars: Tensor) -> Tensor:
        """Map (N, C) to (N,)."""
        found = self.out(functional.silu(self.second(functional.silu(self.first(scalars)))))
        return found[:, 0]  # type: ignore[no-any-return]


class VectorHead(nn.Module):
    """One vector per atom, from the features of degree 1.

    Args:
        config: of the model.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.map = nn.Linear(config.width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n, C) to (N, 3); the features are in the order y, z, x."""
        return self.map(x[:, 1:4])[:, :, 0].roll(1, dims=1)  # type: ignore[no-any-return]


class StressHead(nn.Module):
    """One symmetric tensor per atom, from the features of degree 0 and 2.

    Args:
        config: of the model.
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.trace, self.rest = nn.Linear(config.width, 1), nn.Linear(config.width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n, C) to (N, 3, 3)."""
        unit = torch.eye(3, dtype=x.dtype, device=x.device)
        rest = self.rest(x[:, 4:9])[:, :, 0] @ quadrupoles().to(x).flatten(1)
        return self.trace(x[:, 0])[:, :, None] * unit + rest.view(-1, 3, 3)  # type: ignore[no-any-return]


class Encoding(nn.Module):
    """Known forces as features of atoms, for a model that finds displaced atoms.

    The features are the harmonics of F/√(1 + F²), smooth where a force is zero. Its weights start at zero: a
    model that is not denoising does not notice it.

    Args:
        config: of the model.

    Source: Liao et al. 2024 (DeNS), with |F|/√3 Y(F/|F|).
    """

    def __init__(self, config: ESENConfig) -> None:
        super().__init__()
        self.l_max = config.l_max
        self.map = ByDegree(1, config.width, config.l_max)

    def forward(self, forces: Tensor) -> Tensor:
        """Map (N, 3) forces over the scale of the model to (N, n, C)."""
        short = forces * torch.rsqrt(1 + forces.square().sum(1, keepdim=True))
        return self.map(solid_harmonics(short, self.l_max)[:, :, None])  # type: ignore[no-any-return]
