"""One trial of a study: train a variant with a seed, then measure the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.execution.records import Record, ok
from sfumato.execution.runner import Chunk, each
from sfumato.protocols.protocol import Run
from sfumato.protocols.run import run
from sfumato.protocols.table import find_protocol
from sfumato.study.budget import within
from sfumato.study.space import Budget, Measure
from sfumato.systems import digest
from sfumato.training.launch import keep_memory, run_settings
from sfumato.training.settings import TrainSettings

MODEL = "model.safetensors"


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
    """

    variant: str
    settings: TrainSettings
    data: str
    budget: Budget | None
    measures: tuple[Measure, ...]
    folder: Path

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
        return digest([self.training, *(measure.model_dump_json() for measure in self.measures)])

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
        training took.

    Raises:
        ValueError: settings, data or protocols that do not fit; a diverged training.
    """
    start = time.perf_counter()
    folder = trial.place
    folder.mkdir(parents=True, exist_ok=True)
    settings = within(trial.budget, trial.settings, folder)
    trained = run_settings(settings, folder / "train")
    if not trained.finished or trained.model is None:
        raise RuntimeError("training was stopped before its end; run the study again to continue")
    model = f"{trial.variant}-{trial.seed}={folder / 'train' / MODEL}"
    numbers: dict[str, list[float | None]] = {}
    for measure in trial.measures:
        numbers |= measured(measure, model, folder)
    return ok(
        trial.key,
        seconds=time.perf_counter() - start,
        variant=trial.variant,
        seed=trial.seed,
        numbers=numbers,
        **facts_of(folder / "train"),
    )


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
