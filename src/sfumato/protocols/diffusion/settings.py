"""The settings of the energies and barriers of point defects."""

from __future__ import annotations

from pydantic import Field

from sfumato.config import Settings as Base


class Settings(Base):
    """Everything that decides a number besides data and model.

    Args:
        repeat: cubic cells along each axis of the supercell, 2 for 64 atoms of silicon.
        force: eV/Å on the most pulled atom where structures and paths are at rest.
        steps: of a relaxation at most.
        images: of a path between its ends.
    """

    repeat: int = Field(default=2, ge=1, le=6)
    force: float = Field(default=0.01, gt=0)
    steps: int = Field(default=1000, ge=1)
    images: int = Field(default=5, ge=1)
