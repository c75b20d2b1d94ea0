"""What a search is made of: settings to vary, numbers to improve, and when to give a trial up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from sfumato.config import Settings, explained, read_yaml
from sfumato.study.space import Budget, Changes, Measure, StudySettings, require_once, size_of
from sfumato.training.settings import TrainSettings

Better = Literal["lower", "higher"]

Value = bool | int | float | str | None

START, WINNER = "start", "winner"
"""Variants of the confirmation."""


class Range(Settings):
    """Numbers between two bounds; whole ones where both bounds are.

    Args:
        low, high: bounds, both included.
        log: spread evenly over the logarithm.
    """

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: low = {self.low} has no logarithm")
        return self


class Choice(Settings):
    """One of a few values.

    Args:
        choices: words, numbers, true, false or null.
    """

    choices: tuple[Value, ...] = Field(min_length=2)


class Early(Settings):
    """A cheap look at a model that is partly trained: what is rough by then is not trained to the end.

    Args:
        measure: what is measured.
        number: "protocol.number" of it.
        better: which is better.
        share: of the training before the look.
        keep: share of the trials before it that a trial may be worse than.
        first: trials that are trained to the end in any case.
    """

    measure: Measure
    number: str
    better: Better = "lower"
    share: float = Field(0.4, gt=0, lt=1)
    keep: float = Field(0.7, gt=0, lt=1)
    first: PositiveInt = 6


class SearchSize(Settings):
    """What a size of a search replaces; what it does not name stays.

    Args:
        trials, budget, measure, confirm, early: as in `SearchSettings`.
    """

    trials: PositiveInt | None = None
    budget: Budget | None = None
    measure: tuple[Measure, ...] | None = None
    confirm: tuple[int, ...] | None = None
    early: Early | None = None


class SearchSettings(Settings):
    """A whole search.

    Args:
        train: the training run to improve: a YAML file beside that of the search.
        space: settings by their dotted names, as for `sfumato train --set`, with what they may be.
        objectives: "protocol.number" → which is better; "speed.time" is the time of a prediction.
        start: settings of the run that the search begins with and is compared with.
        trials: how many, the start among them.
        seed: of what is tried, and of the trainings.
        budget: of each training; None: as long as the stages say.
        measure: what is measured of each model, in this order.
        early: when to give a trial up; None: never.
        confirm: seeds that start and winner are trained with again; none: no confirmation.
        sizes: dev, fast or standard → what is different in this size.
    """

    train: Path
    space: dict[str, Range | Choice] = Field(min_length=1)
    objectives: dict[str, Better] = Field(min_length=1)
    start: Changes = Field(default_factory=dict)
    trials: PositiveInt = 30
    seed: int = 0
    budget: Budget | None = None
    measure: tuple[Measure, ...] = Field(min_length=1)
    early: Early | None = None
    confirm: tuple[int, ...] = (101, 102, 103)
    sizes: dict[Literal["dev", "fast", "standard"], SearchSize] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        require_once(self.measure)
        if self.seed in self.confirm:
            raise ValueError(f"confirm: {self.seed} is the seed of the search; a confirmation needs others")
        return self

    def sized(self, size: str | None) -> SearchSettings:
        """Return the search in one of its sizes; None: as it is.

        Raises:
            ValueError: a size that the search does not have.
        """
        if size is None:
            return self
        chosen = size_of(self.sizes, size, "search")
        found = {key: getattr(chosen, key) for key in SearchSize.model_fields}
        return self.model_copy(update={key: value for key, value in found.items() if value is not None})

    def study(self, variants: Mapping[str, Changes], seeds: tuple[int, ...]) -> StudySettings:
        """Return the study of some variants, compared with the first of them."""
        return StudySettings(
            train=self.train,
            groups={"search": dict(variants)},
            baseline=next(iter(variants)),
            seeds=seeds,
            budget=self.budget,
            measure=self.measure,
        )

    def run_of(self, changes: Changes, base: Mapping[str, Any]) -> TrainSettings:
        """Return the training of a trial.

        Raises:
            ValueError: a change that names nothing, or a value that does not fit.
        """
        return self.study({"trial": self.start | changes}, (self.seed,)).run_of("trial", self.seed, base)


def read_search(path: str | Path, size: str | None = None) -> tuple[SearchSettings, dict[str, Any]]:
    """Read a search and the training run that it starts from.

    Args:
        path: a YAML file.
        size: one of its sizes.

    Returns:
        The search, and the values of its training run.

    Raises:
        ValueError: a file that is not YAML, an unknown key, a value that does not fit; the start and both
            ends of every setting are tried. Says where.
    """
    path = Path(path)
    try:
        search = SearchSettings(**read_yaml(path)).sized(size)
    except ValidationError as error:
        raise ValueError(f"{path}: {explained(error)}") from None
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    base = read_yaml(path.parent / search.train)
    ends: list[Changes] = [{}]
    for name, kind in search.space.items():
        values = kind.choices if isinstance(kind, Choice) else (kind.low, kind.high)
        ends += [{name: value} for value in values]
    for changes in ends:
        try:
            search.run_of(changes, base)
        except ValueError as error:
            where = " ".join(f"{name} = {value}:" for name, value in changes.items()) or "start:"
            raise ValueError(f"{path}: {where} {error}") from None
    return search, base
