"""The command that runs a potential through the contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.commands.screen import DONE, PARTIAL, say

if TYPE_CHECKING:
    from sfumato.testing import Progress


def check(model: str, json: Path | None) -> int:
    """Run a potential through the contract; print what passed and failed."""
    from rich.console import Console

    from sfumato.execution.folder import write_json
    from sfumato.potentials.specs import resolve
    from sfumato.report.contract import contract_table
    from sfumato.testing import check as run

    console = Console(stderr=True)

    def show(progress: Progress) -> None:
        status.update(f"{progress.done}/{progress.total} {progress.check}, {progress.evaluations} structures")

    with console.status("") as status:
        report = run(resolve(model), watch=show)
    say(contract_table(report))
    if json:
        write_json(json, report.as_json())
    return DONE if report.passed else PARTIAL
