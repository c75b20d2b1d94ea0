"""What a training run is made of: frozen settings, read from YAML, written into every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from sfumato.config import Settings, explained
from sfumato.datasets.loader import LoaderSettings
from sfumato.models.mindscaip.config import PRESETS, MinDScAIPConfig, preset
from sfumato.systems import digest
from sfumato.words import nearest

Beta = Annotated[float, Field(ge=0, lt=1)]


class DataSettings(Settings):
    """Which frames.

    Args:
        path: a packed file of frames, or the name of a set.
        atom_energies: eV of each element by symbol, or "fit": least squares over the training split.
        train: split to learn from.
        validation: split to judge by; None for none.
        allow: names of statements of `sfumato data check` that need not hold of this data.
    """

    path: str
    atom_energies: Literal["fit"] | dict[str, float] = "fit"
    train: str = "train"
    validation: str | None = "val"
    allow: tuple[str, ...] = ()

    @field_validator("allow", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"write a list: [{value}]")
        return value

    @model_validator(mode="after")
    def _two_splits(self) -> DataSettings:
        if self.train == self.validation:
            raise ValueError(
                f"train and validation are both {self.train!r}: a model judged by what it learned from seems "
                "better than it is; name another split, or validation: null for none"
            )
        return self


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
        floor: eV/Å³, the curvature ‖F(+h) − 2F(0) + F(−h)‖/h² of one atom that costs nothing.
    """

    weight: PositiveFloat
    step: PositiveFloat = 0.05
    floor: NonNegativeFloat = 50.0


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


class TrainSettings(Settings):
    """A whole run.

    Args:
        model: a preset by name, `{preset: …}` with changes, or all settings of a model; which heads it has
            follows from the stages.
        data: which frames.
        stages: one after the other.
        weight_decay: of the weights of linear maps; biases, tables of elements and of angles have none.
        betas: of AdamW, each from 0 to below 1.
        ema: how slowly the averaged weights follow, per step; they are evaluated and kept.
        clip: largest norm of the gradient.
        seed: of weights, order, rotations and displacements.
        rotate: turn and mirror every structure at random; None: where the model does not know that this
            changes nothing (`directional: harmonics`).
        evaluate_steps: between two looks at the validation split; each stage also ends with one.
        patience: evaluations without improvement after which a stage ends; None: never.
        checkpoint_minutes: between two checkpoints.
        log_steps: between two lines of the log.
        tensorboard: also write what TensorBoard shows.
        accelerator: "cpu", "cuda", or what is there.
        devices: processes per node, each with one device.
        nodes: how many.
        threads: of each process on the CPU; None: as many as there are cores for it.
    """

    model: MinDScAIPConfig
    data: DataSettings
    stages: tuple[Stage, ...] = Field(min_length=1)
    weight_decay: NonNegativeFloat = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    ema: float = Field(0.999, ge=0, lt=1)
    clip: PositiveFloat = 100.0
    seed: int = Field(0, ge=0)
    rotate: bool | None = None
    evaluate_steps: PositiveInt = 1000
    patience: PositiveInt | None = None
    checkpoint_minutes: NonNegativeFloat = 5.0
    log_steps: PositiveInt = 50
    tensorboard: bool = False
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    nodes: PositiveInt = 1
    threads: PositiveInt | None = None

    @field_validator("model", mode="before")
    @classmethod
    def _model(cls, value: Any) -> Any:
        if isinstance(value, str):
            return preset(value)
        if isinstance(value, Mapping) and "preset" in value:
            changes = {key: item for key, item in value.items() if key != "preset"}
            name = value["preset"]
            if isinstance(changes.get("graph"), Mapping) and name in PRESETS:
                changes["graph"] = asdict(PRESETS[name].graph) | dict(changes["graph"])
            return preset(name, **changes)
        return value

    @field_validator("data", mode="before")
    @classmethod
    def _data(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"is a group of settings; write data: {{path: {value}}}, or data.path={value}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stages: two are called the same: {names}")
        if self.patience is not None and self.data.validation is None:
            raise ValueError("patience: needs a validation split to judge by")
        return self

    def network(self, stage: Stage) -> MinDScAIPConfig:
        """Return the settings of the model with the heads that a stage trains."""
        direct = stage.objective == "direct"
        heads = {
            "direct_forces": direct,
            "direct_stress": direct and stage.loss.stress > 0,
            "denoising": stage.denoising is not None,
        }
        return MinDScAIPConfig(**(dict(self.model) | heads))

    def loader(self, stage: Stage) -> LoaderSettings:
        """Return how batches of a stage are made; rotations are applied to what the loader gives."""
        graph = self.model.graph
        return LoaderSettings(
            **stage.batch.model_dump(), cutoff=graph.cutoff, neighbors=graph.k, seed=self.seed, rotate=False
        )

    @property
    def rotates(self) -> bool:
        """Whether structures are turned at random."""
        return self.model.directional == "harmonics" if self.rotate is None else self.rotate

    @property
    def identity(self) -> str:
        """SHA-256 of everything that the weights at a given step depend on, but data and devices."""
        free = (
            "log_steps",
            "checkpoint_minutes",
            "tensorboard",
            "accelerator",
            "devices",
            "nodes",
            "threads",
        )
        # The data has an identity of its own; where it lies does not matter.
        return digest([self.model_dump_json(exclude={"data": {"path", "allow"}} | dict.fromkeys(free, True))])


def read_run(path: str | Path, changes: Sequence[str] = ()) -> TrainSettings:
    """Read the settings of a run.

    Args:
        path: a YAML file.
        changes: "key=value" in place of what the file says, the value in YAML; dots lead inside, also by the
            number or the name of a stage: "model.directional=harmonics", "stages.0.lr=1e-3".

    Raises:
        ValueError: a file that is no YAML, an unknown key or a value that does not fit; says which and where.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected key: value lines, found {type(values).__name__}")
    for change in changes:
        _change(values, change)
    try:
        return TrainSettings(**values)
    except ValidationError as error:
        raise ValueError(f"{path}: {explained(error)}") from None


def _change(values: dict[str, Any], change: str) -> None:
    """Put a value in its place, making groups that are not there."""
    import yaml

    key, equals, text = change.partition("=")
    *way, last = key.split(".")
    if not equals or not all((*way, last)):
        raise ValueError(f"--set {change}: write key=value, for example stages.0.lr=1e-3")
    if way[:1] == ["model"] and isinstance(values.get("model"), str):
        values["model"] = {"preset": values["model"]}
    inner: Any = values
    for word in way:
        inner = _inside(inner, word, change)
    if not isinstance(inner, dict):
        raise ValueError(f"--set {change}: {'.'.join(way)} is no group of settings")
    try:
        inner[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {change}: the value is no YAML: {error}") from None


def _inside(group: Any, word: str, change: str) -> Any:
    """Return the part of a group of settings, or of the stages, that a word names."""
    if isinstance(group, list):
        names = [str(part.get("name")) for part in group]
        if word in names:
            return group[names.index(word)]
        if word.isdigit() and int(word) < len(group):
            return group[int(word)]
        raise ValueError(f"--set {change}: there is no stage {word!r}; {nearest(word, names)}")
    if not isinstance(group, dict):
        raise ValueError(f"--set {change}: {word!r} would be inside {group!r}, which is no group of settings")
    if group.get(word) is None:
        group[word] = {}
    return group[word]
