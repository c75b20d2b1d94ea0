"""How training runs went, from their logs: a table, and a page with their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from sfumato.report.figures import blank_figure, escaped, log_axis, look_of
from sfumato.report.html import Page, figure_block
from sfumato.report.numbers import number
from sfumato.report.tables import plain_table
from sfumato.words import duration

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Log = Sequence[Mapping[str, Any]]
"""The lines of a run."""

SMALLEST = 1e-3
"""meV; the axis of errors begins no lower."""

SHOWN = (("forces", "force MAE, meV/Å"), ("energy", "energy MAE, meV/atom"))


def find_logs(path: Path) -> dict[str, Log]:
    """Return the logs of the training runs at or below a folder, by the folder's name.

    Raises:
        ValueError: a log that cannot be read.
    """
    from sfumato.training.log import NAME, read_log

    folders = sorted(file.parent for file in path.rglob(NAME) if (file.parent / "settings.json").exists())
    return {
        folder.resolve().name if folder == path else str(folder.relative_to(path)): read_log(folder)
        for folder in folders
    }


def evaluations(log: Log) -> list[Mapping[str, Any]]:
    """Return the lines of a log that hold errors on held-out frames."""
    return [line for line in log if line["event"] == "validation"]


def curve_table(logs: Mapping[str, Log]) -> RenderableType:
    """Return how far each run is, and its errors where the validation loss of its last stage was smallest."""
    table = plain_table("Training runs")
    for title in ("run", "steps", "time", "energy MAE, meV/atom", "force MAE, meV/Å", "held out", "state"):
        table.add_column(title, justify="left" if title in ("run", "state") else "right", overflow="fold")
    for name, log in logs.items():
        if not log:
            table.add_row(Text(name), *[""] * 5, "no line yet")
            continue
        last = log[-1]
        turns = [k for k, line in enumerate(log) if line["event"] == "stage"]
        best = min(evaluations(log[turns[-1] if turns else 0 :]), key=lambda line: line["loss"], default=None)
        shown = ["n/a", "n/a", ""]
        if best is not None:
            shown = [number(1e3 * best[key]) if key in best else "n/a" for key in ("energy", "forces")]
            shown.append(str(best["frames"]))
        seconds = max((line["seconds"] for line in log if "seconds" in line), default=0.0)
        state = "finished" if last["event"] == "end" else "unfinished"
        table.add_row(Text(name), str(last["step"]), duration(seconds), *shown, state)
    table.caption = (
        "Errors at the smallest validation loss of the last stage: those of the model that is kept."
    )
    return table


def curve_figure(logs: Mapping[str, Log], key: str, title: str) -> Figure:
    """Show an error on held-out frames against the time of training."""
    figure = blank_figure(f"Held-out {title}", 440)
    for k, (name, log) in enumerate(logs.items()):
        lines = [line for line in evaluations(log) if key in line]
        color, dash, _ = look_of(k)
        figure.add_scatter(
            x=[line["seconds"] / 60 for line in lines],
            y=[1e3 * line[key] for line in lines],
            mode="lines+markers",
            name=escaped(name),
            line={"color": color, "dash": dash},
            marker={"size": 4},
            text=[f"step {line['step']}: {1e3 * line[key]:.3g}" for line in lines],
            hoverinfo="text+name",
        )
    figure.update_xaxes(title_text="time of training, minutes", rangemode="tozero")
    shown = [value for trace in figure.data for value in trace.y if value > 0]
    log_axis(figure, "y", title, shown, SMALLEST)
    return figure


def curve_page(logs: Mapping[str, Log]) -> Page:
    """Return the page with the curves."""
    note = "Each point is an evaluation of the averaged weights; interruptions are left out of the time."
    figures = [(f"training-{key}", curve_figure(logs, key, title)) for key, title in SHOWN]
    blocks = [figure_block(name, figure, note) for name, figure in figures]
    below = "held-out errors while models were trained; written by Sfumato"
    return Page("Training", below, blocks, figures=figures)
