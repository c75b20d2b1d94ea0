"""Tables of the errors on migrating atoms, for a terminal 80 columns wide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.io.silicon import REFERENCE
from sfumato.protocols.rare_events.data import is_published
from sfumato.protocols.rare_events.released import RELEASED
from sfumato.report.numbers import Metric, number
from sfumato.report.tables import (
    Failures,
    coverage_cell,
    estimate_cell,
    group_failures,
    plain_table,
    settings_note,
)
from sfumato.report.tables import failure_table as failures_by_reason
from sfumato.words import count

if TYPE_CHECKING:
    from sfumato.protocols.protocol import Run
    from sfumato.protocols.rare_events.analysis import ModelScores, SetScores

SHOWN_ELSEWHERE = ("only",)
"""Settings that are not part of the line about settings."""

METRICS = (
    Metric(
        "err_M",
        "err_M",
        "",
        "Area over the distribution of |δF| = |‖F‖ − ‖G‖| on migrating atoms up to 1 eV/Å: 0 where all are "
        "right, 1 where all are off by more.",
    ),
    Metric(
        "err_A",
        "err_A",
        "",
        "Area over the distribution of the angle between the two forces on migrating atoms up to 60°.",
    ),
    Metric("rms_dF", "RMS δF", "eV/Å", "Root of the mean of δF² on migrating atoms."),
    Metric("mean_dF", "mean |δF|", "eV/Å", "Mean of |δF| on migrating atoms."),
    Metric("mean_angle", "mean δθ", "°", "Mean angle between the two forces on migrating atoms."),
    Metric("over_0.5", "|δF| > 0.5", "%", "Share of migrating atoms whose |δF| is above 0.5 eV/Å.", 100.0),
    Metric(
        "over_15deg", "δθ > 15°", "%", "Share of migrating atoms whose force is off by more than 15°.", 100.0
    ),
    Metric(
        "over_30deg", "δθ > 30°", "%", "Share of migrating atoms whose force is off by more than 30°.", 100.0
    ),
    Metric(
        "migrating_force_rmse",
        "force RMSE, migrating",
        "eV/Å",
        "Root of the mean of ΔF² over components, on migrating atoms.",
    ),
    Metric("force_rmse", "force RMSE", "eV/Å", "Root of the mean of ΔF² over components, on all atoms."),
    Metric(
        "migrating_force_mae",
        "force MAE, migrating",
        "eV/Å",
        "Mean of |ΔF| over components, on migrating atoms.",
    ),
    Metric("force_mae", "force MAE", "eV/Å", "Mean of |ΔF| over components, on all atoms."),
    Metric(
        "energy_rmse",
        "energy RMSE",
        "meV/atom",
        "Root of the mean of (ΔE/N)², zeros of energy included.",
        1e3,
    ),
    Metric(
        "relative_energy_rmse",
        "relative energy RMSE",
        "meV/atom",
        "The same after the mean error of the set is taken off.",
        1e3,
    ),
)
"""Every number of a set."""

HEADLINE = ("err_M", "err_A", "rms_dF", "force_rmse")
"""In the first table."""

TITLES = {metric.key: metric for metric in METRICS}


def score_tables(run: Run) -> RenderableType:
    """Return the scores of each defect with the noise floor of DFT, and published ones beside."""
    head = f"{run.protocol.name} v{run.protocol.version} · {run.data.name} · {run.data.level}\n"
    parts: list[RenderableType] = [Text(head, style="bold")]
    for name in defects_of(run):
        parts += [_of_defect(run, name), Text()]
    if len(run.models) == 1:
        parts.append(_every_number(run))
    if is_published(run.data):
        parts += [Text(), _released(run)]
    if not run.complete:
        parts += [Text(), failure_table(run)]
    return Group(*parts)


def defects_of(run: Run) -> list[str]:
    """Return the defects that any model has scores for."""
    return list(dict.fromkeys(name for model in run.models.values() for name in model.sets))


def of_defect(run: Run, name: str) -> dict[str, SetScores]:
    """Return the scores of the models that have some for a defect."""
    return {title: model.sets[name] for title, model in run.models.items() if name in model.sets}


def floor_of(run: Run, name: str) -> dict[str, SetScores]:
    """Return what other levels of theory score on a defect: "DFT K1" by its published name "DFT_K1"."""
    for model in run.models.values():
        if name in model.floor:
            return {level.replace("_", " "): found for level, found in model.floor[name].items()}
    return {}


def content_of(found: SetScores) -> str:
    """Return what a set is made of, in words."""
    flags, data = found.data.migrating, found.data
    with_some = len(set(data.batch.index[flags].tolist()))
    return f"{count(int(flags.sum()), 'migrating atom')} in {with_some} of {count(len(data), 'snapshot')}"


def _of_defect(run: Run, name: str) -> RenderableType:
    scored = of_defect(run, name)
    table = plain_table(f"{name}: {content_of(next(iter(scored.values())))}")
    table.add_column("model", overflow="fold")
    table.add_column("snapshots", justify="right", no_wrap=True)
    for key in HEADLINE:
        table.add_column(TITLES[key].heading, justify="right")
    for title, found in scored.items():
        predicted = int((found.energy == found.energy).sum())
        cells = [estimate_cell(TITLES[key].of(found.numbers)) for key in HEADLINE]
        table.add_row(Text(title), coverage_cell(predicted, len(found.data)), *cells)
    for title, found in floor_of(run, name).items():
        cells = [estimate_cell(TITLES[key].of(found.numbers)) for key in HEADLINE]
        table.add_row(Text(title, style="dim"), "", *cells)
    note = settings_note(run.settings, SHOWN_ELSEWHERE)
    lines = ["Mean [95 % interval, snapshots resampled]."]
    if floor_of(run, name):
        lines.append(f"Other DFT rows: fewer k-points, scored against {REFERENCE.replace('_', ' ')}.")
    table.caption = Text("\n".join([*lines, *([note] if note else [])]))
    return table


def _every_number(run: Run) -> RenderableType:
    (model,) = run.models.values()
    table = plain_table(f"Every number: {model.name}")
    table.add_column("", overflow="fold")
    table.add_column("unit", no_wrap=True)
    for name in model.sets:
        table.add_column(name, justify="right")
    for metric in METRICS:
        table.add_row(
            metric.title, metric.unit, *(estimate_cell(metric.of(one.numbers)) for one in model.sets.values())
        )
    return table


def _released(run: Run) -> RenderableType:
    table = plain_table("Published potentials on the same atoms")
    table.add_column("potential", overflow="fold")
    for name in defects_of(run):
        for score in ("err_M", "err_A"):
            table.add_column(f"{name} {score}", justify="right")
    for row in RELEASED:
        values = [value for name in defects_of(run) for value in row.of(name) or (math.nan, math.nan)]
        table.add_row(row.name, *map(number, values))
    table.caption = Text("Liu & Mo 2024, trapezoid rule on 50 points; medians are of a hundred models.")
    return table


def failure_table(run: Run) -> RenderableType:
    """Return which snapshots do not count and why."""
    totals = {model.name: model.coverage[1] for model in run.models.values()}
    return failures_by_reason(failures(run), "snapshots", totals)


def failures(run: Run) -> list[Failures]:
    """Return what does not count by model and reason, the most frequent first."""
    models: list[ModelScores] = list(run.models.values())
    groups = group_failures((m.name, reason, which) for m in models for which, reason in m.failed)
    return groups + [Failures(m.name, "not evaluated yet", unnamed=m.missing) for m in models if m.missing]
