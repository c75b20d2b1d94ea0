"""The settings of the errors on migrating atoms."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from sfumato.config import Settings as Base


class Settings(Base):
    """Everything that decides a number besides data and model.

    Args:
        only: a defect, interstitial or vacancy in the published sets; by default all.
        limit: only the first snapshots of each set; by default all.
        without: a training set, by name or path, whose frames for training and validation are left out of the
            snapshots; the published enhanced sets hold a third to a half of those of their defect.
        exact: integrate the distributions exactly, and not by the trapezoid rule on 50 points as released.
        seed: of the bootstrap.
    """

    only: str | None = None
    limit: int | None = Field(default=None, ge=1)
    without: str | None = None
    exact: bool = False
    seed: NonNegativeInt = 0
