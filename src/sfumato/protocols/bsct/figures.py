"""Figures of bond scans: one message each, axes with units.

Every function returns a plotly Figure; nothing is shown or written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.metrics.smoothness import fsd_log_ratio, fsd_profile
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.kinds import coordinate_of, sides_of, type_word
from sfumato.protocols.bsct.numbers import FSD, estimate_of, key_of, settings_of, shared_metrics
from sfumato.protocols.bsct.settings import Settings
from sfumato.protocols.bsct.tables import bond_counts, ranked, scan_names
from sfumato.report.figures import (
    BLUE,
    FAINT,
    FRAME,
    GRAY,
    INK,
    PAPER,
    VERMILION,
    add_means,
    blank_figure,
    dress,
    escaped,
    label_rows,
    log_axis,
    look_of,
    rounded,
    with_traces,
)
from sfumato.report.numbers import number
from sfumato.systems import Floats, Scan

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

Trace = dict[str, Any]

SMALLEST = 0.1
"""1/Å; smaller FSDs are drawn here on logarithmic axes: they are rounding, not roughness."""

ALL_SCANS = 24
"""A run of no more scans shows them all one by one, a larger one the `NOTABLE_SCANS` most notable."""

NOTABLE_SCANS = 12

CLIPPED = 3.0
"""A peak may rise so many times above the median of all models' peaks before it leaves the figure."""


def style_of(run: Run) -> dict[str, tuple[str, str, str]]:
    """Return each model's (color, dash, symbol), the same in all figures of a run."""
    return {name: look_of(k) for k, name in enumerate(run.models)}


def fsd_figure(run: Run) -> Figure:
    """Show the mean FSD of every model, over whole scans and by side, with 95 % intervals."""
    models = [model for model in ranked(run) if model.coverage[0]]
    metrics, words = shared_metrics(run), sides_of(run)
    sides = (
        ("fsd", "whole scan", INK, "circle", 0.0),
        ("fsd_compress", words.first, BLUE, "triangle-left", 0.22),
        ("fsd_stretch", words.last, VERMILION, "triangle-right", 0.44),
    )
    figure = blank_figure(
        f"Mean {metrics['fsd'].title} of each model: lower is smoother", 120 + 46 * len(models)
    )
    for word, name, color, symbol, offset in sides:
        estimates = [estimate_of(run, model, word) for model in models]
        add_means(
            figure,
            [(k + offset, estimate) for k, estimate in enumerate(estimates) if estimate is not None],
            name=name,
            color=color,
            symbol=symbol,
        )
    label_rows(figure, [f"{escaped(m.name)} ({m.coverage[0]}/{m.coverage[1]})" for m in models], 0.22)
    figure.update_xaxes(title_text=f"mean {metrics['fsd'].heading}", rangemode="tozero")
    return figure


def distribution_figure(run: Run) -> Figure:
    """Show the FSD of every scan, one row of points per model."""
    metric = shared_metrics(run)[FSD]
    models = [model for model in ranked(run) if model.coverage[0]]
    style = style_of(run)
    figure = blank_figure(
        f"{metric.title} of every scan: a mean can hide a few very rough ones", 120 + 56 * len(models)
    )
    for k, model in enumerate(models):
        rows = _finished(run, model)
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
            text=[f"{escaped(name)}: {number(value)} 1/Å" for name, value in rows],
            hoverinfo="text",
            hoveron="points",
            showlegend=False,
        )
    label_rows(figure, [f"{escaped(m.name)} ({m.coverage[0]}/{m.coverage[1]})" for m in models])
    drawn = [x for trace in figure.data for x in trace.x]
    log_axis(figure, "x", f"{metric.title} of a scan, {metric.unit}", drawn, SMALLEST)
    return figure


def bond_figure(run: Run) -> Figure:
    """Show the FSD of every scan by type and model, and on top the means with 95 % intervals."""
    metric = shared_metrics(run)[FSD]
    models = [model for model in ranked(run) if model.coverage[0]]
    style = style_of(run)
    counts = bond_counts(run)
    step = 0.75 / max(len(models), 1)
    title = f"{metric.title} by {type_word(run)}: every scan, and the means"
    figure = blank_figure(title, 150 + len(counts) * (16 + 13 * len(models)))
    places = {bond: row for row, bond in enumerate(counts)}
    drawn: list[float] = []
    for k, model in enumerate(models):
        rows = _finished(run, model)
        drawn += [max(value, SMALLEST) for _, value in rows]
        figure.add_scatter(
            x=[max(value, SMALLEST) for _, value in rows],
            y=[places[name.split("/")[0]] + k * step for name, _ in rows],
            mode="markers",
            marker={"color": style[model.name][0], "size": 5, "opacity": 0.35},
            text=[f"{escaped(model.name)}<br>{escaped(name)}: {number(value)} 1/Å" for name, value in rows],
            hoverinfo="text",
            legendgroup=escaped(model.name),
            showlegend=False,
        )
    for k, model in enumerate(models):
        by_bond = model.by_bond.get(key_of(run, model.name), {})
        add_means(
            figure,
            [(row + k * step, by_bond[bond]) for bond, row in places.items() if bond in by_bond],
            name=escaped(model.name),
            color=style[model.name][0],
            symbol=style[model.name][2],
            least=SMALLEST,
        )
    labels = [f"{escaped(bond)} ({n} scan{'s' * (n != 1)})" for bond, n in counts.items()]
    label_rows(figure, labels, step * (len(models) - 1) / 2)
    for row in range(1, len(counts)):
        figure.add_hline(y=row - (1 - 0.75 + step) / 2, line={"color": FAINT, "width": 1})
    log_axis(figure, "x", f"{metric.title} of a scan, {metric.unit}", drawn, SMALLEST)
    return figure


def paired_figure(run: Run, first: str, second: str) -> Figure:
    """Show the FSD of every scan for two models against each other.

    Args:
        run: holds both models.
        first: name of the model on the horizontal axis.
        second: name of the model on the vertical axis.
    """
    metric = shared_metrics(run)[FSD]
    across, up = (dict(_finished(run, run.models[name])) for name in (first, second))
    shared = [name for name in across if name in up]
    x, y = ([max(values[name], SMALLEST) for name in shared] for values in (across, up))
    below = sum(up[name] < across[name] for name in shared)
    words = f"below the line {escaped(second)} is smoother, {below} of {len(shared)} scans"
    figure = blank_figure(f"{escaped(first)} against {escaped(second)}: {words}", 560)
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
            f"{escaped(name)}<br>{escaped(first)} {number(across[name])}"
            f"<br>{escaped(second)} {number(up[name])}"
            for name in shared
        ],
        hoverinfo="text",
    )
    log_axis(figure, "x", f"{escaped(first)}: {metric.heading}", [*x, *y], SMALLEST)
    log_axis(figure, "y", f"{escaped(second)}: {metric.heading}", [*x, *y], SMALLEST)
    figure.update_xaxes(constrain="domain", constraintoward="left")
    figure.update_yaxes(scaleanchor="x", constrain="domain", constraintoward="top")
    return figure


def shown_scans(run: Run, all_up_to: int = ALL_SCANS, limit: int = NOTABLE_SCANS) -> dict[str, str]:
    """Return the scans to show one by one, and why: each model's roughest, its median, its next roughest.

    A model that is nowhere rough, such as the method that made the labels, asks for none.

    Args:
        run: any number of models.
        all_up_to: a run of no more scans shows all of them.
        limit: scans shown of a larger run.

    Returns:
        Scan name → reason in words, possibly empty; the first is the roughest of all.
    """
    ordered = {
        model.name: sorted(rows, key=lambda row: -row[1])
        for model in reversed(ranked(run))
        if (rows := _finished(run, model)) and max(value for _, value in rows) > SMALLEST
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
    names = scan_names(run)
    few = len(names) <= all_up_to
    chosen: dict[str, list[str]] = {}
    for scan, reason in picks:
        if few or scan in chosen or len(chosen) < limit:
            chosen.setdefault(scan, []).append(reason)
    rest = names if few else []
    return {scan: ", ".join(chosen.get(scan, [])) for scan in dict.fromkeys([*chosen, *rest])}


def scan_figure(run: Run, name: str) -> Figure:
    """Show one scan: energies, squared force changes, their log-ratio, and its slope, of all models.

    The maximum of the slope is the FSD.

    Args:
        run: any number of models.
        name: of the scan.

    Raises:
        ValueError: the run has no such scan.
    """
    from plotly.subplots import make_subplots

    scan = next((scan for scan in run.data if scan.name == name), None)
    if scan is None:
        raise ValueError(f"{run.folder}: no scan {name!r} in {run.data.name}")
    figure = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.03, row_heights=[4, 3, 3, 3])
    use = scan.labeled
    b, E, F = scan.coordinate[use], scan.energy[use], scan.forces[use]
    m = int(E.argmin())
    traces = [
        _line(1, b, E - E[m], "reference", INK, "solid", legend=True),
        _line(2, b, _square_change(F, F[m]), "reference", INK, "solid"),
        _line(3, b[[0, -1]], np.zeros(2), "reference", INK, "solid"),
    ]
    style, peaks = style_of(run), []
    for model in ranked(run):
        color, dash, _ = style[model.name]
        lines, peak = _model_lines(scan, settings_of(run, model.name), model, (color, dash))
        traces += lines
        if peak is not None:
            peaks.append((*peak, escaped(model.name), color))
    figure.add_vline(
        x=float(b[m]), line={"color": GRAY, "width": 1, "dash": "dot"}, exclude_empty_subplots=False
    )
    place = {"x0": float(b[m]), "x1": float(b[m]), "xref": "x", "y0": 0, "y1": 1, "yref": "paper"}
    bar = {"color": GRAY, "width": 5}
    figure.add_shape(type="line", name=FRAME, line=bar, opacity=0.35, layer="below", **place)
    dress(figure, escaped(name), 900)
    _scan_axes(figure, scan, min((settings_of(run, each).floor for each in run.models), default=1.0))
    return with_traces(figure, [*traces, *_peak_marks(figure, peaks)])


def _scan_axes(figure: Figure, scan: Scan, floor: float) -> None:
    """Name the four vertical axes of a scan and give them the range of the reference."""
    use = scan.labeled
    E, F = scan.energy[use], scan.forces[use]
    m = int(E.argmin())
    span = float(E.max() - E[m])
    symbol, title = coordinate_of(scan)
    figure.update_yaxes(
        title_text=f"E − E({symbol}<sub>min</sub>), eV", range=[-0.12 * span, 1.12 * span], row=1
    )
    lowest = 0.16 * floor**2
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


def _peak_marks(figure: Figure, peaks: Sequence[tuple[float, float, str, str]]) -> list[Trace]:
    """Return a dot on each model's peak; one that would flatten all others is cut off and says its height.

    Args:
        figure: of a scan; its lowest axis ends where peaks are cut off.
        peaks: (place in Å, height in 1/Å, escaped name, color).
    """
    heights = [height for _, height, _, _ in peaks]
    top = CLIPPED * float(np.median(heights)) if len(heights) > 2 else math.inf
    if max(heights, default=0.0) > top > 0:
        figure.update_yaxes(range=[0, top], row=4)
    return [_peak_mark(*peak, top) for peak in peaks]


def _peak_mark(x: float, height: float, label: str, color: str, top: float) -> Trace:
    above = height > top > 0
    words = {"text": f"{number(height)} ↑", "textposition": "middle right", "textfont": {"color": color}}
    return {
        "type": "scatter",
        "x": [round(x, 5)],
        "y": [0.94 * top if above else height],
        "mode": "markers+text" if above else "markers",
        **(words if above else {}),
        "marker": {
            "color": color,
            "symbol": "triangle-up" if above else "circle",
            "size": 9,
            "line": {"color": PAPER, "width": 1},
        },
        "hovertext": f"{label}: FSD {number(height)} 1/Å at {x:.3f} Å",
        "hoverinfo": "text",
        "legendgroup": label,
        "showlegend": False,
        "xaxis": "x4",
        "yaxis": "y4",
    }


def _model_lines(
    scan: Scan, settings: Settings, model: bsct.ModelResult, look: tuple[str, str]
) -> tuple[list[Trace], tuple[float, float] | None]:
    """Return one model's lines in the four panels of a scan; the legend says if it did not finish it.

    Returns:
        The lines, and where its slope is largest, in Å, and how large, in 1/Å; None where it has none.
    """
    result = model.scans.get(scan.name)
    label = escaped(model.name)
    if result is None or result.energy is None or result.forces is None:
        status = "not run" if result is None else result.status
        nowhere = np.array([np.nan])
        return [_line(1, nowhere, nowhere, f"{label} ({status})", *look, legend=True)], None
    use = scan.labeled
    b, reference = scan.coordinate[use], scan.energy[use]
    e, f = (np.asarray(a)[:: settings.refine][use] for a in (result.energy, result.forces))
    m = int(reference.argmin())
    curves = (b, reference, scan.forces[use], f)
    length, log_ratio = fsd_log_ratio(*curves, settings=settings.fsd, energy=e)
    middle, slope = fsd_profile(*curves, settings=settings.fsd, energy=e)
    zero = f[int(e.argmin())] if settings.minimum == "own" else scan.forces[use][m]
    lines = [
        _line(1, b, e - e[m], label, *look, legend=True),
        _line(2, b, _square_change(f, zero), label, *look),
        _line(3, length, log_ratio, label, *look),
        _line(4, middle, slope, label, *look),
    ]
    if not len(slope):
        return lines, None
    top = int(slope.argmax())
    return lines, (float(middle[top]), float(slope[top]))


def _line(row: int, x: Floats, y: Floats, name: str, color: str, dash: str, *, legend: bool = False) -> Trace:
    place = str(row) if row > 1 else ""
    return {
        "type": "scatter",
        "x": rounded(x),
        "y": rounded(y),
        "mode": "lines",
        "name": name,
        "line": {"color": color, "dash": dash, "width": 2.4 if color == INK else 1.6},
        "legendgroup": name,
        "showlegend": legend,
        "xaxis": f"x{place}",
        "yaxis": f"y{place}",
    }


def _square_change(forces: Floats, zero: Floats) -> Floats:
    """Squared force change over all atoms; the zero at the minimum itself is a gap on a log axis."""
    square = ((forces - zero) ** 2).sum(axis=(1, 2))
    return np.where(square > 0, square, np.nan)


def _finished(run: Run, model: bsct.ModelResult) -> list[tuple[str, float]]:
    """(scan, FSD) wherever it applies."""
    key = key_of(run, model.name)
    return [
        (name, scan.values[key])
        for name, scan in model.scans.items()
        if scan.status == "ok" and math.isfinite(scan.values[key])
    ]
