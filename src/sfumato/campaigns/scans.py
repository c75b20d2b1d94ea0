"""Build a set of scans: molecules → coordinates → frames → clash filter → sampling → labels → quality.

Source: Liu et al. 2026, appendix A, for bonds of molecules; docs/protocols.md for all else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.campaigns import campaign
from sfumato.campaigns.campaign import DEFAULTS, CampaignOptions
from sfumato.campaigns.place import require_place
from sfumato.datasets.labeled import require_format
from sfumato.datasets.scans_xyz import write_scans_xyz
from sfumato.execution.folder import provenance
from sfumato.execution.records import Record, array, number
from sfumato.execution.runner import Watch
from sfumato.files import remove_leftovers
from sfumato.io import Exclusion, Molecule, write_scan_set
from sfumato.io.ase_objects import XYZ_SUFFIXES
from sfumato.jobs.frames import Frame, frames_of
from sfumato.potentials.engines import Engine
from sfumato.reference.quality import discontinuity
from sfumato.reference.scans import BOND_TYPES, Candidate, candidates
from sfumato.systems import Scan, ScanSet
from sfumato.words import nearest

SCANNED = ("bond", "angle", "torsion")
"""Coordinates to choose from."""

Watcher = Callable[[str], AbstractContextManager[Watch]]


@dataclass(frozen=True)
class Recipe:
    """What a set of scans is made by, besides molecules and engine.

    Args:
        licence: of the new data.
        coordinate: "bond", "angle" or "torsion"; in a periodic structure "bond" also gives sites.
        types: the types wanted, for example ("C-O",); None for the published ones of a molecule's bonds and
            for all of everything else.
        frames: frames per scan.
        per_type: scans sampled per type; None for all.
        seed: of the sampling.
        hysteresis: also follow every scan there and back with orbital reuse.

    Raises:
        ValueError: an unknown coordinate, fewer than two frames, or a sample of none.
    """

    licence: str
    coordinate: str = "bond"
    types: tuple[str, ...] | None = None
    frames: int = 100
    per_type: int | None = None
    seed: int = 0
    hysteresis: bool = False

    def __post_init__(self) -> None:
        if self.coordinate not in SCANNED:
            raise ValueError(f"unknown coordinate {self.coordinate!r}; {nearest(self.coordinate, SCANNED)}")
        if self.frames < 2:
            raise ValueError(f"frames: a scan has at least 2, got {self.frames}")
        if self.per_type is not None and self.per_type < 1:
            raise ValueError(f"per_type: at least 1 scan of each type, got {self.per_type}")


@dataclass(frozen=True, eq=False)
class Geometry:
    """Unlabeled scans and everything that was left out on the way."""

    scans: tuple[Scan, ...]
    excluded: tuple[Exclusion, ...]

    @property
    def frames(self) -> list[Frame]:
        """Every frame of every scan."""
        return [frame for scan in self.scans for frame in frames_of(scan)]


def lay_out(molecules: Sequence[Molecule], recipe: Recipe) -> Geometry:
    """Make the frames of every scan that the rules allow.

    Args:
        molecules: structures with names; a name "type/id" is kept where it gives one such scan.
        recipe: coordinate, types, frames and sampling.

    Returns:
        Scans with NaN labels, and each exclusion with its reason.

    Raises:
        ValueError: no scan is left, with why the most were left out; or two scans have one name.
    """
    scans: list[Scan] = []
    excluded: list[Exclusion] = []
    for molecule in molecules:
        found, reasons = _scans_of(molecule, recipe)
        scans += found
        excluded += [Exclusion(molecule.name, reason) for reason in reasons]
    name, times = next(iter(Counter(scan.name for scan in scans).most_common(1)), ("", 0))
    if times > 1:
        raise ValueError(
            f"{times} scans would be called {name!r}; a scan has the name of its molecule, of a name type/id "
            "the id: give the molecules names that differ"
        )
    if recipe.per_type is not None:
        scans, dropped = _sample(scans, recipe.per_type, np.random.default_rng(recipe.seed))
        reason = f"not sampled: more than {recipe.per_type} of its type"
        excluded += [Exclusion(name, reason) for name in dropped]
    if not scans:
        counts = Counter(exclusion.reason for exclusion in excluded)
        told = "; ".join(f"{reason} ({count}×)" for reason, count in counts.most_common(3))
        raise ValueError(f"no molecule gives a scan: {told or 'there are no molecules'}")
    return Geometry(tuple(scans), tuple(excluded))


def _scans_of(molecule: Molecule, recipe: Recipe) -> tuple[list[Scan], list[str]]:
    system, coordinate = molecule.system, recipe.coordinate
    published = coordinate == "bond" and not system.pbc.any()
    types = recipe.types or (BOND_TYPES if published else None)
    try:
        found = candidates(system, coordinate, bonds=molecule.bonds, frames=recipe.frames, types=types)
    except ValueError as error:
        return [], [str(error)]
    if not found:
        return [], ["no bridge bond"]
    good = [candidate for candidate in found if candidate.exclusion is None]
    label = molecule.name.rpartition("/")[2]
    scans = []
    for candidate in good:
        suffix = "" if len(good) == 1 else "".join(f"-{atom}" for atom in candidate.atoms)
        scans.append(_unlabeled(molecule, candidate, f"{candidate.type}/{label}{suffix}"))
    return scans, [
        f"atoms {'-'.join(map(str, candidate.atoms))}: {candidate.exclusion}"
        for candidate in found
        if candidate.exclusion is not None
    ]


def _unlabeled(molecule: Molecule, candidate: Candidate, name: str) -> Scan:
    system, frames = molecule.system, len(candidate.lengths)
    return Scan(
        name=name,
        numbers=system.numbers,
        positions=candidate.positions,
        coordinate=candidate.lengths,
        energy=np.full(frames, np.nan),
        forces=np.full((frames, len(system), 3), np.nan),
        atoms=candidate.atoms,
        fragment=candidate.fragment,
        charge=system.charge,
        multiplicity=system.multiplicity,
        smiles=molecule.smiles,
        cell=system.cell,
        pbc=system.pbc,
    )


def _sample(scans: Sequence[Scan], per_type: int, rng: np.random.Generator) -> tuple[list[Scan], list[str]]:
    """Keep at most `per_type` scans of each type, chosen at random, in their old order."""
    strata = np.array([scan.stratum for scan in scans])
    kept: set[int] = set()
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        kept |= set(rng.permutation(members)[:per_type].tolist())
    return [scans[k] for k in sorted(kept)], [s.name for k, s in enumerate(scans) if k not in kept]


@dataclass(frozen=True, eq=False)
class Built:
    """A set of scans as written, and everything that was left out of it."""

    scan_set: ScanSet
    excluded: tuple[Exclusion, ...]


def build_scans(
    molecules: Sequence[Molecule],
    engine: Engine,
    path: Path,
    recipe: Recipe,
    *,
    store: Path | None = None,
    options: CampaignOptions = DEFAULTS,
    watch: Watcher = lambda what: nullcontext(lambda tally: None),
) -> Built:
    """Make, label, judge and write a set of scans, continuing an interrupted campaign.

    A frame that does not converge is tried once more from the orbitals of the nearest frame that does; one
    that the engine could not label stays in the set as NaN, with its reason in the provenance. A scan whose
    energy jumps is left out, with the reason.

    Args:
        molecules: structures with names.
        engine: the level of theory; it must pass its self-test.
        path: the file to write: HDF5, or extended XYZ where the ending is .xyz or .extxyz.
        recipe: licence, coordinate, frames, sampling.
        store: folder of the labels, which several campaigns may share; default `<path>.campaign`.
        options: who works, what to repeat, when to stop.
        watch: given what is done, a context manager that yields a callback for progress.

    Returns:
        The set as written with all exclusions.

    Raises:
        ValueError: no scan is left, the engine fails its self-test, everything fails for one reason, or the
            store is of another engine or damaged; or `path` is a file with other contents and the
            start is not fresh.
        OSError: the disk is full; every finished label is kept.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    require_format(path)
    remove_leftovers(path.parent, path.name)
    require_place(path, engine.level, options.fresh)
    geometry = lay_out(molecules, recipe)
    store = store or default_store(path)
    records = _label(geometry, engine, store, options, watch)
    labeled = [_labeled(scan, rows) for scan, rows in zip(geometry.scans, records, strict=True)]
    facts = _facts(geometry.scans, records)
    if recipe.hysteresis:
        with watch(f"{engine.level} there and back") as callback:
            sweeps = campaign.sweep(geometry.scans, engine, store, options=options, watch=callback)
        widths = {scan.name: _width(scan, sweep) for scan, sweep in zip(geometry.scans, sweeps, strict=True)}
        facts["hysteresis"] = widths
    jumps = [Exclusion(scan.name, reason) for scan in labeled if (reason := discontinuity(scan))]
    excluded = (*getattr(molecules, "rejected", ()), *geometry.excluded, *jumps)
    facts |= {"engine": engine.identity, "recipe": asdict(recipe), **provenance()}
    facts["excluded"] = [[exclusion.name, exclusion.reason] for exclusion in excluded]
    scan_set = _set(path.stem, engine.level, recipe.licence, labeled, jumps, facts)
    write = write_scans_xyz if path.suffix.lower() in XYZ_SUFFIXES else write_scan_set
    write(path, scan_set)
    return Built(scan_set, excluded)


def _set(
    name: str,
    level: str,
    licence: str,
    scans: Sequence[Scan],
    jumps: Sequence[Exclusion],
    facts: dict[str, Any],
) -> ScanSet:
    """Return the set of the scans that do not jump."""
    dropped = {exclusion.name for exclusion in jumps}
    kept = tuple(scan for scan in scans if scan.name not in dropped)
    if not kept:
        raise ValueError(f"every scan was left out, the first because of this: {jumps[0].reason}")
    return ScanSet(name, level, licence, "sfumato scan build", kept, facts)


def default_store(path: Path) -> Path:
    """Return where the labels of a file are kept."""
    return path.with_name(path.name + ".campaign")


def _label(
    geometry: Geometry, engine: Engine, store: Path, options: CampaignOptions, watch: Watcher
) -> list[list[Record]]:
    """Return the records of every scan, after a second chance for what did not converge."""
    with watch(engine.level) as callback:
        flat = campaign.label(geometry.frames, engine, store, options=options, watch=callback)
    stops = np.cumsum([len(scan) for scan in geometry.scans])
    records = [flat[stop - len(scan) : stop] for scan, stop in zip(geometry.scans, stops, strict=True)]
    lenders = [_lenders(rows) for rows in records]
    pairs = [
        (frames[k], frames[lender])
        for frames, found in zip(map(frames_of, geometry.scans), lenders, strict=True)
        for k, lender in found.items()
    ]
    if pairs:
        with watch(f"{engine.level} once more") as callback:
            again = iter(campaign.retry(pairs, engine, store, options=options, watch=callback))
        for rows, found in zip(records, lenders, strict=True):
            for k in found:
                rows[k] = next(again)
    return records


def _lenders(records: Sequence[Record]) -> dict[int, int]:
    """Return, for every frame that did not converge, the nearest one that did."""
    good = np.array([k for k, record in enumerate(records) if record["status"] == "ok"])
    return {
        k: int(good[np.abs(good - k).argmin()])
        for k, record in enumerate(records)
        if len(good) and record["status"] != "ok" and record["reason"].startswith("not converged")
    }


def _labeled(scan: Scan, records: Sequence[Record]) -> Scan:
    energy, forces = np.array(scan.energy), np.array(scan.forces)
    for frame, record in enumerate(records):
        if record["status"] == "ok":
            energy[frame], forces[frame] = campaign.label_of(record, len(scan.numbers))
    return replace(scan, energy=energy, forces=forces)


def _width(scan: Scan, sweep: Record) -> float | None:
    """Return how far the energies there and back are apart at most, eV; None where nothing can be said."""
    if sweep["status"] != "ok":
        return None
    there, back = (array(sweep, name, (len(scan),)) for name in ("forward", "backward"))
    gap = np.abs(there - back)
    return None if np.isnan(gap).all() else float(np.nanmax(gap))


def _facts(scans: Sequence[Scan], records: Sequence[Sequence[Record]]) -> dict[str, Any]:
    """Return what the engine said about the frames of each scan: reasons, messages, largest ⟨S²⟩."""
    unlabeled: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    spin: dict[str, float] = {}
    for scan, rows in zip(scans, records, strict=True):
        reasons = {str(k): row["reason"] for k, row in enumerate(rows) if row["status"] != "ok"}
        said = {str(k): str(row["message"]) for k, row in enumerate(rows) if row.get("message")}
        squared = [number(row, "spin_squared") for row in rows if row.get("spin_squared") is not None]
        for found, where in ((reasons, unlabeled), (said, messages)):
            if found:
                where[scan.name] = found
        if squared:
            spin[scan.name] = max(squared)
    return {"unlabeled": unlabeled, "messages": messages, "spin_squared": spin}
