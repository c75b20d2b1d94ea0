"""Rare events in any trajectory: find the hops, take the snapshots in which atoms migrate, label them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.build import bulk

from sfumato.io.ase_objects import from_ase, read_atoms
from sfumato.io.rare_events import RareEvents, flagged_set
from sfumato.io.trajectories import read_trajectory
from sfumato.metrics.hops import THIRD, Hop, Sites, find_hops, in_hops, laid_over, refined
from sfumato.potentials.potential import Potential
from sfumato.systems import Batch, Bools, Floats, Ints, Prediction, System
from sfumato.words import nearest

MISFIT = 0.1
"""Relative difference of a cell from whole repeats of the crystal, above which it is of another crystal."""

PACKED = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Frames of the same atoms.

    Args:
        name: of the file.
        frames: at least one.
        labels: energies and forces of the frames; None where they have none.
    """

    name: str
    frames: tuple[System, ...]
    labels: Prediction | None = None


@dataclass(frozen=True, eq=False)
class Events:
    """What moves between sites in a trajectory of F frames of N atoms.

    Args:
        hops: in the order in which they end.
        flags: (F, N) atoms in the middle of a hop.
        sites: number of lattice sites.
    """

    hops: tuple[Hop, ...]
    flags: Bools
    sites: int

    @property
    def defect(self) -> str:
        """By the number of atoms: "vacancy", "interstitial", or how many there are too many or too few."""
        more = self.flags.shape[1] - self.sites
        return {-1: "vacancy", 1: "interstitial", 0: "exchange"}.get(more, f"{abs(more)}-{_sign(more)}")

    def chosen(self, most: int) -> Ints:
        """Return at most so many frames in which an atom migrates, spread evenly over all of them."""
        rows = np.flatnonzero(self.flags.any(axis=1))
        picked = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int)
        return rows[np.unique(picked)] if len(rows) else rows


def _sign(more: int) -> str:
    return "interstitials" if more > 0 else "vacancies"


def load_trajectory(path: str | Path) -> Trajectory:
    """Read a trajectory: one of a run of dynamics (.h5), or any format that ASE reads.

    Raises:
        ValueError: no such file, no frame, or frames of different atoms; says which.
    """
    path = Path(path)
    if path.suffix.lower() in PACKED:
        motion = read_trajectory(path)
        frames = [
            System(motion.system.numbers, x, motion.system.cell, motion.system.pbc) for x in motion.positions
        ]
        return Trajectory(path.name, _same_atoms(frames, path))
    atoms = read_atoms(path)
    results = [{} if one.calc is None else one.calc.results for one in atoms]
    labels = None
    if results and all("forces" in one and "energy" in one for one in results):
        forces = np.concatenate([one["forces"] for one in results])
        labels = Prediction(np.array([one["energy"] for one in results], dtype=float), forces)
    return Trajectory(path.name, _same_atoms([from_ase(one) for one in atoms], path), labels)


def _same_atoms(frames: Sequence[System], path: Path) -> tuple[System, ...]:
    if not frames:
        raise ValueError(f"{path}: holds no frame")
    for k, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, frames[0].numbers):
            raise ValueError(f"{path}: frame {k} has other atoms than frame 0")
        if not frame.pbc.all():
            raise ValueError(f"{path}: frame {k} is not periodic in three directions, so there is no lattice")
    return tuple(frames)


CUBIC = {"sc": 1, "bcc": 2, "fcc": 4, "diamond": 8}
"""Sites in the cubic cell of crystals that have a name."""


def crystal_of(spec: str, trajectory: Trajectory) -> System:
    """Return a perfect crystal by its name or from a file.

    Args:
        spec: a name of `CUBIC`, whose cubic cells fill that of the trajectory with nearly as many sites as
            there are atoms; or a file that ASE reads.
        trajectory: to be compared with it.

    Raises:
        ValueError: neither a name nor a file; a file that cannot be read.
    """
    if spec not in CUBIC:
        if not Path(spec).is_file():
            raise ValueError(f"crystal: {spec!r} is not a file; {nearest(spec, CUBIC)}")
        return from_ase(read_atoms(spec)[0])
    first = trajectory.frames[0]
    lengths = np.linalg.norm(first.cell, axis=1)
    edge = (abs(np.linalg.det(first.cell)) * CUBIC[spec] / len(first)) ** (1 / 3)
    repeats = np.maximum(np.rint(lengths / edge), 1)
    share = bulk("Si", spec, a=1.0, cubic=True).get_scaled_positions()
    cell = first.cell / repeats[:, None]
    return System(np.full(len(share), int(first.numbers[0])), share @ cell, cell, np.ones(3, dtype=bool))


def lattice_of(crystal: System, cell: Floats) -> Floats:
    """Return the sites (M, 3), as fractions of a cell, of a crystal that is repeated to fill it.

    Args:
        crystal: any periodic cell of the perfect crystal.
        cell: (3, 3) Å, to be filled; strain is taken over.

    Raises:
        ValueError: the cell is not one of whole repeats of the crystal's.
    """
    ratio = cell @ np.linalg.inv(crystal.cell)
    whole = np.rint(ratio)
    if (
        np.abs(ratio - whole).max() > MISFIT * max(1.0, np.abs(whole).max())
        or abs(np.linalg.det(whole)) < 0.5
    ):
        raise ValueError(
            "crystal: its cell does not fill that of the trajectory in whole repeats, which are "
            f"{np.round(ratio, 2).tolist()}; give the perfect crystal in a cell along the same axes"
        )
    share = crystal.positions @ np.linalg.inv(crystal.cell)
    reach = int(np.abs(whole).sum(axis=0).max()) + 1
    steps = np.arange(-reach, reach + 1)
    shifts = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    every = (share[:, None] + shifts[None]).reshape(-1, 3) @ np.linalg.inv(whole)
    inside = ((every > -1e-6) & (every < 1 - 1e-6)).all(axis=1)
    return np.asarray(every[inside])


def find_events(
    trajectory: Trajectory, crystal: System, *, fixed: bool = False, single: bool = False, persist: int = 2
) -> Events:
    """Find the hops of a trajectory and the atoms that are in the middle of one.

    Args:
        trajectory: of the same atoms.
        crystal: the perfect crystal, in any cell along the same axes.
        fixed: the lattice lies as the crystal's coordinates say, in every frame; by default it is laid over
            the first frame and follows a drift of the whole.
        single: judge every frame by itself: an atom in the middle third counts, whether or not it goes on.
            For snapshots that are not a trajectory.
        persist: frames that an atom must rest on a site for it to count.

    Raises:
        ValueError: a crystal that does not fit the cell.
    """
    first = trajectory.frames[0]
    share = lattice_of(crystal, first.cell)
    sites = Sites(share @ first.cell, first.cell)
    if not fixed:
        sites = laid_over(sites, first.positions)
    where, t = [], []
    for frame in trajectory.frames:
        if not np.array_equal(frame.cell, sites.cell):
            share = sites.positions @ np.linalg.inv(sites.cell)
            sites = Sites(share @ frame.cell, frame.cell)
        if not fixed:
            sites = refined(sites, frame.positions)
        near = sites.nearest(frame.positions)
        where.append(near.site)
        t.append(near.t)
    middle = np.array(t) > THIRD
    hops = find_hops(np.array(where), ~middle, persist)
    return Events(tuple(hops), middle if single else in_hops(hops, middle), len(sites))


def require_events(events: Events, trajectory: Trajectory) -> Events:
    """Return events if there are any snapshots to take, or say why there are none.

    Raises:
        ValueError: no atom changes its site, or none was caught in the middle.
    """
    frames = len(trajectory.frames)
    if events.flags.any():
        return events
    if events.hops:
        raise ValueError(
            f"{trajectory.name}: {len(events.hops)} hops in {frames} frames, but no frame shows an atom in "
            "the middle of one; save frames more often (a hop takes some 100 fs)"
        )
    raise ValueError(
        f"{trajectory.name}: no atom changed its site for good in {frames} frames; a longer or hotter "
        "trajectory has hops, and `--single` takes atoms off their sites whether or not they go on"
    )


def labeled_events(
    trajectory: Trajectory,
    events: Events,
    potential: Potential | None,
    *,
    most: int,
    name: str,
    level: str = "",
) -> RareEvents:
    """Return a testing set of the snapshots in which atoms migrate.

    Args:
        trajectory: of the events.
        events: found in it.
        potential: that labels the snapshots; None to take the labels of the trajectory.
        most: snapshots.
        name: of the set.
        level: of theory of the labels; by default what the potential says, or its name.

    Raises:
        ValueError: no labels, or a snapshot that the potential has no answer for.
    """
    rows = events.chosen(most)
    systems = [trajectory.frames[k] for k in rows]
    if potential is not None:
        labels = potential.predict(Batch.of(systems))
        for k, failure in labels.failures.items():
            raise ValueError(f"{trajectory.name}, frame {rows[k]}: {potential.name}: {failure.reason}")
        level = level or potential.abilities.level or potential.name
        energy, forces = labels.energy, labels.forces
    elif trajectory.labels is not None:
        energy = trajectory.labels.energy[rows]
        forces = trajectory.labels.forces.reshape(len(trajectory.frames), -1, 3)[rows].reshape(-1, 3)
    else:
        raise ValueError(
            f"{trajectory.name}: frames without energies and forces; label them with --model SPEC"
        )
    parts = np.split(forces, len(rows))
    one = flagged_set(events.defect, systems, energy, parts, list(events.flags[rows]))
    return RareEvents(name, level or "not stated", "not stated", trajectory.name, (one,))
