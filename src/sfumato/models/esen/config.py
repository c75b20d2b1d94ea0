"""The settings of an eSEN model, the sizes it comes in, and the choices that cost it its smoothness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sfumato.graph.settings import GraphSettings
from sfumato.models.config import ELEMENTS, WITH_RADIUS, NetworkConfig

EVERYONE = 100_000
"""k of a graph without a limit of neighbors."""


def radius_graph(cutoff: float) -> GraphSettings:
    """Return settings by which all neighbors within a cutoff (Å) carry an edge."""
    return GraphSettings(k=EVERYONE, cutoff=cutoff, rank="hard", d0=0.01, f_max=1.0)


class ESENConfig(NetworkConfig):
    """What a model is made of; weights are not part of it.

    The defaults are the smooth variant with 3.2 million parameters.

    Args:
        width: C, channels of an atom at each degree and order.
        hidden: H, channels inside a convolution and a feed-forward network.
        layers: L, each of an edgewise convolution and a nodewise feed-forward network.
        l_max: highest degree of the features of an atom.
        m_max: highest order kept in the frame of an edge.
        edge_width: channels of each element at an edge, and inside the functions of the distance.
        radial: number of functions of the distance.
        basis: "gaussian", of twice their spacing in width; "bessel", sin(n π d/r_c)/d times the envelope,
            with frequencies that are trained.
        envelope: what a message and the first description of an atom are multiplied by. "polynomial", of the
            distance, continuous to the second derivative; "graph", the weight of the
            edge in the graph, which knows ranks and distance and is smooth of any order; "none", which makes
            energies jump where a neighbor comes or goes.
        envelope_power: p of the polynomial, which is continuous to the second derivative for every p; the
            larger it is, the later the envelope falls.
        nonlinearity: "gate", scalars gate the features of higher degree, exactly equivariant; "grid", SiLU
            on points of a sphere, which is equivariant the better the finer the grid.
        grid_resolution: circles of latitude of this grid, and points on each.
        mirror: the energy is the same for mirror images. Otherwise cosines and sines of an angle about an
            edge are mixed, as published, with twice the weights: left and right hand may then differ.
        graph: of the neighborhoods.
        direct_forces: forces from a head of their own rather than from the gradient.
        direct_stress: likewise for stress.
        denoising: take known forces as input, and predict the displacements of atoms.
        zbl: add the screened repulsion of nuclei at distances below 0.8 of the sum of covalent radii.
        elements: atomic numbers that the model knows; None: all, with zbl those up to curium.

    Source: Fu et al. 2025, Section 4 and Appendix D.
    """

    architecture: ClassVar[str] = "esen"

    width: int = Field(128, gt=0)
    hidden: int = Field(128, gt=0)
    layers: int = Field(2, gt=0)
    l_max: int = Field(2, ge=1, le=6)
    m_max: int = Field(2, ge=0, le=6)
    edge_width: int = Field(128, gt=0)
    radial: int = Field(10, gt=1)
    basis: Literal["gaussian", "bessel"] = "gaussian"
    envelope: Literal["polynomial", "graph", "none"] = "polynomial"
    envelope_power: int = Field(5, ge=3)
    nonlinearity: Literal["gate", "grid"] = "gate"
    grid_resolution: int = Field(14, ge=2)
    mirror: bool = True
    graph: GraphSettings = radius_graph(6.0)
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
        """A grid of points on a sphere is not; a model that tells mirror images apart learns them too."""
        return self.nonlinearity == "gate" and self.mirror

    @property
    def fewest_tensors(self) -> int:
        """Every layer has some."""
        return self.layers

    def with_heads(self, *, forces: bool, stress: bool, noise: bool) -> Self:
        """See NetworkConfig."""
        heads = {"direct_forces": forces, "direct_stress": stress, "denoising": noise}
        return type(self)(**(dict(self) | heads))

    @model_validator(mode="after")
    def _parts_belong_together(self) -> ESENConfig:
        if self.m_max > self.l_max:
            raise ValueError(f"m_max: {self.m_max} is more than l_max, {self.l_max}")
        if self.direct_stress and self.l_max < 2:
            raise ValueError("direct_stress: needs features of degree 2; set l_max to 2 or more")
        if self.envelope == "polynomial" and self.graph.rank != "hard":
            raise ValueError(
                "envelope: the polynomial knows nothing of ranks, and would not fade where they end an edge; "
                "with a soft rank use envelope: graph"
            )
        if self.nonlinearity == "grid" and self.grid_resolution <= 2 * self.l_max:
            raise ValueError(
                f"grid_resolution: {self.grid_resolution} points on a circle do not resolve degree "
                f"{self.l_max}; set it to {2 * self.l_max + 1} or more"
            )
        return self


PRESETS: dict[str, ESENConfig] = {
    "nano": ESENConfig(
        width=32,
        hidden=32,
        edge_width=32,
        layers=2,
        envelope="graph",
        graph=GraphSettings(k=12, cutoff=5.0),
    ),
    "small": ESENConfig(mirror=False),
    "medium": ESENConfig(layers=4, mirror=False),
    "large": ESENConfig(layers=10, l_max=3, mirror=False),
}
"""0.2, 3.2, 6.5 and 30 million parameters; the last three are the sizes of the paper."""

VARIANTS: dict[str, Mapping[str, Any]] = {
    "direct-forces": {"direct_forces": True},
    "neighbor-limit": {"graph": {"rank": "hard", "k": 8}},
    "no-envelope": {"envelope": "none"},
    "smooth-envelope": {"envelope": "graph", "graph": {"rank": "compact", "k": 10_000_000, "d0": 0.2}},
    "soft-neighbors": {"envelope": "graph", "graph": {"rank": "compact", "k": 30, "d0": 0.2}},
    "gaussian-64": {"radial": 64},
    "gaussian-512": {"radial": 512},
    "bessel": {"basis": "bessel"},
    "grid-6": {"nonlinearity": "grid", "grid_resolution": 6},
    "grid-10": {"nonlinearity": "grid", "grid_resolution": 10},
    "grid-14": {"nonlinearity": "grid", "grid_resolution": 14},
}
"""One choice changed at a time: the ablations of the source (Figure 4, Table 1), and two smoother ones."""
