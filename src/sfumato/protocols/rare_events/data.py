"""The data of the errors on migrating atoms: a named set, a published folder, or a file of one's own."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from sfumato.datasets import named
from sfumato.files import expanded
from sfumato.io.ase_objects import XYZ_SUFFIXES
from sfumato.io.rare_events import RareEvents, RareEventSet, read_flagged
from sfumato.io.silicon import read_published, shared_structures
from sfumato.protocols.rare_events.settings import Settings
from sfumato.systems import System
from sfumato.words import nearest

PUBLISHED = "silicon-rare-events"


def read_events(data: str | Path) -> RareEvents:
    """Return testing sets of rare events.

    Args:
        data: a named data set; a folder in the published layout; a packed file (.h5), for example of
            `sfumato data rare-events`; or extended XYZ with a column `migrating`, energies and forces.

    Returns:
        The sets; a folder with the contents of the named set gets its facts.

    Raises:
        ValueError: an unknown name or path, missing flags or labels, or contents that contradict themselves.
    """
    path = expanded(data)
    if str(data) in named.DATASETS or not path.exists():
        return named.load_rare_events(str(data))
    if path.is_file():
        flagged = path.suffix.lower() in XYZ_SUFFIXES
        return read_flagged(path) if flagged else named.load_rare_events(path)
    found, entry = read_published(path), named.DATASETS[PUBLISHED]
    facts = {key: getattr(entry, key) for key in ("name", "level", "licence", "source")}
    known = replace(found, **facts)
    return known if known.identity == entry.identity else found


def is_published(events: RareEvents) -> bool:
    """Return whether the sets are the published ones, with which published numbers can be compared."""
    return events.identity == named.DATASETS[PUBLISHED].identity


def used(events: RareEvents, settings: Settings) -> tuple[RareEventSet, ...]:
    """Return the sets of a run, cut to the snapshots that settings choose.

    Raises:
        ValueError: no set of that defect; names those that there are.
    """
    names = [one.name for one in events.sets]
    if settings.only is not None and settings.only not in names:
        raise ValueError(f"only: {events.name} has no set {settings.only!r}; {nearest(settings.only, names)}")
    chosen = [one for one in events.sets if settings.only in (None, one.name)]
    if settings.without is not None:
        seen = _seen(settings.without)
        chosen = [one.take(np.flatnonzero(~shared_structures(list(one.batch), seen))) for one in chosen]
        for one in chosen:
            if not len(one):
                raise ValueError(f"without: every snapshot of {one.name} is in {settings.without}")
    return tuple(one.take(np.arange(len(one))[: settings.limit]) for one in chosen)


@lru_cache(maxsize=2)
def _seen(training: str) -> list[System]:
    """Return the structures that a model trained on a set has seen."""
    frames = named.load_frames(training)
    return [s for s, split in zip(frames.batch, frames.split, strict=True) if split in ("train", "val")]
