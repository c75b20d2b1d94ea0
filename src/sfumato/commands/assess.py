"""The command that runs the whole battery on one model: assess, and what it would take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from sfumato.commands.options import Count, Flat, Out
from sfumato.commands.screen import DONE, PARTIAL, progress, say

if TYPE_CHECKING:
    from sfumato.execution.pool import PoolSettings
    from sfumato.jobs.perform import Way
    from sfumato.protocols.battery import Assessment
    from sfumato.protocols.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class CostOptions:
    """How much, and where.

    Args:
        size: dev (a look), fast, or standard (the published amount).
        out: folder of all runs; default runs/assess-MODEL.
        device: cpu, cuda, cuda:1, or several with commas between; workers are spread over them.
        dtype: float32 or float64, of models that have a choice.
        workers: worker processes.
        threads: threads of each worker.
    """

    size: Literal["dev", "fast", "standard"] = "fast"
    out: Out = None
    device: str = ""
    dtype: str = ""
    workers: Count = 1
    threads: Count = 1


@dataclass(frozen=True, kw_only=True)
class AssessOptions(CostOptions):
    """The same, and how to run it.

    Args:
        timeout: seconds one task may take.
        retry_failed: work again on what failed before.
        fresh: set earlier records of this model aside and begin anew.
        keep_going: go on where everything fails for one reason.
        json: also write the results as JSON to this file.
    """

    timeout: float | None = None
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    fresh: Annotated[bool, Parameter(negative="")] = False
    keep_going: Annotated[bool, Parameter(negative="")] = False
    json: Path | None = None

    def pool(self) -> PoolSettings:
        """Who does the work."""
        from sfumato.execution.pool import PoolSettings

        return PoolSettings(self.workers, self.threads, self.timeout)


Spec = Annotated[
    str, Parameter(help="A name, file.py:factory, a model file, or NAME=SPEC; see `sfumato list`.")
]
COSTING, ASSESSING = CostOptions(), AssessOptions()


def register(app: App) -> None:
    """Add the commands."""
    app.command(assess)
    app["plan"].command(plan_assess, name="assess")


def assess(model: Spec, *, options: Annotated[AssessOptions, Flat] = ASSESSING) -> int:
    """Ask a model everything: contract, scans, probes, dynamics; one verdict with its reasons, one page.

    Exit 0 if every protocol was run to the end, whatever it says; 1 if some items have no result.
    """
    from sfumato.files import write_json
    from sfumato.protocols.battery import assess as run_battery
    from sfumato.protocols.overview import question_table, report_pages, verdict_table
    from sfumato.report.html import write_report

    def way(protocol: Protocol) -> Way:
        from sfumato.jobs.perform import Way

        return Way(
            options.pool(),
            options.retry_failed,
            options.fresh,
            options.keep_going,
            lambda name: progress(f"{protocol.name}: {name}", protocol.unit),
        )

    found = run_battery(
        model, options.size, out=options.out, way=way, device=options.device, dtype=options.dtype
    )
    table = verdict_table(found.runs)
    if table is not None:
        say(table)
    say(question_table(found.verdict))
    for line in _unfinished(found):
        say(line)
    if found.runs:
        page = write_report(report_pages(found.runs), found.folder / "report.html")
        say(f"report: {page}   tables: sfumato report {found.folder}")
    if options.json:
        write_json(options.json, found.as_json())
    return DONE if found.complete else PARTIAL


def _unfinished(found: Assessment) -> list[str]:
    """Say what could not be run, or not to the end."""
    lines = [f"{protocol} could not be run: {reason}" for protocol, reason in found.failed.items()]
    for run in found.runs:
        lines += [f"{run.protocol.name}: {reason}" for reason in run.stopped.values()]
        n, total = next((model.coverage for model in run.models.values()), (0, 0))
        lines += [f"{run.protocol.name}: {n} of {total} have a result"] if n < total else []
    return lines


def plan_assess(model: Spec, *, options: Annotated[CostOptions, Flat] = COSTING) -> int:
    """Print what `sfumato assess` would take, from a few timed structures of each protocol."""
    from sfumato.commands.plan_table import battery_table
    from sfumato.execution.pool import effective_workers
    from sfumato.protocols.battery import plan_assessment

    costs = plan_assessment(model, options.size, out=options.out, device=options.device, dtype=options.dtype)
    workers = effective_workers(options.workers, options.threads)
    say(battery_table(costs, options.workers, workers))
    return DONE
