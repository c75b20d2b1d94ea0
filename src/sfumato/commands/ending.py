"""How a command ends, whatever ends it: an exit code, at most one line, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

USER_ERROR = 2
"""Exit code: bad input, or something of the system that failed."""

UNREAD = 128 + signal.SIGPIPE
"""Exit code: nobody reads the output any more (`| head`)."""


def exit_code(work: Callable[[], int]) -> int:
    """Do what a command does, and return its exit code whatever ends it.

    Ctrl-C and SIGTERM end it with one line, and so does an output that cannot be written. Where nobody reads
    the output any more it ends without a word. Characters that the output's encoding lacks become "?".

    Args:
        work: returns the exit code if nothing ends it.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # replaced by something else, or closed
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
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


def _stopped(interrupt: KeyboardInterrupt) -> int:
    from sfumato.execution.runner import Stopped

    if isinstance(interrupt, Stopped):
        return _end(f"stopped by {interrupt}; the same command continues where it was", interrupt.exit_code)
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
