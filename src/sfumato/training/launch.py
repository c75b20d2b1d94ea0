"""Start a training run in this process: threads, memory, signals, and the processes that train together.

What `train` leaves alone, because it belongs to the whole process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from sfumato.datasets.check import STATEMENTS, check_frames
from sfumato.datasets.named import frames_path, verify_frames
from sfumato.training import state
from sfumato.training.distributed import Group, connect, lead
from sfumato.training.loop import train
from sfumato.training.settings import TrainSettings, read_run
from sfumato.training.status import Trained, Watch
from sfumato.words import nearest

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
"""On each of these a run writes a checkpoint and ends. Schedulers send SIGTERM or SIGUSR1, a terminal that is
closed SIGHUP; where that is ignored (nohup), it stays so."""

KEEP_BYTES = 1 << 30
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt, from malloc.h."""


def run(
    config: str | Path,
    folder: str | Path,
    changes: Sequence[str] = (),
    *,
    watch: Watch | None = None,
    inexact: bool = False,
) -> Trained:
    """Train what a configuration says, or go on with it.

    Args:
        config: a YAML file, see `TrainSettings`.
        folder: of the run; holds settings.json, log.jsonl, state.pt and model.safetensors.
        changes: "key=value" in place of what the file says, see `read_run`.
        watch: called with each line of the log, in the first process.
        inexact: go on also where that may differ from a run without a break.

    Returns:
        How it ended; a run that was stopped goes on when this is called again.

    Raises:
        ValueError: data that is damaged or not fit to train on, and what `read_run` and `train` raise.
    """
    return run_settings(read_run(config, changes), folder, watch=watch, inexact=inexact)


def run_settings(
    settings: TrainSettings,
    folder: str | Path,
    *,
    watch: Watch | None = None,
    until: int | None = None,
    inexact: bool = False,
) -> Trained:
    """Train what settings say, or go on with it, stopping after `until` steps in all; else as `run`."""
    if lead() and (Path(folder) / state.NAME).exists():
        verify_frames(settings.data.path)
    elif lead():
        require_sound(settings)
    keep_memory()
    group = connect(settings)
    if group.device.type == "cpu":
        torch.set_num_threads(settings.threads or max(1, _cores() // group.local))
    try:
        with stop_signals() as asked:
            options = {"watch": watch, "stop": asked.is_set, "until": until, "inexact": inexact}
            found = train(settings, folder, group, **options)  # type: ignore[arg-type]
            return replace(found, signal=asked.number)
    finally:
        _disconnect(group)


def require_sound(settings: TrainSettings) -> None:
    """Refuse data whose labels contradict each other, or that is divided so that validation is not a test.

    Raises:
        ValueError: a statement of `sfumato data check` does not hold, and the run does not allow that.
    """
    data = settings.data
    report = check_frames(frames_path(data.path), train=data.train, validation=data.validation)
    for name in settings.data.allow:
        if name not in STATEMENTS:
            raise ValueError(
                f"data.allow: {name!r} is not a statement about data; {nearest(name, STATEMENTS)}"
            )
    allowed = settings.data.allow
    if settings.data.validation is None:
        allowed = (*allowed, "shared molecules", "shared structures")
    report.require(allowed)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _disconnect(group: Group) -> None:
    if group.size > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def keep_memory() -> None:
    """Let glibc keep freed memory instead of giving it back to the system at once.

    Each step makes and frees the same large temporaries. Taken from the system every time, their pages are
    filled with zeros one fault after another, which costs up to half of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    for parameter in (MMAP_THRESHOLD, TRIM_THRESHOLD):
        mallopt(parameter, KEEP_BYTES)
    mallopt(TOP_PAD, 64 << 20)


class Asked:
    """Whether, and by which signal, the process was asked to end."""

    number = 0

    def is_set(self) -> bool:
        """Return whether it was."""
        return self.number > 0


@contextmanager
def stop_signals() -> Iterator[Asked]:
    """Yield what is set when the process is asked to end; a second Ctrl-C ends it at once."""
    asked = Asked()
    before = {}

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.number = number

    if threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
