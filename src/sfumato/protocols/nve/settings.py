"""The settings of the energy-conservation test."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from sfumato.config import Settings as Base


class Length(NamedTuple):
    """How long a run of some size is.

    Args:
        time: ps.
        repeat: steps that are repeated with a shorter step, in double precision, with fresh neighbors.
    """

    time: float
    repeat: int


LENGTHS = {"dev": Length(1.0, 150), "fast": Length(10.0, 500), "standard": Length(100.0, 1000)}


class Settings(Base):
    """Everything that decides a number besides data and model.

    Args:
        size: dev (a minute or two), fast, or standard, the published length; decides time, repeat, and how
            many structures a named set has.
        time: ps of each structure; by default 1, 10 or 100.
        repeat: steps that are repeated to say what is to blame; by default 150, 500 or 1000.
        timestep: fs of all structures; by default 1 for molecules and a user's own, 5 for the metals.
        temperature: K of all structures; by default each structure's own.
        force: eV/Å on an atom, where a relaxation ends.
        relax_steps: of a relaxation, at most.
        seed: of the velocities and of the bootstrap.
    """

    size: Literal["dev", "fast", "standard"] = "fast"
    time: float | None = Field(default=None, gt=0)
    repeat: int | None = Field(default=None, ge=40)
    timestep: float | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, gt=0)
    force: float = Field(default=0.05, gt=0)
    relax_steps: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)

    def settled(self) -> Settings:
        """Return the same where what the size decides is stated."""
        usual = LENGTHS[self.size]
        chosen = {"time": self.time or usual.time, "repeat": self.repeat or usual.repeat}
        return self.model_copy(update=chosen)
