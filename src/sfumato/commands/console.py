"""The console that commands write to: text appears as it is, and an end of the pipe ends the command."""

from __future__ import annotations

from rich.console import Console

from sfumato.commands.ending import UNREAD, mute


class _Plain(Console):
    def on_broken_pipe(self) -> None:
        mute()
        raise SystemExit(UNREAD)


def console(stderr: bool = False) -> Console:
    """Return a console for standard output, or standard error.

    What users typed may look like markup or an emoji's code; here it does not count as such.
    """
    return _Plain(stderr=stderr, markup=False, emoji=False, highlight=False)
