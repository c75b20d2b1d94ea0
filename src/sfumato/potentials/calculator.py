"""Neighbours that are kept from step to step, and the ASE calculator that uses them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.io import from_ase
from sfumato.systems import Batch

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from torch import Tensor

    from sfumato.graph import Candidates, GraphSettings, Topology
    from sfumato.potentials.mindscaip import MinDScAIPPotential


class Neighbours:
    """The neighbourhoods of structures that move a little from step to step.

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
        self, positions: Tensor, cell: Tensor, pbc: Tensor, numbers: Tensor, system: Tensor
    ) -> Topology:
        """Return the edges where the atoms are now.

        Args:
            positions: (N, 3) Å.
            cell: (G, 3, 3) Å.
            pbc: (G, 3).
            numbers: (N,) atomic numbers.
            system: (N,) the structure of each atom.

        Raises:
            ValueError: two atoms at the same place; a position that is not finite; a flat cell.
        """
        from sfumato.graph import find_candidates, select_edges

        if self._candidates is None or self._stale(positions, cell, pbc, system):
            self._candidates = find_candidates(positions, cell, pbc, system, self.settings, self.skin)
            self._then = tuple(part.detach().clone() for part in (positions, cell, pbc, system))
            self.searches += 1
        return select_edges(self._candidates, positions, cell, numbers, system, self.settings)

    def _stale(self, *now: Tensor) -> bool:
        if any(a.shape != b.shape for a, b in zip(now, self._then)):
            return True
        moved = (now[0].detach() - self._then[0]).square().sum(1)
        # A position that is not a number is no reason to keep the pairs: the search will refuse it.
        near = bool((moved <= (self.skin / 2) ** 2).all())
        return not (near and all(bool((a == b).all()) for a, b in zip(now[1:], self._then[1:])))


def calculator(potential: MinDScAIPPotential, skin: float) -> Calculator:
    """Return an ASE calculator: energy, free energy (the same), forces, and stress of crystals.

    Args:
        potential: the potential.
        skin: Å, see `Neighbours`.

    Returns:
        A calculator; its attribute `neighbours` is the `Neighbours` it keeps.
    """
    from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
    from ase.stress import full_3x3_to_voigt_6_stress

    class MinDScAIPCalculator(Calculator):  # type: ignore[misc]
        """The ASE face of a MinDScAIP model."""

        name = potential.name
        implemented_properties = ("energy", "free_energy", "forces", "stress")

        def calculate(
            self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            batch = Batch.of([from_ase(self.atoms)])
            found = potential.predict(batch, self.neighbours)
            energy = float(found.energy[0])
            self.results = {"energy": energy, "free_energy": energy, "forces": np.array(found.forces)}
            if found.stress is not None:
                self.results["stress"] = full_3x3_to_voigt_6_stress(found.stress[0])
            elif "stress" in properties:
                raise PropertyNotImplementedError(
                    f"{potential.name} gives stress of structures periodic in three directions only"
                )

    made = MinDScAIPCalculator()
    made.potential = potential
    made.neighbours = Neighbours(potential.model.config.graph, skin)
    return made
