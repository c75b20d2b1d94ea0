"""Figures of the probes: one message each, axes with units. Every function returns a plotly Figure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sfumato.metrics.stats import Estimate
from sfumato.protocols.probes.analysis import ModelProbes
from sfumato.protocols.probes.data import Curve
from sfumato.protocols.probes.forces import LIMIT
from sfumato.protocols.probes.jumps import UNITS, Found
from sfumato.protocols.probes.tables import CHECKS
from sfumato.protocols.probes.walls import RATES, Squeezed
from sfumato.report.figures import (
    GRAY,
    INK,
    PAPER,
    VERMILION,
    add_means,
    blank_figure,
    escaped,
    label_rows,
    look_of,
    rounded,
)
from sfumato.report.numbers import number
from sfumato.systems import Floats

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

KINDS = ("circle", "square", "diamond")
"""Symbols of jumps of the energy, the force and the curvature."""

PROOFS = 3
"""Jumps of each model whose size is followed down to the narrowest interval."""

WALLS = 4
"""Compressions of each model that can be looked at: those with the deepest holes first."""

FORCES = {"mismatch": "force against energy", "loop": "closed loops", "asymmetry": "asymmetric Jacobian"}
"""Names of the three relative errors of forces."""


def proof_figure(run: Run) -> Figure:
    """Show how the size of the worst jumps depends on the interval in which they are seen."""
    figure = blank_figure("A jump keeps its size while the interval shrinks", 420)
    for k, model in enumerate(run.models.values()):
        color, _, symbol = look_of(k)
        for n, found in enumerate(_distinct(model)):
            size = found.profile[:, found.order]
            words = f"{model.name}: {found.in_words()}, {found.cause.words}"
            figure.add_scatter(
                x=rounded(found.widths),
                y=rounded(size / size[-1]),
                mode="lines+markers",
                name=escaped(model.name if n == 0 else f"{model.name}, jump {n + 1}"),
                line={"color": color, "dash": ("solid", "dash", "dot")[n]},
                marker={"symbol": symbol, "size": 7},
                text=escaped(words),
                hoverinfo="text",
            )
    x = np.geomspace(1e-3, 1e-5, 9)
    figure.add_scatter(
        x=rounded(x),
        y=rounded((x / x[0]) ** 3),
        mode="lines",
        name="a smooth function",
        line={"color": GRAY, "dash": "dashdot"},
        hoverinfo="skip",
    )
    shown = {"type": "log", "exponentformat": "power", "dtick": 1}
    figure.update_xaxes(title_text="width of the interval, Å", autorange="reversed", **shown)
    figure.update_yaxes(title_text="jump over its size in the narrowest interval", **shown)
    return figure


def _distinct(model: ModelProbes) -> list[Found]:
    """Return the largest jump of each of the first few causes."""
    first = [some[0] for _, some in model.jumps.causes()]
    return [found for found in first if len(found.widths) and found.size > 0][:PROOFS]


def place_figure(run: Run) -> Figure:
    """Show at which distance of two atoms each jump is, and how large."""
    figure = blank_figure("At which distance of two atoms the surface jumps", 420)
    for k, model in enumerate(run.models.values()):
        found = [f for f in model.jumps.found if math.isfinite(f.cause.distance)]
        if not found:
            continue
        figure.add_scatter(
            x=rounded(f.cause.distance for f in found),
            y=rounded(1e3 * f.size for f in found),
            mode="markers",
            name=escaped(model.name),
            marker={
                "color": look_of(k)[0],
                "symbol": [KINDS[f.order] for f in found],
                "size": 8,
                "opacity": 0.75,
                "line": {"color": PAPER, "width": 1},
            },
            text=[
                escaped(f"{model.name}: {f.in_words()}<br>{f.cause.words}<br>{f.probe.name}") for f in found
            ],
            hoverinfo="text",
        )
    figure.update_xaxes(title_text="distance of the atoms that matter, Å")
    figure.update_yaxes(title_text=f"size, {', '.join(UNITS)}", type="log", exponentformat="power")
    return figure


def rate_figure(run: Run) -> Figure:
    """Show which share of compressions passes each check."""
    kinds = (("alone", "pairs"), ("in molecules", "places"))
    rows = [(name, what, part) for what, part in kinds for name in RATES]
    figure = blank_figure("How many pairs of atoms repel each other all the way in", 120 + 52 * len(rows))
    several = len(run.models)
    for k, model in enumerate(run.models.values()):
        color, _, symbol = look_of(k)
        shift = 0.6 * (k + 0.5) / several - 0.3
        points = [
            (row + shift, _percent(getattr(model, part).rates[name]))
            for row, (name, _, part) in enumerate(rows)
        ]
        add_means(figure, points, name=escaped(model.name), color=color, symbol=symbol, least=-1.0)
    label_rows(figure, [f"{CHECKS[name]}, {what}" for name, what, _ in rows])
    figure.update_xaxes(title_text="share of the pairs that pass, %", range=[-3, 103])
    return figure


def _percent(estimate: Estimate) -> Estimate:
    return replace(estimate, mean=100 * estimate.mean, low=100 * estimate.low, high=100 * estimate.high)


def shown_walls(run: Run) -> list[tuple[str, Squeezed]]:
    """Return compressions to look at, with their models: those with the deepest holes, or the first pairs."""
    found = []
    for model in run.models.values():
        holes = [*model.pairs.holes[:WALLS], *model.places.holes[:WALLS]]
        failing = [one for one in model.pairs.squeezed if not one.checks.passed]
        some = holes or failing or list(model.pairs.squeezed)
        found += [(model.name, one) for one in some[:WALLS]]
    return found


def wall_figure(name: str, one: Squeezed) -> Figure:
    """Show the energy of two atoms that are pressed together, and the deepest hole."""
    figure = blank_figure(escaped(f"{name}: {one.name}"), 420)
    energy = one.energy - one.energy[0]
    figure.add_scatter(
        x=rounded(one.distances),
        y=rounded(_bent(energy)),
        mode="lines+markers",
        name="energy",
        line={"color": INK},
        marker={"size": 5},
        text=[f"{r:.3f} Å: {number(e)} eV" for r, e in zip(one.distances, energy, strict=True)],
        hoverinfo="text",
        showlegend=False,
    )
    if one.hole is not None:
        ends = np.array([one.hole.barrier, one.hole.barrier - one.hole.depth])
        figure.add_scatter(
            x=rounded([one.hole.barrier_place, one.hole.place]),
            y=rounded(_bent(ends)),
            mode="lines+markers",
            name=f"hole, {number(one.hole.depth)} eV deep",
            line={"color": VERMILION, "dash": "dot"},
            marker={"symbol": ["triangle-up", "triangle-down"], "size": 11},
            hoverinfo="skip",
        )
    figure.update_xaxes(title_text="distance of the two atoms, Å", autorange="reversed")
    _bent_axis(figure, energy[np.isfinite(energy)])
    return figure


def _bent(energy: Floats) -> Floats:
    """Return energies on a scale that is linear below 1 eV and logarithmic above, of either sign."""
    bent: Floats = np.arcsinh(np.asarray(energy, dtype=float) / 2) / math.log(10)
    return bent


def _bent_axis(figure: Figure, energy: Floats) -> None:
    powers = range(math.ceil(math.log10(max(10.0, float(np.abs(energy).max(initial=1.0))))) + 1)
    step = max(1, len(powers) // 6)
    shown = [power for power in powers if power % step == 0 and (power or step == 1)]
    low = float(energy.min(initial=0.0))
    below = [power for power in reversed(shown) if low < 0 and 10.0**power <= 3 * abs(low)]
    ticks = [*(-(10.0**power) for power in below), 0.0, *(10.0**power for power in shown)]
    words = [*(f"−{_ten(power)}" for power in below), "0", *map(_ten, shown)]
    figure.update_yaxes(
        title_text="energy above the first distance, eV",
        tickvals=_bent(np.array(ticks)).tolist(),
        ticktext=words,
    )


def _ten(power: int) -> str:
    return f"{10**power}" if power < 4 else f"10<sup>{power}</sup>"


def force_figure(run: Run) -> Figure:
    """Show how far forces are from a gradient, in three ways; hollow where it is noise."""
    figure = blank_figure("How far the force is from the gradient of the energy", 330)
    several = len(run.models)
    for k, model in enumerate(run.models.values()):
        color, _, symbol = look_of(k)
        shift = 0.6 * (k + 0.5) / several - 0.3
        points = [(model.forces.worst(what), model.forces.largest_noise[what]) for what in FORCES]
        levels = [found[1].value if found else noise for found, noise in points]
        kinds = [symbol if found else f"{symbol}-open" for found, _ in points]
        figure.add_scatter(
            x=rounded(max(level, 1e-13) for level in levels),
            y=[row + shift for row in range(len(FORCES))],
            mode="markers",
            name=escaped(model.name),
            marker={"color": color, "symbol": kinds, "size": 9},
            text=[
                escaped(f"{model.name}: {number(level)}" + ("" if found else ", noise"))
                for level, (found, _) in zip(levels, points, strict=True)
            ],
            hoverinfo="text",
        )
    figure.add_vline(x=LIMIT, line={"color": GRAY, "dash": "dot"})
    label_rows(figure, list(FORCES.values()))
    figure.update_xaxes(
        title_text="relative error of the worst structure", type="log", exponentformat="power", dtick=2
    )
    return figure


def shown_elements(run: Run) -> list[str]:
    """Return the elements that any model has a curve of."""
    return list(dict.fromkeys(one.element for model in run.models.values() for one in model.diatomics))


def curve_figure(run: Run, element: str) -> Figure:
    """Show the energy of two like atoms, from the largest distance, beside the reference."""
    figure = blank_figure(escaped(f"{element}–{element}"), 420)
    lowest = [0.0]
    for k, model in enumerate(run.models.values()):
        for one in (one for one in model.diatomics if one.element == element):
            color, dash, _ = look_of(k)
            energy = one.energy - one.energy[-1]
            lowest.append(float(energy.min()))
            figure.add_scatter(
                x=rounded(one.distances),
                y=rounded(energy),
                mode="lines",
                name=escaped(model.name),
                line={"color": color, "dash": dash},
            )
    reference = _reference(run, element)
    if reference is not None:
        energy = reference.energy - reference.energy[-1]
        lowest.append(float(energy.min()))
        figure.add_scatter(
            x=rounded(reference.distances),
            y=rounded(energy),
            mode="lines+markers",
            name="PBE",
            line={"color": INK, "width": 1},
            marker={"size": 5},
        )
    depth = max(0.5, -float(np.median(lowest[1:] or [0.0])), -lowest[-1])
    figure.update_xaxes(title_text=f"distance {element}–{element}, Å")
    figure.update_yaxes(title_text="energy from the largest distance, eV", range=[-1.6 * depth, 2 * depth])
    return figure


def _reference(run: Run, element: str) -> Curve | None:
    curves = (
        one.reference for model in run.models.values() for one in model.diatomics if one.element == element
    )
    return next((curve for curve in curves if curve is not None), None)
