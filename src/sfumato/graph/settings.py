"""The settings of the differentiable nearest-neighbor graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

from sfumato.words import nearest

Rank = Literal["compact", "sigmoid", "hard"]
Mode = Literal["mutual", "out"]

SOFT_END = 0.98
"""The least f_max of soft ranks: the weight e of an edge is below 1e-10 there."""


@dataclass(frozen=True)
class GraphSettings:
    """Whom an atom attends to: about its k nearest neighbors, with weights that fade instead of jump.

    Args:
        k: an edge whose rank among the neighbors of its atom reaches k has weight zero.
        d0: Å, the difference of two distances over which their order becomes clear.
        beta: how sharply rank and distance are combined to their maximum.
        cutoff: Å; an edge of this length has weight zero.
        rank: "compact", a soft rank that looks 4 d0 far; "sigmoid", one that looks everywhere; "hard", the
            place in the sorted list: energies jump when two neighbors swap.
        mode: "mutual", an edge has to be near in the order of both of its atoms, and is there in both
            directions; "out", in the order of its source only.
        rank_offset: added to every rank. At 0 the nearest neighbor has rank ½.
        f_max: an edge is left out where f reaches this value; its weight there is below 1e-86. Soft ranks
            need 0.98 at least, where it is below 1e-10: an edge of more weight would end with a jump.

    Raises:
        ValueError: an unknown rank or mode, what is not a number, or a number out of range.

    Source: Liu et al. 2026, Eqs. 6 to 8, with the values of Table 7.
    """

    k: int = 30
    d0: float = 0.2
    beta: float = 10.0
    cutoff: float = 6.0
    rank: Rank = "compact"
    mode: Mode = "mutual"
    rank_offset: float = 0.0
    f_max: float = 0.9975

    def __post_init__(self) -> None:
        for name, valid in (("rank", get_args(Rank)), ("mode", get_args(Mode))):
            value = getattr(self, name)
            if value not in valid:
                raise ValueError(f"{name}: {value!r} is unknown; {nearest(str(value), valid)}")
        for name in ("k", "d0", "beta", "cutoff", "rank_offset", "f_max"):
            kind, word = (Integral, "whole number") if name == "k" else (Real, "number")
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise ValueError(f"{name}: expected a {word}, got {value!r}")
        for name in ("k", "d0", "beta", "cutoff"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if not math.isfinite(self.rank_offset):
            raise ValueError(f"rank_offset: expected a finite number, got {self.rank_offset}")
        least = 0.0 if self.rank == "hard" else SOFT_END
        if not (least <= self.f_max <= 1 and self.f_max > 0):
            raise ValueError(
                f"f_max: with rank {self.rank!r} expected a number from {least:g} to 1, got {self.f_max}"
            )

    @property
    def horizon(self) -> float:
        """Å; an atom farther away has no say in the neighborhood."""
        return self.cutoff + 4 * self.d0
