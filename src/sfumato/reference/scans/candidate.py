"""One scan that a structure could give."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sfumato.reference.scans.network import Bridge, Cut, Link
from sfumato.systems import Floats, Ints, System


@dataclass(frozen=True, eq=False)
class Candidate:
    """One site, bond, angle or torsion of a structure with the scan it would give.

    Args:
        atoms: (1 to 4,) the atoms of the coordinate; the last one moves, against the first.
        fragment: (N,) +1 for the atoms that move with the last of `atoms`, −1 for the others.
        type: for example "Na", "C-O", "C-C-O" or "C-C-C-O".
        lengths: (F,) Å, the coordinate: bond length, arc length, or way of a site; none if excluded for
            having no path.
        positions: (F, N, 3) Å, the frames.
        exclusion: why it is not a scan, beginning with a word and a colon, as in "clash:"; None if it is.
    """

    atoms: Ints
    fragment: Ints
    type: str
    lengths: Floats
    positions: Floats
    exclusion: str | None

    @property
    def bridge(self) -> Bridge:
        """The bond of a bond scan with its fragments."""
        i, j = self.atoms.tolist()
        return Bridge(i, j, self.fragment)

    @property
    def bond_type(self) -> str:
        """The type of a bond scan."""
        return self.type


def laid_out(system: System, cut: Cut, end: Link | None = None) -> System:
    """Return the structure with the side that moves, and an atom bonded to j, at the images next to j."""
    shift = cut.images.copy()
    if end is not None:
        shift[end.atom] = end.shift
    return replace(system, positions=system.positions + shift @ system.cell)


def movers(found: list[Cut]) -> list[Cut]:
    """Choose the side of each bond that moves: the finite one, of two the smaller, then the higher atom's.

    Args:
        found: cuts, each bond in both directions.

    Returns:
        At most one cut per bond, in rising order of the bond's atoms.
    """
    best: dict[tuple[int, ...], Cut] = {}
    for cut in found:
        bond = tuple(sorted((cut.j, cut.k)))
        if cut.finite and (bond not in best or _order(cut) < _order(best[bond])):
            best[bond] = cut
    return [best[bond] for bond in sorted(best)]


def _order(cut: Cut) -> tuple[int, int]:
    return int(np.count_nonzero(cut.side)), -cut.k
