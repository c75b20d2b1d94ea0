"""What figures are made of: colors that the color-blind can tell apart, the common look, means, axes.

Functions return or change plotly Figures; nothing is shown or written. Plotly reads a subset of HTML in
texts, so names that users chose go through `escaped`.
"""

from __future__ import annotations

import colorsys
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sfumato.report.numbers import number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.metrics.stats import Estimate

INK, GRAY, FAINT, PAPER = "#222222", "#7F7F7F", "#E6E6E6", "#FFFFFF"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
STONE, WINE, OLIVE, INDIGO, BROWN, LIME = "#8C8C8C", "#882255", "#7A7A00", "#332288", "#8B5A2B", "#84C318"

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, STONE, WINE, OLIVE, INDIGO, BROWN, LIME)
"""Okabe–Ito, then more; black is the reference, and yellow is left out, which white paper swallows."""

DASHES = ("solid", "dash", "dot", "dashdot")
"""One more line style for each round of seven."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")

TICKS = ((1.0,), (1.0, 2.0, 5.0), tuple(map(float, range(1, 10))), tuple(k / 10 for k in range(10, 100)))
"""First digits of the ticks of a logarithmic axis, from wide ranges to narrow ones."""

FRAME = "frame"
"""The name of a line in a figure that the slider of a molecule moves."""

DARK = {
    INK: "#E4E4E4",
    GRAY: "#8E8E8E",
    FAINT: "#33373D",
    PAPER: "#15181C",
    BLUE: "#3C9CDC",
    SKY: "#9AD8FF",
    WINE: "#D24D8A",
    OLIVE: "#B5B53A",
    INDIGO: "#8F84F0",
    BROWN: "#B98A5C",
}
"""What colors become on dark ground; those not listed stay."""


def color_of(k: int) -> str:
    """Return the color of the k-th model, from 0; no two models share one."""
    if k < len(COLORS):
        return COLORS[k]
    # Beyond the table hues go round by the golden ratio, at two levels of lightness in turn.
    r, g, b = colorsys.hls_to_rgb(0.61803 * k % 1, 0.32 + 0.22 * (k % 2), 0.6)
    return f"#{round(255 * r):02X}{round(255 * g):02X}{round(255 * b):02X}"


def look_of(k: int) -> tuple[str, str, str]:
    """Return (color, dash, symbol) of the k-th model, from 0."""
    rounds = k // len(SYMBOLS)
    return color_of(k), DASHES[rounds % len(DASHES)], SYMBOLS[(k + rounds) % len(SYMBOLS)]


def escaped(words: str) -> str:
    """Return words in which plotly reads no markup."""
    return html.escape(words, quote=False)


def blank_figure(title: str, height: int) -> Figure:
    """Return an empty figure with the common look.

    Args:
        title: escaped.
        height: px.
    """
    from plotly.graph_objects import Figure

    figure = Figure()
    dress(figure, title, height)
    return figure


def dress(figure: Figure, title: str, height: int) -> None:
    """Give a figure the common look.

    Args:
        figure: with any subplots.
        title: escaped.
        height: px.
    """
    axes: dict[str, Any] = {
        "gridcolor": FAINT,
        "linecolor": GRAY,
        "ticks": "outside",
        "tickcolor": GRAY,
        "ticklen": 4,
        "zeroline": False,
        "showline": True,
        "title": {"font": {"size": 13}},
        "automargin": True,
    }
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 12},
            "font": {"size": 16},
        },
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        height=height,
        margin={"l": 64, "r": 12, "t": 68, "b": 48},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 12}},
        hovermode="closest",
    )
    figure.update_xaxes(axes)
    figure.update_yaxes(axes)


def with_traces(figure: Figure, traces: Sequence[Mapping[str, Any]]) -> Figure:
    """Return a figure with traces that were written as plotly's JSON.

    Plotly checks each number of each trace twice when they are added one by one, which takes most of the time
    of a page with many curves.

    Args:
        figure: with its layout, and traces that come first.
        traces: each with its `type` and the names of its axes.
    """
    from plotly.graph_objects import Figure

    content = figure.to_plotly_json()
    whole = {"data": [*content["data"], *traces], "layout": content["layout"]}
    return Figure(whole, _validate=False)


def add_means(
    figure: Figure,
    points: Iterable[tuple[float, Estimate]],
    *,
    name: str,
    color: str,
    symbol: str,
    least: float = 0.0,
) -> None:
    """Draw means as markers and their intervals as bars, on rows.

    Args:
        figure: to draw into.
        points: (row, mean with interval); what is not finite is left out.
        name: for the legend, escaped.
        color: of the markers.
        symbol: of the markers.
        least: what is below is drawn here, for logarithmic axes.
    """
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
        marker={"color": color, "symbol": symbol, "size": 8, "line": {"color": PAPER, "width": 1}},
        text=[f"{name}: {number(e.mean)} [{number(e.low)}, {number(e.high)}], n = {e.n}" for _, e in points],
        hoverinfo="text",
    )


def label_rows(figure: Figure, labels: Sequence[str], middle: float = 0.0) -> None:
    """Name the rows 0, 1, 2 … from the top down.

    Args:
        figure: with rows on its vertical axis.
        labels: escaped.
        middle: of what a row holds, from its number.
    """
    figure.update_yaxes(
        tickvals=[k + middle for k in range(len(labels))],
        ticktext=list(labels),
        range=[len(labels) - 0.45 + middle, -0.55 + middle],
        showgrid=False,
        automargin=True,
        zeroline=False,
    )


def log_axis(figure: Figure, axis: str, title: str, values: Sequence[float], least: float) -> None:
    """Make an axis logarithmic, over the values with some room.

    Args:
        figure: to change.
        axis: "x" or "y".
        title: of the axis, escaped.
        values: positive, that are drawn.
        least: the smallest that is drawn; its tick says that smaller ones are drawn there too.
    """
    low, high = 0.85 * min(values, default=10 * least), 1.18 * max(values, default=100 * least)
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(high)) + 1)
    for digits in TICKS[high < 100 * low :]:
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        if sum(low <= tick <= high for tick in ticks) > 1:
            break
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    update(
        type="log",
        title_text=title,
        range=[math.log10(low), math.log10(high)],
        tickangle=0,
        tickvals=ticks,
        ticktext=[f"≤ {least:g}" if tick <= least else f"{tick:g}" for tick in ticks],
    )


def rounded(values: Iterable[float]) -> list[float | None]:
    """Return six significant digits, plenty for a screen and half the size; nan is a gap."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
