"""Commands that run protocols on models and show what came out: run, plan, report, compare, demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from sfumato.commands.options import PlanOptions, RunOptions, given, options_of
from sfumato.commands.screen import DONE, PARTIAL, progress, say

if TYPE_CHECKING:
    from sfumato.protocols.protocol import Protocol, Run

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

DEMO_LOOKED_AT = ("gfn2-xtb", "mindscaip-nano", "lj-direct-noise")
"""A real method, a trained model and a broken one, which are probed and simulated too."""

DEMO: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("bsct", DEMO_MODELS, {"workers": 2}),
    (
        "contract",
        DEMO_MODELS,
        {"quick": True, "periodic": False, "workers": 0},
    ),  # workers take longer to start
    ("probes", DEMO_LOOKED_AT, {"size": "dev", "elements": "H,C,N,O", "workers": 2}),
    ("nve", DEMO_LOOKED_AT, {"size": "dev", "data": "ethanol", "repeat": 100, "workers": 2}),
)
"""Protocols of the demo, their models and options."""


def register(app: App, extra: str = "") -> None:
    """Add the commands.

    Args:
        app: of the program.
        extra: a protocol that a user names by file or package, "file.py:factory"; empty for none.
    """
    from sfumato.protocols.table import PROTOCOLS, find_protocol

    run = App(name="run", help="Run a protocol on models and data; resumes where it stopped.")
    plan = App(name="plan", help="Print what a run would take, from a few timed structures.")
    table = dict(PROTOCOLS) | ({extra: find_protocol(extra)} if extra else {})
    for name, protocol in table.items():
        run.command(_run_command(protocol), name=name)
        plan.command(_plan_command(protocol), name=name)
    for part in (run, plan):
        app.command(part)
    app.command(_run_command(PROTOCOLS["errors"]), name="eval")
    for command in (report, compare, demo):
        app.command(command)


def _run_command(protocol: Protocol) -> Any:
    def command(*, options: Any) -> int:
        return run_protocol(protocol, options)

    return _described(command, protocol.summary, options_of(protocol.settings, RunOptions))


def _plan_command(protocol: Protocol) -> Any:
    def command(*, options: Any) -> int:
        return plan_protocol(protocol, options)

    summary = f"Print {protocol.unit} and estimated time of `sfumato run {protocol.name}`."
    return _described(command, summary, options_of(protocol.settings, PlanOptions))


def _described(command: Any, summary: str, options: type[PlanOptions]) -> Any:
    command.__doc__ = summary
    command.__annotations__ = {"options": Annotated[options, Parameter(name="*")], "return": int}
    return command


def run_protocol(protocol: Protocol, options: RunOptions) -> int:
    """Run a protocol; print its tables."""
    from sfumato.files import write_json
    from sfumato.protocols.run import load_others

    result = _run(protocol, options)
    others, unread = load_others(options.out or result.folder, result)
    _say_verdicts([result, *others])
    _say_run(result)
    for reason in unread:
        say(f"not part of the verdict: {reason}")
    for name, reason in result.stopped.items():
        say(f"{name}: {reason}")
    say(f"records: {result.folder}   full report: sfumato report {result.folder}")
    if options.json:
        write_json(options.json, result.as_json(others))
    return DONE if result.complete else PARTIAL


def _say_run(run: Run) -> None:
    say(run.protocol.tables(run))
    for line in run.remarks:
        say(f"warning: {line}")


def _say_verdicts(runs: Sequence[Run]) -> None:
    from sfumato.protocols.overview import verdict_table

    table = verdict_table(runs)
    if table is not None:
        say(table)


def _run(protocol: Protocol, options: RunOptions) -> Run:
    from sfumato.config import read_settings
    from sfumato.jobs.perform import Way
    from sfumato.protocols.run import run

    return run(
        protocol,
        options.model,
        options.data,
        settings=read_settings(protocol.settings, options.config, **given(options, protocol.settings)),
        out=options.out,
        way=Way(
            options.pool(),
            options.retry_failed,
            options.fresh,
            options.keep_going,
            lambda name: progress(name, protocol.unit),
        ),
        device=options.device,
        dtype=options.dtype,
    )


def plan_protocol(protocol: Protocol, options: PlanOptions) -> int:
    """Print what a run would take."""
    from sfumato.commands.plan_table import plan_table
    from sfumato.config import read_settings
    from sfumato.execution.pool import effective_workers
    from sfumato.protocols.run import plan

    costs = plan(
        protocol,
        options.model,
        options.data,
        settings=read_settings(protocol.settings, options.config, **given(options, protocol.settings)),
        out=options.out,
        device=options.device,
        dtype=options.dtype,
    )
    workers = effective_workers(options.workers, options.threads)
    say(plan_table(costs, protocol.unit, options.workers, workers))
    return DONE


def _one_thread() -> None:
    """Compute small molecules with one thread each: several wait for each other longer than they compute."""
    import os

    from sfumato.execution.worker import THREAD_VARIABLES

    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")


def report(
    paths: Annotated[
        list[Path] | None,
        Parameter(help="Run folders, or folders that hold several; default runs.", negative=""),
    ] = None,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help="Default: PATH/report.html.")] = None,
    table: Annotated[Path | None, Parameter(help="Also write the table: .csv, .md or .tex.")] = None,
    figures: Annotated[Path | None, Parameter(help="Also write every figure to this folder.")] = None,
) -> int:
    """Print the verdicts and tables of finished runs and write one offline HTML report."""
    from sfumato.execution.folder import MANIFEST, find_runs
    from sfumato.protocols.overview import report_pages
    from sfumato.protocols.run import load_run
    from sfumato.report.html import write_report
    from sfumato.training.page import curve_page, curve_table, find_logs

    paths = paths or [Path("runs")]
    runs: dict[Path, Run] = {}
    curves = []
    for path in paths:
        logs = find_logs(path)
        if logs:
            say(curve_table(logs))
            curves.append(curve_page(logs))
        for folder in find_runs(path) if not logs or any(path.rglob(MANIFEST)) else []:
            runs.setdefault(folder.path.resolve(), load_run(folder.path))
    everything = list(runs.values())
    _say_verdicts(everything)
    for run in everything:
        _say_run(run)
    pages = [*report_pages(everything), *curves]
    if table:
        _write_table(everything, table, paths)
    say(f"report: {write_report(pages, out or paths[0] / 'report.html')}")
    if figures:
        from sfumato.report.export import write_figures

        for file in write_figures([figure for page in pages for figure in page.figures], figures):
            say(f"figure: {file}")
    return DONE if all(run.complete for run in everything) else PARTIAL


def _write_table(runs: list[Run], table: Path, paths: Sequence[Path]) -> None:
    if len(runs) != 1:
        raise ValueError(f"--table takes one run; {', '.join(map(str, paths))} holds {len(runs)}")
    runs[0].protocol.write_table(runs[0], table)
    say(f"table: {table}")


def compare(
    path: Annotated[Path, Parameter(help="A run folder with at least two models.")],
    *,
    metric: Annotated[str | None, Parameter(help="Which number to compare (docs/metrics.md).")] = None,
) -> int:
    """Compare the models of a run pair by pair, with intervals of the paired differences."""
    from sfumato.protocols.run import load_run

    run = load_run(path)
    say(run.protocol.compare(run, metric))
    return DONE


def demo(*, out: Annotated[Path, Parameter(help="Folder for records and report.")] = Path("demo")) -> int:
    """Run the main job on bundled data: real methods and broken ones side by side, and who is caught."""
    from sfumato.protocols.overview import report_pages
    from sfumato.protocols.table import PROTOCOLS
    from sfumato.report.html import write_report

    _one_thread()
    results = []
    for name, models, more in DEMO:
        protocol = PROTOCOLS[name]
        options = options_of(protocol.settings, RunOptions)
        results.append(_run(protocol, options(model=list(models), out=out, **more)))  # type: ignore[arg-type]
    _say_verdicts(results)
    for result in results:
        _say_run(result)
    written = write_report(report_pages(results), out / "report.html")
    say(f"\nOpen this file in a browser: {written.resolve()}")
    return DONE if all(result.complete for result in results) else PARTIAL
