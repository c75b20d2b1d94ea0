"""Errors of forces on atoms that are migrating, where diffusion happens: `sfumato run rare-events`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.protocols.protocol import Protocol, Run
from sfumato.protocols.rare_events.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.records import Record
    from sfumato.io.rare_events import RareEvents
    from sfumato.jobs.job import Task
    from sfumato.protocols.rare_events.analysis import ModelScores
    from sfumato.report.html import Page


class RareEventErrors(Protocol):
    """Predict snapshots in which a defect migrates, compare the forces on the migrating atoms with DFT."""

    name = "rare-events"
    version = 1
    summary = "Errors of forces on migrating atoms: magnitude, direction, and how they are distributed."
    settings = Settings
    data = "silicon-rare-events"
    unit = "snapshots"

    def read(self, data: str | Path, settings: Settings) -> RareEvents:
        """See Protocol."""
        from sfumato.protocols.rare_events.data import read_events

        return read_events(data)

    def plan(self, data: RareEvents, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.rare_events import analysis

        return analysis.plan(data, settings)

    def analyse(
        self, data: RareEvents, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelScores:
        """See Protocol."""
        from sfumato.protocols.rare_events import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def describe(self, data: RareEvents) -> dict[str, Any]:
        """See Protocol."""
        return {"level": data.level, "snapshots": {one.name: len(one) for one in data.sets}}

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.rare_events.tables import score_tables

        return score_tables(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.rare_events.page import rare_events_page

        return rare_events_page(runs)
