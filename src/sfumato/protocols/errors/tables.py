"""Tables of the errors on labeled structures, for a terminal 80 columns wide."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.protocols import errors
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

if TYPE_CHECKING:
    from sfumato.protocols.errors.analysis import ModelErrors
    from sfumato.protocols.protocol import Run

SHOWN_ELSEWHERE = ("split", "source")
"""Settings that are not part of the line about settings."""


def _milli(key: str, title: str, unit: str, meaning: str) -> Metric:
    """Return a number that results hold in eV and tables show in meV."""
    return Metric(key, title, unit, meaning, 1e3)


METRICS = (
    _milli("energy_mae", "energy MAE", "meV/atom", "Mean of |ΔE|/N, as they are, zeros of energy included."),
    _milli("energy_rmse", "energy RMSE", "meV/atom", "Root of the mean of (ΔE/N)²."),
    _milli("total_energy_mae", "total energy MAE", "meV", "Mean of |ΔE|."),
    _milli("total_energy_rmse", "total energy RMSE", "meV", "Root of the mean of ΔE²."),
    _milli(
        "relative_energy_mae",
        "relative energy MAE",
        "meV/atom",
        "Mean of |ΔE|/N, each ΔE from its mean over the composition: another zero of energy does not count.",
    ),
    _milli(
        "fitted_energy_mae",
        "fitted energy MAE",
        "meV/atom",
        "Mean of |ΔE|/N after one energy for each element, fitted to these very frames, is taken off: what "
        "another zero of energy does not explain. It is not an error of the model as it is.",
    ),
    _milli("force_mae", "force MAE", "meV/Å", "Mean of |ΔF| over components."),
    _milli("force_rmse", "force RMSE", "meV/Å", "Root of the mean of ΔF² over components."),
    Metric("force_cosine", "force cosine", "", "Mean over atoms of the cosine between the two forces."),
    _milli(
        "rotation_energy",
        "energy, turned",
        "meV/atom",
        "Rotational error: mean change of E/N when the structure is turned at random.",
    ),
    _milli(
        "rotation_force",
        "force, turned",
        "meV/Å",
        "Rotational error: mean change of the force components, turned back.",
    ),
)
"""Every number of a result."""

NOT_STATED = "not stated"

RAW, WITHOUT_ZERO = "energy_mae", ("fitted_energy_mae", "relative_energy_mae")

LARGE, MINOR = 10.0, 0.1
"""meV/atom of an energy error worth a word, and the share of it that is left if another zero explains it."""

TITLES = {metric.key: metric for metric in METRICS}
HEADLINE = ("energy_mae", "force_mae")

SIDE_BY_SIDE = 2
"""Models that fit beside each other; of more, each is a row of tables with so many numbers as fit."""

NUMBERS_PER_TABLE = 3


def error_table(run: Run) -> RenderableType:
    """Return energy and force errors by subset and model, and every number over all frames."""
    facts = (run.data.name, f"split {split_of(run)}", run.data.level, frames_of(run))
    head = Text(f"{run.protocol.name} v{run.protocol.version} · {' · '.join(facts)}\n", style="bold")
    warned = [Text(f"{line}\n", style="bold red") for line in warnings(run)]
    parts: list[RenderableType] = [head, *warned, _by_subset(run), Text(), _numbers(run)]
    if not run.complete:
        parts += [Text(), failure_table(run)]
    return Group(*parts)


def split_of(run: Run) -> str:
    """Return which split the frames are of; several where models were asked about different ones."""
    return " or ".join(dict.fromkeys(model.split for model in run.models.values()))


def frames_of(run: Run) -> str:
    """Return how many frames were used; several numbers where models were asked about different ones."""
    return " or ".join(dict.fromkeys(str(len(m.frames)) for m in run.models.values())) + " frames"


def subsets_of(run: Run) -> list[str]:
    """Return the subsets that any model has numbers for, "all" first."""
    return list(dict.fromkeys(name for model in run.models.values() for name in model.subsets))


def warnings(run: Run) -> list[str]:
    """Return what makes errors mean something else than they seem to: sentences without their full stops."""
    seen = [
        f"{name} {what} (split {run.models[name].split}): its errors here are no test of it"
        for name, what in errors.seen(run).items()
    ]
    levels = [line for name in run.models if (line := _other_level(run, name))]
    return seen + levels + [line for model in run.models.values() if (line := offset(model))]


def _other_level(run: Run, name: str) -> str:
    """Return that a model and the labels are of different levels of theory, where both are stated."""
    own = str(run.manifest["models"].get(name, {}).get("level") or "")
    if not own or run.data.level == NOT_STATED or same_level(own, run.data.level):
        return ""
    return (
        f"{name} is of the level of theory {own}, the labels are of {run.data.level}: the errors hold the "
        "difference of the two"
    )


def same_level(one: str, other: str) -> bool:
    """Return whether two levels of theory are written alike but for case, brackets, hyphens and blanks."""
    first, second = (re.sub(r"[\s()\[\]_-]", "", level).lower() for level in (one, other))
    return first == second


def offset(model: ModelErrors) -> str:
    """Return that most of a model's energy error is another zero of energy, where it is."""
    numbers = {key: TITLES[key].of(model.subsets.get("all", {})) for key in (RAW, *WITHOUT_ZERO)}
    raw = numbers[RAW]
    if raw is None or raw.mean < LARGE:
        return ""
    left = [
        (key, e)
        for key in WITHOUT_ZERO
        if (e := numbers[key]) is not None and 2 * e.n > raw.n and e.mean < MINOR * raw.mean
    ]
    if not left:
        return ""
    key, rest = left[0]
    what = {
        "fitted_energy_mae": "one energy for each element",
        "relative_energy_mae": "one energy for each composition",
    }
    return (
        f"{model.name}: nearly all of its energy MAE of {number(raw.mean)} meV/atom is {what[key]}, as with "
        "another zero of energy or another level of theory; without it "
        f"{number(rest.mean)} meV/atom are left ({TITLES[key].title})"
    )


def _by_subset(run: Run) -> RenderableType:
    """As the columns of a table of errors by data set; several models are rows of their own."""
    several = len(run.models) > 1
    table = plain_table("Errors by subset" + ("" if several else f": {next(iter(run.models), '')}"))
    table.add_column("subset", overflow="fold")
    if several:
        table.add_column("model", overflow="fold")
    table.add_column("frames", justify="right", no_wrap=True)
    for key in HEADLINE:
        table.add_column(TITLES[key].heading, justify="right")
    for subset in subsets_of(run):
        for k, model in enumerate(m for m in run.models.values() if subset in m.subsets):
            numbers = model.subsets[subset]
            words = [Text("" if k else subset), *([Text(model.name)] if several else [])]
            e = numbers["energy_mae"]
            cells = [estimate_cell(TITLES[key].of(numbers)) for key in HEADLINE]
            table.add_row(*words, coverage_cell(e.n, e.total), *cells)
    note = settings_note(run.settings, SHOWN_ELSEWHERE)
    table.caption = Text("Mean [95 % interval, whole molecules resampled]." + (f"\n{note}" if note else ""))
    return table


def _numbers(run: Run) -> RenderableType:
    if len(run.models) > SIDE_BY_SIDE:
        starts = range(0, len(METRICS), NUMBERS_PER_TABLE)
        parts = (_numbers_by_model(run, METRICS[k : k + NUMBERS_PER_TABLE]) for k in starts)
        return Group(Text("All frames together", style="bold"), *parts)
    table = plain_table("All frames together")
    table.add_column("", overflow="fold")
    table.add_column("unit", no_wrap=True)
    for model in run.models.values():
        table.add_column(Text(model.name), justify="right", overflow="fold")
    for metric in METRICS:
        cells = [estimate_cell(metric.of(model.subsets["all"])) for model in run.models.values()]
        table.add_row(metric.title, metric.unit, *cells)
    return table


def _numbers_by_model(run: Run, metrics: Sequence[Metric]) -> RenderableType:
    table = plain_table("")
    table.padding = (0, 0)
    table.add_column("model", overflow="fold")
    for metric in metrics:
        table.add_column(metric.heading, justify="right")
    for model in run.models.values():
        cells = [estimate_cell(metric.of(model.subsets["all"])) for metric in metrics]
        table.add_row(Text(model.name), *cells)
    return table


def failure_table(run: Run) -> RenderableType:
    """Return which frames do not count and why."""
    return failures_by_reason(failures(run), "frames", {m.name: m.coverage[1] for m in run.models.values()})


def failures(run: Run) -> list[Failures]:
    """Return what does not count by model and reason, the most frequent first."""

    groups = group_failures(
        (model.name, reason, str(frame)) for model in run.models.values() for frame, reason in model.failed
    )
    left = [
        Failures(model.name, "not evaluated yet", unnamed=model.missing)
        for model in run.models.values()
        if model.missing
    ]
    return groups + left
