"""Make a labeled training set: molecules → minima → vibrations → displacements → labels → split."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import covalent_radii
from ase.formula import Formula
from ase.symbols import Symbols

from sfumato.campaigns.campaign import DEFAULTS, CampaignOptions, label, label_of
from sfumato.campaigns.place import require_place
from sfumato.campaigns.scans import default_store
from sfumato.execution.folder import RunFolder, provenance
from sfumato.execution.records import Header, Record, array, encode, ok, texts
from sfumato.execution.runner import Item, Watch, run
from sfumato.execution.runner import wanted as item_wanted
from sfumato.files import remove_leftovers
from sfumato.frames import Category, FrameSet
from sfumato.io import Exclusion, Molecule, Molecules, write_frame_set
from sfumato.io.molecules import MoleculeError, canonical_smiles, conformers
from sfumato.jobs.label import EngineJob
from sfumato.potentials.engines import Engine
from sfumato.reference import sampling as make
from sfumato.reference.scans import BOND_FACTOR, bonds
from sfumato.systems import Batch, Ints, Prediction, System, digest

NAME = "sample"
VERSION = 1

ALIKE = 0.1
"""Two minima whose atom–atom distances differ by less than this (Å, root mean square) are one conformer."""

FORMED = 1.1
"""Two atoms that the graph does not join and that relax to less than this many radii sums have reacted."""

Watching = Callable[[str, str], AbstractContextManager[Watch]]
"""Called with what is done and its unit; gives a callback for progress."""


@dataclass(frozen=True)
class Sampling:
    """What is made of each molecule or crystal.

    Args:
        conformers: at most so many minima (one of a crystal, or where no graph is known).
        temperatures: K, of thermal displacements.
        thermal: frames at each of these temperatures.
        dynamics: K, of short Langevin dynamics, each begun from a thermal displacement.
        snapshots: frames at each of these temperatures, 50 fs apart.
        scans: frames with one bridge bond of a 300 K structure at a random length; none of a crystal.
        span: shortest and longest such bond, in sums of covalent radii.
        strains: strained 300 K frames of a crystal; none of a molecule.
        strain: standard deviation of the strain components.
        seed: of conformers and displacements.

    Raises:
        ValueError: no conformer, a negative count or seed, or a temperature, length or strain that is not a
            positive number.
    """

    conformers: int = 2
    temperatures: tuple[float, ...] = (100.0, 300.0, 600.0, 1000.0)
    thermal: int = 2
    dynamics: tuple[float, ...] = (300.0, 1000.0)
    snapshots: int = 1
    scans: int = 3
    span: tuple[float, float] = (0.65, 2.0)
    strains: int = 3
    strain: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"conformers": 1, "thermal": 0, "snapshots": 0, "scans": 0, "strains": 0, "seed": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name}: at least {smallest}, got {getattr(self, name)}")
        positive = {
            "temperatures": self.temperatures,
            "dynamics": self.dynamics,
            "span": self.span,
            "strain": (self.strain,),
        }
        for name, values in positive.items():
            for value in values:
                if not 0 < value < math.inf:
                    raise ValueError(f"{name}: positive numbers are needed, got {value:g}")


@dataclass(frozen=True)
class Recipe:
    """What a training set is made by, besides molecules and engine.

    Args:
        licence: of the new data.
        sampling: the frames of each molecule.
        fractions: of train, val and test; a molecule goes to one of them by its canonical SMILES and `seed`.
        seed: of the split.
        max_force: eV/Å; a frame with a larger force on an atom is left out.
        held_out: SMILES of molecules to leave out, whatever their spelling, because they test the result.
    """

    licence: str
    sampling: Sampling = Sampling()
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    max_force: float = 50.0
    held_out: tuple[str, ...] = ()


BSCT_MINI = ("CC", "CN", "CO", "CP", "CS", "NN", "NO", "NP", "OP")
"""The molecules of the bundled bond scans."""

ORGANIC = Path(__file__).parents[1] / "data" / "organic.smi"

RECIPES = {
    "organic-mini": Recipe("MIT", Sampling(), held_out=BSCT_MINI),
    "organic-20k": Recipe("MIT", Sampling(thermal=10, snapshots=6, scans=10), held_out=BSCT_MINI),
}
"""The named training sets, both of the molecules of `ORGANIC` with GFN2-xTB."""


@dataclass(frozen=True)
class Explore(EngineJob):
    """The unlabeled frames of molecules, one record each.

    Args:
        sampling: what to make of each.
    """

    sampling: Sampling

    def _work(self, item: Item) -> Record:
        start = time.perf_counter()
        found = explore(item.payload, self.engine, self.sampling)
        return ok(
            item.key,
            seconds=time.perf_counter() - start,
            subsets=found.subsets,
            positions=encode(np.stack([system.positions for system in found.systems])),
            cells=encode(np.stack([system.cell for system in found.systems])),
            dropped=found.dropped,
        )


@dataclass(frozen=True, eq=False)
class Found:
    """Frames of one molecule, by how each came about, and why others were dropped."""

    systems: list[System]
    subsets: list[str]
    dropped: list[str]


def explore(molecule: Molecule, engine: Engine, sampling: Sampling) -> Found:
    """Make the frames of one molecule or crystal.

    Args:
        molecule: its SMILES, if mapped, gives conformers, its bonds what may be stretched.
        engine: gives energies and forces.
        sampling: how many of what.

    Returns:
        Distinct frames without clashes, positions rounded to float32.

    Raises:
        ValueError: no minimum was found.
    """
    rng = np.random.default_rng([sampling.seed, int(_identity(molecule)[:16], 16)])
    minima, dropped = _minima(molecule, engine, sampling)
    vibrations = [make.modes(m, make.hessian(m, engine)) for m in minima]
    drafts = [("minimum", minimum) for minimum in minima]

    def hot(k: int, temperature: float) -> System:
        return make.thermal(minima[k % len(minima)], vibrations[k % len(minima)], temperature, rng)

    for temperature in sampling.temperatures:
        drafts += [(f"{temperature:g} K", hot(k, temperature)) for k in range(sampling.thermal)]
    for k, temperature in enumerate(sampling.dynamics):
        try:
            snapshots = make.dynamics(hot(k, temperature), engine, temperature, sampling.snapshots, rng)
        except make.SamplingError as error:
            dropped.append(f"dynamics at {temperature:g} K: {error}")
        else:
            drafts += [(f"dynamics {temperature:g} K", snapshot) for snapshot in snapshots]
    if molecule.system.pbc.any():
        strains = [make.strained(hot(k, 300.0), sampling.strain, rng) for k in range(sampling.strains)]
        drafts += [("strain", strained) for strained in strains]
    else:
        try:
            stretched = [
                make.stretched(hot(k, 300.0), _bonds(molecule), sampling.span, rng)
                for k in range(sampling.scans)
            ]
        except ValueError as error:  # a molecule in several pieces
            dropped.append(f"bond scan: {error}")
        else:
            drafts += [("bond scan", system) for system in stretched if system is not None]
    rounded = [replace(s, positions=s.positions.astype(np.float32)) for _, s in drafts]
    clash = np.array([make.clashing(system) for system in rounded])
    fresh = make.distinct(rounded)
    dropped += ["clash"] * int(clash.sum()) + ["duplicate"] * int((~fresh & ~clash).sum())
    kept = np.flatnonzero(fresh & ~clash)
    return Found([rounded[k] for k in kept], [drafts[k][0] for k in kept], dropped)


def _minima(molecule: Molecule, engine: Engine, sampling: Sampling) -> tuple[list[System], list[str]]:
    """Relax the given structure and further conformers; keep the first few that differ."""
    system = molecule.system
    periodic = bool(system.pbc.any())
    starts = [system]
    reasons: list[str] = []
    alone = ""
    if sampling.conformers > 1 and molecule.smiles and not periodic:
        try:
            more = conformers(molecule, 4 * sampling.conformers, seed=sampling.seed)
            starts += [replace(system, positions=positions) for positions in more]
        except MoleculeError as error:
            alone = f"conformers: {error}"
    graph = None if periodic else _bonds(molecule)
    minima: list[System] = []
    for k in np.flatnonzero(make.distinct(starts, ALIKE)):
        if len(minima) == sampling.conformers:
            break
        try:
            found = make.relax(starts[k], engine)
        except make.SamplingError as error:
            reasons.append(str(error))
            continue
        if graph is not None and (change := _reaction(found, graph)):
            reasons.append(change)
        elif make.distinct([*minima, found], ALIKE)[-1]:
            minima.append(found)
    if not minima:
        raise ValueError(f"no minimum: {reasons[0]}")
    return minima, [alone] * bool(alone) + [f"conformer: {reason}" for reason in reasons]


def _bonds(molecule: Molecule) -> Ints:
    return bonds(molecule.system) if molecule.bonds is None else molecule.bonds


def _reaction(system: System, graph: Ints) -> str:
    """Say which bond a relaxation broke or formed; empty if none."""
    radii = covalent_radii[system.numbers]
    first, second = np.triu_indices(len(system), 1)
    ratio = make.pair_distances(system) / (radii[first] + radii[second])
    joined = np.zeros((len(system), len(system)), dtype=bool)
    joined[graph.min(axis=1), graph.max(axis=1)] = True
    bonded = joined[first, second]
    for what, wrong in (
        ("broke", bonded & (ratio > BOND_FACTOR)),
        ("formed", ~bonded & (ratio < FORMED)),
    ):
        if wrong.any():
            k = int(np.flatnonzero(wrong)[0])
            return f"relaxation {what} the bond {first[k]}-{second[k]}"
    return ""


def _identity(molecule: Molecule) -> str:
    return digest([molecule.system.identity, molecule.smiles])


def group(molecule: Molecule) -> str:
    """Return what all forms of one molecule share: its canonical SMILES, or where unknown its formula."""
    if molecule.smiles:
        return canonical_smiles(molecule.smiles)
    formula = Formula(str(Symbols(molecule.system.numbers)))
    return str((formula.reduce()[0] if molecule.system.pbc.any() else formula).format("hill"))


def sample(
    molecules: Sequence[Molecule],
    engine: Engine,
    path: Path,
    recipe: Recipe,
    *,
    store: Path | None = None,
    options: CampaignOptions = DEFAULTS,
    watch: Watching = lambda what, unit: nullcontext(lambda tally: None),
) -> tuple[FrameSet, tuple[Exclusion, ...]]:
    """Make, label, split and write a training set, continuing an interrupted campaign of the same file.

    The frames of each molecule and the labels are kept one by one in a store, by default `<path>.campaign`.

    Args:
        molecules: with names; what `read_molecules` rejected is counted too.
        engine: the level of theory; it must pass its self-test.
        path: the HDF5 file to write.
        recipe: licence, sampling, split.
        store: folder of the records, which several campaigns may share.
        options: who works, what to repeat, when to stop; a whole molecule is one task of the first stage, a
            frame of the second.
        watch: shows the progress of the two stages.

    Returns:
        The set as written, and every molecule or frame that is not in it, with the reason.

    Raises:
        ValueError: no frame is left, the engine fails its self-test, the store is of another version of it,
            or `path` is a file with other contents and the start is not fresh.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    remove_leftovers(path.parent, path.name)
    require_place(path, engine.level, options.fresh)
    wanted, excluded = _wanted(molecules, recipe)
    store = store or default_store(path)
    with watch("geometries", "molecules") as callback:
        records = _explore(wanted, engine, store, recipe.sampling, options, callback)
    frames, failed, dropped = _unpacked(wanted, records)
    excluded += failed
    with watch(engine.level, "frames") as callback:
        systems = [frame.system for frame in frames]
        records = label(systems, engine, store, options=options, watch=callback)
    reasons = [_unfit(record, system, recipe.max_force) for record, system in zip(records, systems)]
    excluded += [Exclusion(f"{frame.name}/{frame.subset}", why) for frame, why in zip(frames, reasons) if why]
    kept = [(frame, record) for frame, record, why in zip(frames, records, reasons) if not why]
    if not kept:
        counts = Counter(exclusion.reason for exclusion in excluded).most_common(3)
        raise ValueError("no frame is left: " + "; ".join(f"{why} ({count}×)" for why, count in counts))
    facts = {
        **provenance(),
        "engine": engine.identity,
        "recipe": asdict(recipe),
        "excluded": [[exclusion.name, exclusion.reason] for exclusion in excluded],
        "dropped": dropped,
    }
    frame_set = _frame_set(path.stem, engine.level, recipe, kept, facts)
    write_frame_set(path, frame_set)
    return frame_set, tuple(excluded)


def _wanted(
    molecules: Sequence[Molecule], recipe: Recipe
) -> tuple[list[tuple[Molecule, str]], list[Exclusion]]:
    """Return the molecules to sample with their groups, and what is left out."""
    excluded = list(molecules.rejected) if isinstance(molecules, Molecules) else []
    held_out = {canonical_smiles(smiles) for smiles in recipe.held_out}
    wanted = []
    for molecule in molecules:
        key = group(molecule)
        if key in held_out:
            excluded.append(Exclusion(molecule.name, "held out: it tests the result"))
        else:
            wanted.append((molecule, key))
    return wanted, excluded


@dataclass(frozen=True, eq=False)
class _Frame:
    name: str
    group: str
    subset: str
    system: System


def _explore(
    wanted: Sequence[tuple[Molecule, str]],
    engine: Engine,
    store: Path,
    sampling: Sampling,
    options: CampaignOptions,
    watch: Watch,
) -> list[Record]:
    """Explore what has not been explored like this before; return the records of all molecules."""
    settings = json.dumps(asdict(sampling), sort_keys=True)
    items = [
        Item(digest([NAME, str(VERSION), engine.identity, settings, _identity(molecule)]), molecule)
        for molecule, _ in wanted
    ]
    header = Header(NAME, VERSION, f"{engine.level} geometries", engine.identity, provenance())
    with RunFolder(store).open(header, options.fresh) as file:
        if any(item_wanted(file.records.get(item.key), options.retry_failed) for item in items):
            engine.self_test()
        run(
            Explore(engine, sampling),
            items,
            file,
            pool=options.executor,
            watch=watch,
            retry_failed=options.retry_failed,
            keep_going=options.keep_going,
        )
        return [file.records[item.key] for item in items]


def _unpacked(
    wanted: Sequence[tuple[Molecule, str]], records: Sequence[Record]
) -> tuple[list[_Frame], list[Exclusion], dict[str, int]]:
    """Return the frames of all molecules, the molecules that failed, and what was dropped."""
    frames: list[_Frame] = []
    failed: list[Exclusion] = []
    dropped: Counter[str] = Counter()
    for (molecule, key), record in zip(wanted, records, strict=True):
        if record["status"] == "ok":
            frames += _frames(molecule, key, record)
            dropped.update(texts(record, "dropped"))
        else:
            failed.append(Exclusion(molecule.name, record["reason"]))
    return frames, failed, dict(dropped.most_common())


def _frames(molecule: Molecule, key: str, record: Record) -> list[_Frame]:
    """Unpack the frames that a record of `Explore` holds."""
    subsets = texts(record, "subsets")
    positions = array(record, "positions", (len(subsets), len(molecule.system), 3))
    cells = array(record, "cells", (len(subsets), 3, 3))
    return [
        _Frame(molecule.name, key, subset, replace(molecule.system, positions=here, cell=cell))
        for here, cell, subset in zip(positions, cells, subsets, strict=True)
    ]


def _unfit(record: Record, system: System, max_force: float) -> str:
    """Say why a frame cannot be learned from; empty if it can."""
    if record["status"] != "ok":
        return str(record["reason"])
    largest = np.linalg.norm(label_of(record, len(system))[1], axis=1).max(initial=0.0)
    return f"force: {largest:.0f} eV/Å on an atom, above {max_force:g}" if largest > max_force else ""


def _frame_set(
    name: str, level: str, recipe: Recipe, kept: Sequence[tuple[_Frame, Record]], facts: dict[str, Any]
) -> FrameSet:
    frames = [frame for frame, _ in kept]
    labels = [label_of(record, len(frame.system)) for frame, record in kept]
    energies, forces = zip(*labels, strict=True)
    return FrameSet(
        name=name,
        level=level,
        licence=recipe.licence,
        source="sfumato data sample",
        batch=Batch.of([frame.system for frame in frames]),
        labels=Prediction(np.array(energies), np.concatenate(forces)),
        molecule=Category.of(frame.group for frame in frames),
        subset=Category.of(frame.subset for frame in frames),
        split=Category.of(make.split_of(frame.group, recipe.fractions, recipe.seed) for frame in frames),
        provenance=facts,
    )
