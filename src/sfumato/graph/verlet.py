"""Neighbors that are kept from step to step: a list that is good until an atom has moved by half a skin.

Source: Verlet 1967, Phys. Rev. 159, 98.
"""

from __future__ import annotations

import math

from torch import Tensor

from sfumato.graph.candidates import Candidates, find_candidates
from sfumato.graph.layout import Select, Topology, select_edges
from sfumato.graph.settings import GraphSettings


class Neighbors:
    """The neighborhoods of structures that move a little from step to step.

    Pairs are searched a skin farther than they can matter, and again only when an atom has moved by more
    than half the skin or a cell has changed. Which of them carry an edge is decided anew at every step, so
    that results do not depend on the skin.

    Args:
        settings: of the graph.
        skin: Å; 0 searches at every step.

    Raises:
        ValueError: a skin that is not a length.
    """

    def __init__(self, settings: GraphSettings, skin: float) -> None:
        if not (math.isfinite(skin) and skin >= 0):
            raise ValueError(f"skin: expected a length in Å, 0 or more, got {skin}")
        self.settings, self.skin = settings, skin
        self.searches = 0
        """How often pairs were searched."""
        self._candidates: Candidates | None = None
        self._then: tuple[Tensor, ...] = ()

    def topology(
        self,
        positions: Tensor,
        cell: Tensor,
        pbc: Tensor,
        numbers: Tensor,
        system: Tensor,
        select: Select = select_edges,
    ) -> Topology:
        """Return the edges where the atoms are now.

        Args:
            positions: (N, 3) Å.
            cell: (G, 3, 3) Å.
            pbc: (G, 3).
            numbers: (N,) atomic numbers.
            system: (N,) the structure of each atom.
            select: finds the edges among the pairs, as `select_edges` does.

        Raises:
            StructureError: two atoms at the same place; a position that is not finite; a flat cell.
        """
        if self._candidates is None or self._stale(positions, cell, pbc, system):
            self._candidates = find_candidates(positions, cell, pbc, system, self.settings, self.skin)
            self._then = tuple(part.detach().clone() for part in (positions, cell, pbc, system))
            self.searches += 1
        return select(self._candidates, positions, cell, numbers, system, self.settings)

    def _stale(self, *now: Tensor) -> bool:
        if any(a.shape != b.shape for a, b in zip(now, self._then)):
            return True
        moved = (now[0].detach() - self._then[0]).square().sum(1)
        # A position that is not a number is no reason to keep the pairs: the search will refuse it.
        near = bool((moved <= (self.skin / 2) ** 2).all())
        return not (near and all(bool((a == b).all()) for a, b in zip(now[1:], self._then[1:])))
