"""The command that makes testing sets of rare events from trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sfumato.commands.options import Count
from sfumato.commands.screen import DONE, say


def data_rare_events(
    trajectory: Path,
    *,
    crystal: Annotated[
        str, Parameter(help="The perfect crystal: a file, or diamond, fcc, bcc, sc (cubic cells).")
    ],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")],
    model: Annotated[
        str | None, Parameter(help="What labels the snapshots; by default the labels of the file are taken.")
    ] = None,
    level: Annotated[str, Parameter(help="Level of theory of the labels.")] = "",
    most: Annotated[Count, Parameter(help="Snapshots at most, spread over the trajectory.")] = 100,
    single: Annotated[
        bool, Parameter(negative="", help="Judge each frame by itself; for snapshots that are no trajectory.")
    ] = False,
    fixed: Annotated[
        bool, Parameter(negative="", help="The lattice lies where the crystal says; nothing drifts.")
    ] = False,
) -> int:
    """Find hops between lattice sites, and pack snapshots in which atoms migrate as a testing set."""
    from sfumato.datasets.events import (
        crystal_of,
        find_events,
        labeled_events,
        load_trajectory,
        require_events,
    )
    from sfumato.io.rare_events import write_packed
    from sfumato.potentials.specs import load

    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"{out}: name a file that ends in .h5")
    moving = load_trajectory(trajectory)
    perfect = crystal_of(crystal, moving)
    events = find_events(moving, perfect, fixed=fixed, single=single)
    say(f"{trajectory}: {len(events.hops)} hops in {len(moving.frames)} frames")
    require_events(events, moving)
    potential = None if model is None else load(model)
    found = labeled_events(moving, events, potential, most=most, name=out.stem, level=level)
    write_packed(out, found)
    (one,) = found.sets
    flags = int(one.migrating.sum())
    say(f"{out}: {one.name}, {len(one)} snapshots with {flags} migrating atoms, labels: {found.level}")
    return DONE
