"""Where a training run is: the next batch, its random numbers and the learning rate follow from it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from sfumato.training.losses import Counts
from sfumato.training.stages import Stage


@dataclass
class Tally:
    """What happened since the last line of the log.

    Args:
        sums: of the terms of the loss.
        counts: steps in each of these sums.
        structures: seen.
        seconds: of training at that line, and those of evaluations since then.
        done: how much of the stage was done at that line, in its unit.
    """

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    structures: int = 0
    seconds: float = 0.0
    done: float = 0.0

    def add(self, losses: Mapping[str, float], counts: Counts) -> None:
        """Add the terms of a step's loss, and its structures; a term without any label does not count."""
        for name, value in losses.items():
            if counts.of(name):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1
        self.structures += counts.structures

    def means(self) -> dict[str, float]:
        """Return the terms of the loss as means over steps."""
        return {name: value / self.counts[name] for name, value in self.sums.items()}


@dataclass(frozen=True)
class Pace:
    """How fast a run is.

    Args:
        losses: terms of the loss, means since the last line of the log.
        structures_per_second: since then.
        seconds_left: of the stage.
    """

    losses: dict[str, float]
    structures_per_second: float
    seconds_left: float


@dataclass
class Progress:
    """Where a run is. Only its own methods change it.

    Args:
        stage: number of the stage.
        epoch: number of the epoch, counted over all stages.
        first: the epoch that the stage began with.
        step: of the epoch, the next to do.
        done: steps done in this stage.
        total: steps done in the run.
        seconds: of training, all interruptions left out.
        cpu: seconds of processor time of this process.
        best: smallest validation loss of this stage; None before the first.
        waited: evaluations since then.
        due: the step before was done, its evaluation not yet.
        tally: what happened since the last line of the log.
    """

    stage: int = 0
    epoch: int = 0
    first: int = 0
    step: int = 0
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    best: float | None = None
    waited: int = 0
    due: bool = False
    tally: Tally = field(default_factory=Tally)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return it from what `values` gave."""
        return cls(**{**values, "tally": Tally(**values["tally"])})

    def values(self) -> dict[str, Any]:
        """Return it in plain types."""
        return asdict(self)

    def step_done(self, losses: Mapping[str, float], counts: Counts, steps: int) -> None:
        """Go on to the next step.

        Args:
            losses: terms of the loss of the step that was done.
            counts: what they are means over.
            steps: of the epoch.
        """
        self.tally.add(losses, counts)
        self.step, self.done, self.total = self.step + 1, self.done + 1, self.total + 1
        if self.step == steps:
            self.epoch, self.step = self.epoch + 1, 0

    def time_passed(self, seconds: float, cpu: float) -> None:
        """Add time of training and of this process's processor."""
        self.seconds += seconds
        self.cpu += cpu

    def evaluation_begins(self) -> bool:
        """Note that an evaluation is due; return whether that is new."""
        was, self.due = self.due, True
        return not was

    def evaluation_ends(self) -> None:
        """Note that no evaluation is due."""
        self.due = False

    def evaluated(self, seconds: float) -> None:
        """Leave the time of an evaluation out of the speed of training."""
        self.tally.seconds += seconds

    def is_best(self, loss: float) -> bool:
        """Take up a validation loss; return whether it is the smallest of the stage."""
        if self.best is None or loss < self.best:
            self.best, self.waited = loss, 0
            return True
        self.waited += 1
        return False

    def is_over(self, stage: Stage, patience: int | None) -> bool:
        """Return whether the stage is.

        Args:
            stage: the one that the run is in.
            patience: evaluations without improvement after which it ends.
        """
        if patience is not None and self.waited >= patience:
            return True
        return self.done >= stage.steps if stage.steps else self.epoch - self.first >= (stage.epochs or 0)

    def part(self, stage: Stage, steps: int) -> float:
        """Return how much of the stage is done, in its unit.

        Args:
            stage: the one that the run is in.
            steps: of the epoch.
        """
        return float(self.done) if stage.steps else self.epoch - self.first + self.step / steps

    def line_written(self, done: float, whole: float) -> Pace:
        """Return the pace since the last line of the log, and begin to count anew.

        Args:
            done: how much of the stage is done, in its unit.
            whole: how long it is.
        """
        took = max(self.seconds - self.tally.seconds, 1e-9)
        left = took * (whole - done) / max(done - self.tally.done, 1e-9)
        pace = Pace(self.tally.means(), self.tally.structures / took, left)
        self.tally = Tally(seconds=self.seconds, done=done)
        return pace

    def stage_done(self) -> None:
        """Go on to the next stage."""
        self.stage += 1
        self.epoch += self.step > 0
        self.first, self.step, self.done, self.best, self.waited = self.epoch, 0, 0, None, 0
        self.tally.done = 0.0


class Clock:
    """Time since it was last looked at."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.monotonic(), time.process_time()

    def lap(self) -> tuple[float, float]:
        """Return seconds, and those of this process's processor, since the last call."""
        clock, cpu = self._clock, self._cpu
        self._clock, self._cpu = time.monotonic(), time.process_time()
        return self._clock - clock, self._cpu - cpu
