"""What protocols that simulate structures share: reading them, how each starts, what does not count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.protocols.protocol import Protocol, Run

if TYPE_CHECKING:
    from sfumato.datasets.structures import Setup, Setups
    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.jobs.trajectory import Start
    from sfumato.report.tables import Failures

MOST_FORCE = 10.0
"""eV/Å that a relaxation may leave: a surface that jumps lets nothing come to rest, and is to be blamed."""


class Simulated(Protocol):
    """A protocol on structures that move; its settings have a `size` and are stated by `settled`."""

    data = "molecules"
    unit = "trajectories"

    def read(self, data: str | Path, settings: Any) -> Setups:
        """See Protocol."""
        from sfumato.datasets.structures import load_structures

        return load_structures(data, settings.size)

    def settle(self, data: Setups, settings: Any) -> Any:
        """State what the size decides."""
        return settings.settled()

    def describe(self, data: Setups) -> dict[str, Any]:
        """See Protocol."""
        return {"level": data.level, "structures": len(data)}


def start_of(setup: Setup, kelvin: float, seed: int) -> Start:
    """Return a structure that is to move at a temperature in K."""
    from sfumato.jobs.frames import Frame
    from sfumato.jobs.trajectory import Start

    return Start(**Frame.of(setup.system).__dict__, seed=seed, kelvin=kelvin)


def relaxation(task: Task) -> Task:
    """Return what comes before a trajectory."""
    first = task.job.before(task.frame)
    assert first is not None
    return first


def reason_of(*records: Record | None) -> str:
    """Return why the first record that failed did; empty where none did."""
    return next(
        (str(record["reason"]) for record in records if record is not None and record["status"] != "ok"), ""
    )


def failures(items: Mapping[str, Mapping[str, Any]]) -> list[Failures]:
    """Return what does not count by model and reason, the most frequent first.

    Args:
        items: model → name → what has a `status` and a `reason`.
    """
    from sfumato.report.tables import group_failures

    return group_failures(
        (model, one.reason, name)
        for model, ones in items.items()
        for name, one in ones.items()
        if one.status != "ok"
    )


def whole_cell(n: int) -> str:
    """Return a cell of an HTML table with a whole number."""
    return f'<td data-value="{n}">{n}</td>'


def provenance(run: Run) -> str:
    """Return the HTML of where structures, models and settings come from."""
    from html import escape

    from sfumato.report import html
    from sfumato.report.tables import settings_by_model
    from sfumato.words import count

    protocol = run.protocol
    each_one = {name: protocol.settings_json(settings) for name, settings in run.settings.items()}
    block = html.provenance_block(
        run.data,
        count(len(run.data), "structure"),
        run.manifest,
        run.folder,
        {"protocol": protocol.name, "version": protocol.version} | settings_by_model(each_one),
        {name: model.identity for name, model in run.models.items()},
    )
    rows = [
        f"<th>{escape(setup.name)}</th>{whole_cell(len(setup.system))}"
        f"{html.number_cell(setup.kelvin)}{html.words_cell(setup.source)}"
        for setup in run.data
    ]
    titles = (("structure", True), ("atoms", False), ("K", False), ("source", True))
    head = [html.heading(title, words=words) for title, words in titles]
    return block + html.folded("Structures", html.table(head, rows, ""))
