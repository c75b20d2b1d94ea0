"""What each command does: one library call, and what a person sees of it. Returns the exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.pool import Executor
    from sfumato.execution.runner import Watch
    from sfumato.protocols.bsct import Settings
    from sfumato.protocols.run import BsctRun
    from sfumato.protocols.sample import Sampling
    from sfumato.protocols.scan_build import Recipe
    from sfumato.reference.engines import Engine

DONE, PARTIAL = 0, 1
DEMO_MODELS = ("gfn2-xtb", "gfn1-xtb", "morse", "lj", "lj-hard-cutoff", "lj-neighbour-cap", "lj-direct-noise")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which models on which scans.

    Args:
        model: a name from `sfumato list`, file.py:factory, package.module:factory, or NAME=SPEC; repeat
            for several.
        data: a named data set, a packed .h5 file, or a folder in the released layout.
        out: run folder; default runs/bsct-<data set>.
        workers: worker processes.
        limit_per_bond: only the first K scans of each bond type.
        config: YAML file of test settings (docs/protocols.md).
    """

    model: Annotated[list[str], Parameter(negative="")]
    data: str = "bsct-mini"
    out: Path | None = None
    workers: int = 1
    limit_per_bond: int | None = None
    config: Path | None = None

    def settings(self) -> Settings:
        """The test settings of the config file, or the defaults."""
        from sfumato.config import read_settings
        from sfumato.protocols.bsct import Settings

        return read_settings(Settings, self.config)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Selection):
    """Selection, and how to run it.

    Args:
        threads: threads of each worker.
        timeout: seconds one task may take.
        retry_failed: evaluate failed frames again.
        json: also write the results as JSON to this file.
    """

    threads: int = 1
    timeout: float | None = None
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    json: Path | None = None


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
    """

    engine: str = "tblite"
    level: str = "GFN2-xTB"
    store: Path | None = None
    executor: str = "local"
    workers: int = 1
    threads: int = 1
    timeout: float | None = None
    memory: float | None = None
    recycle: int = 0
    retry_failed: Annotated[bool, Parameter(negative="")] = False

    def made(self) -> Engine:
        """The engine."""
        from sfumato.reference.engines import make_engine

        return make_engine(self.engine, self.level)

    def hands(self) -> Executor:
        """What does the work."""
        from sfumato.execution.parsl import ParslSettings
        from sfumato.execution.pool import PoolSettings

        pool = PoolSettings(self.workers, self.threads, self.timeout, self.recycle, self.memory)
        return pool if self.executor == "local" else ParslSettings(Path(self.executor), pool)


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
    frames: int = 100
    per_type: int | None = None
    seed: int = 0
    hysteresis: Annotated[bool, Parameter(negative="")] = False
    licence: str = "unspecified"

    def recipe(self) -> Recipe:
        """The recipe of the set."""
        from sfumato.protocols.scan_build import Recipe

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

    conformers: int = 2
    temperatures: Annotated[list[float] | None, Parameter(negative="")] = None
    thermal: int = 2
    snapshots: int = 1
    scans: int = 3
    seed: int = 0
    licence: str = "unspecified"

    def made(self) -> Sampling:
        """The sampling."""
        from sfumato.protocols.sample import Sampling

        settings = {"temperatures": tuple(self.temperatures)} if self.temperatures else {}
        return Sampling(
            conformers=self.conformers,
            thermal=self.thermal,
            snapshots=self.snapshots,
            scans=self.scans,
            seed=self.seed,
            **settings,
        )


def run_bsct(options: RunOptions) -> int:
    """Evaluate models on bond scans; print the table."""
    from sfumato.execution.folder import write_json
    from sfumato.execution.pool import PoolSettings

    result = _run(options, PoolSettings(options.workers, options.threads, options.timeout))
    _show_run(result)
    _say(f"records: {result.folder}   full report: sfumato report {result.folder}")
    if options.json:
        write_json(options.json, result.as_json())
    return DONE if result.complete else PARTIAL


def _run(options: RunOptions, pool: Any) -> BsctRun:
    from sfumato.protocols.run import run_bsct as run

    return run(
        options.model,
        options.data,
        out=options.out,
        settings=options.settings(),
        limit_per_bond=options.limit_per_bond,
        pool=pool,
        retry_failed=options.retry_failed,
        watch=lambda name: _progress(name, "frames"),
    )


def plan_bsct(selection: Selection) -> int:
    """Print frames and estimated time of a run."""
    from sfumato.protocols.run import plan_bsct as plan
    from sfumato.report.tables import plan_table

    costs = plan(
        selection.model,
        selection.data,
        out=selection.out,
        settings=selection.settings(),
        limit_per_bond=selection.limit_per_bond,
    )
    _say(plan_table(costs, selection.workers))
    return DONE


def report(path: Path, out: Path | None, table: Path | None) -> int:
    """Print the tables of every run at or below a path and write one HTML file."""
    from sfumato.execution.folder import find_runs
    from sfumato.protocols.run import load_bsct
    from sfumato.report.export import write_table
    from sfumato.report.html import write_report
    from sfumato.report.tables import bond_table

    runs = [load_bsct(folder.path) for folder in find_runs(path)]
    if table and len(runs) > 1:
        raise ValueError(f"--table takes one run; {path} holds {len(runs)}: {runs[0].folder}, …")
    for run in runs:
        _show_run(run)
        _say(bond_table(run))
        if table:
            write_table(run, table)
            _say(f"table: {table}")
    written = write_report(runs, out or path / "report.html")
    _say(f"report: {written}")
    return DONE if all(run.complete for run in runs) else PARTIAL


def compare(path: Path, metric: str) -> int:
    """Print the paired differences between the models of a run."""
    from sfumato.protocols.run import load_bsct
    from sfumato.report.tables import comparison_table

    _say(comparison_table(load_bsct(path), metric))
    return DONE


def data_list() -> int:
    """Print the named data sets."""
    from sfumato import datasets
    from sfumato.report.tables import rows_table

    rows = [
        (name, datasets.status(name), entry.level, entry.licence, entry.description)
        for name, entry in datasets.DATASETS.items()
    ]
    _say(rows_table(("data set", "status", "level of theory", "licence", "what"), rows))
    return DONE


def data_get(name: str) -> int:
    """Download, verify and pack a data set."""
    from sfumato import datasets

    with _download(name) as progress:
        path = datasets.get(name, progress)
    _say(f"{name}: {path}")
    return DONE


def data_import(name: str, path: Path) -> int:
    """Verify and pack a data set from a local archive or folder."""
    from sfumato import datasets

    _say(f"{name}: {datasets.import_(name, path)}")
    return DONE


def data_check(name: str, json: Path | None) -> int:
    """Print the quality statements of a data set."""
    from sfumato import datasets
    from sfumato.execution.folder import write_json
    from sfumato.reference.quality import check_scans
    from sfumato.report.tables import quality_table

    entry = datasets.DATASETS.get(name)
    quality = check_scans(datasets.load(name), dict(entry.counts) if entry else None)
    _say(quality_table(quality))
    if json:
        write_json(json, quality.as_json())
    return DONE if quality.passed else PARTIAL


def scan_build(molecules: Path, out: Path, options: LabelOptions, recipe: RecipeOptions) -> int:
    """Build a set of scans; print what was made and what was left out."""
    from sfumato.io import read_molecules
    from sfumato.protocols.scan_build import build_scans
    from sfumato.report.tables import exclusion_table

    built = build_scans(
        read_molecules(molecules, seed=recipe.seed),
        options.made(),
        out,
        recipe.recipe(),
        store=options.store,
        executor=options.hands(),
        retry_failed=options.retry_failed,
        watch=lambda what: _progress(what, "frames"),
    )
    if built.excluded:
        _say(exclusion_table(built.excluded))
    missing = sum(int((~scan.labelled).sum()) for scan in built.scan_set)
    frames = sum(len(scan) for scan in built.scan_set)
    _say(f"{out}: {len(built.scan_set)} scans, {frames - missing} of {frames} frames labelled")
    return DONE if not missing else PARTIAL


def plan_scan(molecules: Path, options: LabelOptions, recipe: RecipeOptions) -> int:
    """Print how many points a set of scans takes, and how long."""
    from sfumato.execution import campaign
    from sfumato.io import read_molecules
    from sfumato.protocols.scan_build import lay_out
    from sfumato.report.tables import campaign_table, exclusion_table

    found = read_molecules(molecules, seed=recipe.seed)
    geometry = lay_out(found, recipe.recipe())
    if excluded := (*found.rejected, *geometry.excluded):
        _say(exclusion_table(excluded))
    seconds = campaign.estimate(geometry.frames, options.made(), threads=options.threads)
    _say(campaign_table(geometry, seconds, options.workers, options.threads))
    return DONE


def label(structures: Path, out: Path, options: LabelOptions) -> int:
    """Label structures; print what could not be labelled."""
    from sfumato.io import read_molecules
    from sfumato.protocols.label import label_structures
    from sfumato.protocols.scan_build import default_store
    from sfumato.report.tables import exclusion_table

    labelled = label_structures(
        read_molecules(structures),
        options.made(),
        out,
        store=options.store or default_store(out),
        executor=options.hands(),
        retry_failed=options.retry_failed,
        watch=_progress(options.level, "structures"),
    )
    if labelled.failed:
        _say(exclusion_table(labelled.failed))
    written = f"{out}: " if labelled.count else ""
    _say(f"{written}{labelled.count} of {labelled.count + len(labelled.failed)} structures labelled")
    return DONE if not labelled.failed else PARTIAL


def data_sample(molecules: str, out: Path, options: LabelOptions, sampling: SamplingOptions) -> int:
    """Make a training set; print what is in it and what was left out."""
    from sfumato.io import read_molecules
    from sfumato.protocols.sample import ORGANIC, RECIPES, Recipe, sample
    from sfumato.report.tables import exclusion_table
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
        executor=options.hands(),
        retry_failed=options.retry_failed,
        watch=_progress,
    )
    if excluded:
        _say(exclusion_table(excluded))
    splits = ", ".join(f"{count} {name}" for name, count in frames.split.counts().items())
    _say(f"{out}: {len(frames)} frames of {len(frames.molecule.names)} molecules ({splits})")
    return DONE


def list_names() -> int:
    """Print the names that can be used."""
    from sfumato.potentials.specs import describe
    from sfumato.report.tables import rows_table

    _say(rows_table(("model", "what", "needs"), describe()))
    return data_list()


def demo(out: Path) -> int:
    """Evaluate real methods and broken ones on bundled scans, write a report and say where."""
    from sfumato.execution.pool import PoolSettings
    from sfumato.report.html import write_report

    result = _run(RunOptions(model=list(DEMO_MODELS), out=out, workers=2), PoolSettings(workers=2))
    _show_run(result)
    written = write_report([result], out / "report.html")
    _say(f"\nOpen this file in a browser: {written.resolve()}")
    return DONE if result.complete else PARTIAL


def _show_run(run: BsctRun) -> None:
    from sfumato.report.tables import failure_table, model_table

    _say(model_table(run))
    if not run.complete:
        _say(failure_table(run))


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Watch]:
    """Show progress while a block runs, and one closing line."""
    from sfumato.execution.progress import ProgressLine

    with ProgressLine(what, unit) as line:
        yield line
    line.finish()


@contextmanager
def _download(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show the bytes of a download."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _say(content: RenderableType) -> None:
    from rich.console import Console

    Console().print(content, highlight=False, soft_wrap=isinstance(content, str))
