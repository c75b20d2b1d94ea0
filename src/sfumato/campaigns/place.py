"""What lies where a campaign is to write: only its own earlier result is replaced without a word."""

from __future__ import annotations

from pathlib import Path

from sfumato.datasets.labeled import declaration
from sfumato.io.hdf5 import open_packed

HDF5 = b"\x89HDF\r\n\x1a\n"
"""With which a packed file begins."""


def require_place(path: Path, level: str, fresh: bool) -> None:
    """Refuse to replace labels of another level of theory, or a file that no campaign wrote.

    Args:
        path: the file to be written.
        level: of the labels to come.
        fresh: whether the user asked to begin anew; then whatever is there may go.

    Raises:
        ValueError: something else is there.
    """
    if fresh or not path.is_file() or path.stat().st_size == 0:
        return
    there = _level(path)
    if there == level:
        return
    held = f"holds labels of {there}" if there else "exists and holds no labels that a campaign wrote"
    raise ValueError(
        f"{path}: {held}, and would be replaced by labels of {level}; move it away, name another file "
        "(-o), or begin anew with --fresh"
    )


def _level(path: Path) -> str:
    """Return the level of theory of a file that a campaign wrote, nothing for any other file."""
    with path.open("rb") as file:
        packed = file.read(len(HDF5)) == HDF5
    try:
        if packed:
            with open_packed(path) as content:
                return str(content.attrs["level"])
        declared = declaration(path)
    except ValueError:
        return ""
    return declared.level if declared else ""
