"""Figures of the energy-conservation test; every function returns a plotly Figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sfumato.protocols.nve.blame import DRIFT
from sfumato.protocols.nve.tables import each
from sfumato.report.figures import (
    GRAY,
    add_means,
    blank_figure,
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

POINTS = 400
"""Of a curve that are drawn: means of as many parts."""

LEAST = 1e-5
"""meV/atom/ps, below which drifts are drawn at the edge."""


def error_figure(run: Run) -> Figure:
    """Show the energy error against time: the mean over structures, and each of them faintly."""
    figure = blank_figure("Energy error in time: a flat line conserves", 420)
    for k, (name, model) in enumerate(run.models.items()):
        color, dash, _ = look_of(k)
        curves = [(one.tracks["base"].time, one.tracks["base"].total) for one in model.done.values()]
        for time, total in curves:
            x, y = _thinned(time, total - total[0])
            figure.add_scatter(
                x=rounded(x),
                y=rounded(y),
                mode="lines",
                line={"color": color, "width": 1},
                opacity=0.3,
                hoverinfo="skip",
                showlegend=False,
            )
        if curves:
            x, y = _mean(curves)
            figure.add_scatter(
                x=rounded(x),
                y=rounded(y),
                mode="lines",
                name=escaped(name),
                line={"color": color, "width": 2.5, "dash": dash},
            )
    figure.update_xaxes(title_text="time, ps")
    figure.update_yaxes(title_text="E − E(start), meV/atom")
    return figure


def drift_figure(run: Run) -> Figure:
    """Show the size of the drift of every structure and model, with intervals."""
    names = [setup.name for setup in run.data]
    figure = blank_figure("Drift by structure: left of the dotted line energy holds", 130 + 26 * len(names))
    values = [DRIFT]
    for k, name in enumerate(run.models):
        color, _, symbol = look_of(k)
        offset = 0.5 * (k + 1) / (len(run.models) + 1) - 0.25
        points = []
        for structure, model, _, drift in each(run):
            if model == name and math.isfinite(drift.mean):
                low, high = sorted((abs(drift.low), abs(drift.high)))
                crosses = drift.low < 0 < drift.high
                size = abs(drift.mean)
                points.append(
                    (
                        names.index(structure) + offset,
                        type(drift)(size, 0.0 if crosses else low, high, drift.n, drift.total),
                    )
                )
                values += [max(v, LEAST) for v in (size, high)]
        add_means(figure, points, name=escaped(name), color=color, symbol=symbol, least=LEAST)
    figure.add_vline(x=DRIFT, line={"color": GRAY, "dash": "dot"})
    log_axis(figure, "x", "|drift|, meV/atom/ps", values, LEAST)
    label_rows(figure, [escaped(name) for name in names])
    return figure


def halving_figure(run: Run) -> Figure:
    """Show what work leaves unexplained at half and at a quarter of the step, then in double precision."""
    figure = blank_figure("What work leaves unexplained: a smooth surface falls steeply", 420)
    steps: set[float] = set()
    for k, (name, model) in enumerate(run.models.items()):
        color, dash, symbol = look_of(k)
        for number, one in enumerate(model.done.values()):
            tracks = [one.tracks["half"], one.tracks.get("double", one.tracks["quarter"])]
            x = [track.timestep for track in tracks]
            y = [max(1e3 * track.residuals.rough, 1e-10) for track in tracks]
            if not np.isfinite(y).all():
                continue
            steps.update(x)
            figure.add_scatter(
                x=x,
                y=rounded(y),
                mode="lines+markers",
                name=escaped(name),
                legendgroup=name,
                showlegend=number == 0,
                line={"color": color, "dash": dash, "width": 1.5},
                marker={"color": color, "symbol": symbol, "size": 7},
                hoverinfo="name+y",
            )
    figure.update_xaxes(title_text="time step, fs", type="log", tickangle=0, tickvals=sorted(steps))
    figure.update_yaxes(
        title_text="unexplained per interval (rms), meV", type="log", exponentformat="power", dtick=2
    )
    return figure


def _thinned(time: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return means of consecutive samples, as many as a screen shows."""
    if len(time) <= POINTS:
        return time, values
    edges = np.linspace(0, len(time), POINTS + 1).astype(int)
    counts = np.diff(edges)
    return np.add.reduceat(time, edges[:-1]) / counts, np.add.reduceat(values, edges[:-1]) / counts


def _mean(curves: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Return the mean error of the structures that are still there, at the times of the longest."""
    longest = max((time for time, _ in curves), key=lambda time: time[-1])
    grid = _thinned(longest, longest)[0]
    each_one = [np.interp(grid, time, total - total[0], right=np.nan) for time, total in curves]
    table = np.array(each_one)
    known = np.isfinite(table)
    mean: Floats = np.where(known, table, 0).sum(axis=0) / known.sum(axis=0)
    return grid, mean
