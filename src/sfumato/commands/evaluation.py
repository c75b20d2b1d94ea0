"""The command that measures errors on labeled structures, and reports of any kind of run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from sfumato.commands.screen import DONE, PARTIAL, progress, say

if TYPE_CHECKING:
    from sfumato.protocols.run import BsctRun


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Which models on which frames, and how to run it.

    Args:
        model: a name from `sfumato list`, a .safetensors file, file.py:factory, package.module:factory, or
            NAME=SPEC; repeat for several.
        data: a named data set, a packed .h5 file, or with --source a file of labeled structures.
        source: YAML that says what the labels of that file are, as for `sfumato data convert`.
        split: train, val, test or all; default test, else val, else all.
        limit_per_subset: only the first K frames of each subset.
        turned: frames that are also predicted turned, for the rotational error.
        out: run folder; default runs/eval-<data set>.
        workers: worker processes.
        threads: threads of each worker.
        timeout: seconds one task may take.
        retry_failed: evaluate failed frames again.
        json: also write the results as JSON to this file.
    """

    model: Annotated[list[str], Parameter(negative="")]
    data: str = "organic-mini"
    source: Path | None = None
    split: str | None = None
    limit_per_subset: int | None = None
    turned: int = 100
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None
    workers: int = 1
    threads: int = 1
    timeout: float | None = None
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    json: Path | None = None


def evaluate(options: EvalOptions) -> int:
    """Measure errors of models on labeled structures; print the tables."""
    from sfumato.config import read_settings
    from sfumato.execution.pool import PoolSettings
    from sfumato.files import write_json
    from sfumato.protocols.errors.analysis import Settings
    from sfumato.protocols.errors.run import Source, run_eval
    from sfumato.protocols.errors.tables import error_table

    run = run_eval(
        options.model,
        Source(options.data, options.source, options.split, options.limit_per_subset),
        out=options.out,
        settings=read_settings(Settings, turned=options.turned),
        pool=PoolSettings(options.workers, options.threads, options.timeout),
        retry_failed=options.retry_failed,
        watch=lambda name: progress(name, "frames"),
    )
    say(error_table(run))
    say(f"records: {run.folder}   parity plots: sfumato report {run.folder}")
    if options.json:
        write_json(options.json, run.as_json())
    return DONE if run.complete else PARTIAL


def report(path: Path, out: Path | None, table: Path | None) -> int:
    """Print the tables of every run at or below a path and write HTML: of scans, of errors, of training."""
    from sfumato.execution.folder import MANIFEST, find_runs
    from sfumato.protocols.errors.analysis import NAME
    from sfumato.protocols.errors.page import errors_page
    from sfumato.protocols.errors.run import load_eval
    from sfumato.protocols.errors.tables import error_table
    from sfumato.protocols.run import load_bsct
    from sfumato.report.html import write_page
    from sfumato.training.page import curve_page, curve_table, find_logs

    logs = find_logs(path)
    if logs:
        say(curve_table(logs))
        say(f"report: {write_page(curve_page(logs), path / 'training.html')}")
    folders = find_runs(path) if not logs or any(path.rglob(MANIFEST)) else []
    errors = [load_eval(f.path) for f in folders if f.manifest().get("protocol") == NAME]
    scans = [load_bsct(f.path) for f in folders if f.manifest().get("protocol") != NAME]
    for run in errors:
        say(error_table(run))
        page = out if out and len(folders) == 1 else run.folder / "report.html"
        say(f"report: {write_page(errors_page(run), page)}")
    if table and len(scans) != 1:
        raise ValueError(f"--table takes one run of scans; {path} holds {len(scans)}")
    if scans:
        _report_scans(scans, out or path / "report.html", table)
    complete = [run.complete for run in errors] + [run.complete for run in scans]
    return DONE if all(complete) else PARTIAL


def _report_scans(runs: list[BsctRun], out: Path, table: Path | None) -> None:
    from sfumato.commands.runs import show_run
    from sfumato.protocols.bsct.export import write_table
    from sfumato.protocols.bsct.page import bsct_page
    from sfumato.report.html import write_page
    from sfumato.report.tables import bond_table

    for run in runs:
        show_run(run)
        say(bond_table(run))
        if table:
            write_table(run, table)
            say(f"table: {table}")
    say(f"report: {write_page(bsct_page(runs), out)}")
