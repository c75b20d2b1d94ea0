"""The command line: argument parsing only; every command is one call into `sfumato.commands`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from sfumato import __version__, commands

USER_ERROR = 2

app = App(
    name="sfumato",
    help="Measure how smooth a machine-learned interatomic potential is.",
    version=f"sfumato {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
run = App(name="run", help="Run a protocol on models and data; resumes where it stopped.")
plan = App(name="plan", help="Print what a run would take, from a few timed frames.")
data = App(name="data", help="List, fetch, make and check data sets.")
scan = App(name="scan", help="Build scans at a level of theory of your own.")
for part in (run, plan, data, scan):
    app.command(part)

Json = Annotated[Path | None, Parameter(help="Also write the result as JSON to this file.")]
Molecules = Annotated[Path, Parameter(help="SMILES (.smi), SDF, XYZ, or anything that ASE reads.")]
Flat = Parameter(name="*")
LABELING, RECIPE, SAMPLING = commands.LabelOptions(), commands.RecipeOptions(), commands.SamplingOptions()
CHECKING, TRAINING = commands.CheckOptions(), commands.TrainOptions()


@app.command
def demo(*, out: Annotated[Path, Parameter(help="Folder for records and report.")] = Path("demo")) -> int:
    """Run the main job on bundled data: real methods and broken ones side by side."""
    return commands.demo(out)


@app.command
def check(
    model: Annotated[str, Parameter(help="A name, file.py:factory, or mindscaip:nano; see `sfumato list`.")],
    *,
    options: Annotated[commands.CheckOptions, Flat] = CHECKING,
) -> int:
    """Run a potential through the contract: symmetries, derivatives, smoothness; exit 0 if it holds."""
    return commands.check(model, options)


@run.command(name="bsct")
def run_bsct(*, options: Annotated[commands.RunOptions, Flat]) -> int:
    """Bond Smoothness Characterization Test: predict bond scans, measure their smoothness."""
    return commands.run_bsct(options)


@plan.command(name="bsct")
def plan_bsct(*, selection: Annotated[commands.Selection, Flat]) -> int:
    """Print frames and estimated minutes of a BSCT run, from a few timed frames."""
    return commands.plan_bsct(selection)


@app.command
def report(
    path: Annotated[Path, Parameter(help="A run folder, or a folder that holds several.")] = Path("runs"),
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help="Default: PATH/report.html.")] = None,
    table: Annotated[Path | None, Parameter(help="Also write the table: .csv, .md or .tex.")] = None,
) -> int:
    """Print the tables of finished runs and write one offline HTML report."""
    return commands.report(path, out, table)


@app.command
def compare(
    path: Annotated[Path, Parameter(help="A run folder with at least two models.")],
    *,
    metric: Annotated[str, Parameter(help="Which number to compare (docs/metrics.md).")] = "fsd_full",
) -> int:
    """Compare the models of a run scan by scan, with intervals of the paired differences."""
    return commands.compare(path, metric)


@data.command(name="list")
def data_list() -> int:
    """Show the named data sets and whether they are here."""
    return commands.data_list()


@data.command(name="get")
def data_get(name: str) -> int:
    """Download a data set, verify it and pack it."""
    return commands.data_get(name)


@data.command(name="import")
def data_import(name: str, path: Path) -> int:
    """Verify and pack a data set from a local archive or folder in the released layout."""
    return commands.data_import(name, path)


@data.command(name="check")
def data_check(name: str, *, json: Json = None) -> int:
    """Measure the quality of labels: missing frames, grid, work against energy, net force."""
    return commands.data_check(name, json)


@data.command(name="convert")
def data_convert(
    files: Annotated[list[str], Parameter(help="FILE, or train=FILE val=FILE test=FILE.", negative="")],
    *,
    source: Annotated[Path, Parameter(help="YAML: what the files are and mean (docs/training.md).")],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")],
) -> int:
    """Convert labeled structures of others into a packed training set."""
    return commands.data_convert(files, source, out)


@data.command(name="sample")
def data_sample(
    molecules: Annotated[
        str, Parameter(help="A named training set (organic-mini, organic-20k), or molecules.")
    ],
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")],
    options: Annotated[commands.LabelOptions, Flat] = LABELING,
    sampling: Annotated[commands.SamplingOptions, Flat] = SAMPLING,
) -> int:
    """Make a labeled training set around molecules or crystals; continues where it stopped."""
    return commands.data_sample(molecules, out, options, sampling)


@scan.command(name="build")
def scan_build(
    molecules: Molecules,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")],
    options: Annotated[commands.LabelOptions, Flat] = LABELING,
    recipe: Annotated[commands.RecipeOptions, Flat] = RECIPE,
) -> int:
    """Turn molecules into labeled scans by the published rules; continues where it stopped."""
    return commands.scan_build(molecules, out, options, recipe)


@plan.command(name="scan")
def plan_scan(
    molecules: Molecules,
    *,
    options: Annotated[commands.LabelOptions, Flat] = LABELING,
    recipe: Annotated[commands.RecipeOptions, Flat] = RECIPE,
) -> int:
    """Print points and core-hours of a set of scans, from a few timed points."""
    return commands.plan_scan(molecules, options, recipe)


@app.command
def label(
    structures: Molecules,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The extended XYZ file to write.")],
    options: Annotated[commands.LabelOptions, Flat] = LABELING,
) -> int:
    """Compute energies and forces of structures at a level of theory; continues where it stopped."""
    return commands.label(structures, out, options)


@app.command
def train(
    config: Annotated[Path, Parameter(help="YAML: model, data and stages (docs/training.md).")],
    *,
    options: Annotated[commands.TrainOptions, Flat] = TRAINING,
) -> int:
    """Train a model; resumes where it stopped."""
    return commands.train(config, options)


@app.command(name="eval")
def evaluate(*, options: Annotated[commands.EvalOptions, Flat]) -> int:
    """Errors of energies and forces on labeled structures, by subset; resumes by content."""
    return commands.evaluate(options)


@app.command(name="list")
def list_names() -> int:
    """Show the models and data sets that can be named."""
    return commands.list_names()


def main(arguments: list[str] | None = None) -> None:
    """Run and exit: 0 done, 1 some items failed, 2 bad input, 128 + n stopped by signal n."""
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: list[str] | None) -> int:
    from sfumato.execution.runner import Stopped

    try:
        result: Any = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
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
