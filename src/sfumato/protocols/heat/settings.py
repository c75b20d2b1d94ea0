"""The settings of hot dynamics."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator

from sfumato.config import Settings as Base


class Length(NamedTuple):
    """How long runs of some size are, and how many.

    Args:
        settle: ps before the heat.
        time: ps in it.
        seeds: runs of each structure at each temperature.
        friction: 1/ps; the bath takes about its inverse to heat.
    """

    settle: float
    time: float
    seeds: int
    friction: float


LENGTHS = {
    "dev": Length(0.2, 1.0, 2, 5.0),
    "fast": Length(1.0, 6.0, 3, 1.0),
    "standard": Length(10.0, 100.0, 10, 1.0),
}


class Settings(Base):
    """Everything that decides a number besides data and model.

    Args:
        size: dev (a minute or two), fast, or standard, as published; decides settle, time, seeds,
            friction, and how many structures a named set has.
        settle: ps at each structure's own temperature before the heat; by default 0.2, 1 or 10.
        time: ps of heat; by default 1, 6 or 100.
        seeds: runs of each structure at each temperature; by default 2, 3 or 10.
        temperatures: K of the heat; as an option, several with commas between.
        friction: 1/ps, of the Langevin bath; by default 5, 1 or 1, the published one.
        timestep: fs of all structures; by default 1 for molecules and a user's own, 5 for the metals.
        force: eV/Å on an atom, where a relaxation ends.
        relax_steps: of a relaxation, at most.
        seed: of the first run's velocities and random forces, and of the bootstrap.
    """

    size: Literal["dev", "fast", "standard"] = "fast"
    settle: float | None = Field(default=None, ge=0)
    time: float | None = Field(default=None, gt=0)
    seeds: int | None = Field(default=None, ge=1)
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = (2000.0, 3000.0, 5000.0)
    friction: float | None = Field(default=None, gt=0)
    timestep: float | None = Field(default=None, gt=0)
    force: float = Field(default=0.05, gt=0)
    relax_steps: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("temperatures", mode="before")
    @classmethod
    def _split(cls, given: object) -> object:
        return [word for word in given.split(",") if word.strip()] if isinstance(given, str) else given

    @field_validator("temperatures")
    @classmethod
    def _each_once(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        if not given:
            raise ValueError("expected at least one temperature in K")
        return tuple(sorted(set(given)))

    def settled(self) -> Settings:
        """Return the same where what the size decides is stated."""
        usual = LENGTHS[self.size]
        chosen = {
            "settle": usual.settle if self.settle is None else self.settle,
            "time": self.time or usual.time,
            "seeds": self.seeds or usual.seeds,
            "friction": self.friction or usual.friction,
        }
        return self.model_copy(update=chosen)
