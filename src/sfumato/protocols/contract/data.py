"""What the contract is checked on: structures of its own, and any of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.systems import System, digest

STANDARD = "standard"
"""The contract's own structures, which are made for each potential from elements that it knows."""


@dataclass(frozen=True, eq=False)
class Structures:
    """The contract's own structures, and those of the user.

    Args:
        name: for people.
        own: the user's, none for the standard ones alone.
        source: where they come from.
    """

    name: str
    own: tuple[System, ...]
    source: str
    level: str = "none"
    licence: str = "not stated"

    @property
    def identity(self) -> str:
        """A hash of the user's structures."""
        return digest([STANDARD, *(system.identity for system in self.own)])


def read_structures(data: str | Path) -> Structures:
    """Return the structures of a run.

    Args:
        data: "standard", or a file of structures that are checked too.

    Raises:
        ValueError: a file that cannot be read, or holds no structure.
    """
    from sfumato.io import read_systems

    if str(data) == STANDARD:
        return Structures(STANDARD, (), "made for each model", licence="none needed")
    path = Path(data)
    if not path.is_file():
        raise ValueError(f"{data}: neither {STANDARD!r} nor a file of structures")
    own = tuple(read_systems(path))
    if not own:
        raise ValueError(f"{path}: holds no structure")
    return Structures(path.stem, own, str(path))
