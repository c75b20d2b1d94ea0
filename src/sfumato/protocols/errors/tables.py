"""Tables of the errors on labeled structures, for a terminal 80 columns wide."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.report.tables import interval, number, plain_table, some

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate
    from sfumato.protocols.errors.run import EvalRun


@dataclass(frozen=True)
class Number:
    """How a number is presented.

    Args:
        key: its name in results.
        title: for people.
        unit: that it is shown in.
        factor: that makes it of what results hold.
        meaning: one sentence.
    """

    key: str
    title: str
    unit: str
    factor: float
    meaning: str

    def of(self, numbers: Mapping[str, Estimate]) -> Estimate | None:
        """Return it in its unit; None where nothing counts."""
        from dataclasses import replace

        e = numbers.get(self.key)
        if e is None or not e.n:
            return None
        return replace(e, mean=self.factor * e.mean, low=self.factor * e.low, high=self.factor * e.high)


_ENERGY, _TOTAL, _FORCE = ("meV/atom", 1e3), ("meV", 1e3), ("meV/Å", 1e3)

NUMBERS = (
    Number("energy_mae", "energy MAE", *_ENERGY, "Mean of |ΔE|/N, as they are, zeros of energy included."),
    Number("energy_rmse", "energy RMSE", *_ENERGY, "Root of the mean of (ΔE/N)²."),
    Number("total_energy_mae", "total energy MAE", *_TOTAL, "Mean of |ΔE|."),
    Number("total_energy_rmse", "total energy RMSE", *_TOTAL, "Root of the mean of ΔE²."),
    Number(
        "relative_energy_mae",
        "relative energy MAE",
        *_ENERGY,
        "The same, each ΔE from its mean over the composition: another zero of energy does not count.",
    ),
    Number("force_mae", "force MAE", *_FORCE, "Mean of |ΔF| over components."),
    Number("force_rmse", "force RMSE", *_FORCE, "Root of the mean of ΔF² over components."),
    Number("force_cosine", "force cosine", "", 1.0, "Mean over atoms of the cosine between the two forces."),
    Number(
        "rotation_energy",
        "energy, turned",
        *_ENERGY,
        "Rotational error: mean change of E/N when the structure is turned at random.",
    ),
    Number(
        "rotation_force",
        "force, turned",
        *_FORCE,
        "Rotational error: mean change of the force components, turned back.",
    ),
)
"""Every number of a result."""

TITLES = {number.key: number for number in NUMBERS}
HEADLINE = ("energy_mae", "force_mae")


def error_table(run: EvalRun) -> RenderableType:
    """Return energy and force errors by subset and model, and every number over all frames."""
    facts = (run.frames.name, f"split {run.split}", run.frames.level, f"{len(run.frames)} frames")
    head = Text(f"eval v1 · {' · '.join(facts)}\n", style="bold")
    warned = [Text(f"{line}\n", style="bold red") for line in warnings(run)]
    parts: list[RenderableType] = [head, *warned, _by_subset(run), Text(), _numbers(run)]
    if not run.complete:
        parts += [Text(), failure_table(run)]
    return Group(*parts)


def warnings(run: EvalRun) -> list[str]:
    """Return a line for each model whose errors say nothing about frames that it has not seen."""
    return [
        f"{name} {what} (split {run.split}): its errors here are no test of it"
        for name, what in run.seen.items()
    ]


def _by_subset(run: EvalRun) -> RenderableType:
    """As the columns of a table of errors by data set; several models are rows of their own."""
    several = len(run.models) > 1
    table = plain_table("Errors by subset" + ("" if several else f": {next(iter(run.models), '')}"))
    table.add_column("subset", overflow="fold")
    if several:
        table.add_column("model", overflow="fold")
    table.add_column("frames", justify="right", no_wrap=True)
    for key in HEADLINE:
        table.add_column(f"{TITLES[key].title}, {TITLES[key].unit}", justify="right")
    for subset in next(iter(run.models.values())).subsets if run.models else ():
        for k, model in enumerate(run.models.values()):
            numbers = model.subsets[subset]
            words = [Text("" if k else subset), *([Text(model.name)] if several else [])]
            table.add_row(
                *words, _frames(numbers["energy_mae"]), *(_cell(TITLES[key], numbers) for key in HEADLINE)
            )
    table.caption = "Mean [95 % interval, whole molecules resampled]."
    return table


def _numbers(run: EvalRun) -> RenderableType:
    table = plain_table("All frames together")
    table.add_column("", overflow="fold")
    table.add_column("unit", no_wrap=True)
    for model in run.models.values():
        table.add_column(Text(model.name), justify="right", overflow="fold")
    for shown in NUMBERS:
        cells = [_cell(shown, model.subsets["all"]) for model in run.models.values()]
        table.add_row(shown.title, shown.unit, *cells)
    return table


def failure_table(run: EvalRun) -> RenderableType:
    """Return which frames do not count and why."""
    table = plain_table("Frames that do not count")
    table.add_column("model", overflow="fold")
    table.add_column("frames", justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("which", overflow="fold")
    for model, reason, frames in failures(run):
        table.add_row(Text(model), str(len(frames)), Text(reason), some([str(k) for k in frames]))
    for result in run.models.values():
        if result.missing:
            table.add_row(Text(result.name), str(result.missing), "not evaluated yet", "")
    return table


def failures(run: EvalRun) -> list[tuple[str, str, list[int]]]:
    """Return (model, reason, frames), the most frequent first; numbers in a reason do not tell it apart."""
    groups: dict[tuple[str, str], tuple[str, list[int]]] = {}
    for model in run.models.values():
        for frame, reason in model.failed:
            kind = re.sub(r"\d+(\.\d+)?", "…", reason)
            groups.setdefault((model.name, kind), (reason, []))[1].append(frame)
    rows = [(name, reason, frames) for (name, _), (reason, frames) in groups.items()]
    return sorted(rows, key=lambda row: -len(row[2]))


def _frames(e: Estimate) -> Text:
    return Text(f"{e.n}/{e.total}", style="" if e.n == e.total else "bold red")


def _cell(shown: Number, numbers: Mapping[str, Estimate]) -> Text:
    e = shown.of(numbers)
    if e is None:
        return Text("n/a", style="dim")
    text = Text.assemble(number(e.mean), " ", (interval(e), "dim"))
    return text if e.n == e.total else text.append(f" n={e.n}", "bold")
