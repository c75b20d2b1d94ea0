"""Figures of hot dynamics; every function returns a plotly Figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sfumato.protocols.heat.analysis import Hot, surviving
from sfumato.protocols.heat.tables import JUMP, each, temperatures
from sfumato.report.figures import (
    add_means,
    blank_figure,
    dress,
    escaped,
    label_rows,
    log_axis,
    look_of,
    rounded,
)
from sfumato.systems import Floats

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

POINTS = 250
"""Of a curve of temperature that are drawn: the largest of as many parts, so that no spike is lost."""

HEIGHT = 190
"""px of a panel."""


def survival_figure(run: Run) -> Figure:
    """Show what part of the trajectories goes on, and in what part all bonds hold, against time."""

    def draw(figure: Figure, row: int, k: int, name: str, done: Sequence[Hot]) -> None:
        color, _, _ = look_of(k)
        time = run.models[name].time
        curves = (
            ("solid", 2.5, "", [one.left_at for one in done]),
            ("dot", 1.5, ", all bonds hold", [min(one.left_at, one.broke_at) for one in done]),
        )
        for dash, width, more, ends in curves:
            x, y = surviving(done, ends, time)
            figure.add_scatter(
                x=rounded(x),
                y=rounded(100 * y),
                mode="lines",
                line={"color": color, "width": width, "dash": dash, "shape": "hv"},
                name=escaped(name) + more,
                legendgroup=name + more,
                showlegend=row == 1,
                row=row,
                col=1,
            )

    figure = _panels(run, "Survival: what part of the trajectories goes on", "going on at {}, %", draw)
    figure.update_yaxes(range=[-5, 105], tickvals=[0, 50, 100])
    return figure


def temperature_figure(run: Run) -> Figure:
    """Show the kinetic temperature of every trajectory against time."""

    def draw(figure: Figure, row: int, k: int, name: str, done: Sequence[Hot]) -> None:
        color, _, _ = look_of(k)
        for number, one in enumerate(done):
            x, y = _peaks(one.time, one.temperature)
            figure.add_scatter(
                x=rounded(x),
                y=rounded(y),
                mode="lines",
                line={"color": color, "width": 1},
                opacity=0.6,
                name=escaped(name),
                legendgroup=name,
                showlegend=row == 1 and number == 0,
                text=[escaped(one.name)] * len(x),
                hoverinfo="text+y",
                row=row,
                col=1,
            )

    figure = _panels(run, "Kinetic temperature: spikes are no heat", "bath at {}, K", draw)
    figure.update_yaxes(rangemode="tozero")
    return figure


def jump_figure(run: Run) -> Figure:
    """Show the mean largest jump of every model at every temperature, with intervals."""
    rows = [f"{kelvin:g} K" for kelvin in temperatures(run)]
    figure = blank_figure("Largest change of the kinetic temperature within 10 fs", 130 + 46 * len(rows))
    values: list[float] = []
    for k, name in enumerate(run.models):
        color, _, symbol = look_of(k)
        offset = 0.5 * (k + 1) / (len(run.models) + 1) - 0.25
        points = [
            (rows.index(f"{kelvin:g} K") + offset, model.jumps[kelvin])
            for other, model, kelvin in each(run)
            if other == name
        ]
        values += [v for _, e in points for v in (e.mean, e.low, e.high) if math.isfinite(v) and v > 0]
        add_means(figure, points, name=escaped(name), color=color, symbol=symbol, least=1.0)
    log_axis(figure, "x", JUMP.heading, values, 1.0)
    label_rows(figure, rows)
    return figure


Draw = Callable[["Figure", int, int, str, Sequence[Hot]], None]


def _panels(run: Run, title: str, axis: str, draw: Draw) -> Figure:
    """Return one panel for each temperature, which is put into the title of its vertical axis."""
    from plotly.subplots import make_subplots

    every = temperatures(run)
    figure = make_subplots(
        rows=len(every),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.1 / len(every),
    )
    dress(figure, title, 130 + HEIGHT * len(every))
    names = list(run.models)
    for name, model, kelvin in each(run):
        done = model.done(kelvin)
        if done:
            draw(figure, every.index(kelvin) + 1, names.index(name), name, done)
    for row, kelvin in enumerate(every, 1):
        figure.update_yaxes(title_text=axis.format(f"{kelvin:g} K"), row=row, col=1)
    figure.update_xaxes(title_text="time at this temperature, ps", row=len(every), col=1)
    return figure


def _peaks(time: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the largest of consecutive samples, as many as a screen shows."""
    if len(time) <= POINTS:
        return time, values
    starts = np.linspace(0, len(time), POINTS + 1).astype(int)[:-1]
    return time[starts], np.maximum.reduceat(values, starts)
