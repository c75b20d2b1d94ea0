"""Commands that make reference data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from sfumato.commands.options import Count, Flat, Size
from sfumato.commands.screen import DONE, PARTIAL, progress, say

if TYPE_CHECKING:
    from sfumato.campaigns.campaign import CampaignOptions
    from sfumato.campaigns.samples import Sampling
    from sfumato.campaigns.scans import Recipe
    from sfumato.potentials.engines import Engine


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """At which level of theory to label, and where the work is done.

    Args:
        engine: reference engine.
        level: level of theory, as the engine names it.
        store: folder of the labels, which campaigns may share; default OUT.campaign.
        executor: "local", or a Python file that defines a Parsl `config` (docs/campaigns.md).
        workers: local worker processes.
        threads: threads of each worker.
        timeout: seconds one point may take.
        memory: GiB one worker may use.
        recycle: points after which a worker is replaced by a fresh one.
        retry_failed: label failed points again.
        fresh: set earlier labels of this level in the store aside, begin anew, and replace the file OUT.
        keep_going: go on where everything fails for one reason.
    """

    engine: str = "tblite"
    level: str = "GFN2-xTB"
    store: Path | None = None
    executor: str = "local"
    workers: Count = 1
    threads: Count = 1
    timeout: float | None = None
    memory: float | None = None
    recycle: Size = 0
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    fresh: Annotated[bool, Parameter(negative="")] = False
    keep_going: Annotated[bool, Parameter(negative="")] = False

    def made(self) -> Engine:
        """The engine."""
        from sfumato.potentials.engines import make_engine

        return make_engine(self.engine, self.level)

    def campaign(self) -> CampaignOptions:
        """Who does the work, what is repeated, when to stop."""
        from sfumato.campaigns.campaign import CampaignOptions
        from sfumato.execution.parsl import ParslSettings
        from sfumato.execution.pool import PoolSettings

        pool = PoolSettings(self.workers, self.threads, self.timeout, self.recycle, self.memory)
        executor = pool if self.executor == "local" else ParslSettings(Path(self.executor), pool)
        return CampaignOptions(executor, self.retry_failed, self.fresh, self.keep_going)


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """Which scans to make.

    Args:
        coordinate: bond, angle or torsion.
        types: the types wanted, for example C-O; repeat for several; default the nine published bond types,
            and all of everything else.
        frames: frames per scan.
        per_type: scans sampled per type; default all.
        seed: of conformers and sampling.
        hysteresis: also follow every scan there and back with orbital reuse.
        licence: of the new data.
    """

    coordinate: str = "bond"
    types: Annotated[list[str] | None, Parameter(negative="")] = None
    frames: Count = 100
    per_type: Count | None = None
    seed: Size = 0
    hysteresis: Annotated[bool, Parameter(negative="")] = False
    licence: str = "unspecified"

    def recipe(self) -> Recipe:
        """The recipe of the set."""
        from sfumato.campaigns.scans import Recipe

        types = tuple(self.types) if self.types else None
        return Recipe(
            self.licence, self.coordinate, types, self.frames, self.per_type, self.seed, self.hysteresis
        )


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Which frames to make of each molecule or crystal; a named set has its own.

    Args:
        conformers: at most so many minima.
        temperatures: K, of thermal displacements; repeat for several; default 100, 300, 600 and 1000.
        thermal: frames at each temperature.
        snapshots: frames of short dynamics at 300 and at 1000 K.
        scans: frames with one bond stretched or compressed.
        seed: of conformers, displacements and split.
        licence: of the new data.
    """

    conformers: Count = 2
    temperatures: Annotated[list[float] | None, Parameter(negative="")] = None
    thermal: Size = 2
    snapshots: Size = 1
    scans: Size = 3
    seed: Size = 0
    licence: str = "unspecified"

    def made(self) -> Sampling:
        """The sampling."""
        from sfumato.campaigns.samples import Sampling

        return Sampling(
            temperatures=tuple(self.temperatures or Sampling().temperatures),
            conformers=self.conformers,
            thermal=self.thermal,
            snapshots=self.snapshots,
            scans=self.scans,
            seed=self.seed,
        )


Molecules = Annotated[Path, Parameter(help="SMILES (.smi), SDF, XYZ, or anything that ASE reads.")]
File = Annotated[Path, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")]
LABELING, RECIPE, SAMPLING = LabelOptions(), RecipeOptions(), SamplingOptions()


def register(app: App) -> None:
    """Add the commands."""
    scan = App(name="scan", help="Build scans at a level of theory of your own.")
    scan.command(scan_build, name="build")
    app.command(scan)
    app["plan"].command(plan_scan, name="scan")
    app["data"].command(data_sample, name="sample")
    app.command(label)


def scan_build(
    molecules: Molecules,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The file to write: .h5, .xyz or .extxyz.")],
    options: Annotated[LabelOptions, Flat] = LABELING,
    recipe: Annotated[RecipeOptions, Flat] = RECIPE,
) -> int:
    """Turn molecules into labeled scans by the published rules; continues where it stopped."""
    from sfumato.campaigns.scans import build_scans
    from sfumato.commands.data_tables import exclusion_table
    from sfumato.io import read_molecules

    found = read_molecules(molecules, seed=recipe.seed)
    built = build_scans(
        found,
        options.made(),
        out,
        recipe.recipe(),
        store=options.store,
        options=options.campaign(),
        watch=lambda what: progress(what, "frames"),
    )
    if built.excluded:
        say(exclusion_table(built.excluded))
    missing = sum(int((~scan.labeled).sum()) for scan in built.scan_set)
    frames = sum(len(scan) for scan in built.scan_set)
    say(f"{out}: {len(built.scan_set)} scans, {frames - missing} of {frames} frames labeled")
    return DONE if not missing and not found.rejected else PARTIAL


def plan_scan(
    molecules: Molecules,
    *,
    options: Annotated[LabelOptions, Flat] = LABELING,
    recipe: Annotated[RecipeOptions, Flat] = RECIPE,
) -> int:
    """Print points and core-hours of a set of scans, from a few timed points."""
    from sfumato.campaigns import campaign
    from sfumato.campaigns.scans import lay_out
    from sfumato.commands.data_tables import campaign_table, exclusion_table
    from sfumato.execution.pool import effective_workers
    from sfumato.io import read_molecules

    found = read_molecules(molecules, seed=recipe.seed)
    geometry = lay_out(found, recipe.recipe())
    if excluded := (*found.rejected, *geometry.excluded):
        say(exclusion_table(excluded))
    seconds = campaign.estimate(geometry.frames, options.made(), threads=options.threads)
    here = options.executor == "local"
    effective = effective_workers(options.workers, options.threads) if here else options.workers
    say(campaign_table(geometry, seconds, options.workers, options.threads, effective))
    return DONE


def label(
    structures: Molecules,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The file to write: .xyz, .extxyz, or .h5.")],
    options: Annotated[LabelOptions, Flat] = LABELING,
) -> int:
    """Compute energies and forces of structures at a level of theory; continues where it stopped."""
    from sfumato.campaigns.label import label_structures
    from sfumato.campaigns.scans import default_store
    from sfumato.commands.data_tables import exclusion_table
    from sfumato.io import read_molecules

    labeled = label_structures(
        read_molecules(structures),
        options.made(),
        out,
        store=options.store or default_store(out),
        options=options.campaign(),
        watch=progress(options.level, "structures"),
    )
    if labeled.failed:
        say(exclusion_table(labeled.failed))
    written = f"{out}: " if labeled.count else ""
    say(f"{written}{labeled.count} of {labeled.count + len(labeled.failed)} structures labeled")
    return DONE if not labeled.failed else PARTIAL


def data_sample(
    molecules: Annotated[
        str, Parameter(help="A named training set (organic-mini, organic-20k), or molecules.")
    ],
    *,
    out: File,
    options: Annotated[LabelOptions, Flat] = LABELING,
    sampling: Annotated[SamplingOptions, Flat] = SAMPLING,
) -> int:
    """Make a labeled training set around molecules or crystals; continues where it stopped."""
    from sfumato.campaigns.samples import ORGANIC, RECIPES, Recipe, sample
    from sfumato.commands.data_tables import exclusion_table
    from sfumato.io import read_molecules
    from sfumato.words import nearest

    named = RECIPES.get(molecules)
    if named is None and not Path(molecules).is_file():
        raise ValueError(
            f"{molecules}: neither a file nor a named training set; {nearest(molecules, RECIPES)}"
        )
    frames, excluded = sample(
        read_molecules(ORGANIC if named else Path(molecules), seed=sampling.seed),
        options.made(),
        out,
        named or Recipe(sampling.licence, sampling.made(), seed=sampling.seed),
        store=options.store,
        options=options.campaign(),
        watch=progress,
    )
    if excluded:
        say(exclusion_table(excluded))
    splits = ", ".join(f"{count} {name}" for name, count in frames.split.counts().items())
    say(f"{out}: {len(frames)} frames of {len(frames.molecule.names)} molecules ({splits})")
    return DONE
