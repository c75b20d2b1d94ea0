"""Show how far a run is: a live bar on a terminal, a plain line every so often in a batch log."""

from __future__ import annotations

import re
import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn

from sfumato.commands.console import console
from sfumato.commands.volume import volume
from sfumato.execution.runner import Tally
from sfumato.words import duration, printable

LINE_SECONDS = 30.0
VERBOSE_SECONDS = 5.0

NUMBER = re.compile(r"\d+")
"""Failures that differ only by numbers are of one kind."""


def summary(tally: Tally, unit: str) -> str:
    """Return one line: done of total, failures, rate, time left, how far what is at work is."""
    parts = [f"{tally.skipped + tally.done}/{tally.total} {unit}"]
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if tally.done:
        parts.append(f"{tally.rate:.3g} {unit}/s")
        if tally.skipped + tally.done < tally.total:
            parts.append(f"{duration(tally.seconds_left)} left")
    if tally.note:
        parts.append(f"now {tally.note}")
    return ", ".join(parts)


class ProgressLine:
    """Watch a run on standard error, as loud as the user wants; call it with each new tally.

    Args:
        what: what runs, for example the model's name.
        unit: what is counted, for example "frames".
    """

    def __init__(self, what: str, unit: str) -> None:
        self.what, self.unit = what, unit
        self._volume = volume()
        self._every = VERBOSE_SECONDS if self._volume.verbose else LINE_SECONDS
        self._failures: set[str] = set()
        screen = console(stderr=True)
        self._bar = (
            Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[facts]}", markup=False),
                console=screen,
                transient=True,
            )
            if screen.is_terminal and not self._volume.quiet
            else None
        )
        self._id = self._bar.add_task(what, total=None, facts="") if self._bar else None
        self._spoke = time.monotonic()
        self._tally: Tally | None = None

    def __call__(self, tally: Tally) -> None:
        """Show the tally."""
        if tally.warning and self._tally is None:
            self.say(f"warning: {tally.warning}")
        self._tally = tally
        if self._volume.verbose and tally.last_failure:
            kind = NUMBER.sub("#", tally.last_failure)
            if kind not in self._failures:
                self._failures.add(kind)
                self.say(f"failed: {tally.last_failure.strip()}")
        facts = summary(tally, self.unit)
        if self._bar is not None and self._id is not None:
            self._bar.update(self._id, total=tally.total, completed=tally.skipped + tally.done, facts=facts)
        elif time.monotonic() - self._spoke > self._every:
            self._spoke = time.monotonic()
            self.say(facts)

    def finish(self) -> None:
        """Print how the run ended."""
        if self._tally is not None:
            took = f" in {duration(self._tally.seconds)}" if self._tally.done else ", nothing left to do"
            self.say(summary(self._tally, self.unit) + took)
            if self._tally.last_failure:
                self.say(f"last failure: {self._tally.last_failure.strip()}")

    def say(self, text: str) -> None:
        """Print a line about this run, above the bar where there is one."""
        if self._volume.quiet:
            return
        if self._bar is not None and self._bar.live.is_started:
            self._bar.console.print(f"{self.what}: {text}", soft_wrap=True)
            return
        print(printable(f"{self.what}: {text}"), file=sys.stderr, flush=True)  # noqa: T201 (this is the display)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
