"""What a run tells: how it is doing, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfumato.training.errors import Errors
from sfumato.training.progress import Pace

HEADING = (
    "E in meV/atom, F in meV/Å; train: mean ‖ΔF‖ of atoms, held out: mean |ΔF|\n"
    "stage        done    step  train E        F held out E       F  frames/s    left"
)
"""Of the lines below."""


@dataclass(frozen=True)
class Status:
    """How a run is doing.

    Args:
        stage: its name.
        part: how much of the stage is done, 0 to 1.
        step: of the run.
        lr: learning rate.
        pace: since the last status.
        errors: of the last evaluation.
    """

    stage: str
    part: float
    step: int
    lr: float
    pace: Pace
    errors: Errors | None

    def line(self) -> str:
        """Return what a person wants to know, in one line under `HEADING`."""
        e = self.errors
        train = (_milli(self.pace.losses.get(name)) for name in ("energy", "forces"))
        held_out = ("–", "–") if e is None else (_milli(e.energy), _milli(e.forces))
        numbers = "{:>9}{:>9}{:>11}{:>8}".format(*train, *held_out)
        speed, left = f"{self.pace.structures_per_second:>10.3g}", f"{_short(self.pace.seconds_left):>8}"
        return f"{self.stage:<12.12}{self.part:>5.0%}{self.step:>8}{numbers}{speed}{left}"


def _milli(value: float | None) -> str:
    """Return eV as meV, with three digits or more."""
    if value is None or math.isnan(value):
        return "–"
    return (
        f"{1e3 * value:.3g}" if value < 1 else f"{1e3 * value:.0f}" if value < 100 else f"{1e3 * value:.1e}"
    )


def _short(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


Watch = Callable[[Status], None]


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Args:
        finished: all stages are done; if not, the run was stopped and goes on when it is called again.
        steps: done in all.
        model: the file; None without any.
        errors: of the last evaluation; None without any.
        first: whether this is the first of the processes, the one that speaks.
        signal: the number of that which stopped it; 0 for none, or for one to another process.
    """

    finished: bool
    steps: int
    model: Path | None
    errors: Errors | None
    first: bool = True
    signal: int = 0
