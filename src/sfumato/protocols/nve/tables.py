"""Tables of the energy-conservation test, for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.protocols import simulated
from sfumato.protocols.nve.analysis import Conserved, ModelConservation
from sfumato.report.numbers import Metric, number
from sfumato.report.tables import (
    Failures,
    coverage_cell,
    estimate_cell,
    failure_table,
    plain_table,
    settings_note,
)
from sfumato.words import count

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate
    from sfumato.protocols.protocol import Run

METRICS = (
    Metric(
        "drift",
        "drift",
        "meV/atom/ps",
        "Size of the slope of the energy, from the mean of the first tenth of a run to that of the last; of "
        "the shadow energy, which velocity Verlet conserves better than the energy itself.",
    ),
    Metric(
        "end_error",
        "end-to-end error",
        "meV/atom",
        "|E(end) − E(start)|, the published number; the first half-step of velocity Verlet is part of it.",
    ),
    Metric(
        "drift_ratio",
        "drift / σ(K)",
        "",
        "The drift over the whole run in units of the fluctuations of the kinetic energy.",
    ),
    Metric("scatter", "scatter", "meV/atom", "Standard deviation of the energy about its drift."),
    Metric("step_jump", "largest step", "meV/atom", "Largest change of the energy in a single step."),
    Metric(
        "unexplained_jump",
        "unexplained",
        "meV",
        "Largest change of the potential energy in an interval that the work of the force does not explain, "
        "at a quarter of the step: of a structure, not per atom, since a jump is somewhere.",
    ),
    Metric(
        "unexplained_drift",
        "unexplained drift",
        "meV/atom/ps",
        "Sum of what work leaves unexplained, over the run: the part of a drift that is not the "
        "integrator's.",
    ),
)
"""Every number over structures."""

SHOWN_ELSEWHERE = ("time", "repeat", "size")
"""Settings that are part of the first line."""


def nve_table(run: Run) -> RenderableType:
    """Return drift and culprit of every model, and every structure."""
    head = Text(f"{run.protocol.name} v{run.protocol.version} · {' · '.join(facts(run))}\n", style="bold")
    parts: list[RenderableType] = [head, _models(run), Text(), _structures(run)]
    if failures(run):
        totals = {name: model.coverage[1] for name, model in run.models.items()}
        parts += [Text(), failure_table(failures(run), "structures", totals)]
    return Group(*parts)


def facts(run: Run) -> list[str]:
    """Return what the run was, in words."""
    times = dict.fromkeys(f"{settings.time:g} ps" for settings in run.settings.values())
    return [run.data.name, count(len(run.data), "structure"), " or ".join(times)]


def _models(run: Run) -> RenderableType:
    table = plain_table("Energy at constant energy")
    table.add_column("model", overflow="fold")
    table.add_column("ok", justify="right", no_wrap=True)
    for metric in METRICS[:2]:
        table.add_column(metric.heading, justify="right")
    table.add_column("culprit", overflow="fold")
    for name, model in run.models.items():
        cells = [estimate_cell(metric.of(model.estimates), model.coverage[0]) for metric in METRICS[:2]]
        table.add_row(Text(name), coverage_cell(*model.coverage), *cells, _culprit(model))
    note = settings_note(run.settings, SHOWN_ELSEWHERE)
    caption = "Mean over structures [95 % interval from blocks of the runs]." + (f"\n{note}" if note else "")
    table.caption = Text(caption)
    return table


def _culprit(model: ModelConservation) -> Text:
    culprit, _, reason = model.blame
    if not model.done:
        return Text("n/a", style="dim")
    return Text(culprit) if culprit == "none" else Text.assemble((culprit, "bold red"), f": {reason}")


def _structures(run: Run) -> RenderableType:
    several = len(run.models) > 1
    table = plain_table("Every structure" + ("" if several else f": {next(iter(run.models), '')}"))
    table.add_column("structure", overflow="fold")
    if several:
        table.add_column("model", overflow="fold")
    for heading in ("drift, meV/atom/ps", "scatter, meV/atom", "unexplained, meV"):
        table.add_column(heading, justify="right")
    table.add_column("culprit", overflow="fold")
    for structure, name, one, drift in each(run):
        words = [Text(structure), *([Text(name)] if several else [])]
        numbers = (number(one.values["scatter"]), number(one.values["unexplained_jump"]))
        table.add_row(*words, estimate_cell(drift), *numbers, ended(one))
    return table


def ended(one: Conserved) -> Text:
    """Return the culprit of a structure, and when it ended early."""
    base, culprit = one.tracks["base"], one.blame.culprit if one.blame else "n/a"
    text = Text(culprit, style="" if culprit == "none" else "bold red")
    return text.append(f", {base.kind} at {number(base.left_at)} ps", "bold red") if base.left else text


def each(run: Run) -> Iterator[tuple[str, str, Conserved, Estimate]]:
    """Yield (structure, model, what it did, drift) of all that have a result, structure by structure."""
    for setup in run.data:
        for name, model in run.models.items():
            if setup.name in model.done:
                yield setup.name, name, model.done[setup.name], model.drifts[setup.name]


def failures(run: Run) -> list[Failures]:
    """Return what does not count by model and reason, the most frequent first."""
    return simulated.failures({name: model.structures for name, model in run.models.items()})
