"""Tables of hot dynamics, for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from sfumato.protocols import simulated
from sfumato.protocols.heat.analysis import ModelHeat, Share
from sfumato.report.numbers import Metric
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
    from sfumato.protocols.protocol import Run

JUMP = Metric(
    "max_jump",
    "largest jump",
    "K",
    "Largest change of the kinetic temperature within 10 fs of a trajectory, mean over trajectories: the "
    "published number. A bath changes the temperature of N atoms by about T/√N in that time.",
)
TERMS = (
    (
        "survived",
        "Trajectories that reach their end. One leaves where the potential has no answer, where two atoms "
        "are closer than half the sum of their covalent radii (collapsed), or where the kinetic temperature "
        "is more than 5 times that of the bath, and more than chance makes it (exploded).",
    ),
    (
        "spikes",
        "Trajectories whose kinetic temperature changes within 10 fs by more than heat alone brings it to "
        "in one of a million such trajectories.",
    ),
    (
        "intact",
        "Trajectories in which no bond of the start reaches 1.75 times its length. Bonds do break in such "
        "heat: this is no fault.",
    ),
    (
        "interval",
        "95 %: of a mean from a bootstrap of trajectories within structures, of a part as Wilson gives it.",
    ),
)
SHOWN_ELSEWHERE = ("time", "settle", "seeds", "size", "temperatures")
"""Settings that are part of the first line."""


def heat_table(run: Run) -> RenderableType:
    """Return jumps and survival of every model at every temperature."""
    head = Text(f"{run.protocol.name} v{run.protocol.version} · {' · '.join(facts(run))}\n", style="bold")
    table = plain_table("Hot dynamics")
    table.add_column("model", overflow="fold")
    table.add_column("K", justify="right")
    table.add_column("ok", justify="right", no_wrap=True)
    table.add_column(JUMP.heading, justify="right")
    for title in ("survived", "spikes", "intact"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("left because", overflow="fold")
    for name, model, kelvin in each(run):
        survived, spiked, intact = shares(model, kelvin)
        done, total = len(model.done(kelvin)), run_of(model, kelvin)
        table.add_row(
            Text(name),
            f"{kelvin:g}",
            coverage_cell(done, total),
            estimate_cell(model.jumps[kelvin], done),
            _good(survived, survived.n),
            _good(spiked, 0),
            Text(_words(intact)),
            reasons(model, kelvin),
        )
    note = settings_note(run.settings, SHOWN_ELSEWHERE)
    caption = "Mean [95 % interval]; a bond that breaks is no fault." + (f"\n{note}" if note else "")
    table.caption = Text(caption)
    parts: list[RenderableType] = [head, table]
    if failures(run):
        totals = {name: model.coverage[1] for name, model in run.models.items()}
        parts += [Text(), failure_table(failures(run), "trajectories", totals)]
    return Group(*parts)


def facts(run: Run) -> list[str]:
    """Return what the run was, in words."""
    each_one = list(run.settings.values())
    times = dict.fromkeys(f"{settings.time:g} ps" for settings in each_one)
    seeds = dict.fromkeys(count(settings.seeds, "seed") for settings in each_one)
    return [run.data.name, count(len(run.data), "structure"), " or ".join(seeds), " or ".join(times)]


def each(run: Run) -> Iterator[tuple[str, ModelHeat, float]]:
    """Yield (name, model, K) temperature by temperature."""
    for kelvin in temperatures(run):
        for name, model in run.models.items():
            if kelvin in model.temperatures:
                yield name, model, kelvin


def temperatures(run: Run) -> list[float]:
    """Return all temperatures of a run in K, rising."""
    return sorted({kelvin for model in run.models.values() for kelvin in model.temperatures})


def run_of(model: ModelHeat, kelvin: float) -> int:
    """Return how many trajectories were asked for at a temperature."""
    return sum(one.kelvin == kelvin for one in model.trajectories.values())


def shares(model: ModelHeat, kelvin: float) -> tuple[Share, Share, Share]:
    """Return how many survived, have a spike, and kept their bonds."""
    return model.survived(kelvin), model.spiked(kelvin), model.intact(kelvin)


def reasons(model: ModelHeat, kelvin: float) -> str:
    """Return for example "exploded 3, collapsed 1"; empty where all reached their end."""
    return ", ".join(f"{kind} {n}" for kind, n in model.reasons(kelvin).items())


def _words(share: Share) -> str:
    return f"{share.k}/{share.n}" if share.n else "n/a"


def _good(share: Share, wanted: int) -> Text:
    return Text(_words(share), style="" if share.k == wanted else "bold red")


def failures(run: Run) -> list[Failures]:
    """Return what does not count by model and reason, the most frequent first."""
    return simulated.failures({name: model.trajectories for name, model in run.models.items()})
