"""Dynamics hotter than any training set: spikes of the kinetic temperature, survival: `sfumato run heat`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sfumato.protocols.heat.settings import Settings
from sfumato.protocols.simulated import Simulated

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.datasets.structures import Setups
    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.protocols.heat.analysis import ModelHeat
    from sfumato.protocols.protocol import Run
    from sfumato.protocols.verdict import Answer
    from sfumato.report.html import Page


class Heat(Simulated):
    """Relax, equilibrate, heat: where bonds break, forces must stay what a surface has."""

    name = "heat"
    version = 1
    summary = "Langevin dynamics at 2000 K and more: sudden changes of the kinetic temperature, survival."
    settings = Settings

    def plan(self, data: Setups, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.heat import analysis

        return analysis.plan(data, settings)

    def analyse(
        self, data: Setups, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelHeat:
        """See Protocol."""
        from sfumato.protocols.heat import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def answers(self, run: Run, name: str) -> Sequence[Answer]:
        """See Protocol."""
        from sfumato.protocols.heat.verdict import answers

        return answers(run.models[name])

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.heat.tables import heat_table

        return heat_table(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.heat.page import heat_page

        return heat_page(runs)
