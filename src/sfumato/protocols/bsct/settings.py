"""The settings of the Bond Smoothness Characterization Test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sfumato.config import Settings as Base

if TYPE_CHECKING:
    from sfumato.metrics.smoothness import FSDSettings


class Settings(Base):
    """Everything that decides a BSCT number besides data and model; the defaults are the published test.

    Args:
        limit_per_bond: only the first scans of each bond type; by default all.
        floor: ε of the FSD in eV/Å.
        stride: use every stride-th labeled frame for the FSD.
        coordinate: differentiate by bond "length" or by the displacement "alpha" (half of it).
        minimum: measure the model's forces from the "reference" minimum or from its "own".
        refine: intervals each reference interval is divided into for the work–energy residual.
        seed: of the bootstrap.
    """

    limit_per_bond: int | None = Field(default=None, ge=1)
    floor: float = Field(default=1.0, gt=0)
    stride: int = Field(default=1, ge=1)
    coordinate: Literal["length", "alpha"] = "length"
    minimum: Literal["reference", "own"] = "reference"
    refine: int = Field(default=1, ge=1, le=100)
    seed: int = Field(default=0, ge=0)

    @property
    def fsd(self) -> FSDSettings:
        """The part that belongs to the FSD's name."""
        from sfumato.metrics.smoothness import FSDSettings

        return FSDSettings(self.floor, self.stride, self.coordinate, self.minimum)
