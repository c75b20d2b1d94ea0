"""Tables of the probes, for a terminal 80 columns wide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.metrics.stats import Estimate
from sfumato.protocols.probes.curves import Diatomic
from sfumato.protocols.probes.forces import Level
from sfumato.protocols.probes.jumps import UNITS
from sfumato.protocols.probes.walls import RATES, Walls
from sfumato.report.numbers import Metric, number
from sfumato.report.tables import (
    Failures,
    coverage_cell,
    failure_table,
    group_failures,
    plain_table,
    settings_note,
)
from sfumato.words import count

if TYPE_CHECKING:
    from sfumato.protocols.probes.analysis import ModelProbes
    from sfumato.protocols.protocol import Run

SHOWN_ELSEWHERE = ("elements", "reach", "size")
"""Settings that are not part of the line about settings."""

CHECKS = {
    "energy": "energy rises",
    "force": "repulsion rises",
    "repulsive": "repulsive",
}
"""Headings of the three checks of a compression."""

CURVES = (
    Metric(
        "tortuosity",
        "tortuosity",
        "",
        "Way of the energy up and down over the way there must be: 1 for one well or a wall.",
    ),
    Metric(
        "energy_jump",
        "energy jump",
        "eV",
        "Steps of the energy before and after its turns, added up; the bottom of one well gives a little.",
    ),
    Metric("force_flips", "force flips", "", "How often the force changes its direction; once for one well."),
    Metric("bond_error", "bond", "Å", "|Model − PBE|: distance at the minimum."),
    Metric("depth_error", "depth", "eV", "|Model − PBE|: from the minimum to the largest distance."),
)
"""Numbers of the curves of diatomics."""


def probe_tables(run: Run) -> RenderableType:
    """Return jumps, walls, forces, diatomics and noise of all models, and what does not count."""
    head = f"{run.protocol.name} v{run.protocol.version} · {run.data.name} · {facts(run)}\n"
    note = settings_note(run.settings, SHOWN_ELSEWHERE)
    parts = [Text(head, style="bold"), jump_table(run), Text(), *_causes(run), wall_table(run), Text()]
    parts += [force_table(run), Text(), curve_table(run), Text(), noise_table(run)]
    if not run.complete:
        totals = {model.name: model.total for model in run.models.values()}
        parts += [Text(), failure_table(failures(run), "probes", totals)]
    lines = [note, *exclusions(run), "docs/probes.md explains every number."]
    return Group(*parts, Text("\n" + "\n".join(line for line in lines if line), style="dim"))


def facts(run: Run) -> str:
    """Return the sizes of a run, in words."""
    return " or ".join(dict.fromkeys(f"size {settings.size}" for settings in run.settings.values()))


def exclusions(run: Run) -> list[str]:
    """Return a line for each model that structures of the data were left out for, with the reasons."""
    lines = []
    for name, model in run.models.items():
        if model.excluded:
            reasons = ", ".join(dict.fromkeys(model.excluded.values()))
            left = count(len(model.excluded), "structure")
            lines.append(f"{name}: {left} of {len(run.data)} left out ({reasons[:200]})")
    return lines


def jump_table(run: Run) -> RenderableType:
    """Return how many jumps each model has, the largest, and what changes there."""
    table = plain_table("Jumps that do not shrink with the interval")
    table.add_column("model", overflow="fold")
    for title in ("paths", "jumps"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("the largest", overflow="fold")
    table.add_column("where", overflow="fold")
    for model in run.models.values():
        jumps = model.jumps
        searched = str(sum(jumps.paths.values()))
        if not jumps.found:
            table.add_row(Text(model.name), searched, "0", Text(below(model)), "")
            continue
        first = jumps.found[0]
        style = "bold red" if first.order < 2 else "red"
        found = Text(str(len(jumps.found)), style=style)
        table.add_row(
            Text(model.name), searched, found, Text(first.in_words(), style=style), Text(first.cause.words)
        )
    return table


def below(model: ModelProbes) -> str:
    """Return up to which size jumps of the energy and the force cannot be told from noise."""
    energy, force, _ = model.jumps.floor
    if math.isnan(energy):
        return "n/a"
    return f"none above {number(1e3 * energy)} {UNITS[0]}, {number(1e3 * force)} {UNITS[1]}"


def _causes(run: Run) -> list[RenderableType]:
    rows = [(model, *pair) for model in run.models.values() for pair in model.jumps.causes()]
    if not rows:
        return []
    table = plain_table("What changes where they are")
    table.add_column("model", overflow="fold")
    table.add_column("what", overflow="fold")
    table.add_column("jumps", justify="right", no_wrap=True)
    table.add_column("the largest", overflow="fold")
    most: dict[str, int] = {}
    for model, cause, found in rows:
        most[model.name] = most.get(model.name, 0) + 1
        if most[model.name] <= 4:
            table.add_row(Text(model.name), Text(cause.words), str(len(found)), Text(found[0].in_words()))
    hidden = sum(n - 4 for n in most.values() if n > 4)
    if hidden:
        table.caption = Text(f"and {hidden} more; the HTML report lists all")
    return [table, Text()]


def rate_cell(estimate: Estimate) -> Text:
    """Return a share in percent with its interval."""
    if not estimate.n:
        return Text("n/a", style="dim")
    style = "" if estimate.mean == 1 else "bold red"
    spread = f"[{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
    return Text.assemble((percent(estimate.mean), style), " ", (spread, "dim"))


def percent(share: float) -> str:
    """Return a share in percent, never 100 unless it is all."""
    text = f"{100 * share:.0f}"
    return f"{100 * share:.1f}" if text == "100" and share < 1 else text


def wall_table(run: Run) -> RenderableType:
    """Return three pass rates for pairs of elements and for places in molecules, and the deepest hole."""
    table = plain_table("Compression from 0.30 to 0.03 Å: percent of the pairs of atoms")
    table.add_column("model", overflow="fold")
    table.add_column("atoms", no_wrap=True)
    table.add_column("pairs", justify="right", no_wrap=True)
    for title in ("E rises", "F rises", "repel"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("deepest hole", justify="right")
    for model in run.models.values():
        for k, (what, walls) in enumerate((("alone", model.pairs), ("bonded", model.places))):
            if not walls.total:
                continue
            cells = [rate_cell(walls.rates[name]) for name in RATES]
            done = coverage_cell(len(walls.squeezed), walls.total)
            table.add_row(Text("" if k else model.name), what, done, *cells, hole_cell(walls))
    table.caption = Text(
        "Energy and repulsion rise from each of 30 distances to the next; they repel at the last one. "
        "[95 % interval]. Bonded: inside molecules."
    )
    return table


def hole_cell(walls: Walls) -> Text:
    """Return the deepest hole."""
    if not walls.squeezed:
        return Text("n/a", style="dim")
    if not walls.holes:
        return Text("none")
    hole = walls.holes[0].hole
    assert hole is not None
    return Text(f"{number(hole.depth)} eV at {number(hole.place)} Å", style="bold red")


def level_cell(level: Level | None, noise: float) -> Text:
    """Return a number, or up to which size it is noise."""
    if level is None:
        return Text("n/a" if math.isnan(noise) else f"< {number(noise)}", style="dim")
    return Text(number(level.value))


def force_table(run: Run) -> RenderableType:
    """Return how far forces are from the gradient of the energy."""
    table = plain_table("Force and energy")
    table.add_column("model", overflow="fold")
    for title in ("mismatch", "loops", "asymmetry"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("so", overflow="fold")
    for model in run.models.values():
        forces, noise = model.forces, model.forces.largest_noise
        cells = []
        for what in ("mismatch", "loop", "asymmetry"):
            found = forces.worst(what)
            cells.append(level_cell(found[1] if found else None, noise[what]))
        words = forces.in_words() if forces.names else "n/a"
        table.add_row(
            Text(model.name), *cells, Text(words, style="" if forces.blame == "none" else "bold red")
        )
    table.caption = Text(
        "Relative, of the worst structure: |dE + F·dr|; work on closed loops; |J − Jᵀ|/2|J|. < means noise."
    )
    return table


def curve_table(run: Run) -> RenderableType:
    """Return the means of the numbers of diatomics over elements."""
    table = plain_table("Two like atoms: means over elements")
    table.add_column("model", overflow="fold")
    table.add_column("elements", justify="right", no_wrap=True)
    for metric in CURVES:
        table.add_column(metric.heading, justify="right")
    for model in run.models.values():
        cells = [mean_of(model.diatomics, metric.key) for metric in CURVES]
        table.add_row(Text(model.name), str(len(model.diatomics)), *(number(value) for value in cells))
    table.caption = Text("As Matbench-Discovery defines them; bond and depth are |model − PBE|.")
    return table


def mean_of(found: tuple[Diatomic, ...], key: str) -> float:
    """Return the mean of a number over the elements that have it; of errors the mean size."""
    values = [one.numbers[key] for one in found if math.isfinite(one.numbers[key])]
    if not values:
        return math.nan
    return sum(abs(value) if key.endswith("error") else value for value in values) / len(values)


def noise_table(run: Run) -> RenderableType:
    """Return the noise of energies and forces in each precision."""
    table = plain_table("Noise")
    table.add_column("model", overflow="fold")
    table.add_column("precision", no_wrap=True)
    table.add_column("energy, eV", justify="right", no_wrap=True)
    table.add_column("force, eV/Å", justify="right", no_wrap=True)
    for model in run.models.values():
        for k, (dtype, (energy, force)) in enumerate(model.forces.noise.items()):
            table.add_row(Text("" if k else model.name), dtype, number(energy), number(force))
    table.caption = Text(
        "Scatter under displacements of 5e-5 Å. Jumps and forces are examined in the finest."
    )
    return table


def failures(run: Run) -> list[Failures]:
    """Return what does not count by model and reason, the most frequent first."""
    groups = group_failures(
        (model.name, f"{part}: {reason}", name)
        for model in run.models.values()
        for part, name, reason in model.failed
    )
    left = [
        Failures(model.name, "not evaluated yet", unnamed=model.missing)
        for model in run.models.values()
        if model.missing
    ]
    return groups + left
