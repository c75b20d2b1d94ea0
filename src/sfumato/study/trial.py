"""One trial of a study: train a variant with a seed, then measure the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sfumato.execution.records import Record, ok
from sfumato.execution.runner import Chunk, each
from sfumato.files import read_json, write_json
from sfumato.protocols.protocol import Run
from sfumato.protocols.run import run
from sfumato.protocols.table import find_protocol
from sfumato.study.budget import stated_steps, within
from sfumato.study.space import Budget, Measure
from sfumato.study.speed import NUMBER, seconds_per_atom
from sfumato.systems import digest
from sfumato.training.launch import keep_memory, run_settings
from sfumato.training.settings import TrainSettings
from sfumato.words import nearest

MODEL = "model.safetensors"
NAME = "model"
"""Of every model in its measurements: what a variant is called decides nothing."""

STOPPED = "training was stopped before its end; give the same command again to continue"


@dataclass(frozen=True)
class Look:
    """A cheap measurement of a model that is partly trained, after which its training may be given up.

    Args:
        measure: what is measured.
        number: "protocol.number" of it.
        better: which is better.
        share: of the training before the look.
        worst: that it may be; None: anything.
    """

    measure: Measure
    number: str
    better: Literal["lower", "higher"]
    share: float
    worst: float | None

    def is_passed(self, value: float) -> bool:
        """Whether a training goes on after this look; a number that is not finite is worse than any."""
        if self.worst is None:
            return True
        return value <= self.worst if self.better == "lower" else value >= self.worst


@dataclass(frozen=True)
class Trial:
    """A variant with a seed.

    Args:
        variant: its name.
        settings: of its training, with the seed.
        data: identity of the frames that it learns from.
        budget: of the training; None: as long as the stages say.
        measures: what is measured of the model.
        folder: of all trials; several studies may share it.
        look: an early one; None: trained to the end in any case.
    """

    variant: str
    settings: TrainSettings
    data: str
    budget: Budget | None
    measures: tuple[Measure, ...]
    folder: Path
    look: Look | None = None

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.settings.seed

    @property
    def training(self) -> str:
        """What decides the model: settings, data and budget; whatever its variant is called."""
        budget = self.budget.model_dump_json() if self.budget else ""
        return digest([self.settings.identity, self.data, budget])

    @property
    def key(self) -> str:
        """What decides the result of the trial."""
        parts = [self.training, *(measure.model_dump_json() for measure in self.measures)]
        return digest([*parts, *([] if self.look is None else [repr(self.look)])])

    @property
    def place(self) -> Path:
        """Folder of its training and measurements."""
        return self.folder / self.training[:16]


@dataclass(frozen=True)
class Perform:
    """What a worker of a study does."""

    def build(self, device: str) -> Callable[[Chunk], list[Record]]:
        """See `execution.worker.Job`."""
        keep_memory()
        return lambda chunk: each(chunk, lambda item: perform(item.payload))


def perform(trial: Trial) -> Record:
    """Train and measure, going on where an earlier attempt was killed.

    Returns:
        The record: `numbers`, "protocol.number" → [value, low, high] of the 95 % interval over what was
        measured (null where there is none), `steps`, `parameters` and `cpu`, seconds of processor time that
        training took. After an early look also its number, `look`; where that was too bad, `reason` says so
        and there are no `numbers`.

    Raises:
        ValueError: settings, data or protocols that do not fit; a diverged training.
    """
    start = time.perf_counter()
    folder = trial.place
    folder.mkdir(parents=True, exist_ok=True)
    settings = within(trial.budget, trial.settings, folder)
    looked: dict[str, Any] = {}
    if trial.look is not None:
        looked["look"] = value = look_early(trial, trial.look, settings)
        if not trial.look.is_passed(value):
            bound, number = trial.look.worst, trial.look.number
            looked["reason"] = (
                f"given up: {number} was {value:.4g} after {trial.look.share:.0%}, not {bound:.4g}"
            )
            return ok(trial.key, seconds=time.perf_counter() - start, numbers={}, **looked)
    trained = run_settings(settings, folder / "train")
    if not trained.finished or trained.model is None:
        raise RuntimeError(STOPPED)
    model = f"{NAME}={folder / 'train' / MODEL}"
    numbers: dict[str, list[float | None]] = {}
    for measure in trial.measures:
        numbers |= measured(measure, model, folder)
    numbers[NUMBER] = [seconds_per_atom(trained.model, settings), None, None]
    return ok(
        trial.key,
        seconds=time.perf_counter() - start,
        variant=trial.variant,
        seed=trial.seed,
        numbers=numbers,
        **looked,
        **facts_of(folder / "train"),
    )


def look_early(trial: Trial, look: Look, settings: TrainSettings) -> float:
    """Train a part, measure, and return the number; NaN where it has none.

    Args:
        trial: of which the training is.
        look: what is measured, and when.
        settings: of the training within its budget.

    Raises:
        ValueError: the protocol does not measure this number.
    """
    folder = trial.place
    path = folder / f"look-{digest([look.measure.model_dump_json(), look.number, str(look.share)])[:8]}.json"
    if not path.exists():
        steps = sum(stated_steps(settings, stage) for stage in settings.stages)
        until = max(1, round(look.share * steps))
        trained = run_settings(settings, folder / "train", until=until)
        if trained.model is None or trained.steps < min(until, steps):
            raise RuntimeError(STOPPED)
        found = measured(look.measure, f"{NAME}={trained.model}", path.with_suffix(""))
        if look.number not in found:
            raise ValueError(f"early: nothing measured {look.number!r}; {nearest(look.number, found)}")
        write_json(path, {look.number: found[look.number][0]})
    try:
        value = read_json(path)[look.number]
        return math.nan if value is None else float(value)
    except (KeyError, TypeError, IndexError):
        raise ValueError(f"{path}: damaged; remove it to measure again") from None


def measured(measure: Measure, model: str, folder: Path) -> dict[str, list[float | None]]:
    """Put a model through a protocol; return its numbers, "protocol.number" → [value, low, high]."""
    protocol = find_protocol(measure.protocol)
    data, settings = protocol.sized(measure.size) if measure.size else (protocol.data, {})
    found = run(
        protocol,
        [model],
        measure.data or data,
        settings=settings | measure.settings,
        out=folder / f"{protocol.name}-{digest([measure.model_dump_json()])[:8]}",
    )
    (name,) = found.models
    return {f"{protocol.name}.{key}": value for key, value in numbers_of(found, name).items()}


def numbers_of(found: Run, name: str) -> dict[str, list[float | None]]:
    """Return the numbers of a model in a run with their intervals, from its part of the result file."""
    content = found.as_json()["models"][name]
    if "subsets" in content:  # errors on frames
        whole: Mapping[str, Any] = content["subsets"].get("all", {})
        return {key: [entry["value"], *entry["interval95"]] for key, entry in whole.items()}
    means: Mapping[str, float | None] = content.get("mean", {})
    return {key: [value, *content["interval95"][key]] for key, value in means.items()}


def facts_of(folder: Path) -> dict[str, Any]:
    """Return steps and processor time of a finished training, and the number of its parameters."""
    from sfumato.models.checkpoint import load_model
    from sfumato.training.log import read_log

    last = read_log(folder)[-1]
    network = load_model(folder / MODEL)[0]
    parameters = sum(weight.numel() for weight in network.parameters())
    return {"steps": last["step"], "cpu": last.get("cpu"), "parameters": parameters}
