"""Figures of the errors on labeled structures; every function returns a plotly Figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sfumato.metrics.errors import element_energies
from sfumato.protocols.errors.analysis import element_counts
from sfumato.protocols.errors.tables import offset
from sfumato.report.figures import GRAY, blank_figure, escaped, look_of
from sfumato.systems import Floats, Ints

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from sfumato.protocols.protocol import Run

MOST = 4000
"""Points drawn; of more, so many at random, always the same ones."""


Points = dict[str, tuple[Floats, Floats]]
"""Model → reference and predicted values; nan where there is no prediction."""


def energy_parity(run: Run) -> Figure:
    """Show predicted against reference energies, both from the mean reference of the composition.

    Of a model with another zero of energy this is taken off first; its name says so.
    """
    points: Points = {}
    for name, model in run.models.items():
        reference, counts = model.frames.labels.energy, element_counts(model.frames)
        _, code = np.unique(counts, axis=0, return_inverse=True)
        code = code.reshape(-1)
        zero = (np.bincount(code, reference) / np.bincount(code))[code]
        atoms, shifted = counts.sum(axis=1), bool(offset(model))
        predicted = model.energy - (_offsets(model.energy - reference, counts, code) if shifted else 0.0)
        title = f"{name} (its zero taken off)" if shifted else name
        points[title] = (reference - zero) / atoms, (predicted - zero) / atoms
    title = "Energies from the mean of their composition: the diagonal is right"
    return _parity(title, "energy, eV/atom", points)


def _offsets(off: Floats, counts: Ints, code: Ints) -> Floats:
    """Return (S,) eV that another zero of energy adds: by element, or by composition where that fails."""
    fitted = element_energies(off, counts)
    if np.isfinite(fitted).all():
        return np.asarray(counts @ fitted)
    known = np.isfinite(off)
    sums = np.bincount(code, np.where(known, off, 0.0))
    return np.asarray((sums / np.maximum(np.bincount(code, known), 1))[code])


def force_parity(run: Run) -> Figure:
    """Show predicted against reference force components."""
    points = {
        name: (model.frames.labels.forces.reshape(-1), model.forces.reshape(-1))
        for name, model in run.models.items()
    }
    return _parity("Force components: the diagonal is right", "force component, eV/Å", points)


def magnitude_figure(run: Run) -> Figure:
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
            name=escaped(name),
            marker={"color": look_of(k)[0], "symbol": look_of(k)[2], "size": 8},
            text=[f"{span}: {1e3 * e:.3g} meV/Å, {n} atoms" for span, e, n in zip(spans, error, atoms)],
            hoverinfo="text",
        )
    shown = {"type": "log", "exponentformat": "power", "dtick": 1}
    figure.update_xaxes(title_text="size of the reference force on an atom, eV/Å", **shown)
    figure.update_yaxes(title_text="force MAE, meV/Å", **shown)
    return figure


def _parity(title: str, axis: str, points: Points) -> Figure:
    figure = blank_figure(title, 560)
    figure.update_layout(legend_itemsizing="constant")  # points as small as these could not be seen there
    known = {name: np.flatnonzero(np.isfinite(reference)) for name, (reference, _) in points.items()}
    drawn = {
        name: rows
        if len(rows) <= MOST
        else np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
        for name, rows in known.items()
    }
    shown = np.concatenate([points[name][0][rows] for name, rows in drawn.items()] or [np.zeros(0)])
    ends = [float(shown.min()), float(shown.max())] if len(shown) else [0.0, 1.0]
    line = {"color": GRAY, "dash": "dot"}
    figure.add_scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    for k, (name, rows) in enumerate(drawn.items()):
        reference, predicted = points[name]
        figure.add_scatter(
            x=np.round(reference[rows], 5),
            y=np.round(predicted[rows], 5),
            mode="markers",
            name=escaped(name),
            marker={"color": look_of(k)[0], "size": 4, "opacity": 0.45},
        )
    figure.update_xaxes(title_text=f"reference {axis}")
    figure.update_yaxes(title_text=f"predicted {axis}")
    return figure
