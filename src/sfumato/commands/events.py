"""The commands that make testing sets of rare events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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

    _require_packed(out)
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


def data_hop_path(
    crystal: str,
    *,
    by: Annotated[str, Parameter(help="The potential that finds the path.")],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")],
    hop: Annotated[Literal["vacancy", "interstitial"], Parameter(help="What hops.")] = "vacancy",
    model: Annotated[
        str | None, Parameter(help="What labels the images: a potential or an engine; by default --by.")
    ] = None,
    images: Annotated[Count, Parameter(help="Of the path between its ends.")] = 9,
    repeat: Annotated[Count, Parameter(help="Cells of the crystal along each axis.")] = 2,
) -> int:
    """Find the path of a hop in a crystal (an element or a file), and pack its middle as a testing set."""
    from sfumato.io.rare_events import write_packed
    from sfumato.jobs.defects import Barrier
    from sfumato.potentials.specs import load
    from sfumato.protocols.diffusion.data import read_crystal
    from sfumato.protocols.diffusion.sets import path_set

    _require_packed(out)
    finder = load(by)
    labels = finder if model is None else load(model)
    found = path_set(read_crystal(crystal), Barrier(kind=hop, images=images, repeat=repeat), finder, labels)
    write_packed(out, found)
    say(f"{out}: {found.source}, {len(found)} images, labels: {found.level}")
    return DONE


def _require_packed(out: Path) -> None:
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"{out}: name a file that ends in .h5")
