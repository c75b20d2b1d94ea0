"""What the settings of every network have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from sfumato.graph.settings import GraphSettings
from sfumato.words import nearest

ELEMENTS = 100
"""A network has a row for every element up to fermium, whether it was trained on it or not."""

WITH_RADIUS = 96
"""Curium, the last element whose covalent radius is known (Cordero et al. 2008)."""


class NetworkConfig(BaseModel):
    """The settings of a network; weights are not part of it.

    A family's own settings derive from it, state their `architecture`, and have two fields: `graph`, of the
    neighborhoods, and `elements`, the atomic numbers that the network knows (None: all).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: ClassVar[str]
    """The name of the family in `families.FAMILIES`."""

    if TYPE_CHECKING:  # fields of each family, in an order of its own

        @property
        def graph(self) -> GraphSettings: ...

        @property
        def elements(self) -> tuple[int, ...] | None: ...

    @property
    def known_elements(self) -> tuple[int, ...]:
        """Atomic numbers that the network knows, in order."""
        return self.elements or tuple(range(1, ELEMENTS + 1))

    @property
    def rotation_invariant(self) -> bool:
        """Whether turning a structure never changes its energy; otherwise training turns structures."""
        return False

    @property
    def fewest_tensors(self) -> int:
        """How many weight tensors a network with these settings has at least.

        A damaged file that asks for a billion layers is refused before they are made.
        """
        return 1

    def with_heads(self, *, forces: bool, stress: bool, noise: bool) -> Self:
        """Return the same settings with exactly these heads besides that of the energy.

        Args:
            forces: forces that are predicted directly.
            stress: likewise.
            noise: known forces as input, displacements of atoms as output.

        Raises:
            ValueError: a head that this family does not have.
        """
        asked = {"direct forces": forces, "direct stress": stress, "denoising": noise}
        missing = [what for what, wanted in asked.items() if wanted]
        if missing:
            raise ValueError(
                f"architecture {self.architecture!r} has no head for {' and '.join(missing)}; "
                "train it with objective: conservative"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, value: Any) -> Any:
        for key in value if isinstance(value, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown setting {key!r}; {nearest(str(key), cls.model_fields)}")
        return value

    @field_validator("graph", mode="before", check_fields=False)
    @classmethod
    def _known_graph_settings(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = GraphSettings.__dataclass_fields__
        for key in value:
            if key not in known:
                raise ValueError(f"unknown key {key!r}; {nearest(str(key), known)}")
        try:
            return GraphSettings(**value)
        except TypeError as error:
            raise ValueError(str(error)) from None

    @field_validator("elements", check_fields=False)
    @classmethod
    def _real_elements(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is None:
            return None
        if not value or not all(1 <= z <= ELEMENTS for z in value):
            raise ValueError(f"expected atomic numbers from 1 to {ELEMENTS}")
        return tuple(sorted(set(value)))
