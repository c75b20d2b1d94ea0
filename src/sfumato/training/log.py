"""The log of a run: one JSON object per line, the only truth; TensorBoard shows the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sfumato.files import write_text

NAME = "log.jsonl"

NUMBERS = ("seconds", "loss", "energy", "forces")
"""What is a number wherever a line has it."""


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log; one that was cut short is left out.

    Args:
        folder: of the run.

    Raises:
        ValueError: there is no log, or a line within it cannot be read or lacks what every line has.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        raise ValueError(f"{folder}: no {NAME} here, so this is not the folder of a training run")
    lines = path.read_bytes().splitlines()
    found = []
    for k, line in enumerate(lines):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            if k < len(lines) - 1:
                raise ValueError(f"{path}, line {k + 1}: cannot be read as JSON") from None
            continue
        if lack := _lack(entry):
            raise ValueError(f"{path}, line {k + 1}: damaged: {lack}. Restore the file, or remove the line.")
        found.append(entry)
    return found


def _lack(entry: Any) -> str:
    """Say what a line of a log lacks; nothing if it is sound."""
    if (
        not isinstance(entry, dict)
        or type(entry.get("event")) is not str
        or type(entry.get("step")) is not int
    ):
        return "every line has an event and a step"
    needed = ("loss", "seconds", "frames") if entry["event"] == "validation" else ()
    for key in (*needed, *(key for key in NUMBERS if key in entry)):
        value = entry.get(key)
        if type(value) not in (int, float) or (key == "seconds" and not 0 <= float(value or 0) < math.inf):
            return f"{key!r} is not a number"
    return ""


class Log:
    """Write the log of a run; on a rank that is not the first, nothing.

    Args:
        folder: of the run.
        write: whether this process writes.
        tensorboard: also for TensorBoard.

    Raises:
        ValueError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, write: bool, tensorboard: bool = False) -> None:
        self.path, self._write, self._board = folder / NAME, write, None
        if write and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ValueError("tensorboard: not installed: pip install 'sfumato[train]'") from None
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def cut(self, step: int, due: Sequence[str] = ()) -> None:
        """Drop what was written after a checkpoint: it will be done again.

        Args:
            step: of the checkpoint that the run goes on from.
            due: events of this step that came after it.
        """
        if not self._write or not self.path.exists():
            return
        kept = [
            line
            for line in read_log(self.path.parent)
            if line["step"] < step or (line["step"] == step and line["event"] not in due)
        ]
        write_text(self.path, "".join(_line(entry) for entry in kept))

    def add(self, event: str, step: int, **facts: Any) -> None:
        """Append a line.

        Args:
            event: what happened.
            step: of the run.
            facts: in JSON types.
        """
        if not self._write:
            return
        with self.path.open("a") as file:
            file.write(_line({"event": event, "step": step, **facts}))
        if self._board is not None:
            for name, value in facts.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{event}/{name}", value, step)

    def close(self) -> None:
        """Close what TensorBoard reads."""
        if self._board is not None:
            self._board.close()


def _line(entry: dict[str, Any]) -> str:
    return json.dumps({k: round(v, 9) if isinstance(v, float) else v for k, v in entry.items()}) + "\n"
