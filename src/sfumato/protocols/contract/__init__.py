"""The contract as a protocol: `sfumato run contract`; for one model alone there is `sfumato check`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.protocols.contract.settings import Settings
from sfumato.protocols.protocol import Protocol, Run, Size

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.protocols.contract.analysis import ModelContract
    from sfumato.protocols.contract.data import Structures
    from sfumato.protocols.verdict import Answer
    from sfumato.report.html import Page


class ContractProtocol(Protocol):
    """Run models through the contract: symmetries, derivatives, jumps."""

    name = "contract"
    version = 1
    summary = "The contract that every potential must keep: symmetries, derivatives, jumps."
    settings = Settings
    data = "standard"
    unit = "checks"

    def sized(self, size: Size) -> tuple[str, dict[str, Any]]:
        """See Protocol; in the small sizes a quarter of the structures."""
        return self.data, {"quick": size != "standard"}

    def read(self, data: str | Path, settings: Settings) -> Structures:
        """See Protocol."""
        from sfumato.protocols.contract.data import read_structures

        return read_structures(data)

    def plan(self, data: Structures, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.contract import analysis

        return analysis.plan(data, settings)

    def analyse(
        self, data: Structures, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelContract:
        """See Protocol."""
        from sfumato.protocols.contract import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def describe(self, data: Structures) -> dict[str, Any]:
        """See Protocol."""
        return {"level": data.level, "structures": len(data.own)}

    def answers(self, run: Run, name: str) -> Sequence[Answer]:
        """See Protocol."""
        from sfumato.protocols.contract.analysis import answers

        return list(answers(run.models[name]))

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.contract.tables import run_tables

        return run_tables(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.contract.page import contract_page

        return contract_page(runs)
