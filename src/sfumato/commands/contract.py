"""The command that runs a potential through the contract."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from sfumato.commands.options import Flat
from sfumato.commands.screen import DONE, PARTIAL, say

if TYPE_CHECKING:
    from sfumato.testing import Progress


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What the potential is tested on.

    Args:
        elements: of the test structures, one to four, for example Au Pt; default the first of a few sets that
            the model knows.
        periodic: crystals and slabs must work, or are left out; default: tested if the model takes them.
        reach: Å to which atoms are pulled apart in search of a cutoff; default 8.
        seed: of displacements, rotations and orders; default 0.
        json: also write the result as JSON to this file.
    """

    elements: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None
    periodic: Annotated[bool | None, Parameter(negative="--no-periodic")] = None
    reach: float | None = None
    seed: int | None = None
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
    """Run a potential through the contract: symmetries, derivatives, smoothness; exit 0 if it holds."""
    from rich.console import Console

    from sfumato.config import read_settings
    from sfumato.files import write_json
    from sfumato.potentials.specs import resolve
    from sfumato.testing import Settings
    from sfumato.testing import check as run
    from sfumato.testing.tables import contract_table

    asked = {name: getattr(options, name) for name in ("elements", "periodic", "reach", "seed")}
    settings = read_settings(Settings, **asked)
    console = Console(stderr=True)

    def show(progress: Progress) -> None:
        status.update(f"{progress.done}/{progress.total} {progress.check}, {progress.evaluations} structures")

    with console.status("") as status:
        report = run(resolve(model), settings=settings, watch=show)
    say(contract_table(report))
    if options.json:
        write_json(options.json, report.as_json())
    return DONE if report.passed else PARTIAL
