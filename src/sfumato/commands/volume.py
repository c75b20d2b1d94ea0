"""How much a command says besides its results: options that stand anywhere on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Volume:
    """What a user wants to see.

    Args:
        quiet: results and errors only, no progress.
        verbose: progress more often, and each kind of failure when it is first met.
        traceback: also where in the program an error was raised.
    """

    quiet: bool = False
    verbose: bool = False
    traceback: bool = False


OPTIONS = {
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--traceback": "traceback",
}

HELP = (
    "Anywhere: -q (--quiet) no progress; -v (--verbose) progress more often and failures as they come; "
    "--traceback where an error was raised. sfumato --install-completion teaches your shell the commands."
)

_VOLUME: ContextVar[Volume | None] = ContextVar("volume", default=None)


def volume() -> Volume:
    """Return what the user of this command wants to see."""
    return _VOLUME.get() or Volume()


@contextmanager
def at_volume(wanted: Volume) -> Iterator[None]:
    """Run a block at a volume."""
    token = _VOLUME.set(wanted)
    try:
        yield
    finally:
        _VOLUME.reset(token)


def split(arguments: Sequence[str]) -> tuple[list[str], Volume]:
    """Return the arguments without the options of this module, and what these say.

    Args:
        arguments: of the command line; what follows "--" is left alone.

    Raises:
        ValueError: quiet and verbose at once.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    asked = {OPTIONS[word] for word in arguments[:end] if word in OPTIONS}
    if {"quiet", "verbose"} <= asked:
        raise ValueError("-q and -v: choose one")
    rest = [word for word in arguments[:end] if word not in OPTIONS]
    return [*rest, *arguments[end:]], Volume(**dict.fromkeys(asked, True))
