"""How long variants are trained: as their stages say, so many steps, or so much processor time."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from sfumato.datasets.loader import Loader
from sfumato.datasets.named import frames_path
from sfumato.files import read_json, write_json
from sfumato.study.space import Budget
from sfumato.training.distributed import alone
from sfumato.training.loop import train
from sfumato.training.settings import TrainSettings
from sfumato.training.stages import Stage

STEPS = "steps.json"
WARM, TIMED = 4, 12
"""Steps of a stage before the clock starts, and steps that are timed."""


def within(budget: Budget | None, settings: TrainSettings, folder: Path) -> TrainSettings:
    """Return the settings of a training within a budget.

    Args:
        budget: None: as the stages say.
        settings: of the training.
        folder: of the trial; what was decided there once, holds, so that a training goes on as it began.
    """
    if budget is None:
        return settings
    path = folder / STEPS
    if not path.exists():
        write_json(path, {"steps": steps_within(budget, settings)})
    try:
        steps: list[int] = read_json(path)["steps"]
        stages = tuple(_of_length(stage, n) for stage, n in zip(settings.stages, steps, strict=True))
    except (KeyError, TypeError, IndexError):
        raise ValueError(f"{path}: damaged; remove it to decide the steps anew") from None
    return settings.model_copy(update={"stages": stages})


def _of_length(stage: Stage, steps: int) -> Stage:
    """Return a stage of so many steps, of which the warm-up has the same share."""
    share = stage.warmup / float(stage.steps or stage.epochs or 1)
    return stage.model_copy(update={"steps": steps, "epochs": None, "warmup": share * steps})


def steps_within(budget: Budget | None, settings: TrainSettings) -> list[int]:
    """Return how many steps each stage has; a budget keeps their proportions."""
    lengths = [stated_steps(settings, stage) for stage in settings.stages]
    if budget is None:
        return lengths
    if budget.steps is not None:
        scale = budget.steps / sum(lengths)
    else:
        assert budget.seconds is not None
        paces = [seconds_per_step(settings, stage) for stage in settings.stages]
        scale = budget.seconds / sum(n * pace for n, pace in zip(lengths, paces, strict=True))
    return [max(1, round(scale * n)) for n in lengths]


def stated_steps(settings: TrainSettings, stage: Stage) -> int:
    """Return how many steps a stage has by its settings; all its epochs are counted as long as the first."""
    if stage.steps is not None:
        return stage.steps
    data = settings.data
    loader = Loader(frames_path(data.path), data.train, settings.loader(stage))
    return loader.steps(0) * (stage.epochs or 1)


def seconds_per_step(settings: TrainSettings, stage: Stage) -> float:
    """Return the processor time of a step of a stage, by a short training that is thrown away."""
    once = stage.model_copy(update={"steps": WARM + TIMED, "epochs": None, "warmup": 0.0})
    data = settings.data.model_copy(update={"validation": None})
    short = settings.model_copy(update={"stages": (once,), "data": data, "patience": None})
    times: list[float] = []

    def stop() -> bool:
        times.append(time.process_time())
        return False

    with tempfile.TemporaryDirectory() as folder:
        train(short, folder, alone(short), stop=stop)
    return (times[-1] - times[WARM - 1]) / (len(times) - WARM)
