"""Start a training run in this process: threads, memory, signals, and the processes that train together.

What `train` leaves alone, because it belongs to the whole process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from sfumato.config import read_settings
from sfumato.training.config import TrainSettings
from sfumato.training.distributed import Group, connect
from sfumato.training.loop import Trained, Watch, train

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
"""On each of these a run writes a checkpoint and ends. Schedulers send one of the first and last."""

KEEP_BYTES = 1 << 30
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt, from malloc.h."""


def run(
    config: str | Path,
    folder: str | Path,
    watch: Watch | None = None,
    *,
    inexact: bool = False,
    devices: int | None = None,
) -> Trained:
    """Train what a configuration says, or go on with it.

    Args:
        config: a YAML file, see `TrainSettings`.
        folder: of the run; holds settings.json, log.jsonl, state.pt and model.safetensors.
        watch: called with each line of the log, in the first process.
        inexact: go on also where that may differ from a run without a break.
        devices: in place of that of the configuration.

    Returns:
        How it ended; a run that was stopped goes on when this is called again.

    Raises:
        ValueError: what `train` and `read_settings` raise.
    """
    settings = read_settings(TrainSettings, Path(config), devices=devices)
    keep_memory()
    group = connect(settings)
    if group.device.type == "cpu":
        torch.set_num_threads(settings.threads or max(1, _cores() // settings.devices))
    try:
        with stop_signals() as asked:
            return train(settings, folder, group, watch=watch, stop=asked.is_set, inexact=inexact)
    finally:
        _disconnect(group)


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


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yield an event that is set when the process is asked to end; a second time ends it at once."""
    asked = threading.Event()
    before = {}

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            if hasattr(signal, name):
                number = getattr(signal, name)
                before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
