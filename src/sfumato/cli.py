"""The command line: argument parsing only; every command is one call into `sfumato.commands`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from sfumato import __version__

USER_ERROR = 2

app = App(
    name="sfumato",
    help="Measure how smooth a machine-learned interatomic potential is.",
    version=f"sfumato {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
)
run = App(name="run", help="Run a protocol on models and data; resumes where it stopped.")
plan = App(name="plan", help="Print what a run would take, from a few timed frames.")
data = App(name="data", help="List, fetch, import and check data sets.")
scan = App(name="scan", help="Build bond scans at a level of theory of your own.")
for part in (run, plan, data, scan):
    app.command(part)

Models = Annotated[
    list[str],
    Parameter(
        name="--model",
        negative="",
        help="A model: a name from `sfumato list`, file.py:factory, package.module:factory, or NAME=SPEC. "
        "Repeat for several.",
    ),
]
Data = Annotated[
    str,
    Parameter(name="--data", help="A named data set, a packed .h5 file, or a folder in the released layout."),
]
Out = Annotated[Path | None, Parameter(name="--out", help="Run folder; default runs/bsct-<data set>.")]
Limit = Annotated[
    int | None, Parameter(name="--limit-per-bond", help="Only the first K scans of each bond type.")
]
Config = Annotated[
    Path | None, Parameter(name="--config", help="YAML file of test settings (docs/protocols.md).")
]
Workers = Annotated[int, Parameter(name="--workers", help="Worker processes.")]
Threads = Annotated[int, Parameter(name="--threads", help="Threads of each worker.")]


@run.command(name="bsct")
def run_bsct(
    *,
    model: Models,
    data: Data = "bsct-mini",
    out: Out = None,
    workers: Workers = 1,
    threads: Threads = 1,
    limit_per_bond: Limit = None,
    config: Config = None,
    json: Annotated[Path | None, Parameter(help="Also write the results as JSON to this file.")] = None,
    timeout: Annotated[float | None, Parameter(help="Seconds one frame may take.")] = None,
    retry_failed: Annotated[bool, Parameter(negative="", help="Evaluate failed frames again.")] = False,
) -> int:
    """Bond Smoothness Characterization Test: predict bond scans, measure how smooth the prediction is."""
    from sfumato import commands

    return commands.run_bsct(
        model,
        data,
        commands.RunOptions(out, workers, threads, limit_per_bond, config, json, timeout, retry_failed),
    )


@plan.command(name="bsct")
def plan_bsct(
    *,
    model: Models,
    data: Data = "bsct-mini",
    out: Out = None,
    workers: Workers = 1,
    limit_per_bond: Limit = None,
    config: Config = None,
) -> int:
    """Print the frames and the estimated minutes of a BSCT run; nothing is run but a few timed frames."""
    from sfumato import commands

    return commands.plan_bsct(
        model,
        data,
        commands.RunOptions(out=out, workers=workers, limit_per_bond=limit_per_bond, config=config),
    )


@app.command
def report(
    path: Annotated[Path, Parameter(help="A run folder, or a folder that holds several.")] = Path("runs"),
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="HTML file; default report.html in PATH.")
    ] = None,
) -> int:
    """Print the table of finished runs and write one offline HTML report."""
    from sfumato import commands

    return commands.report(path, out)


@app.command
def compare(
    path: Annotated[Path, Parameter(help="A run folder with at least two models.")],
    *,
    metric: Annotated[str, Parameter(help="Which number to compare (docs/metrics.md).")] = "fsd_full",
) -> int:
    """Compare the models of a run scan by scan, with intervals of the paired differences."""
    from sfumato import commands

    return commands.compare(path, metric)


@data.command(name="list")
def data_list() -> int:
    """Show the named data sets and whether they are here."""
    from sfumato import commands

    return commands.data_list()


@data.command(name="get")
def data_get(name: str) -> int:
    """Download a data set, verify it and pack it."""
    from sfumato import commands

    return commands.data_get(name)


@data.command(name="import")
def data_import(name: str, path: Path) -> int:
    """Verify and pack a data set from a local archive or folder in the released layout."""
    from sfumato import commands

    return commands.data_import(name, path)


@data.command(name="check")
def data_check(
    name: Annotated[str, Parameter(help="A named data set or a path to scans.")],
    *,
    json: Annotated[Path | None, Parameter(help="Also write the report as JSON to this file.")] = None,
) -> int:
    """Measure the quality of a data set's labels: missing frames, grid, work against energy, net force."""
    from sfumato import commands

    return commands.data_check(name, json)


@scan.command(name="build")
def scan_build(
    molecules: Annotated[Path, Parameter(help="Structures with name and smiles, for example extended XYZ.")],
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")],
    engine: Annotated[str, Parameter(help="tblite.")] = "tblite",
    level: Annotated[str, Parameter(help="Level of theory, as the engine names it.")] = "GFN2-xTB",
    licence: Annotated[str, Parameter(help="Licence of the new data.")] = "unspecified",
    frames: Annotated[int, Parameter(help="Frames per scan.")] = 100,
    per_bond: Annotated[int | None, Parameter(help="Scans sampled per bond type; default all.")] = None,
    seed: Annotated[int, Parameter(help="Seed of the sampling.")] = 0,
    workers: Workers = 1,
    threads: Threads = 1,
) -> int:
    """Turn molecules into labelled bond scans: bridge bonds, frames, clash filter, sampling, labels."""
    from sfumato import commands

    options = commands.BuildOptions(engine, level, licence, frames, per_bond, seed, workers, threads)
    return commands.scan_build(molecules, out, options)


@app.command(name="list")
def list_names() -> int:
    """Show the names that can be used: models, data sets, protocols."""
    from sfumato import commands

    return commands.list_names()


@app.command
def demo(
    *, out: Annotated[Path, Parameter(help="Folder for the records and the report.")] = Path("demo")
) -> int:
    """Run the main job on bundled data: a real method and broken ones side by side, one HTML report."""
    from sfumato import commands

    return commands.demo(out)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 some items failed, 2 bad input, 128 + n stopped by a signal."""
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str] | None) -> int:
    from sfumato.execution.runner import Stopped

    try:
        result: Any = app(
            arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        return _complain(str(error))
    except Stopped as stopped:
        print(f"stopped by {stopped}; the same command continues where it was", file=sys.stderr)  # noqa: T201
        return stopped.exit_code
    except ValueError as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"{error.filename or 'operating system'}: {error.strerror or error}")
    return result if isinstance(result, int) else 0


def _complain(message: str) -> int:
    print(f"sfumato: {message.strip()}", file=sys.stderr)  # noqa: T201
    return USER_ERROR
