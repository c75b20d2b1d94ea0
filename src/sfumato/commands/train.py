"""The command that trains a model."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from sfumato.commands.options import Flat
from sfumato.commands.screen import DONE, say
from sfumato.commands.volume import volume

if TYPE_CHECKING:
    from sfumato.training.status import Status, Trained

LINE_SECONDS = 30.0
"""Between two lines where there is no terminal; an evaluation always gets one."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to run it.

    Args:
        set: KEY=VALUE in place of what the file says, for example stages.0.lr=1e-3; several, or repeat.
        out: folder of the run; default runs/train-<config>. A run that is there goes on.
        inexact: go on also where that may differ from a run without a break.
    """

    set: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None
    inexact: Annotated[bool, Parameter(negative="")] = False


TRAINING = TrainOptions()


def register(app: App) -> None:
    """Add the command."""
    app.command(train)


def train(
    config: Annotated[Path, Parameter(help="YAML: model, data and stages (docs/training.md).")],
    *,
    options: Annotated[TrainOptions, Flat] = TRAINING,
) -> int:
    """Train a model; resumes where it stopped."""
    from sfumato.execution.runner import Stopped
    from sfumato.training.launch import run

    folder = options.out or Path("runs") / f"train-{config.stem}"
    found = run(config, folder, options.set or (), watch=Display(), inexact=options.inexact)
    if found.first:
        for line in closing(found, folder):
            say(line)
    if not found.finished:
        raise Stopped(found.signal or SIGTERM)
    return DONE


def closing(found: Trained, folder: Path) -> list[str]:
    """Return what to say at the end: what there is, and the next command."""
    from sfumato.files import read_json

    said = [f"{folder}: {found.steps} steps done, {'finished' if found.finished else 'to be continued'}"]
    if found.model is None:
        return said
    from sfumato.models.checkpoint import load_model

    notes = load_model(found.model)[1].notes
    errors = notes.get("validation") or {}
    words = [
        f"{1e3 * errors[key]:.3g} {unit}"
        for key, unit in (("energy", "meV/atom"), ("forces", "meV/Å"))
        if errors.get(key) is not None
    ]
    held_out = f", held out {', '.join(words)}" if words else ""
    path = folder / "settings.json"
    try:
        data = read_json(path)["data"]["path"]
    except (KeyError, TypeError, IndexError):
        raise ValueError(f"{path}: damaged: it does not say which data the model was trained on") from None
    return [
        *said,
        f"model: {found.model} (step {notes.get('step')}{held_out})",
        f"next:  sfumato eval --model {found.model} --data {data}",
    ]


class Display:
    """Show a run on standard error: one live line on a terminal, a line now and then in a batch log."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._spoke = -LINE_SECONDS
        self._shown: object = None
        self._headed = False

    def __call__(self, status: Status) -> None:
        """Show a status; that after an evaluation stays."""
        from sfumato.training.status import HEADING

        if not self._headed:
            self._headed = True
            self._write(HEADING + "\n")
        fresh = status.errors is not None and status.errors is not self._shown
        done = status.part >= 1
        if self._live:
            self._write(f"\r{status.line()}" + ("\n" if fresh or done else ""))
        elif fresh or done or time.monotonic() - self._spoke >= LINE_SECONDS:
            self._spoke = time.monotonic()
            self._write(status.line() + "\n")
        self._shown = status.errors

    def _write(self, text: str) -> None:
        if volume().quiet:
            return
        sys.stderr.write(text)
        sys.stderr.flush()
