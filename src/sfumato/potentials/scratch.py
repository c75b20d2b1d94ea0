"""Working folders of programs that write files: one for each process, none of which outlives its owner."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sfumato.files import remove_leftovers, temporary_name


def new_folder(kind: str, place: str | Path | None = None) -> Path:
    """Create an empty folder of this process, and remove those that killed processes of this machine left.

    Whoever asked for it removes it with `remove_folder`.

    Args:
        kind: of program, for the name of the folder.
        place: where it shall lie; the system's place for temporary files if not given.
    """
    place, name = Path(place or tempfile.gettempdir()), f"sfumato-{kind}"
    place.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place, name)
    folder = place / temporary_name(name)
    folder.mkdir(mode=0o700)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder of this process; a fork leaves those of its parent alone."""
    if f"-{os.getpid()}-" in folder.name:
        shutil.rmtree(folder, ignore_errors=True)
