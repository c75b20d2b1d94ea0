"""The stages of a training run: what each learns from, in which way, and for how long."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from sfumato.config import Settings


class LossWeights(Settings):
    """Weights of |ΔE|/N in eV, ‖ΔF‖ in eV/Å and |Δσ| in eV/Å³."""

    energy: NonNegativeFloat = 1.0
    forces: NonNegativeFloat = 2.0
    stress: NonNegativeFloat = 0.0


class Denoising(Settings):
    """Displace atoms, show the model their forces, and ask for the displacements.

    Args:
        probability: of a batch to be displaced.
        sigma: Å, standard deviation of each coordinate.
        share: of the atoms that are displaced; the others keep their forces as targets.
        weight: of the displacements in the loss.

    Source: Liao et al. 2024 (DeNS), with the values of its MPTrj runs.
    """

    probability: float = Field(0.5, ge=0, le=1)
    sigma: PositiveFloat = 0.1
    share: float = Field(1.0, gt=0, le=1)
    weight: NonNegativeFloat = 10.0


class Smoothness(Settings):
    """Penalize forces that bend too fast while a random bond of each molecule is stretched.

    Args:
        weight: in the loss.
        step: Å that the bond is stretched and shortened by.
        floor: eV/Å³, the curvature ‖F(+h) − 2F(0) + F(−h)‖/h² of one atom that costs nothing. The default
            lets reference forces pass: within 0.2 Å of the minimum of a bond the worst atom of the 485 scans
            of BSCT-SPICE has 380 (median) and 604 (90 % quantile).
    """

    weight: PositiveFloat
    step: PositiveFloat = 0.05
    floor: NonNegativeFloat = 650.0


class BatchSettings(Settings):
    """The most that one step sees, over all devices together; at least one limit.

    Args:
        structures: how many.
        atoms: of all structures together.
        edges: directed neighbor pairs of all structures together.
    """

    structures: PositiveInt | None = None
    atoms: PositiveInt | None = None
    edges: PositiveInt | None = None


class Stage(Settings):
    """One part of a run; the next begins with its averaged weights, a new optimizer and new heads.

    Args:
        name: for logs.
        epochs: how long; or
        steps: how long.
        objective: forces as the gradient of the energy, or from a head of their own.
        gradient: of a loss of forces: through the forces again ("double_backward"), or as the difference
            of two gradients of the energy at displaced atoms ("finite_difference").
        displacement: Å, how far the latter moves a structure, as a vector of all its coordinates.
        denoising: with a direct objective; None for none.
        smoothness: with a conservative objective and double backward; None for none.
        lr: learning rate after the warm-up.
        warmup: how long, in the unit of the stage, and less than that; may be a fraction.
        warmup_factor: of the learning rate at its beginning.
        final_factor: of the learning rate at the end of a cosine; 1 keeps it constant.
        batch: its limits, or simply the number of structures.
        loss: its weights, not all 0.
        precision: of matrix products; "bf16" also of weights and activations, with a direct objective only.
    """

    name: str
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    objective: Literal["conservative", "direct"] = "conservative"
    gradient: Literal["double_backward", "finite_difference"] = "double_backward"
    displacement: PositiveFloat = 5e-3
    denoising: Denoising | None = None
    smoothness: Smoothness | None = None
    lr: PositiveFloat = 5e-4
    warmup: NonNegativeFloat = 0.0
    warmup_factor: NonNegativeFloat = 0.2
    final_factor: NonNegativeFloat = 0.01
    batch: BatchSettings
    loss: LossWeights = LossWeights()
    precision: Literal["float32", "tf32", "bf16"] = "float32"

    @field_validator("batch", mode="before")
    @classmethod
    def _structures(cls, value: Any) -> Any:
        return {"structures": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Stage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"stage {self.name!r}: give either epochs or steps")
        direct = self.objective == "direct"
        if self.denoising is not None and not direct:
            raise ValueError(f"stage {self.name!r}: denoising needs objective: direct")
        if self.smoothness is not None and (direct or self.gradient != "double_backward"):
            raise ValueError(
                f"stage {self.name!r}: smoothness needs objective: conservative and gradient: double_backward"
            )
        if self.precision == "bf16" and not direct:
            raise ValueError(
                f"stage {self.name!r}: forces as a gradient are too noisy in bf16; use float32 or tf32"
            )
        learns = (*self.loss.model_dump().values(), 0 if self.denoising is None else self.denoising.weight)
        if not any(learns):
            raise ValueError(
                f"stage {self.name!r}: all weights of the loss are 0, so it would learn nothing; "
                "give loss: energy, forces or stress a weight"
            )
        length, unit = (self.steps, "steps") if self.epochs is None else (self.epochs, "epochs")
        if length is not None and self.warmup >= length:
            raise ValueError(
                f"stage {self.name!r}: warmup = {self.warmup:g} {unit}, but the stage has only {length}; "
                "it is in the unit of the stage, and must be less"
            )
        if not any(self.batch.model_dump().values()):
            raise ValueError(f"stage {self.name!r}: batch: give structures, atoms or edges")
        return self

    @property
    def compilable(self) -> bool:
        """Whether its gradient goes through the forces, and can be compiled as a whole."""
        return self.objective == "conservative" and self.gradient == "double_backward"
