"""Whether forces are the gradient of the energy, and if not, what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ase.data import chemical_symbols

from sfumato.execution.records import Record, decode
from sfumato.metrics.noise import MARGIN
from sfumato.metrics.stats import Estimate, estimates
from sfumato.protocols.probes.plan import Probe
from sfumato.systems import Floats
from sfumato.words import plain

AXES = "xyz"

FEW = 0.1
"""Of the largest mismatch: elements and components below it are right where others are wrong; of the whole
mismatch, what one factor leaves of it where it explains it."""

LIMIT = 1e-4
"""Relative mismatch that is a wrong force: GFN2-xTB, whose field is converged to 1e-6, has 1e-6."""

EXTRAPOLATED = 1.5
"""Noise of u·(J − Jᵀ)·v over that of a force component, times the smallest push, over |u|: of differences
that are extrapolated twice."""

Blame = Literal["none", "factor", "component", "not a gradient", "another energy"]


@dataclass(frozen=True)
class Level:
    """A number and the size up to which it is noise."""

    value: float
    noise: float

    @property
    def below(self) -> bool:
        """Whether it cannot be told from noise."""
        return not self.value > self.noise

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types; below the noise there is no number."""
        return {"value": None if self.below else plain(self.value), "noise": plain(self.noise)}


@dataclass(frozen=True, eq=False)
class Forces:
    """What energies and forces around some structures say.

    Args:
        names: of the structures.
        mismatch: of each, ‖dE/du + F·u‖ / ‖dE/du‖ over elements and components.
        by_component: (element, component) → the same over all structures.
        factor: by which the force is too large, by least squares.
        unscaled: mismatch that this factor leaves, relative to what it was.
        loop: of each, work on closed loops over the absolute work on them.
        asymmetry: of each, ‖J − Jᵀ‖ / 2‖J‖ of the Jacobian of the force, 0 for a gradient, at most 1.
        mean_asymmetry: over the structures.
        noise: dtype → eV and eV/Å, median over structures; as it was run, and in double precision.
    """

    names: tuple[str, ...]
    mismatch: tuple[Level, ...]
    by_component: dict[tuple[int, int], Level]
    factor: float
    unscaled: float
    loop: tuple[Level, ...]
    asymmetry: tuple[Level, ...]
    mean_asymmetry: Estimate
    noise: dict[str, tuple[float, float]] = field(default_factory=dict)

    def worst(self, what: str) -> tuple[str, Level] | None:
        """Return the structure with the largest mismatch, loop or asymmetry that is more than noise."""
        levels: tuple[Level, ...] = getattr(self, what)
        above = [(name, level) for name, level in zip(self.names, levels) if not level.below]
        return max(above, key=lambda pair: pair[1].value, default=None)

    @property
    def largest_noise(self) -> dict[str, float]:
        """Up to which size mismatch, loop and asymmetry are noise, for the noisiest structure."""
        return {
            what: max((level.noise for level in getattr(self, what)), default=math.nan)
            for what in ("mismatch", "loop", "asymmetry")
        }

    @property
    def by_component_named(self) -> dict[str, Level]:
        """The same, "x of C" → level."""
        return {f"{AXES[c]} of {chemical_symbols[z]}": level for (z, c), level in self.by_component.items()}

    @property
    def blame(self) -> Blame:
        """What is wrong."""
        worst = self.worst("mismatch")
        if worst is None or worst[1].value < LIMIT:
            return "none"
        if self.unscaled < FEW:
            return "factor"
        if self.wrong_components:
            return "component"
        return "another energy" if self.worst("asymmetry") is None else "not a gradient"

    @property
    def wrong_components(self) -> list[str]:
        """Elements and components that are wrong, where half of all or more are right; otherwise none."""
        top = max((level.value for level in self.by_component.values()), default=0.0)
        wrong = [key for key, level in self.by_component.items() if level.value > FEW * top]
        if len(wrong) > len(self.by_component) / 2:
            return []
        return [f"{AXES[component]} of {chemical_symbols[z]}" for z, component in wrong]

    def in_words(self) -> str:
        """Return what is wrong, for people."""
        return {
            "none": "the force is the gradient of the energy",
            "factor": f"the force is {self.factor:.4g} times the gradient of the energy",
            "component": f"components of the force are wrong: {', '.join(self.wrong_components)}",
            "not a gradient": "the force is not the gradient of any energy",
            "another energy": "the force is the gradient of another energy",
        }[self.blame]

    def as_json(self) -> dict[str, Any]:
        """Return it in JSON types."""
        each = zip(self.names, self.mismatch, self.loop, self.asymmetry, strict=True)
        e = self.mean_asymmetry
        return {
            "blame": self.blame,
            "in_words": self.in_words(),
            "factor": plain(self.factor),
            "mean_asymmetry": {"value": plain(e.mean), "interval95": [plain(e.low), plain(e.high)], "n": e.n},
            "below_noise": {what: plain(value) for what, value in self.largest_noise.items()},
            "noise": {name: {"energy_eV": e, "force_eV_per_A": f} for name, (e, f) in self.noise.items()},
            "components": {name: level.as_json() for name, level in self.by_component_named.items()},
            "structures": {
                name: {"mismatch": a.as_json(), "loop": b.as_json(), "asymmetry": c.as_json()}
                for name, a, b, c in each
            },
        }


def forces_of(probes: Sequence[Probe], records: Sequence[Record], seed: int) -> Forces:
    """Return what the records of compared energies and forces say.

    Args:
        probes: of the part "gradient".
        records: of each, finished.
        seed: of the bootstrap.
    """
    slopes = [decode(record["slopes"]) for record in records]
    errors = [_slope_noise(rows, record["noise"]) for rows, record in zip(slopes, records, strict=True)]
    mismatch = [_relative(rows, error) for rows, error in zip(slopes, errors, strict=True)]
    rows, error = np.concatenate([*slopes, np.zeros((0, 6))]), np.concatenate([*errors, np.zeros(0)])
    factor, unscaled = _factor(rows)
    groups = sorted({(int(z), int(c)) for z, c in rows[:, :2]})
    by_component = {
        key: _relative(rows[some], error[some], rows)
        for key in groups
        if (some := (rows[:, :2] == key).all(axis=1)).any()
    }
    atoms = [len(probe.task.frame.numbers) for probe in probes]
    asymmetry = [_asymmetry(record, n) for record, n in zip(records, atoms, strict=True)]
    values = np.array([level.value for level in asymmetry])
    names = tuple(probe.name for probe in probes)
    mean = (
        estimates({"λ": values}, ["all"] * len(values), rng=np.random.default_rng(seed))
        if len(values)
        else {}
    )
    return Forces(
        names,
        tuple(mismatch),
        by_component,
        factor,
        unscaled,
        tuple(_loop(record) for record in records),
        tuple(asymmetry),
        mean.get("λ", Estimate(math.nan, math.nan, math.nan, 0, len(values))),
        _noise(records),
    )


def _slope_noise(rows: Floats, noise: Sequence[float]) -> Floats:
    """Return (K,) eV/Å that noise and extrapolation leave of dE/du + F·u."""
    spread = noise[0] / (math.sqrt(2) * rows[:, 5]) + noise[1]
    total: Floats = MARGIN * spread + rows[:, 4]
    return total


def _relative(rows: Floats, error: Floats, everything: Floats | None = None) -> Level:
    """Return the mismatch of some slopes over the size of these, but no less than a tenth of all slopes."""
    scale = float(np.sqrt(np.mean(rows[:, 2] ** 2)))
    if everything is not None:
        scale = max(scale, 0.1 * float(np.sqrt(np.mean(everything[:, 2] ** 2))))
    off = float(np.sqrt(np.mean((rows[:, 2] + rows[:, 3]) ** 2)))
    noise = float(np.sqrt(np.mean(error**2)))
    scale = max(scale, 1e-3)
    return Level(off / scale, noise / scale)


def _factor(rows: Floats) -> tuple[float, float]:
    """Return the factor by which forces are too large, and what is left of the mismatch beside it."""
    slope, force = -rows[:, 2], rows[:, 3]
    square = float((slope**2).sum())
    if not square:
        return math.nan, math.nan
    factor = float((slope * force).sum()) / square
    off, rest = float(((force - slope) ** 2).sum()), float(((force - factor * slope) ** 2).sum())
    return factor, math.sqrt(rest / off) if off else math.nan


def _loop(record: Record) -> Level:
    rows = decode(record["loops"])
    absolute = max(float(np.sqrt(np.mean(rows[:, 1] ** 2))), 1e-6)
    noise = float(np.sqrt(np.mean((MARGIN * rows[:, 2] + rows[:, 3]) ** 2)))
    return Level(float(np.sqrt(np.mean(rows[:, 0] ** 2))) / absolute, noise / absolute)


def _asymmetry(record: Record, atoms: int) -> Level:
    """Return ‖J − Jᵀ‖ / 2‖J‖ from random vectors.

    Source: Bigi, Langer & Ceriotti 2025, "The dark side of the forces", on the asymmetry of the Jacobian.
    """
    curl, error = decode(record["curl"]), decode(record["curl_error"])
    stiffness = max(float(np.sqrt(np.mean(decode(record["stiffness"]) ** 2))), 1e-6)
    spread = EXTRAPOLATED * MARGIN * record["noise"][1] * math.sqrt(3 * atoms) / record["push"]
    noise = float(np.sqrt(np.mean((spread + error) ** 2)))
    return Level(float(np.sqrt(np.mean(curl**2))) / (2 * stiffness), noise / (2 * stiffness))


def _noise(records: Sequence[Record]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for key, dtype in (("noise_as_run", "dtype_as_run"), ("noise", "dtype")):
        if records:
            energy, force = np.median([record[key] for record in records], axis=0).tolist()
            found.setdefault(records[0][dtype] or "as it is", (energy, force))
    return found
