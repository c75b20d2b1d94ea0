"""Figures of a run: one message each, axes with units, Okabe–Ito colors, white ground for print.

Every function returns a plotly Figure; nothing is shown or written. Plotly reads a subset of HTML in texts,
so names that users chose are escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.metrics.smoothness import fsd_log_ratio, fsd_profile
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.kinds import coordinate_of, type_word
from sfumato.report.tables import bond_counts, metrics_of, number, ranked
from sfumato.systems import Floats, Scan

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.metrics.stats import Estimate
    from sfumato.protocols.run import BsctRun

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GRAY, FAINT = "#222222", "#7F7F7F", "#E6E6E6"

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GRAY)
"""Okabe–Ito; black is the reference, and gray stands for yellow, which white paper swallows."""

DASHES = ("solid", "dash", "dot")
"""One more line style for each round through the colors."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")

SMALLEST = 0.1
"""1/Å; smaller FSDs are drawn here on logarithmic axes: they are rounding, not roughness."""


def style_of(run: BsctRun) -> dict[str, tuple[str, str, str]]:
    """Return each model's (color, dash, symbol), the same in all figures of a run."""
    return {
        name: (
            COLORS[k % len(COLORS)],
            DASHES[k // len(COLORS) % len(DASHES)],
            SYMBOLS[(k + k // len(COLORS)) % len(SYMBOLS)],
        )
        for k, name in enumerate(run.models)
    }


def fsd_figure(run: BsctRun) -> Figure:
    """Show the mean FSD of every model, over whole scans and by side, with 95 % intervals."""
    models = [model for model in ranked(run) if model.coverage[0]]
    metrics = metrics_of(run.settings)
    sides = (
        ("fsd", "whole scan", INK, "circle", 0.0),
        ("fsd_compress", "compressed", BLUE, "triangle-left", 0.22),
        ("fsd_stretch", "stretched", VERMILION, "triangle-right", 0.44),
    )
    figure = blank_figure(
        f"Mean {metrics['fsd'].title} of each model: lower is smoother", 120 + 46 * len(models)
    )
    for word, name, color, symbol, offset in sides:
        found = [model.estimates.get(metrics[word].key) for model in models]
        _add_means(
            figure,
            [(k + offset, estimate) for k, estimate in enumerate(found) if estimate is not None],
            name=name,
            color=color,
            symbol=symbol,
        )
    _label_rows(figure, [f"{_text(m.name)} ({m.coverage[0]}/{m.coverage[1]})" for m in models], 0.22)
    figure.update_xaxes(title_text=f"mean {metrics['fsd'].heading}", rangemode="tozero")
    return figure


def distribution_figure(run: BsctRun) -> Figure:
    """Show the FSD of every scan, one row of points per model."""
    metric = metrics_of(run.settings)["fsd"]
    models = [model for model in ranked(run) if model.coverage[0]]
    style = style_of(run)
    figure = blank_figure(
        f"{metric.title} of every scan: a mean can hide a few very rough ones", 120 + 56 * len(models)
    )
    for k, model in enumerate(models):
        rows = _finished(model, metric.key)
        figure.add_box(
            x=[max(value, SMALLEST) for _, value in rows],
            y=[k] * len(rows),
            orientation="h",
            boxpoints="all",
            jitter=0.7,
            pointpos=0,
            width=0.7,
            fillcolor="rgba(0,0,0,0)",
            line={"color": style[model.name][0], "width": 1.2},
            marker={"color": style[model.name][0], "size": 4 if len(rows) > 60 else 6, "opacity": 0.55},
            text=[f"{_text(name)}: {number(value)} 1/Å" for name, value in rows],
            hoverinfo="text",
            hoveron="points",
            showlegend=False,
        )
    _label_rows(figure, [f"{_text(m.name)} ({m.coverage[0]}/{m.coverage[1]})" for m in models])
    drawn = [x for trace in figure.data for x in trace.x]
    _log_axis(figure, "x", f"{metric.title} of a scan, {metric.unit}", drawn)
    return figure


def bond_figure(run: BsctRun) -> Figure:
    """Show the FSD of every scan by type and model, and on top the means with 95 % intervals."""
    metric = metrics_of(run.settings)["fsd"]
    models = [model for model in ranked(run) if model.coverage[0]]
    style = style_of(run)
    counts = bond_counts(run)
    step = 0.75 / max(len(models), 1)
    title = f"{metric.title} by {type_word(run)}: every scan, and the means"
    figure = blank_figure(title, 150 + len(counts) * (16 + 13 * len(models)))
    places = {bond: row for row, bond in enumerate(counts)}
    drawn: list[float] = []
    for k, model in enumerate(models):
        rows = _finished(model, metric.key)
        drawn += [max(value, SMALLEST) for _, value in rows]
        figure.add_scatter(
            x=[max(value, SMALLEST) for _, value in rows],
            y=[places[name.split("/")[0]] + k * step for name, _ in rows],
            mode="markers",
            marker={"color": style[model.name][0], "size": 5, "opacity": 0.35},
            text=[f"{_text(model.name)}<br>{_text(name)}: {number(value)} 1/Å" for name, value in rows],
            hoverinfo="text",
            legendgroup=_text(model.name),
            showlegend=False,
        )
    for k, model in enumerate(models):
        by_bond = model.by_bond.get(metric.key, {})
        _add_means(
            figure,
            [(row + k * step, by_bond[bond]) for bond, row in places.items() if bond in by_bond],
            name=_text(model.name),
            color=style[model.name][0],
            symbol=style[model.name][2],
            least=SMALLEST,
        )
    labels = [f"{_text(bond)} ({n} scan{'s' * (n != 1)})" for bond, n in counts.items()]
    _label_rows(figure, labels, step * (len(models) - 1) / 2)
    for row in range(1, len(counts)):
        figure.add_hline(y=row - (1 - 0.75 + step) / 2, line={"color": FAINT, "width": 1})
    _log_axis(figure, "x", f"{metric.title} of a scan, {metric.unit}", drawn)
    return figure


def paired_figure(run: BsctRun, first: str, second: str) -> Figure:
    """Show the FSD of every scan for two models against each other.

    Args:
        run: holds both models.
        first: name of the model on the horizontal axis.
        second: name of the model on the vertical axis.
    """
    metric = metrics_of(run.settings)["fsd"]
    across, up = (dict(_finished(run.models[name], metric.key)) for name in (first, second))
    shared = [name for name in across if name in up]
    x, y = ([max(values[name], SMALLEST) for name in shared] for values in (across, up))
    below = sum(up[name] < across[name] for name in shared)
    told = f"below the line {_text(second)} is smoother, {below} of {len(shared)} scans"
    figure = blank_figure(f"{_text(first)} against {_text(second)}: {told}", 560)
    ends = [0.5 * min([*x, *y], default=1.0), 2 * max([*x, *y], default=10.0)]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GRAY, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        showlegend=False,
        marker={"color": BLUE, "size": 7, "opacity": 0.6},
        text=[
            f"{_text(name)}<br>{_text(first)} {number(across[name])}<br>{_text(second)} {number(up[name])}"
            for name in shared
        ],
        hoverinfo="text",
    )
    _log_axis(figure, "x", f"{_text(first)}: {metric.heading}", [*x, *y])
    _log_axis(figure, "y", f"{_text(second)}: {metric.heading}", [*x, *y])
    figure.update_xaxes(constrain="domain", constraintoward="left")
    figure.update_yaxes(scaleanchor="x", constrain="domain", constraintoward="top")
    return figure


def notable_scans(run: BsctRun, limit: int = 12) -> dict[str, str]:
    """Return the scans worth a look and why: each model's roughest, its median, then its next roughest.

    A model that is nowhere rough, such as the method that made the labels, asks for none.

    Args:
        run: any number of models.
        limit: scans at most.

    Returns:
        Scan name → reason in words, the first the roughest of all.
    """
    key = metrics_of(run.settings)["fsd"].key
    ordered = {
        model.name: sorted(rows, key=lambda row: -row[1])
        for model in reversed(ranked(run))
        if (rows := _finished(model, key)) and max(value for _, value in rows) > SMALLEST
    }
    picks: list[tuple[str, str]] = []
    kinds: tuple[tuple[str, Callable[[int], int]], ...] = (
        ("roughest", lambda n: 0),
        ("median", lambda n: n // 2),
        ("2nd roughest", lambda n: 1),
        ("3rd roughest", lambda n: 2),
    )
    for word, place in kinds:
        for model, rows in ordered.items():
            if place(len(rows)) < len(rows):
                picks.append((rows[place(len(rows))][0], f"{word} of {model}"))
    chosen: dict[str, list[str]] = {}
    for scan, reason in picks:
        if scan in chosen or len(chosen) < limit:
            chosen.setdefault(scan, []).append(reason)
    return {scan: ", ".join(reasons) for scan, reasons in chosen.items()}


def scan_figure(run: BsctRun, name: str) -> Figure:
    """Show one scan: energies, squared force changes, their log-ratio, and its slope, of all models.

    The maximum of the slope is the FSD.

    Args:
        run: any number of models.
        name: of the scan.

    Raises:
        ValueError: the run has no such scan.
    """
    from plotly.subplots import make_subplots

    scan = next((scan for scan in run.scan_set if scan.name == name), None)
    if scan is None:
        raise ValueError(f"{run.folder}: no scan {name!r} in {run.scan_set.name}")
    figure = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.03, row_heights=[4, 3, 3, 3])
    use = scan.labeled
    b, E, F = scan.coordinate[use], scan.energy[use], scan.forces[use]
    m = int(E.argmin())
    _line(figure, 1, b, E - E[m], "reference", INK, "solid", legend=True)
    _line(figure, 2, b, _square_change(F, F[m]), "reference", INK, "solid")
    _line(figure, 3, b[[0, -1]], np.zeros(2), "reference", INK, "solid")
    for model in ranked(run):
        color, dash, _ = style_of(run)[model.name]
        _add_model(figure, scan, run.settings, model, (color, dash))
    figure.add_vline(x=float(b[m]), line={"color": GRAY, "width": 1, "dash": "dot"})
    _dress(figure, f"{_text(name)}", 900)
    span = float(E.max() - E[m])
    symbol, title = coordinate_of(scan)
    figure.update_yaxes(
        title_text=f"E − E({symbol}<sub>min</sub>), eV", range=[-0.12 * span, 1.12 * span], row=1
    )
    lowest = 0.16 * run.settings.floor**2
    highest = 16 * float(np.nanmax(_square_change(F, F[m]), initial=1.0))
    powers = range(-12, 14, 2)
    figure.update_yaxes(
        title_text="‖ΔF‖², (eV/Å)²",
        type="log",
        range=[math.log10(lowest), math.log10(highest)],
        tickvals=[10.0**power for power in powers],
        ticktext=["1" if power == 0 else f"10<sup>{power}</sup>".replace("-", "−") for power in powers],
        row=2,
    )
    figure.update_yaxes(title_text="log-ratio L, no unit", row=3)
    figure.update_yaxes(title_text=f"|ΔL|/Δ{symbol}, 1/Å", rangemode="tozero", row=4)
    figure.update_xaxes(title_text=title, row=4)
    return figure


def _add_model(
    figure: Figure, scan: Scan, settings: bsct.Settings, model: bsct.ModelResult, look: tuple[str, str]
) -> None:
    """Draw one model into the four panels of a scan, or say in the legend that it did not finish it."""
    result = model.scans.get(scan.name)
    label = _text(model.name)
    if result is None or result.energy is None or result.forces is None:
        status = "not run" if result is None else result.status
        _line(figure, 1, np.array([np.nan]), np.array([np.nan]), f"{label} ({status})", *look, legend=True)
        return
    use = scan.labeled
    b, reference = scan.coordinate[use], scan.energy[use]
    e, f = (np.asarray(a)[:: settings.refine][use] for a in (result.energy, result.forces))
    m = int(reference.argmin())
    curves = (b, reference, scan.forces[use], f)
    length, log_ratio = fsd_log_ratio(*curves, settings=settings.fsd, energy=e)
    middle, slope = fsd_profile(*curves, settings=settings.fsd, energy=e)
    zero = f[int(e.argmin())] if settings.minimum == "own" else scan.forces[use][m]
    _line(figure, 1, b, e - e[m], label, *look, legend=True)
    _line(figure, 2, b, _square_change(f, zero), label, *look)
    _line(figure, 3, length, log_ratio, label, *look)
    _line(figure, 4, middle, slope, label, *look)
    if len(slope):
        top = int(slope.argmax())
        figure.add_scatter(
            x=[round(float(middle[top]), 5)],
            y=[float(slope[top])],
            mode="markers",
            marker={"color": look[0], "size": 9, "line": {"color": "white", "width": 1}},
            hovertext=f"{label}: FSD {number(float(slope[top]))} 1/Å at {middle[top]:.3f} Å",
            hoverinfo="text",
            legendgroup=label,
            showlegend=False,
            row=4,
            col=1,
        )


def _line(
    figure: Figure, row: int, x: Floats, y: Floats, name: str, color: str, dash: str, *, legend: bool = False
) -> None:
    figure.add_scatter(
        x=_short(x),
        y=_short(y),
        mode="lines",
        name=name,
        line={"color": color, "dash": dash, "width": 2.4 if color == INK else 1.6},
        legendgroup=name,
        showlegend=legend,
        row=row,
        col=1,
    )


def _short(values: Floats) -> list[float | None]:
    """Six significant digits are plenty for a screen and halve the file; nan is a gap."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def _square_change(forces: Floats, zero: Floats) -> Floats:
    """Squared force change over all atoms; the zero at the minimum itself is a gap on a log axis."""
    square = ((forces - zero) ** 2).sum(axis=(1, 2))
    return np.where(square > 0, square, np.nan)


def _finished(model: bsct.ModelResult, key: str) -> list[tuple[str, float]]:
    """(scan, value) of a metric wherever it applies."""
    return [
        (name, scan.values[key])
        for name, scan in model.scans.items()
        if scan.status == "ok" and math.isfinite(scan.values[key])
    ]


def _add_means(
    figure: Figure,
    points: Iterable[tuple[float, Estimate]],
    *,
    name: str,
    color: str,
    symbol: str,
    least: float = 0.0,
) -> None:
    """Draw means as markers and their intervals as bars, on rows; what is below `least` is drawn there."""
    points = [(row, e) for row, e in points if math.isfinite(e.mean)]
    means = [max(e.mean, least) for _, e in points]
    bars = [
        (max(e.high, least) - x, x - max(e.low, least)) if math.isfinite(e.low) else (0.0, 0.0)
        for x, (_, e) in zip(means, points)
    ]
    figure.add_scatter(
        x=means,
        y=[row for row, _ in points],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [up for up, _ in bars],
            "arrayminus": [down for _, down in bars],
            "thickness": 1.4,
            "width": 3,
        },
        mode="markers",
        name=name,
        legendgroup=name,
        marker={"color": color, "symbol": symbol, "size": 8, "line": {"color": "white", "width": 1}},
        text=[f"{name}: {number(e.mean)} [{number(e.low)}, {number(e.high)}], n = {e.n}" for _, e in points],
        hoverinfo="text",
    )


def _label_rows(figure: Figure, labels: Sequence[str], middle: float = 0.0) -> None:
    """Name the rows 0, 1, 2 … from the top down."""
    figure.update_yaxes(
        tickvals=[k + middle for k in range(len(labels))],
        ticktext=list(labels),
        range=[len(labels) - 0.45 + middle, -0.55 + middle],
        showgrid=False,
        automargin=True,
        zeroline=False,
    )


def _log_axis(figure: Figure, axis: str, title: str, values: Sequence[float]) -> None:
    """Make an FSD axis logarithmic, over the values with some room."""
    low, high = 0.85 * min(values, default=1.0), 1.18 * max(values, default=10.0)
    digits = (1, 2, 5) if high < 100 * low else (1,)
    ticks = [digit * 10.0**power for power in range(-1, 6) for digit in digits]
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    update(
        type="log",
        title_text=title,
        range=[math.log10(low), math.log10(high)],
        tickangle=0,
        tickvals=ticks,
        ticktext=[f"≤ {SMALLEST:g}" if tick <= SMALLEST else f"{tick:g}" for tick in ticks],
    )


def blank_figure(title: str, height: int) -> Figure:
    from plotly.graph_objects import Figure

    figure = Figure()
    _dress(figure, title, height)
    return figure


def _dress(figure: Figure, title: str, height: int) -> None:
    """Give a figure the common look."""
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0, "xref": "paper", "y": 1, "yanchor": "top", "pad": {"t": 12}},
        title_font={"size": 16},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        height=height,
        margin={"l": 64, "r": 12, "t": 68, "b": 48},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 12}},
        hovermode="closest",
    )
    axes: dict[str, Any] = {
        "gridcolor": FAINT,
        "linecolor": GRAY,
        "ticks": "outside",
        "tickcolor": GRAY,
        "ticklen": 4,
        "zeroline": False,
        "showline": True,
        "title_font": {"size": 13},
    }
    figure.update_xaxes(automargin=True, **axes)
    figure.update_yaxes(automargin=True, **axes)


def _text(words: str) -> str:
    return html.escape(words, quote=False)
