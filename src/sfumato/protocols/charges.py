"""Whether a model's predictions depend on the total charge and spin that structures state.

A potential that ignores them computes an ion as if it were neutral, and its errors look like errors of its
surface. One that says of itself that it takes no charge is believed. Any other is asked about a stated ion
once more as a neutral molecule: the same energy and forces tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sfumato.execution.records import Record, array, number
from sfumato.jobs.evaluate import Evaluate
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Task
from sfumato.potentials.potential import Abilities

CHARGE, SPIN = "charge", "spin"

IGNORED = "ignores"
"""Under which the manifest of a run keeps, with a model, what `ignored` returned."""

SAME_ENERGY, SAME_FORCE = 1e-7, 1e-4
"""Of the energy, and eV/Å: beyond rounding in single precision, and less than any charge changes."""


def stating(tasks: Sequence[Task], what: str) -> list[Task]:
    """Return the tasks whose structures state a total charge, or an open shell.

    Args:
        tasks: of a protocol.
        what: `CHARGE` or `SPIN`.
    """
    if what == CHARGE:
        return [task for task in tasks if task.frame.charge]
    return [task for task in tasks if task.frame.multiplicity != 1]


def probes(tasks: Sequence[Task], abilities: Abilities) -> list[Task]:
    """Return what to compute besides, to see whether charge and spin matter: at most two structures.

    Args:
        tasks: of a protocol; those of other jobs than `Evaluate` are passed over.
        abilities: of the model; one that takes no charge, or an engine, which takes it, needs no probe.
    """
    if not abilities.charge or abilities.level:
        return []
    return [other for _, _, other in _pairs(tasks)]


def ignored(
    tasks: Sequence[Task], abilities: Abilities, records: Mapping[str, Record], identity: str
) -> dict[str, Any]:
    """Return what of charge and spin a model ignores although structures state it.

    Args:
        tasks: of a protocol.
        abilities: of the model.
        records: by key, of the tasks and of their `probes`.
        identity: of the model.

    Returns:
        Number of structures that state what is ignored, by `CHARGE` and `SPIN`; "of": all; "measured":
        whether a probe showed it. Empty where nothing is ignored, as far as is known.
    """
    if abilities.charge:
        found = [
            what
            for what, task, other in ([] if abilities.level else _pairs(tasks))
            if _same(records.get(task.key(identity)), records.get(other.key(identity)))
        ]
    else:
        found = [CHARGE, SPIN]
    counts = {what: count for what in found if (count := len(stating(tasks, what)))}
    return counts | {"of": len(tasks), "measured": abilities.charge} if counts else {}


def remarks(entries: Mapping[str, Any]) -> list[str]:
    """Return a line for each model that ignores the charge or spin of its structures.

    Args:
        entries: of models in the manifest of a run, by name.
    """
    known = {name: entry.get(IGNORED) for name, entry in entries.items()}
    return [_remark(name, found) for name, found in known.items() if isinstance(found, dict) and found]


def _remark(name: str, found: Mapping[str, Any]) -> str:
    words = {CHARGE: "a total charge", SPIN: "an open shell"}
    stated = " and ".join(
        f"{found[what]} of {found.get('of')} structures state {word}"
        for what, word in words.items()
        if what in found
    )
    why = (
        "without it energy and forces are the same"
        if found.get("measured")
        else "it takes no charge and no spin"
    )
    return f"{name}: {stated}, which changes nothing: {why}; its numbers there are those of another state"


def _pairs(tasks: Sequence[Task]) -> Iterator[tuple[str, Task, Task]]:
    """Yield (what is changed, task, the same structure in another state), of the smallest structures."""
    alike = [task for task in tasks if isinstance(task.job, Evaluate)]
    for what in (CHARGE, SPIN):
        some = stating(alike, what)
        if what == SPIN:
            some = [task for task in some if not task.frame.charge] or some
        if some:
            task = min(some, key=lambda task: len(task.frame.numbers))
            yield what, task, replace(task, frame=_otherwise(task.frame, what))


def _otherwise(frame: Frame, what: str) -> Frame:
    """Return a structure without its charge, or with two unpaired electrons less or more."""
    if what == SPIN:
        m = frame.multiplicity
        return replace(frame, multiplicity=m - 2 if m > 2 else m + 2)
    return replace(frame, charge=0, multiplicity=1 + int(frame.numbers.sum()) % 2)


def _same(record: Record | None, other: Record | None) -> bool:
    if record is None or other is None or "failed" in (record["status"], other["status"]):
        return False
    energies = number(record, "energy"), number(other, "energy")
    forces = [array(each, "forces", (None, 3)) for each in (record, other)]
    close = abs(energies[0] - energies[1]) <= SAME_ENERGY * max(1.0, abs(energies[0]))
    return bool(close and np.abs(forces[0] - forces[1]).max(initial=0.0) <= SAME_FORCE)
