"""How a command ends, whatever ends it: an exit code, at most one line, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

USER_ERROR = 2
"""Exit code: bad input, or something of the system that failed."""

UNREAD = 128 + signal.SIGPIPE
"""Exit code: nobody reads the output any more (`| head`)."""


def exit_code(work: Callable[[], int]) -> int:
    """Do what a command does, and return its exit code whatever ends it.

    Ctrl-C, SIGTERM and SIGHUP end it with one line, after what was begun has been cleaned up, and so does an
    output that cannot be written. Where nobody reads the output any more it ends without a word. Characters
    that the output's encoding lacks become "?".

    Args:
        work: returns the exit code if nothing ends it.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # replaced by something else, or closed
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        with _end_signals():
            code = work()
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        code = _stopped(interrupt)
    except BrokenPipeError:
        code = UNREAD
    except OSError as error:
        code = _end(f"sfumato: standard output: {error.strerror or error}", USER_ERROR)
    mute()
    return code


class Ended(KeyboardInterrupt):
    """The command was asked to end by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def _end_signals() -> Iterator[None]:
    """Raise `Ended` on signals that would end the process at once, so that temporary files are removed.

    One that whoever started the process wants ignored (nohup) stays ignored.
    """
    taken: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        for each in taken:  # a second one must not interrupt the clean-up
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _stopped(interrupt: KeyboardInterrupt) -> int:
    from sfumato.execution.runner import Stopped

    if isinstance(interrupt, Stopped):
        return _end(f"stopped by {interrupt}; the same command continues where it was", interrupt.exit_code)
    if isinstance(interrupt, Ended):
        return _end(f"stopped by {interrupt}", interrupt.exit_code)
    return _end("stopped by SIGINT", 128 + signal.SIGINT)


def _end(message: str, code: int) -> int:
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)  # noqa: T201
    return code


def mute() -> None:
    """Throw away what cannot be written, which would be an error again when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):  # not a file of the system
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
