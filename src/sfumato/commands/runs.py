"""Commands that evaluate models and show what came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sfumato.commands.screen import DONE, PARTIAL, progress, say

if TYPE_CHECKING:
    from sfumato.protocols.bsct.analysis import Settings
    from sfumato.protocols.run import BsctRun

DEMO_MODELS = (
    "gfn2-xtb",
    "gfn1-xtb",
    "mindscaip-nano",
    "morse",
    "lj",
    "lj-hard-cutoff",
    "lj-neighbor-cap",
    "lj-direct-noise",
)


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
        from sfumato.protocols.bsct.analysis import Settings

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


def run_bsct(options: RunOptions) -> int:
    """Evaluate models on bond scans; print the table."""
    from sfumato.execution.pool import PoolSettings
    from sfumato.files import write_json

    result = _run(options, PoolSettings(options.workers, options.threads, options.timeout))
    show_run(result)
    say(f"records: {result.folder}   full report: sfumato report {result.folder}")
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
        watch=lambda name: progress(name, "frames"),
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
    say(plan_table(costs, selection.workers))
    return DONE


def compare(path: Path, metric: str) -> int:
    """Print the paired differences between the models of a run."""
    from sfumato.protocols.run import load_bsct
    from sfumato.report.tables import comparison_table

    say(comparison_table(load_bsct(path), metric))
    return DONE


def demo(out: Path) -> int:
    """Evaluate real methods and broken ones on bundled scans, write a report and say where."""
    from sfumato.execution.pool import PoolSettings
    from sfumato.protocols.bsct.page import bsct_page
    from sfumato.report.html import write_page

    result = _run(RunOptions(model=list(DEMO_MODELS), out=out, workers=2), PoolSettings(workers=2))
    show_run(result)
    written = write_page(bsct_page([result]), out / "report.html")
    say(f"\nOpen this file in a browser: {written.resolve()}")
    return DONE if result.complete else PARTIAL


def show_run(run: BsctRun) -> None:
    from sfumato.report.tables import failure_table, model_table

    say(model_table(run))
    if not run.complete:
        say(failure_table(run))
