"""The settings of a MinDScAIP model, and the sizes it comes in."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from sfumato.graph.settings import GraphSettings
from sfumato.models.config import ELEMENTS, WITH_RADIUS, NetworkConfig


class MinDScAIPConfig(NetworkConfig):
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

    architecture: ClassVar[str] = "mindscaip"

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

    @property
    def rotation_invariant(self) -> bool:
        """Spherical harmonics as input know nothing of rotations."""
        return self.directional == "angular_bias"

    @property
    def fewest_tensors(self) -> int:
        """Every layer has some."""
        return self.layers

    def with_heads(self, *, forces: bool, stress: bool, noise: bool) -> Self:
        """See NetworkConfig."""
        heads = {"direct_forces": forces, "direct_stress": stress, "denoising": noise}
        return type(self)(**(dict(self) | heads))

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
