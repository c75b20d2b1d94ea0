"""The command that runs a potential through the contract."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from sfumato.commands.options import Flat, Size
from sfumato.commands.screen import DONE, PARTIAL, say

if TYPE_CHECKING:
    from sfumato.systems import System
    from sfumato.testing import Progress

UNCHECKED = 3
"""Exit code: nothing is known to be broken, but the process ended or time was up before all was checked."""

LINE_SECONDS = 30.0
"""How often a line is written where there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What the potential is tested on.

    Args:
        elements: of the test structures, one to four, for example Au Pt; default the first of a few sets that
            the model knows.
        periodic: crystals and slabs must work, or are left out; default: tested if the model takes them.
        structures: your own structures, checked too: any file that ASE reads.
        quick: a quarter of the structures; some checks are left out.
        explain: also print what each check means and where its tolerance comes from.
        budget: seconds after which the rest is left unchecked; exit code 3.
        device: cpu, cuda or cuda:1; default: where the model computes by itself.
        dtype: float32 or float64; default: as the model was made.
        reach: Å to which atoms are pulled apart in search of a cutoff; default 8.
        seed: of displacements, rotations and orders; default 0.
        json: also write the result as JSON to this file.
    """

    elements: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None
    periodic: Annotated[bool | None, Parameter(negative="--no-periodic")] = None
    structures: Path | None = None
    quick: Annotated[bool, Parameter(negative="")] = False
    explain: Annotated[bool, Parameter(negative="")] = False
    budget: float | None = None
    device: str = ""
    dtype: str = ""
    reach: float | None = None
    seed: Size | None = None
    json: Path | None = None


CHECKING = CheckOptions()


def register(app: App) -> None:
    """Add the command."""
    app.command(check)


def check(
    model: Annotated[str, Parameter(help="A name, file.py:factory, or mindscaip:nano; see `sfumato list`.")],
    *,
    options: Annotated[CheckOptions, Flat] = CHECKING,
) -> int:
    """Run a potential through the contract: symmetries, derivatives, smoothness.

    Exit 0 if it holds, 1 if it is broken, 3 if it could not be checked to the end.
    """
    from sfumato.config import read_settings
    from sfumato.execution.runner import stop_signals
    from sfumato.files import write_json
    from sfumato.potentials.specs import ModelSpec
    from sfumato.testing import Settings
    from sfumato.testing.apart import check_apart
    from sfumato.testing.tables import contract_table

    if options.budget is not None and not options.budget > 0:
        raise ValueError(f"budget: seconds > 0 are needed, got {options.budget:g}")
    asked = {name: getattr(options, name) for name in ("elements", "periodic", "reach", "seed")}
    settings = read_settings(Settings, **asked, quick=options.quick)
    own = _own(options.structures)
    spec = ModelSpec(model, options.device, options.dtype)
    with stop_signals(), _shown(model) as watch:
        report = check_apart(spec, settings=settings, structures=own, budget=options.budget, watch=watch)
    say(contract_table(report, reasons=options.explain))
    if options.json:
        write_json(options.json, report.as_json())
    if report.broken:
        return PARTIAL
    return DONE if report.passed else UNCHECKED


def _own(path: Path | None) -> list[System]:
    from sfumato.io import read_systems

    if path is None:
        return []
    found = read_systems(path)
    if not found:
        raise ValueError(f"{path}: holds no structure")
    return found


@contextmanager
def _shown(model: str) -> Iterator[Callable[[Progress], None]]:
    """Show how far the contract is: a line that changes on a terminal, a new one every so often elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield lambda progress: status.update(Text(_told(model, progress)))
        return
    spoke = time.monotonic()

    def line(progress: Progress) -> None:
        nonlocal spoke
        if time.monotonic() - spoke > LINE_SECONDS:
            spoke = time.monotonic()
            print(_told(model, progress), file=sys.stderr, flush=True)  # noqa: T201 (this is the display)

    yield line


def _told(model: str, progress: Progress) -> str:
    from sfumato.words import duration

    left = progress.seconds_left
    rest = "" if left is None else f", about {duration(left)} left"
    where = f"{progress.done}/{progress.total} checks, {progress.evaluations} structures{rest}"
    return f"{model}: {progress.check} · {where}"
