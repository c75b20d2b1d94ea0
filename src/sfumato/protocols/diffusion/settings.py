"""The settings of the energies and barriers of point defects."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, field_validator

from sfumato.config import Settings as Base


class Settings(Base):
    """Everything that decides a number besides data and model.

    Args:
        repeat: cubic cells along each axis of the supercell, 2 for 64 atoms of silicon.
        force: eV/Å on the most pulled atom where structures and paths are at rest.
        steps: of a relaxation at most.
        images: of a path between its ends.
        kelvin: temperatures with commas between at which a vacancy wanders, for its diffusivity; none by
            default, since each takes some 50,000 steps.
        picoseconds: of each trajectory.
        timestep: fs.
        replicas: trajectories at each temperature.
        blocks: of each trajectory, for the uncertainty.
        seed: of velocities and random forces.
    """

    repeat: int = Field(default=2, ge=1, le=6)
    force: float = Field(default=0.01, gt=0)
    steps: int = Field(default=1000, ge=1)
    images: int = Field(default=5, ge=1)
    kelvin: str = ""
    picoseconds: float = Field(default=100.0, ge=1.0)
    timestep: float = Field(default=2.0, gt=0, le=10)
    replicas: int = Field(default=1, ge=1)
    blocks: int = Field(default=5, ge=1)
    seed: NonNegativeInt = 0

    @field_validator("kelvin", mode="after")
    @classmethod
    def _temperatures(cls, kelvin: str) -> str:
        for word in filter(None, kelvin.split(",")):
            try:
                good = 0 < float(word) < 1e5
            except ValueError:
                good = False
            if not good:
                raise ValueError(f"{word!r} is not a temperature; write them as 1000,1200,1400")
        return kelvin

    @property
    def temperatures(self) -> tuple[float, ...]:
        """In K, each once."""
        return tuple(dict.fromkeys(float(word) for word in self.kelvin.split(",") if word))
