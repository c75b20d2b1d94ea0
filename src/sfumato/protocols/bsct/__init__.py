"""The Bond Smoothness Characterization Test (Liu et al. 2026, section 3): `sfumato run bsct`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.protocol import Protocol, Run, Size

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.protocols.bsct.analysis import ModelResult
    from sfumato.protocols.verdict import Answer
    from sfumato.report.html import Page
    from sfumato.systems import ScanSet


class BSCT(Protocol):
    """Predict bond scans, measure how smooth the prediction is."""

    name = "bsct"
    version = 2
    reads = (1,)
    summary = "Bond Smoothness Characterization Test: predict bond scans, measure their smoothness."
    settings = Settings
    data = "bsct-mini"
    unit = "frames"
    packs = "evaluate"

    def sized(self, size: Size) -> tuple[str, dict[str, Any]]:
        """See Protocol; small molecules hide what larger ones show, so the standard size has those."""
        return "bsct-medium" if size == "standard" else self.data, {}

    def read(self, data: str | Path, settings: Settings) -> ScanSet:
        """See Protocol."""
        from sfumato.datasets import named
        from sfumato.datasets.labeled import header_of

        if data not in named.DATASETS and header_of(data) is not None:
            from sfumato.datasets.scans_xyz import read_scans_xyz

            return read_scans_xyz(data)
        return named.load(data)

    def plan(self, data: ScanSet, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.bsct import analysis

        return analysis.plan(data, settings)

    def analyse(
        self, data: ScanSet, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelResult:
        """See Protocol."""
        from sfumato.protocols.bsct import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def pack(self, result: ModelResult, records: Path) -> dict[str, Any]:
        """See Protocol."""
        from sfumato.protocols.bsct.packing import pack

        return pack(result, records)

    def unpack(
        self, packed: Any, data: ScanSet, name: str, identity: str, settings: Settings, records: Path
    ) -> ModelResult:
        """See Protocol."""
        from sfumato.protocols.bsct.packing import unpack

        return unpack(packed, data, name, identity, settings, records)

    def describe(self, data: ScanSet) -> dict[str, Any]:
        """See Protocol."""
        return {"level": data.level, "scans": len(data)}

    def settings_json(self, settings: Settings) -> dict[str, Any]:
        """See Protocol."""
        return super().settings_json(settings) | {"fsd_name": settings.fsd.name}

    def answers(self, run: Run, name: str) -> Sequence[Answer]:
        """See Protocol."""
        from sfumato.protocols.bsct.verdict import answers

        return answers(run.models[name], run.settings[name])

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.bsct.tables import run_tables

        return run_tables(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.bsct.page import bsct_page

        return bsct_page(runs)

    def figure(self, run: Run) -> Figure:
        """See Protocol."""
        from sfumato.protocols.bsct.figures import fsd_figure

        return fsd_figure(run)

    def compare(self, run: Run, metric: str | None) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.bsct.tables import comparison_table

        return comparison_table(run, metric)

    def write_table(self, run: Run, path: Path) -> None:
        """See Protocol."""
        from sfumato.protocols.bsct.export import write_table

        write_table(run, path)
