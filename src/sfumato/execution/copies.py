"""One function on many items at once, in copies of this process, which share with it what it has read.

For analysis, where the inputs are large and the results small: nothing is sent to a copy.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def possible_copies(most: int) -> int:
    """Return how many copies are worth making, 1 for none.

    Only a process with a single thread can be copied safely, and only where the system copies memory when
    it is written to.
    """
    if not sys.platform.startswith("linux") or threading.active_count() > 1:
        return 1
    return max(1, min(most, len(os.sched_getaffinity(0))))


def in_copies(function: Callable[[T], R], items: Sequence[T], copies: int) -> list[R]:
    """Return the function's values of all items.

    Args:
        function: of one item; its values can be pickled.
        items: any number.
        copies: how many; 1: everything is done in this process, as is what a copy that was killed leaves.

    Raises:
        Exception: what the function raises, for the first item that it fails for.
    """
    if min(copies, len(items)) < 2:
        return [function(item) for item in items]
    context = multiprocessing.get_context("fork")
    found: dict[int, R | Failed] = {}
    started, ends = [], []
    try:
        for first in range(min(copies, len(items))):
            here, there = context.Pipe(duplex=False)
            arguments = (function, items, range(first, len(items), copies), there)
            process = context.Process(target=_work, args=arguments, daemon=True)
            with warnings.catch_warnings():  # libraries have threads of their own, which hold no lock of ours
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            there.close()
            started.append(process)
            ends.append(here)
        _collect(ends, found)
    finally:
        for process in started:
            process.terminate()
            process.join()
    values = []
    for k, item in enumerate(items):
        value = found[k] if k in found else function(item)
        if isinstance(value, Failed):
            raise value.error
        values.append(value)
    return values


@dataclass(frozen=True)
class Failed:
    """What the function raised."""

    error: Exception


def _collect(ends: list[Connection], found: dict[int, Any]) -> None:
    """Receive until every copy has closed its end."""
    while ends:
        for end in wait(ends):
            assert isinstance(end, Connection)
            try:
                number, value = end.recv()
            except (EOFError, OSError):
                ends.remove(end)
                end.close()
            else:
                found[number] = value


def _work(function: Callable[[T], R], items: Sequence[T], numbers: range, end: Connection) -> None:
    """Do every so many-th item and send what comes out, also what is raised."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that was copied ends its copies
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in numbers:
        try:
            value: R | Failed = function(items[number])
        except Exception as error:  # noqa: BLE001 (raised again by the process that was copied)
            value = Failed(error)
        end.send((number, value))
    end.close()
