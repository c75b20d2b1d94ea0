"""What every command shows: words, progress, downloads; and its exit codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.runner import Watch

DONE, PARTIAL = 0, 1
"""Exit codes: all went well; some items failed."""


@contextmanager
def progress(what: str, unit: str) -> Iterator[Watch]:
    """Show progress while a block runs, and one closing line."""
    from sfumato.commands.progress import ProgressLine

    with ProgressLine(what, unit) as line:
        yield line
    line.finish()


@contextmanager
def download(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show the bytes of a download, unless the user wants quiet."""
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from sfumato.commands.console import console
    from sfumato.commands.volume import volume

    if volume().quiet:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}", markup=False), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def say(content: RenderableType) -> None:
    """Print a text or a table on standard output, every character as it is."""
    from sfumato.commands.console import console

    console().print(content, soft_wrap=isinstance(content, str))
