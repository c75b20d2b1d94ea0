"""The settings of the contract as a protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from sfumato.config import Settings as Base

if TYPE_CHECKING:
    from sfumato.testing import Settings as Asked


class Settings(Base):
    """What decides the contract's results besides structures of the user and the model.

    Args:
        elements: of the test structures, one to four symbols with commas between; by default the first of a
            few sets that the model knows.
        periodic: whether crystals and slabs must work, or are left out; by default tested if the model takes
            them.
        reach: Å to which atoms are pulled apart in search of a cutoff.
        points: of each path that is searched for jumps.
        seed: of displacements, rotations and orders.
        own: most of the user's structures that are checked; with `quick` a third.
        quick: a quarter of the structures; some checks are left out.
    """

    elements: str = ""
    periodic: bool | None = None
    reach: float = Field(default=8.0, gt=3)
    points: int = Field(default=61, ge=20)
    seed: int = Field(default=0, ge=0)
    own: int = Field(default=10, ge=1)
    quick: bool = False

    @field_validator("elements")
    @classmethod
    def _known(cls, elements: str) -> str:
        from sfumato.testing import Settings as Asked

        if elements:
            Asked(elements=_symbols(elements))
        return ",".join(_symbols(elements))

    def asked(self) -> Asked:
        """Return the settings of `sfumato.testing`."""
        from sfumato.testing import Settings as Asked

        values = self.model_dump() | {"elements": _symbols(self.elements) or None}
        return Asked(**values)


def _symbols(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())
