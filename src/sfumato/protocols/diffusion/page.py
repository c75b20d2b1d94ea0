"""The HTML page about the energies and barriers of point defects."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from sfumato.protocols.diffusion.tables import columns, failures, value_of
from sfumato.report.figures import blank_figure, escaped, look_of, rounded
from sfumato.report.html import (
    Page,
    definitions,
    estimate_cell,
    failure_list,
    figure_block,
    heading,
    number_cell,
    provenance_block,
    table,
    warning_lines,
)
from sfumato.report.tables import settings_by_model, settings_note

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

MEANINGS = (
    (
        "formation energy (eV)",
        "E − N e of a relaxed supercell with the defect, e of an atom in the perfect crystal.",
    ),
    (
        "diffusivity (Å²/ps)",
        "Slope of Σ|Δr|² of all atoms over 6τ, with a vacancy in a supercell and a Langevin bath of 1/ps: "
        "that of the vacancy times the correlation factor (½ in a diamond lattice).",
    ),
    (
        "barrier (eV)",
        "From the lowest to the highest energy of the path of a hop: a vacancy with a nearest neighbor, an "
        "interstitial from a tetrahedral site through a hexagonal one to the next.",
    ),
    (
        "lattice constant (Å)",
        "Where the energy of the perfect crystal is lowest; all else is done at this size.",
    ),
)


def diffusion_page(runs: Sequence[Run]) -> Page:
    """Return the page about some runs; the same runs give the same text.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    figures: list[tuple[str, Figure]] = []
    body = [
        f'<section id="{run.protocol.name}{k}">{_section(run, f"{run.protocol.name}{k}", figures)}</section>'
        for k, run in enumerate(runs)
    ]
    return Page("Point defects", "formation and migration; written by Sfumato", body, figures=figures)


def _section(run: Run, key: str, figures: list[tuple[str, Figure]]) -> str:
    groups = failures(run)
    hops = dict.fromkeys(one.kind for model in run.models.values() for one in model.paths)
    shown = [(f"path-{kind}", path_figure(run, kind)) for kind in hops]
    figures += [(f"{run.folder.name}-{name}", figure) for name, figure in shown]
    note = "Energies of the images; lines only join them."
    wandering = any(model.wandering for model in run.models.values())
    parts = [
        f"<h2>{escape(run.data.name)}</h2>",
        warning_lines(run.remarks),
        _numbers(run),
        *(figure_block(f"{key}-{name}", figure, note) for name, figure in shown),
        *(_wandering(run, key, figures) if wandering else []),
        "<h2>What has no result</h2>",
        failure_list(groups, "defect")
        if groups
        else "<p>None: every defect and every path came to rest.</p>",
        "<h2>What the numbers mean</h2>",
        definitions(MEANINGS),
        "<h2>Data, settings and provenance</h2>",
        _provenance(run),
    ]
    return "\n".join(parts)


def path_figure(run: Run, kind: str) -> Figure:
    """Show the energy along the path of a hop."""
    figure = blank_figure(f"Hop of a {escaped(kind)}: energy along the path", 420)
    for k, model in enumerate(run.models.values()):
        path = model.path(kind)
        if path is None:
            continue
        color, dash, symbol = look_of(k)
        figure.add_scatter(
            x=rounded(path.distance),
            y=rounded(path.energies),
            mode="lines+markers",
            name=escaped(model.name),
            line={"color": color, "dash": dash},
            marker={"symbol": symbol, "size": 8},
        )
    figure.update_xaxes(title_text="distance that all atoms together have gone, Å")
    figure.update_yaxes(title_text="energy over the first image, eV")
    return figure


def arrhenius_figure(run: Run) -> Figure:
    """Show the diffusivity of a vacancy against the temperature; what is not positive is not drawn."""
    figure = blank_figure("Vacancy: diffusivity of all atoms together", 420)
    for k, model in enumerate(run.models.values()):
        color, _, symbol = look_of(k)
        points = [(1e3 / one.kelvin, one.diffusivity) for one in model.wandering if one.diffusivity.mean > 0]
        figure.add_scatter(
            x=rounded(x for x, _ in points),
            y=rounded(e.mean for _, e in points),
            mode="markers",
            name=escaped(model.name),
            error_y={
                "type": "data",
                "symmetric": False,
                "array": rounded(e.high - e.mean for _, e in points),
                "arrayminus": rounded(min(e.mean - e.low, 0.9 * e.mean) for _, e in points),
            },
            marker={"color": color, "symbol": symbol, "size": 9},
        )
    figure.update_xaxes(title_text="1000 K / temperature")
    figure.update_yaxes(title_text="D, Å²/ps", type="log", exponentformat="power", dtick=1)
    return figure


def _wandering(run: Run, key: str, figures: list[tuple[str, Figure]]) -> list[str]:
    head = [heading("model", words=True), heading("temperature", "K"), heading("time", "ps"), heading("hops")]
    head += [heading("diffusivity", "Å²/ps"), heading("activation energy", "eV"), heading("barrier", "eV")]
    rows = []
    for model in run.models.values():
        activation = estimate_cell(model.activation.energy if model.activation else None)
        barrier = number_cell(value_of(model, "barrier", "vacancy"))
        for one in model.wandering:
            cells = "".join(map(number_cell, (one.kelvin, one.picoseconds, one.hops)))
            cells += f"{estimate_cell(one.diffusivity)}{activation}{barrier}"
            rows.append(f"<th>{escape(model.name)}</th>{cells}")
    note = "Mean over blocks with Student's 95 % interval; of the activation energy blocks are resampled."
    figure = arrhenius_figure(run)
    figures.append((f"{run.folder.name}-arrhenius", figure))
    shown = figure_block(f"{key}-arrhenius", figure, "Bars: 95 % over blocks.")
    return [f"<h2>Vacancy in motion</h2>{table(head, rows, note)}", shown]


def _numbers(run: Run) -> str:
    head = [heading("model", words=True), heading("lattice constant", "Å")]
    head += [heading(title, "eV") for _, _, title in columns(run)]
    rows = []
    for model in run.models.values():
        cells = "".join(number_cell(value_of(model, what, kind)) for what, kind, _ in columns(run))
        rows.append(f"<th>{escape(model.name)}</th>{number_cell(model.edge)}{cells}")
    return table(head, rows, settings_note(run.settings))


def _provenance(run: Run) -> str:
    protocol = run.protocol
    each = {name: protocol.settings_json(settings) for name, settings in run.settings.items()}
    return provenance_block(
        run.data,
        f"{len(run.data.system)} atoms in its cell",
        run.manifest,
        run.folder,
        {"protocol": protocol.name, "version": protocol.version} | settings_by_model(each),
        {name: model.identity for name, model in run.models.items()},
    )
