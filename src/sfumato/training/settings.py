"""What a training run is made of: frozen settings, read from YAML, written into every model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from sfumato.config import Settings, explained, parse_yaml, read_yaml
from sfumato.datasets.loader import LoaderSettings
from sfumato.models.config import NetworkConfig
from sfumato.models.families import read_config, stated_architecture
from sfumato.systems import digest
from sfumato.training.stages import Stage
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


class TrainSettings(Settings):
    """A whole run.

    Args:
        model: a preset of MinDScAIP by name, or settings of a network: `architecture` (a family, by default
            mindscaip), perhaps a `preset`, and changes; which heads it has follows from the stages.
        data: which frames.
        stages: one after the other.
        weight_decay: of the weights of linear maps; biases, tables of elements and of angles have none.
        betas: of AdamW, each from 0 to below 1.
        ema: how slowly the averaged weights follow, per step; they are evaluated and kept.
        clip: largest norm of the gradient.
        seed: of weights, order, rotations and displacements.
        rotate: turn and mirror every structure at random; None: unless the network is invariant under
            rotation.
        evaluate_steps: between two looks at the validation split; each stage also ends with one.
        patience: evaluations without improvement after which a stage ends; None: never.
        checkpoint_minutes: between two checkpoints.
        log_steps: between two lines of the log.
        tensorboard: also write what TensorBoard shows.
        accelerator: "cpu", "cuda", or what is there.
        devices: processes per node, each with one device.
        nodes: how many.
        threads: of each process on the CPU; None: as many as there are cores for it.
        compile: let torch compile the gradient of the loss of forces as a whole, for each shape of batches;
            in stages with a conservative objective and double backward.
    """

    model: SerializeAsAny[NetworkConfig]
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
    compile: bool = False

    @field_validator("model", mode="before")
    @classmethod
    def _model(cls, value: Any) -> Any:
        return read_config(value)

    @field_serializer("model", mode="wrap")
    def _with_architecture(self, value: NetworkConfig, serialize: SerializerFunctionWrapHandler) -> Any:
        return stated_architecture(value) | serialize(value)

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
        for stage in self.stages:
            try:
                self.network(stage)
            except ValueError as error:
                raise ValueError(f"stage {stage.name!r}: {error}") from None
        return self

    def network(self, stage: Stage) -> NetworkConfig:
        """Return the settings of the network with the heads that a stage trains.

        Raises:
            ValueError: a head that its family does not have.
        """
        direct = stage.objective == "direct"
        return self.model.with_heads(
            forces=direct, stress=direct and stage.loss.stress > 0, noise=stage.denoising is not None
        )

    def loader(self, stage: Stage) -> LoaderSettings:
        """Return how batches of a stage are made; rotations are applied to what the loader gives."""
        graph = self.model.graph
        return LoaderSettings(
            **stage.batch.model_dump(), cutoff=graph.cutoff, neighbors=graph.k, seed=self.seed, rotate=False
        )

    @property
    def rotates(self) -> bool:
        """Whether structures are turned at random."""
        return not self.model.rotation_invariant if self.rotate is None else self.rotate

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
            *(() if self.compile else ("compile",)),  # runs from before there was this setting go on
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
        ValueError: a file that is not YAML, an unknown key or a value that does not fit; says where.
    """
    values = read_yaml(path)
    for change in changes:
        _change(values, change)
    try:
        return TrainSettings(**values)
    except ValidationError as error:
        raise ValueError(f"{path}: {explained(error)}") from None


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a run with some in place of others; what was given stays as it is.

    Args:
        values: of the YAML file of a run.
        changes: by dotted name, see `read_run`.

    Raises:
        ValueError: a name that leads nowhere.
    """
    found = copy.deepcopy(dict(values))
    for key, value in changes.items():
        _put(found, key, value, key)
    return found


def _change(values: dict[str, Any], change: str) -> None:
    """Put the value of "key=value" in its place."""
    key, equals, text = change.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"--set {change}: write key=value, for example stages.0.lr=1e-3")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"--set {change}: the value: {error}") from None
    _put(values, key, value, f"--set {change}")


def _put(values: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Put a value in its place, making groups that are not there."""
    *way, last = key.split(".")
    if way[:1] == ["model"] and isinstance(values.get("model"), str):
        values["model"] = {"preset": values["model"]}
    inner: Any = values
    for word in way:
        inner = _inside(inner, word, where)
    if not isinstance(inner, dict):
        raise ValueError(f"{where}: {'.'.join(way)} is not a group of settings")
    inner[last] = value


def _inside(group: Any, word: str, where: str) -> Any:
    """Return the part of a group of settings, or of the stages, that a word names."""
    if isinstance(group, list):
        names = [str(part.get("name")) for part in group]
        if word in names:
            return group[names.index(word)]
        if word.isdigit() and int(word) < len(group):
            return group[int(word)]
        raise ValueError(f"{where}: there is no stage {word!r}; {nearest(word, names)}")
    if not isinstance(group, dict):
        raise ValueError(f"{where}: {word!r} would be inside {group!r}, which is not a group of settings")
    if group.get(word) is None:
        group[word] = {}
    return group[word]
