"""Which elements a model is probed with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sfumato.potentials.potential import Potential
from sfumato.protocols.probes.data import Structures
from sfumato.protocols.probes.settings import Settings
from sfumato.systems import Batch, symbols
from sfumato.testing import structures

TRIED = 1.2
"""Bonds between two like atoms, by which it is tried whether a potential takes an element."""


REACH = {False: 12.0, True: 5.0}
"""Å to which atoms are pulled apart, by whether the potential is a reference engine: electrons of atoms that
are far apart often do not converge."""


def reach_of(potential: Potential, settings: Settings) -> float:
    """Return the distance in Å to which atoms are pulled apart."""
    return settings.reach or REACH[bool(potential.abilities.level)]


def elements_of(potential: Potential, data: Structures, asked: tuple[int, ...]) -> tuple[int, ...]:
    """Return the elements that a model is probed with, the most important first.

    Args:
        potential: the model.
        data: of the run; its elements come first.
        asked: by the user; empty for all that the model knows.

    Raises:
        ValueError: an element that was asked for and that the model does not know, or none that it takes.
    """
    known = potential.abilities.elements
    if asked:
        if known is not None and (unknown := set(asked) - known):
            raise ValueError(
                f"{potential.name} has no parameters for {symbols(unknown)}; it knows {symbols(known)}"
            )
        return asked
    first = next((p for p in structures.PALETTES if known is None or known.issuperset(p)), ())
    wanted = [*(z for z in first if z in data.elements), *data.elements]
    if known is not None:
        return tuple(dict.fromkeys(z for z in [*wanted, *sorted(known)] if z in known))
    others = [z for palette in structures.PALETTES for z in palette]
    return (
        _taken(potential, dict.fromkeys(wanted))
        or _taken(potential, dict.fromkeys(others))
        or _none(potential)
    )


def _taken(potential: Potential, elements: Iterable[int]) -> tuple[int, ...]:
    """Return those elements of which the potential takes two atoms."""
    numbers = list(elements)
    if not numbers:
        return ()
    pairs = [
        structures.system([z, z], np.array([[0, 0, 0], [TRIED * structures.bond(z, z), 0, 0]]))
        for z in numbers
    ]
    size = max(1, potential.abilities.batch)
    failures: set[int] = set()
    for start in range(0, len(pairs), size):
        found = potential.predict(Batch.of(pairs[start : start + size]))
        failures |= {start + k for k in found.failures}
    return tuple(z for k, z in enumerate(numbers) if k not in failures)


def _none(potential: Potential) -> tuple[int, ...]:
    raise ValueError(
        f"{potential.name} takes two atoms of none of the elements that were tried; name elements that it "
        "knows (--elements Au,Pt)"
    )
