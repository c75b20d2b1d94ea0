"""Formation energies of point defects and barriers of their hops: `sfumato run diffusion`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.protocols.diffusion.settings import Settings
from sfumato.protocols.protocol import Protocol, Run

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.protocols.diffusion.analysis import ModelDefects
    from sfumato.protocols.diffusion.data import Crystal
    from sfumato.report.html import Page


class Diffusion(Protocol):
    """Make point defects in a crystal, relax them, and find the barriers of their hops."""

    name = "diffusion"
    version = 1
    summary = "Point defects of a crystal: formation energies, and barriers of their hops."
    settings = Settings
    data = "Si"
    unit = "defects"

    def read(self, data: str | Path, settings: Settings) -> Crystal:
        """See Protocol."""
        from sfumato.protocols.diffusion.data import read_crystal

        return read_crystal(data)

    def plan(self, data: Crystal, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.diffusion.analysis import tasks

        return [task for _, task in tasks(data, settings)]

    def analyse(
        self, data: Crystal, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelDefects:
        """See Protocol."""
        from sfumato.protocols.diffusion import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.diffusion.tables import defect_tables

        return defect_tables(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.diffusion.page import diffusion_page

        return diffusion_page(runs)
