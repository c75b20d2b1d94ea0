"""What a study is made of: variants of one training run, seeds, and what is measured of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from sfumato.config import Settings, explained, read_yaml
from sfumato.training.settings import TrainSettings, changed
from sfumato.words import nearest

Chosen = TypeVar("Chosen")

Changes = dict[str, Any]
"""Settings of a training run by their dotted names, "model.graph.k": 12, as for `sfumato train --set`."""


class Measure(Settings):
    """One protocol that every trained model is put through.

    Args:
        protocol: its name (`sfumato list`), or "file.py:factory".
        data: a named set or a path; None: the default of the protocol, or that of the size.
        size: dev, fast or standard, as in `sfumato assess`; None: the default settings.
        settings: that differ.
    """

    protocol: str
    data: str | None = None
    size: Literal["dev", "fast", "standard"] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


def require_once(measures: Sequence[Measure]) -> None:
    """Raise ValueError where a protocol is there twice: its numbers have its name."""
    protocols = [measure.protocol for measure in measures]
    if len(set(protocols)) < len(protocols):
        raise ValueError(f"measure: one protocol is there twice: {protocols}")


def size_of(sizes: Mapping[Any, Chosen], size: str, what: str) -> Chosen:
    """Return what a size of a study or a search replaces.

    Raises:
        ValueError: there is no such size.
    """
    if size not in sizes:
        raise ValueError(f"size: the {what} has no {size!r}; it has {', '.join(sizes) or 'none'}")
    return sizes[size]


class Budget(Settings):
    """How much every variant is trained, one of the two; the shares of stages stay as they are.

    Args:
        steps: of all stages together.
        seconds: of processor time of one thread, measured on a few steps of each stage before it begins.
    """

    steps: PositiveInt | None = None
    seconds: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError("give either steps or seconds")
        return self


class Size(Settings):
    """What a size of a study replaces; what it does not name stays.

    Args:
        seeds, budget, measure: as in `StudySettings`.
        changes: to all variants, besides those of the study.
    """

    seeds: tuple[int, ...] | None = Field(None, min_length=1)
    budget: Budget | None = None
    changes: Changes = Field(default_factory=dict)
    measure: tuple[Measure, ...] | None = None


class StudySettings(Settings):
    """A whole study.

    Args:
        train: the training run that all variants start from: a YAML file beside that of the study.
        groups: group → variant → its changes; `{}` is the run as it is.
        baseline: the variant that the others are compared with.
        seeds: of each variant.
        changes: to all variants.
        budget: of each training; None: as long as the stages say.
        measure: what is measured of each model, in this order.
        columns: numbers of the table, "protocol.number"; by default those of the field (`COLUMNS`).
        sizes: dev, fast or standard → what is different in this size.
    """

    train: Path
    groups: dict[str, dict[str, Changes]] = Field(min_length=1)
    baseline: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    changes: Changes = Field(default_factory=dict)
    budget: Budget | None = None
    measure: tuple[Measure, ...] = Field(min_length=1)
    columns: tuple[str, ...] = ()
    sizes: dict[Literal["dev", "fast", "standard"], Size] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> StudySettings:
        names = [name for variants in self.groups.values() for name in variants]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"groups: two variants are called {twice[0]!r}")
        if self.baseline not in names:
            raise ValueError(
                f"baseline: there is no variant {self.baseline!r}; {nearest(self.baseline, names)}"
            )
        require_once(self.measure)
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: one is there twice: {list(self.seeds)}")
        return self

    @property
    def variants(self) -> dict[str, Changes]:
        """Variant → its changes, in the order of the groups."""
        return {name: changes for group in self.groups.values() for name, changes in group.items()}

    def group_of(self, variant: str) -> str:
        """Return the group that a variant is in."""
        return next(group for group, variants in self.groups.items() if variant in variants)

    def sized(self, size: str | None) -> StudySettings:
        """Return the study in one of its sizes; None: as it is.

        Raises:
            ValueError: a size that the study does not have.
        """
        if size is None:
            return self
        chosen = size_of(self.sizes, size, "study")
        found = {key: getattr(chosen, key) for key in ("seeds", "budget", "measure")}
        found = {key: value for key, value in found.items() if value is not None}
        return self.model_copy(update=found | {"changes": self.changes | chosen.changes})

    def run_of(self, variant: str, seed: int, base: Mapping[str, Any]) -> TrainSettings:
        """Return the training run of a variant.

        Args:
            variant: its name.
            seed: of the run.
            base: the values of the file `train`.

        Raises:
            ValueError: a change that names nothing, or a value that does not fit; says of which variant.
        """
        changes = self.changes | self.variants[variant] | {"seed": seed}
        try:
            return TrainSettings(**changed(base, changes))
        except ValidationError as error:
            raise ValueError(f"variant {variant!r}: {explained(error)}") from None
        except ValueError as error:
            raise ValueError(f"variant {variant!r}: {error}") from None


def read_study(path: str | Path, size: str | None = None) -> tuple[StudySettings, dict[str, Any]]:
    """Read a study and the training run that it starts from.

    Args:
        path: a YAML file.
        size: one of its sizes.

    Returns:
        The study, and the values of its training run.

    Raises:
        ValueError: a file that is not YAML, an unknown key, a value that does not fit; every variant is
            tried. Says where.
    """
    path = Path(path)
    try:
        study = StudySettings(**read_yaml(path)).sized(size)
    except ValidationError as error:
        raise ValueError(f"{path}: {explained(error)}") from None
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    base = read_yaml(path.parent / study.train)
    for variant in study.variants:
        try:
            study.run_of(variant, study.seeds[0], base)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return study, base
