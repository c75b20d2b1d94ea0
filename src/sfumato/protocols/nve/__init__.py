"""Energy conservation in dynamics at constant energy, and who is to blame: `sfumato run nve`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sfumato.protocols.nve.settings import Settings
from sfumato.protocols.simulated import Simulated

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.datasets.structures import Setups
    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.protocols.nve.analysis import ModelConservation
    from sfumato.protocols.protocol import Run
    from sfumato.protocols.verdict import Answer
    from sfumato.report.html import Page


class NVE(Simulated):
    """Relax, give velocities, let go: energy must stay what it is."""

    name = "nve"
    version = 1
    summary = "Energy conservation in dynamics at constant energy, and who is to blame."
    settings = Settings

    def plan(self, data: Setups, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.nve import analysis

        return analysis.plan(data, settings)

    def analyse(
        self, data: Setups, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelConservation:
        """See Protocol."""
        from sfumato.protocols.nve import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def answers(self, run: Run, name: str) -> Sequence[Answer]:
        """See Protocol."""
        from sfumato.protocols.nve.verdict import answers

        return answers(run.models[name])

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.nve.tables import nve_table

        return nve_table(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.nve.page import nve_page

        return nve_page(runs)
