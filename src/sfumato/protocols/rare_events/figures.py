"""Figures of the errors on migrating atoms; every function returns a plotly Figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.metrics.rare_events import ANGLE_LIMIT, MAGNITUDE_LIMIT
from sfumato.protocols.rare_events.tables import TITLES, defects_of, floor_of, of_defect
from sfumato.report.figures import (
    BLUE,
    FAINT,
    GRAY,
    INK,
    VERMILION,
    add_means,
    blank_figure,
    escaped,
    label_rows,
    look_of,
    rounded,
)
from sfumato.systems import Floats

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run
    from sfumato.protocols.rare_events.analysis import SetScores, Worst

AROUND = 4.5
"""Å around a migrating atom that are drawn."""

BOND = 2.8
"""Å; silicon atoms that are closer are joined in a drawing."""

FLOOR_DASHES = ("dot", "dash", "dashdot")


def magnitude_cdf(run: Run, defect: str) -> Figure:
    """Show the distribution of |δF| on the migrating atoms of a defect."""
    curves = {name: one.magnitudes for name, one in of_defect(run, defect).items()}
    floor = {name: one.magnitudes for name, one in floor_of(run, defect).items()}
    title = f"{escaped(defect)}: size of forces; the area above a curve is err_M"
    return _cdf(title, "|δF|, eV/Å", MAGNITUDE_LIMIT, curves, floor)


def angle_cdf(run: Run, defect: str) -> Figure:
    """Show the distribution of δθ on the migrating atoms of a defect."""
    curves = {name: one.angles for name, one in of_defect(run, defect).items()}
    floor = {name: one.angles for name, one in floor_of(run, defect).items()}
    title = f"{escaped(defect)}: direction of forces; the area above a curve is err_A"
    return _cdf(title, "δθ, degrees", ANGLE_LIMIT, curves, floor)


def _cdf(
    title: str, axis: str, limit: float, curves: Mapping[str, Floats], floor: Mapping[str, Floats]
) -> Figure:
    figure = blank_figure(title, 440)
    for k, (name, values) in enumerate(curves.items()):
        color, dash, _ = look_of(k)
        _add_steps(figure, name, values, limit, {"color": color, "dash": dash, "width": 2})
    for k, (name, values) in enumerate(floor.items()):
        dash = FLOOR_DASHES[k % len(FLOOR_DASHES)]
        _add_steps(figure, name, values, limit, {"color": INK, "dash": dash, "width": 1.5})
    figure.update_xaxes(title_text=axis, range=[0, limit])
    figure.update_yaxes(title_text="share of migrating atoms below", range=[0, 1.01])
    return figure


def _add_steps(figure: Figure, name: str, values: Floats, limit: float, line: Mapping[str, Any]) -> None:
    if not len(values):
        return
    x = np.sort(values)
    share = np.arange(1, len(x) + 1) / len(x)
    inside = x <= limit
    last = float(share[inside][-1]) if inside.any() else 0.0
    figure.add_scatter(
        x=[0.0, *rounded(x[inside]), limit],
        y=[0.0, *rounded(share[inside]), last],
        mode="lines",
        line={"shape": "hv", **line},
        name=escaped(name),
        hovertemplate=f"{escaped(name)}: %{{y:.2f}} below %{{x:.3f}}<extra></extra>",
    )


def score_figure(run: Run, key: str) -> Figure:
    """Show a score of every model and defect with its interval; lines are what other k-meshes of DFT score.

    Args:
        run: whose models.
        key: "err_M" or "err_A".
    """
    defects, models = defects_of(run), list(run.models)
    figure = blank_figure(
        f"{TITLES[key].title} on migrating atoms, with 95 % intervals", 150 + 34 * len(models)
    )
    for k, defect in enumerate(defects):
        color, _, symbol = look_of(k)
        offset = 0.24 * (k - (len(defects) - 1) / 2)
        scored = of_defect(run, defect)
        points = [
            (row + offset, scored[name].numbers[key])
            for row, name in enumerate(models)
            if name in scored and key in scored[name].numbers
        ]
        add_means(figure, points, name=escaped(defect), color=color, symbol=symbol)
        for j, (level, found) in enumerate(floor_of(run, defect).items()):
            dash = FLOOR_DASHES[j % len(FLOOR_DASHES)]
            figure.add_vline(x=found.numbers[key].mean, line={"color": color, "dash": dash, "width": 1.5})
            line, first = {"color": INK, "dash": dash}, not k
            figure.add_scatter(
                x=[None], y=[None], mode="lines", name=escaped(level), line=line, showlegend=first
            )
    label_rows(figure, [escaped(name) for name in models])
    figure.update_xaxes(title_text=TITLES[key].heading, rangemode="tozero")
    return figure


def distance_figure(run: Run, defect: str, what: str) -> Figure:
    """Show the force error by the distance from the nearest migrating atom or vacancy.

    Args:
        run: whose models.
        defect: of the set.
        what: "r" or "r_v".
    """
    origin = {"r": "migrating atom", "r_v": "vacancy"}[what]
    figure = blank_figure(f"{escaped(defect)}: force error by the distance from the nearest {origin}", 420)
    for k, (name, one) in enumerate([*of_defect(run, defect).items(), *floor_of(run, defect).items()]):
        rows = one.by_r if what == "r" else one.by_r_v
        model = name in run.models
        color, dash, symbol = look_of(k)
        figure.add_scatter(
            x=[_middle(row) for row in rows],
            y=rounded(row["force_rmse"] for row in rows),
            mode="lines+markers",
            name=escaped(name),
            line={"color": color if model else INK, "dash": dash if model else "dot"},
            marker={"symbol": symbol, "size": 8},
            text=[f"{_bin(row)}: {row['force_rmse']:.3f} eV/Å, {row['atoms']} atoms" for row in rows],
            hoverinfo="text+name",
        )
    figure.update_xaxes(title_text=f"distance from the nearest {origin}, Å", rangemode="tozero")
    figure.update_yaxes(title_text="force RMSE, eV/Å", rangemode="tozero")
    return figure


def _middle(row: Mapping[str, float]) -> float:
    if row["to"] < 1e-3:
        return 0.0
    return 0.5 * (row["from"] + row["to"]) if np.isfinite(row["to"]) else row["from"] + 0.5


def _bin(row: Mapping[str, float]) -> str:
    if row["to"] < 1e-3:
        return "migrating atoms"
    return (
        f"{row['from']:.1f} to {row['to']:.1f} Å" if np.isfinite(row["to"]) else f"over {row['from']:.1f} Å"
    )


def atom_figure(model: str, one: SetScores, worst: Worst) -> Figure:
    """Draw the surroundings of a migrating atom in 3-D, with the force it has and the one it should have.

    Args:
        model: its name.
        one: the set.
        worst: the atom.
    """
    (system,) = one.data.batch.take([worst.snapshot])
    start = int(one.data.batch.offsets[worst.snapshot])
    x = system.positions - system.positions[worst.atom]
    if system.pbc.any():
        from ase.geometry import find_mic

        x = find_mic(x, system.cell, system.pbc)[0]
    near = np.flatnonzero(np.linalg.norm(x, axis=1) <= AROUND)
    flags = one.data.migrating[start : start + len(system)]
    title = (
        f"{escaped(model)}, {escaped(one.data.name)} {worst.snapshot}, atom {worst.atom}: force off by "
        f"{worst.error:.2f} eV/Å and {worst.angle:.0f}°"
    )
    figure = blank_figure(title, 480)
    _add_bonds(figure, x[near])
    for migrating, color, name in ((False, GRAY, "atoms"), (True, BLUE, "migrating")):
        some = near[flags[near] == migrating]
        if len(some):
            figure.add_scatter3d(
                x=x[some, 0],
                y=x[some, 1],
                z=x[some, 2],
                mode="markers",
                name=name,
                marker={"size": 9, "color": color, "line": {"color": INK, "width": 1}},
                hovertext=[f"atom {k}" for k in some],
                hoverinfo="text",
            )
    for force, color, name in (
        (worst.reference, INK, "reference"),
        (worst.predicted, VERMILION, "predicted"),
    ):
        end = np.array(force)
        figure.add_scatter3d(
            x=[0, end[0]],
            y=[0, end[1]],
            z=[0, end[2]],
            mode="lines+markers",
            name=f"{name} force, 1 Å for 1 eV/Å",
            line={"color": color, "width": 7},
            marker={"size": [0, 5], "color": color, "symbol": "diamond"},
            hovertext=f"{name}: {np.linalg.norm(end):.2f} eV/Å",
            hoverinfo="text",
        )
    axes = {f"{axis}axis": {"title": f"{axis}, Å", "gridcolor": FAINT} for axis in "xyz"}
    figure.update_layout(scene={"aspectmode": "data", **axes})
    return figure


def _add_bonds(figure: Figure, x: Floats) -> None:
    pairs = np.argwhere(np.triu(np.linalg.norm(x[:, None] - x[None], axis=2) < BOND, 1))
    lines: list[list[float | None]] = [[], [], []]
    for i, j in pairs.tolist():
        for k in range(3):
            lines[k] += [float(x[i, k]), float(x[j, k]), None]
    figure.add_scatter3d(
        x=lines[0],
        y=lines[1],
        z=lines[2],
        mode="lines",
        line={"color": GRAY, "width": 3},
        hoverinfo="skip",
        showlegend=False,
    )
