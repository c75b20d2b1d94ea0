"""Static probes of any potential: jumps, holes, wrong forces, diatomics: `sfumato run probes`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.protocols.probes.settings import Settings
from sfumato.protocols.protocol import Protocol, Run

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.jobs.models import Model
    from sfumato.protocols.probes.analysis import ModelProbes
    from sfumato.protocols.probes.data import Structures
    from sfumato.protocols.verdict import Answer
    from sfumato.report.html import Page


class Probes(Protocol):
    """Look for jumps, holes and wrong forces where they are likely to be."""

    name = "probes"
    version = 1
    summary = "Static probes: jumps of the surface, holes in its wall, forces against energy, diatomics."
    settings = Settings
    data = "organic-mini"
    unit = "probes"
    stated = False  # most structures are made here, each in its lowest spin state

    def read(self, data: str | Path, settings: Settings) -> Structures:
        """See Protocol."""
        from sfumato.protocols.probes.data import read_structures

        return read_structures(data)

    def settle_for(self, model: Model, data: Structures, settings: Settings) -> Settings:
        """Decide with which elements a model is probed, and how far apart its atoms are pulled."""
        from ase.data import chemical_symbols

        from sfumato.protocols.probes.elements import elements_of, reach_of

        elements = elements_of(model.potential, data, settings.numbers)
        names = ",".join(chemical_symbols[z] for z in elements)
        return settings.model_copy(update={"elements": names, "reach": reach_of(model.potential, settings)})

    def plan(self, data: Structures, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.probes.plan import probes

        return [probe.task for probe in probes(data, settings)]

    def analyse(
        self, data: Structures, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelProbes:
        """See Protocol."""
        from sfumato.protocols.probes import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def describe(self, data: Structures) -> dict[str, Any]:
        """See Protocol."""
        return {"level": data.level, "structures": len(data)}

    def answers(self, run: Run, name: str) -> Sequence[Answer]:
        """See Protocol."""
        from sfumato.protocols.probes.verdict import answers

        return answers(run.models[name])

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.probes.tables import probe_tables

        return probe_tables(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.probes.page import probes_page

        return probes_page(runs)
