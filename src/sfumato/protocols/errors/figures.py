"""Figures of the errors on labeled structures; every function returns a plotly Figure."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sfumato.protocols.bsct.figures import COLORS, GRAY, SYMBOLS, blank_figure
from sfumato.systems import Floats

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.errors.run import EvalRun

MOST = 4000
"""Points drawn; of more, so many at random, always the same ones."""


def energy_parity(run: EvalRun) -> Figure:
    """Show predicted against reference energies, both from the mean reference of the composition."""
    batch, reference = run.frames.batch, run.frames.labels.energy
    composition = np.zeros((len(batch), 119), dtype=np.int64)
    np.add.at(composition, (batch.index, batch.numbers), 1)
    _, code = np.unique(composition, axis=0, return_inverse=True)
    code = code.reshape(-1)
    zero = (np.bincount(code, reference) / np.bincount(code))[code]
    atoms = np.diff(batch.offsets)
    found = {name: (model.energy - zero) / atoms for name, model in run.models.items()}
    title = "Energies from the mean of their composition: the diagonal is right"
    return _parity(title, "energy, eV/atom", (reference - zero) / atoms, found)


def force_parity(run: EvalRun) -> Figure:
    """Show predicted against reference force components."""
    found = {name: model.forces.reshape(-1) for name, model in run.models.items()}
    title = "Force components: the diagonal is right"
    return _parity(title, "force component, eV/Å", run.frames.labels.forces.reshape(-1), found)


def magnitude_figure(run: EvalRun) -> Figure:
    """Show the force error by the size of the reference force."""
    figure = blank_figure("Force error by the size of the reference force", 420)
    for k, (name, model) in enumerate(run.models.items()):
        if not model.magnitude:
            continue
        low, high, error, atoms = (np.array(column) for column in zip(*model.magnitude, strict=True))
        middle = np.where(np.isinf(high), 1.5 * low, np.where(low > 0, np.sqrt(low * high), high / 2))
        spans = [
            f"{a:g} to {b:g} eV/Å" if math.isfinite(b) else f"over {a:g} eV/Å"
            for a, b in zip(low, high, strict=True)
        ]
        figure.add_scatter(
            x=middle,
            y=1e3 * error,
            mode="lines+markers",
            name=escape(name, quote=False),
            marker={"color": COLORS[k % len(COLORS)], "symbol": SYMBOLS[k % len(SYMBOLS)], "size": 8},
            text=[f"{span}: {1e3 * e:.3g} meV/Å, {n} atoms" for span, e, n in zip(spans, error, atoms)],
            hoverinfo="text",
        )
    shown = {"type": "log", "exponentformat": "power", "dtick": 1}
    figure.update_xaxes(title_text="size of the reference force on an atom, eV/Å", **shown)
    figure.update_yaxes(title_text="force MAE, meV/Å", **shown)
    return figure


def _parity(title: str, axis: str, reference: Floats, found: dict[str, Floats]) -> Figure:
    figure = blank_figure(title, 560)
    known = np.flatnonzero(np.isfinite(reference))
    if len(known) > MOST:
        known = np.sort(np.random.default_rng(0).choice(known, MOST, replace=False))
    x = reference[known]
    ends = [float(x.min()), float(x.max())] if len(x) else [0.0, 1.0]
    line = {"color": GRAY, "dash": "dot"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    for k, (name, values) in enumerate(found.items()):
        figure.add_scatter(
            x=np.round(x, 5),
            y=np.round(values[known], 5),
            mode="markers",
            name=escape(name, quote=False),
            marker={"color": COLORS[k % len(COLORS)], "size": 4, "opacity": 0.45},
        )
    figure.update_xaxes(title_text=f"reference {axis}")
    figure.update_yaxes(title_text=f"predicted {axis}")
    return figure
