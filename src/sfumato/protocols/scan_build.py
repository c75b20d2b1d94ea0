"""Build a set of bond scans: molecules → bridge bonds → frames → clash filter → sampling → labels.

Source: Liu et al. 2026, appendix A.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.execution.folder import RunFolder, provenance
from sfumato.execution.frames import Subject
from sfumato.execution.label import LabelWith
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import Header, Record, decode
from sfumato.execution.runner import Watch, run
from sfumato.io import Molecule, write_scan_set
from sfumato.reference.engines import Engine
from sfumato.reference.scans import candidate_scans, scan_positions
from sfumato.systems import Scan, ScanSet

NAME = "scan"
VERSION = 1


@dataclass(frozen=True)
class Exclusion:
    """A molecule or a bond that gives no scan, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Geometry:
    """Unlabelled scans and everything that was left out on the way."""

    scans: tuple[Scan, ...]
    excluded: tuple[Exclusion, ...]


@dataclass(frozen=True)
class Recipe:
    """What a set of scans is made by, besides molecules and engine.

    Args:
        licence: of the new data.
        frames: frames per scan.
        per_bond: scans sampled per bond type; None for all.
        seed: of the sampling.
    """

    licence: str
    frames: int = 100
    per_bond: int | None = None
    seed: int = 0


def lay_out(molecules: Sequence[Molecule], recipe: Recipe) -> Geometry:
    """Make the frames of every bond scan that the published rules allow.

    Args:
        molecules: structures with names; a name "bond type/id" is kept where it gives one such scan.
        recipe: frames and sampling.

    Returns:
        Scans with NaN labels, and each exclusion with its reason.
    """
    scans: list[Scan] = []
    excluded: list[Exclusion] = []
    for molecule in molecules:
        found, reasons = _scans_of(molecule, recipe.frames)
        scans += found
        excluded += [Exclusion(molecule.name, reason) for reason in reasons]
    if recipe.per_bond is not None:
        scans, dropped = _sample(scans, recipe.per_bond, np.random.default_rng(recipe.seed))
        reason = f"not sampled: more than {recipe.per_bond} of its bond type"
        excluded += [Exclusion(name, reason) for name in dropped]
    return Geometry(tuple(scans), tuple(excluded))


def _scans_of(molecule: Molecule, frames: int) -> tuple[list[Scan], list[str]]:
    system = molecule.system
    try:
        candidates = candidate_scans(system, frames)
    except ValueError as error:
        return [], [str(error)]
    if not candidates:
        return [], ["no bridge bond"]
    good = [candidate for candidate in candidates if candidate.exclusion is None]
    reasons = [
        f"bond {c.bridge.i}-{c.bridge.j}: {c.exclusion}" for c in candidates if c.exclusion is not None
    ]
    label = molecule.name.rpartition("/")[2]
    scans = []
    for candidate in good:
        suffix = "" if len(good) == 1 else f"-{candidate.bridge.i}-{candidate.bridge.j}"
        scans.append(
            Scan(
                name=f"{candidate.bond_type}/{label}{suffix}",
                numbers=system.numbers,
                positions=scan_positions(system, candidate.bridge, candidate.lengths),
                coordinate=candidate.lengths,
                energy=np.full(frames, np.nan),
                forces=np.full((frames, len(system), 3), np.nan),
                atoms=candidate.bridge.bond,
                fragment=candidate.bridge.fragment,
                charge=system.charge,
                multiplicity=system.multiplicity,
                smiles=molecule.smiles,
            )
        )
    return scans, reasons


def _sample(scans: Sequence[Scan], per_bond: int, rng: np.random.Generator) -> tuple[list[Scan], list[str]]:
    """Keep at most `per_bond` scans of each bond type, chosen at random, in their old order."""
    strata = np.array([scan.stratum for scan in scans])
    kept: set[int] = set()
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        kept |= set(rng.permutation(members)[:per_bond].tolist())
    return [scans[k] for k in sorted(kept)], [s.name for k, s in enumerate(scans) if k not in kept]


def build_scans(
    molecules: Sequence[Molecule],
    engine: Engine,
    path: Path,
    recipe: Recipe,
    *,
    pool: PoolSettings = PoolSettings(workers=0),  # noqa: B008 (frozen)
    watch: AbstractContextManager[Watch] | None = None,
) -> tuple[ScanSet, Geometry]:
    """Make, label and write a set of scans, continuing an interrupted campaign of the same file.

    The labels are kept one by one in a folder beside the file (`<path>.campaign`); a frame that the engine
    could not label stays in the set as NaN, its reason in the provenance.

    Args:
        molecules: structures with names.
        engine: the level of theory; it must pass its self-test.
        path: the HDF5 file to write.
        recipe: licence, frames, sampling.
        pool: workers, threads, limits.
        watch: context manager that yields a callback for progress.

    Returns:
        The set as written, and the geometry it was made from with all exclusions.

    Raises:
        ValueError: no scan is left, the engine fails its self-test, or the campaign folder is of another
            engine.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    geometry = lay_out(molecules, recipe)
    if not geometry.scans:
        counts = Counter(exclusion.reason for exclusion in geometry.excluded)
        reasons = "; ".join(f"{reason} ({count}×)" for reason, count in counts.most_common(3))
        raise ValueError(f"no molecule gives a scan: {reasons}")
    engine.self_test()
    folder = RunFolder(path.with_name(path.name + ".campaign"))
    header = Header(NAME, VERSION, engine.level, engine.identity, provenance())
    subject = Subject(NAME, VERSION, engine.identity)
    items = [item for scan in geometry.scans for item in subject.items(scan, scan.positions)]
    with folder.open(header) as file:
        with watch or nullcontext(lambda tally: None) as callback:
            run(LabelWith(engine), items, file, pool=pool, watch=callback)
        labelled = [_labelled(scan, file.records, subject) for scan in geometry.scans]
    scan_set = ScanSet(
        name=path.stem,
        level=engine.level,
        licence=recipe.licence,
        source="sfumato scan build",
        scans=tuple(scan for scan, _ in labelled),
        provenance={
            **provenance(),
            "engine": engine.identity,
            "recipe": asdict(recipe),
            "excluded": [[exclusion.name, exclusion.reason] for exclusion in geometry.excluded],
            "unlabelled": {scan.name: reasons for scan, reasons in labelled if reasons},
        },
    )
    write_scan_set(path, scan_set)
    return scan_set, geometry


def _labelled(scan: Scan, records: dict[str, Record], subject: Subject) -> tuple[Scan, dict[str, Any]]:
    """Return the scan with its labels, and by frame why one is missing."""
    energy, forces = np.array(scan.energy), np.array(scan.forces)
    reasons = {}
    keys = subject.keys(scan, scan.positions)
    for frame, record in enumerate(records[key] for key in keys):
        if record["status"] == "ok":
            energy[frame], forces[frame] = record["energy"], decode(record["forces"])
        else:
            reasons[str(frame)] = record["reason"]
    return replace(scan, energy=energy, forces=forces), reasons
