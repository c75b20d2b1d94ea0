"""The settings of the errors on labeled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, field_validator

from sfumato.config import Settings as Base


class Settings(Base):
    """Everything that decides a number besides data and model.

    Args:
        source: YAML that says what the labels of a file of structures are, as for `sfumato data convert`;
            packed data needs none.
        split: train, val, test or all; by default test, else val, else all, whichever is there first.
        limit_per_subset: only the first frames of each subset; by default all.
        turned: frames that are also predicted turned at random, for the rotational error; spread evenly.
        seed: of the rotations and of the bootstrap.
    """

    source: dict[str, Any] | None = None
    split: str | None = None
    limit_per_subset: int | None = Field(default=None, ge=1)
    turned: NonNegativeInt = 100
    seed: NonNegativeInt = 0

    @field_validator("source", mode="before")
    @classmethod
    def _declared(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            from sfumato.datasets.convert import read_source

            return read_source(Path(value)).model_dump(mode="json")
        return value
