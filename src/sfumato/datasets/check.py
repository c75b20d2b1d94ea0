"""Can a set of labeled frames be trained on? Counts, and statements that hold or not.

What the numbers alone cannot tell is a note, not a statement: the report never passes what it did not test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.datasets.consistency import Pairs, Ratio, misfits, near_pairs, work_ratios
from sfumato.datasets.duplicates import duplicates, shared_molecules
from sfumato.datasets.energies import AtomEnergies, compositions, fit_atom_energies, lone_energies
from sfumato.datasets.loader import Rows, gather, rows_of
from sfumato.datasets.sources import ENERGY, LENGTH, unit
from sfumato.datasets.summary import CLASH, radius_ratios, summarize
from sfumato.frames import FrameSet
from sfumato.io import FrameFile
from sfumato.reference.quality import NET_FORCE_LIMIT, Statement
from sfumato.systems import Bools, Floats, Ints
from sfumato.units import HARTREE_PER_BOHR
from sfumato.words import plain

TOUCHING = 1.5
"""Factor by which the median distance of neighbors may differ from the sum of covalent radii; bohr for Å
makes it 1.9."""

RATIO_LIMIT = 1.35
"""Factor by which energy and work may differ; the least that a wrong unit makes is 1.9, the most that
curvature made on real sets 1.2."""

MISFIT_SHARE = 0.05
"""of strained pairs that the stress may leave unexplained."""

FORCE_LIMIT = HARTREE_PER_BOHR
"""eV/Å; released sets had unconverged points beyond 1 hartree/bohr (SPICE 1, its issue 60)."""

RESIDUAL_LIMIT = 10.0
"""eV per atom between a frame's energy and its atoms': no chemistry, but another zero of energy."""

ALL_ELECTRON = 0.05
"""Relative distance from the total energies of atoms within which energies count as all-electron ones."""

STATEMENTS = (
    "lengths",
    "clashes",
    "energy unit",
    "energy outliers",
    "lone energies",
    "forces and energies",
    "large forces",
    "net force",
    "stress and energies",
    "stress components",
    "stress sign",
    "duplicates",
    "shared structures",
    "shared molecules",
)
"""What is looked at, where there is enough data."""

FORCE_UNITS = [
    f"{e}/{x}" for e in ("eV", "hartree", "kcal/mol", "kJ/mol", "rydberg") for x in ("Å", "bohr", "nm")
]
FARTHEST_NEIGHBOR = 6.0
LENGTH_FRAMES = 300
LISTED = 100


@dataclass(frozen=True)
class Finding(Statement):
    """A statement about frames, with what is likely wrong where it does not hold.

    Args:
        hint: the likely cause and the remedy; empty if it holds.
    """

    hint: str = ""


@dataclass(frozen=True)
class FrameReport:
    """What a set of frames contains and which statements hold.

    Args:
        name: of the set.
        level: level of theory.
        identity: of the contents.
        frames: how many.
        molecules: how many.
        compositions: how many.
        atoms: smallest, mean and largest number per frame.
        elements: symbols, by atomic number.
        labels: frames that have each label.
        splits: frames in each.
        subsets: frames in each.
        force_scale: eV/Å, root mean square of force components.
        atom_energies: fitted to all frames.
        forces: energy per work of forces between near configurations; 1 if they belong together.
        stress: likewise of the stress.
        repeated: pairs of an earlier frame and one that repeats it, the first hundred.
        statements: the claims.
        notes: what could not be tested, and what is worth knowing.
    """

    name: str
    level: str
    identity: str
    frames: int
    molecules: int
    compositions: int
    atoms: tuple[int, float, int]
    elements: tuple[str, ...]
    labels: dict[str, int]
    splits: dict[str, int]
    subsets: dict[str, int]
    force_scale: float
    atom_energies: AtomEnergies
    forces: Ratio
    stress: Ratio
    repeated: tuple[tuple[int, int], ...]
    statements: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every statement holds."""
        return all(statement.passed for statement in self.statements)

    def require(self, allow: Sequence[str] = ()) -> None:
        """Refuse a set of which a statement does not hold.

        Args:
            allow: names of statements that need not hold.

        Raises:
            ValueError: one does not; says which, by how much, and the likely cause.
        """
        failed = [s for s in self.statements if not s.passed and s.name not in allow]
        if failed:
            values = [f"{s.value:.3g} {s.unit}".rstrip() + f", limit {s.limit:.3g}" for s in failed]
            words = [f"{s.name}: {s.hint} ({value})" for s, value in zip(failed, values, strict=True)]
            raise ValueError(
                f"frame set {self.name!r} is not fit to train on: " + "; ".join(words) + "; "
                f"to go on all the same, set data.allow to [{', '.join(s.name for s in failed)}]"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the report in JSON types; what could not be measured is null."""
        atom_energies = self.atom_energies.as_json()
        found: dict[str, Any] = plain({**asdict(self), "passed": self.passed, "atom_energies": atom_energies})
        return found


def _likely(quantity: str, declared: str, factor: float, names: Sequence[str]) -> str:
    """Name the unit whose size is nearest to `factor` times that of the declared one."""
    sizes = {name: unit(quantity, name) for name in names}  # type: ignore[arg-type]
    wanted = unit(quantity, declared) * factor  # type: ignore[arg-type]
    off = {name: abs(math.log(size / wanted)) for name, size in sizes.items()}
    best = min(off, key=off.__getitem__)
    return best if off[best] < 0.4 and best != declared else ""


class _Checks:
    """The statements about one set, found one after the other."""

    def __init__(self, rows: Rows, rng: np.random.Generator, train: str, validation: str | None) -> None:
        self.rows, self.rng, self.train = rows, rng, train
        self.held = tuple(name for name in dict.fromkeys((validation, "test")) if name and name != train)
        self.content = compositions(rows, None)
        self.atom_energies = fit_atom_energies(self.content)
        self.summary = summarize(rows, self.atom_energies)
        declared = rows.provenance.get("declared", {})
        units = declared.get("units", {}) if isinstance(declared, Mapping) else {}
        self.units = {
            "energy": "eV",
            "length": "Å",
            "forces": "eV/Å",
            **{k: v for k, v in units.items() if v},
        }
        self.statements: list[Finding] = []
        self.notes: list[str] = []

    def state(
        self, name: str, claim: str, value: float, limit: float, hint: str, where: int = -1, unit: str = ""
    ) -> None:
        """Add a statement that holds if the value is within the limit."""
        passed = bool(value <= limit)
        place = f"frame {where} ({self._molecule(where)})" if where >= 0 and value > 0 else ""
        self.statements.append(
            Finding(name, claim, passed, float(value), limit, unit, place, "" if passed else hint)
        )

    def _molecule(self, frame: int) -> str:
        return str(self.rows.molecule.names[self.rows.molecule.codes[frame]])

    def lengths(self) -> None:
        """Are neighbors as far apart as atoms that touch?"""
        frames = self.rng.permutation(len(self.rows))[:LENGTH_FRAMES]
        batch, _ = gather(self.rows, frames)
        atoms, apart = radius_ratios(batch, np.full(len(batch), FARTHEST_NEIGHBOR))
        nearest = np.full(len(batch.numbers), np.inf)
        np.minimum.at(nearest, atoms, apart)
        ratios = nearest[np.isfinite(nearest)]
        if not len(ratios):
            self.notes.append("no atom has a neighbor: whether lengths are in Å is not known")
            return
        claim, limit = "neighbors are as far apart as atoms that touch", math.log(TOUCHING)
        ratio = float(np.median(ratios))
        if ratio == 0:
            self.state("lengths", claim, math.inf, limit, "atoms lie on top of each other")
            return
        likely = _likely("length", self.units["length"], 1 / ratio, list(LENGTH))
        hint = f"neighbors are {ratio:.2g} times as far apart as atoms that touch"
        hint += f"; lengths declared as {self.units['length']} look like {likely}" if likely else ""
        self.state("lengths", claim, abs(math.log(ratio)), limit, hint)

    def clashes(self) -> None:
        """Are no two atoms in one place?"""
        close = self.summary.closest < CLASH
        where = int(self.summary.closest.argmin())
        hint = f"in {int(close.sum())} frames atoms are closer than {CLASH} of their radii; leave these out"
        claim = "no two atoms are closer than 0.45 of the sum of their radii"
        self.state("clashes", claim, int(close.sum()), 0, hint, where)

    def energies(self, forces: Ratio) -> float:
        """Are energies in the declared unit? Returns the factor that would make them so."""
        s, declared, factor = self.summary, self.units["energy"], 1.0
        share = s.energy / s.all_electron
        low, middle, high = (float(q) for q in np.quantile(share, (0.1, 0.5, 0.9)))
        off = {name: abs(math.log(abs(middle) * ENERGY[name] / ENERGY[declared] + 1e-300)) for name in ENERGY}
        likely = min(off, key=off.__getitem__)
        if high - low < 2 * ALL_ELECTRON * middle and off[likely] < ALL_ELECTRON:
            doubtful = forces.known and abs(math.log(abs(forces.value) + 1e-300)) > math.log(RATIO_LIMIT)
            # One composition may have that size by chance, in whatever unit.
            several = len(self.content.frames) >= 3
            if likely != declared and not doubtful and not several:
                self.notes.append(
                    f"energies have the size of all-electron ones in {likely}, or of others by chance"
                )
            else:
                factor = ENERGY[likely] / ENERGY[declared]
                hint = f"energies declared as {declared} have the size of all-electron ones in {likely}"
                claim = "energies, of the size of all-electron ones, are in the declared unit"
                self.state("energy unit", claim, abs(math.log(factor)), ALL_ELECTRON, hint)
        else:
            self.notes.append("energies are not all-electron totals: their size does not tell their unit")
        worst = int(np.abs(s.residual).argmax())
        hint = "is its energy a total one like the others', in the same unit?"
        claim = "no energy is far from the sum of its atoms'"
        self.state(
            "energy outliers", claim, abs(float(s.residual[worst])), RESIDUAL_LIMIT, hint, worst, "eV/atom"
        )
        lone, gap = lone_energies(s.keys, s.energy, s.largest)
        hint = (
            f"{len(lone)} energies lie up to {gap:.3g} eV from all others of the same atoms, which lie close "
        )
        hint += "together: did these converge, and are they of the same level of theory?"
        claim = "no few energies lie far from all others of the same atoms"
        self.state("lone energies", claim, len(lone), 0, hint, int(lone[0]) if len(lone) else -1)
        return factor

    def forces(self, ratio: Ratio, energy_factor: float) -> None:
        """Are forces the slope of the energies?"""
        if not self.summary.has_forces.any():
            self.notes.append("no frame has forces")
            return
        if not ratio.known:
            self.notes.append(
                f"forces: {ratio.pairs} pairs of near configurations of the same atoms do not tell whether "
                "forces and energies are in consistent units"
            )
        else:
            value = ratio.value * energy_factor
            hint = f"an energy changes by {value:.3g} times the work of the forces"
            if value < 0:
                hint += "; forces have the sign of a gradient: declare forces_are: gradient"
            likely = _likely("forces", self.units["forces"], abs(value), FORCE_UNITS) if value else ""
            hint += f"; forces declared as {self.units['forces']} look like {likely}" if likely else ""
            off = abs(math.log(value)) if value > 0 else math.inf
            claim = "energies change by the work of the forces between near configurations"
            self.state("forces and energies", claim, off, math.log(RATIO_LIMIT), hint)
        largest = np.where(np.isnan(self.summary.largest), -1.0, self.summary.largest)
        where = int(largest.argmax())
        beyond = int((largest > FORCE_LIMIT).sum())
        hint = f"{beyond} frames have forces beyond 1 hartree/bohr; converged calculations rarely do"
        self.state(
            "large forces",
            "no force exceeds 1 hartree/bohr",
            largest[where],
            FORCE_LIMIT,
            hint,
            where,
            "eV/Å",
        )
        net = np.nan_to_num(self.summary.net)
        where = int(net.argmax())
        hint = "forces of a molecule do not add up to nothing: an atom's are missing or an outer field acts"
        claim = "forces of molecules add up to nearly nothing"
        self.state("net force", claim, net[where], NET_FORCE_LIMIT, hint, where, "eV/Å")

    def stress(self, ratio: Ratio, pairs: Pairs) -> None:
        """Is the stress the slope of the energy with strain, or has it at least the right sign?"""
        if not self.summary.has_stress.any():
            return
        strained, off = misfits(pairs)
        claim = "energies change by the work of the stress between strained configurations"
        if ratio.known:
            hint = f"an energy changes by {ratio.value:.3g} times the work of the stress; "
            hint += "its sign is opposite" if ratio.value < 0 else "declare another unit"
            value = abs(math.log(ratio.value)) if ratio.value > 0 else math.inf
            self.state("stress and energies", claim, value, math.log(RATIO_LIMIT), hint)
            if strained:
                claim = "the stress explains every strained pair"
                hint = "the slope may be right, but some pairs do not fit: is the order of the six numbers?"
                self.state("stress components", claim, off / strained, MISFIT_SHARE, hint)
            return
        correlation, frames = self._pressure()
        if math.isnan(correlation) or abs(correlation) < 0.5:
            self.notes.append("stress: no strained pairs of the same atoms; sign and unit are not known")
            return
        self.notes.append("stress: no strained pairs of the same atoms; the sign is tested, the unit is not")
        hint = "the larger the volume, the more the stress pushes outward: its sign is opposite"
        claim = f"stress grows with volume, among {frames} frames of the same atoms"
        self.state("stress sign", claim, -correlation, 0.0, hint)

    def _pressure(self) -> tuple[float, int]:
        """Return the correlation of stress with volume among frames of the same atoms, and their number."""
        s = self.summary
        good = s.has_stress & s.periodic & (s.volume > 0)
        _, place = np.unique(s.keys[good], return_inverse=True)
        if not len(place):
            return math.nan, 0
        counts = np.bincount(place)

        def centerd(x: Floats) -> Floats:
            return np.asarray(x - (np.bincount(place, x) / counts)[place])

        log_volume, stress = centerd(np.log(s.volume[good])), centerd(s.pressure[good])
        varied = np.abs(log_volume) > 0.005
        if varied.sum() < 10 or not stress[varied].any():
            return math.nan, 0
        return float(np.corrcoef(log_volume[varied], stress[varied])[0, 1]), int(varied.sum())

    def repeats(self) -> Ints:
        """Is no structure there twice, and none in two splits?"""
        s = self.summary
        pairs, complete = duplicates(self.rows, s.keys, s.exact, s.invariants, s.reach)
        if not complete:
            self.notes.append("duplicates: too many near structures to compare all; some may be missed")
        apart = np.abs(s.energy[pairs[:, 0]] - s.energy[pairs[:, 1]])
        hint = f"{len(pairs)} frames repeat an earlier one"
        if len(pairs) and apart.max() > 1e-3:
            hint += f", some with another energy (by up to {apart.max():.3g} eV): are levels of theory mixed?"
        where = int(pairs[0, 1]) if len(pairs) else -1
        self.state("duplicates", "no structure is there twice", len(pairs), 0, hint, where)
        split = self.rows.split.codes
        used = self._in(self.train, *self.held)
        across = pairs[(split[pairs[:, 0]] != split[pairs[:, 1]]) & used[pairs].all(axis=1)]
        where = int(across[0, 1]) if len(across) else -1
        hint = f"{len(across)} structures are in two splits; put the frames of a molecule in one"
        self.state("shared structures", "no structure is in two splits", len(across), 0, hint, where)
        return pairs

    def leaks(self) -> None:
        """Is no molecule in two splits, whatever it is called?"""
        s, train, others = self.summary, self._in(self.train), self._in(*self.held)
        if not others.any() or not train.any():
            return
        names, held = " and ".join(self.held), others & ~s.periodic
        if held.any():
            shared = shared_molecules(self.rows, s.composition, train & ~s.periodic, held)
            hint = f"{len(shared)} of {held.sum()} frames of {names} are of molecules that "
            hint += f"{self.train} has too"
            claim = f"{names} hold no molecule of {self.train}, told by its bonds"
            where = int(shared[0]) if len(shared) else -1
            self.state("shared molecules", claim, len(shared) / held.sum(), 0.0, hint, where)
        crystals = others & s.periodic
        if crystals.any():
            known = np.isin(s.composition[crystals], s.composition[train & s.periodic]).sum()
            self.notes.append(
                f"{known} of {crystals.sum()} crystals of {names} have a composition of {self.train}'s"
            )

    def _in(self, *splits: str) -> Bools:
        """Return which frames are in one of these splits."""
        split = self.rows.split
        found: Bools = np.isin(split.codes, [k for k, name in enumerate(split.names) if name in splits])
        return found


def check_frames(
    source: FrameSet | str | Path, *, seed: int = 0, train: str = "train", validation: str | None = "val"
) -> FrameReport:
    """Measure whether a set of labeled frames can be trained on.

    Args:
        source: the set, or a packed file, which is verified and read in pieces.
        seed: of the frames that are compared with each other.
        train: split that is learned from; validation and test must share nothing with it.
        validation: split that is judged by; None for none.

    Returns:
        Contents, statements with their limits, and what could not be tested.

    Raises:
        ValueError: a set without frames or with a frame without atoms, a file that cannot be read, or
            contents that are not those that were written.
    """
    if isinstance(source, FrameSet):
        return _check(rows_of(source), seed, train, validation)
    with FrameFile(source) as rows:
        rows.verify()
        return _check(rows, seed, train, validation)


def _check(rows: Rows, seed: int, train: str, validation: str | None) -> FrameReport:
    from ase.data import chemical_symbols

    if not len(rows):
        raise ValueError(f"frame set {rows.name!r} has no frames to check")
    empty = np.flatnonzero(np.diff(rows.offsets) == 0)
    if len(empty):
        raise ValueError(f"frame set {rows.name!r}: frame {empty[0]} has no atoms; leave it out")
    rng = np.random.default_rng(seed)
    checks = _Checks(rows, rng, train, validation)
    pairs = near_pairs(rows, checks.summary.keys, rng)
    force_ratio, stress_ratio = work_ratios(pairs)
    checks.lengths()
    checks.clashes()
    checks.forces(force_ratio, checks.energies(force_ratio))
    checks.stress(stress_ratio, pairs)
    repeated = checks.repeats()
    checks.leaks()
    counts = np.diff(rows.offsets)
    labeled = {"forces": checks.summary.has_forces, "stress": checks.summary.has_stress}
    return FrameReport(
        name=rows.name,
        level=rows.level,
        identity=rows.identity,
        frames=len(rows),
        molecules=len(rows.molecule.names),
        compositions=len(checks.content.frames),
        atoms=(int(counts.min()), float(counts.mean()), int(counts.max())),
        elements=tuple(chemical_symbols[z] for z in checks.content.elements),
        labels={"energy": len(rows), **{key: int(found.sum()) for key, found in labeled.items()}},
        splits={name: n for name, n in rows.split.counts().items() if n},
        subsets={name: n for name, n in rows.subset.counts().items() if n},
        force_scale=checks.content.force_scale,
        atom_energies=checks.atom_energies,
        forces=force_ratio,
        stress=stress_ratio,
        repeated=tuple((int(a), int(b)) for a, b in repeated[:LISTED]),
        statements=tuple(checks.statements),
        notes=tuple(checks.notes),
    )
