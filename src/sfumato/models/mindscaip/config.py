"""The settings of a MinDScAIP model, and the sizes it comes in."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sfumato.graph.settings import GraphSettings
from sfumato.words import nearest

ELEMENTS = 100
"""A model has a row for every element up to fermium, whether it was trained on it or not."""


WITH_RADIUS = 96
"""Curium, the last element whose covalent radius is known (Cordero et al. 2008)."""


class MinDScAIPConfig(BaseModel):
    """What a model is made of; weights are not part of it.

    The paper leaves open what its parameter count is spent on. Three arrangements fit it: B (the default)
    gives self tokens feed-forward networks of their own and reads every layer out; A doubles the width of
    the attention and gates the feed-forward networks; C doubles the width and reads every layer out.

    Args:
        width: C, channels of a token.
        heads: H of the attention.
        layers: L, each of two attentions.
        hidden_factor: channels inside a feed-forward network over C.
        attention_factor: channels inside the attention over C.
        gated: feed-forward networks multiply the activation by a second linear map.
        node_ffn: self tokens have feed-forward networks of their own.
        layer_readout: every layer adds to what the heads read, not only the last.
        radial: number of Gaussians of the distance.
        smearing: γ, their width over their spacing.
        temperature: τ, divides the products of queries and keys.
        directional: how tokens know directions. "harmonics": spherical harmonics as input, unconstrained;
            "angular_bias": Legendre polynomials of the angle between two edges, added to their attention
            logit, exactly invariant under rotation.
        l_max: highest degree of the harmonics.
        angular_degree: highest degree of the Legendre polynomials.
        graph: of the neighborhoods.
        direct_forces: forces from a head of their own rather than from the gradient.
        direct_stress: likewise for stress.
        denoising: take known forces as input, and predict the displacements of atoms.
        zbl: add the screened repulsion of nuclei at distances below 0.8 of the sum of covalent radii.
        elements: atomic numbers that the model knows; None: all, with zbl those up to curium.

    Source: Liu et al. 2026, Sections 4.1 and 5.1 and Table 7.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, gt=0)
    heads: int = Field(8, gt=0)
    layers: int = Field(8, gt=0)
    hidden_factor: int = Field(2, gt=0)
    attention_factor: Literal[1, 2] = 1
    gated: bool = False
    node_ffn: bool = True
    layer_readout: bool = True
    radial: int = Field(128, gt=1)
    smearing: float = Field(1.0, gt=0)
    temperature: float = Field(1.0, gt=0)
    directional: Literal["harmonics", "angular_bias"] = "harmonics"
    l_max: int = Field(5, ge=0, le=12)
    angular_degree: int = Field(6, ge=1, le=12)
    graph: GraphSettings = GraphSettings()
    direct_forces: bool = False
    direct_stress: bool = False
    denoising: bool = False
    zbl: bool = False
    elements: tuple[int, ...] | None = None

    @property
    def known_elements(self) -> tuple[int, ...]:
        """Atomic numbers that the model knows, in order."""
        return self.elements or tuple(range(1, (WITH_RADIUS if self.zbl else ELEMENTS) + 1))

    @model_validator(mode="before")
    @classmethod
    def _known_settings(cls, value: Any) -> Any:
        for key in value if isinstance(value, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown setting {key!r}; {nearest(str(key), cls.model_fields)}")
        return value

    @field_validator("graph", mode="before")
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

    @field_validator("elements")
    @classmethod
    def _real_elements(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if value is None:
            return None
        if not value or not all(1 <= z <= ELEMENTS for z in value):
            raise ValueError(f"expected atomic numbers from 1 to {ELEMENTS}")
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> MinDScAIPConfig:
        if self.width * self.attention_factor % self.heads:
            raise ValueError(
                f"heads: {self.heads} heads do not divide {self.width * self.attention_factor} channels"
            )
        return self


PRESETS: dict[str, MinDScAIPConfig] = {
    "nano": MinDScAIPConfig(
        width=48,
        heads=3,
        layers=3,
        smearing=5.0,
        directional="angular_bias",
        graph=GraphSettings(k=12, cutoff=5.0),
    ),
    "small": MinDScAIPConfig(width=128, heads=8),
    "medium": MinDScAIPConfig(width=256, heads=16),
    "large": MinDScAIPConfig(width=512, heads=32),
}
"""0.23, 3.8, 15 and 60 million parameters; the last three are the sizes of the paper."""


def preset(name: str, **changes: Any) -> MinDScAIPConfig:
    """Return a named configuration, with some settings changed.

    Args:
        name: a key of `PRESETS`.
        changes: settings by name.

    Raises:
        ValueError: an unknown preset or setting; names the nearest valid one.
    """
    if name not in PRESETS:
        raise ValueError(f"MinDScAIP has no preset {name!r}; {nearest(name, PRESETS)}")
    return MinDScAIPConfig(**(dict(PRESETS[name]) | changes))
