"""What is to blame where energy is not conserved: surface, forces, neighbors, precision, or the integrator.

A run is repeated from the same start with half and a quarter of the step, in double precision, and with fresh
neighbors. Along each path stands what the work of the force leaves unexplained of the energy
(`dynamics.observe.Work`), whatever the integrator does. On a smooth surface that falls with the eighth power
of the step: to 1e-9 eV at a quarter of a sensible one. What is left there is not the integrator's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sfumato.dynamics.observe import POINTS
from sfumato.metrics.drift import Residuals, block_slopes, end_error, residuals, scatter, split_residuals
from sfumato.systems import Floats

CULPRITS = ("neighbors", "surface", "forces", "precision", "integrator", "none")
"""In the order in which they count where several structures differ."""

LEAST_JUMP = 3e-6
"""eV that may stay unexplained in one interval at a quarter of the step. Measured there: smooth Lennard-Jones
2e-9, GFN2-xTB 4e-9, MinDScAIP in double precision 1e-10."""

SMOOTH = 12.0
"""Times by which isolated residuals fall at least when the step is halved, on a smooth surface that the steps
resolve (2⁸ where they do so well); a step of the energy leaves 0.7 of them, a kink a third, a jump of the
curvature a fifth."""

MISMATCH = 2e-3
"""Part of the work that the energy may not know of. Measured: smooth surfaces below 1e-6, a force that is 1 %
too large 0.0099, `lj-direct-noise` 0.006."""

GROWS = 1.4
"""Exponent of the growth of residuals from which they are a force that is wrong, not jumps: measured 1.65 and
more against 1.24 and less."""

NOISE = 3e-4
"""Of the energy, over the standard deviation of the kinetic energy: more can be seen in a curve of the total
energy. Single precision of MinDScAIP has 5e-6."""

KEPT = 1e-6
"""eV by which neighbors that are kept may change the energy, and 30 times its noise."""

HASTY = 20
"""Steps within which an integrator explodes whose step is far too long."""

DRIFT = 0.05
"""meV per atom and ps: a run of 100 ps warms by 19 K."""

WOBBLE = 0.2
"""Standard deviation of the total over that of the kinetic energy: beyond a fifth the step is too long (van
Gunsteren & Berendsen 1990)."""


@dataclass(frozen=True, eq=False)
class Track:
    """One trajectory of one structure, as it was seen.

    Args:
        timestep: fs.
        time: (M,) ps.
        potential: (M,) eV, and `kinetic`, `shadow`, `unexplained` likewise (see `Work`).
        jumps: (M,) eV, largest change of the total energy in a step since the sample before.
        atoms: in the structure.
        left: why it ended early, of which `kind` and at what ps; empty where it did not.
        kept: eV, largest difference between kept and fresh neighbors; nan where it was not looked at.
        zoomed: of what kind the worst residual is, see `metrics.drift.zoom`; empty where it is not known.
    """

    timestep: float
    time: Floats
    potential: Floats
    kinetic: Floats
    shadow: Floats
    unexplained: Floats
    jumps: Floats
    atoms: int
    left: str = ""
    kind: str = ""
    left_at: float = math.inf
    kept: float = math.nan
    zoomed: str = ""

    @property
    def steps(self) -> float:
        """Made until it left."""
        return 1e3 * self.left_at / self.timestep

    @property
    def total(self) -> Floats:
        """(M,) meV per atom, potential and kinetic energy."""
        return 1e3 * (self.potential + self.kinetic) / self.atoms

    @property
    def slopes(self) -> Floats:
        """Of the drift in meV per atom and ps, from the shadow energy."""
        known = np.isfinite(self.shadow)
        return block_slopes(self.time[known], 1e3 * self.shadow[known] / self.atoms)

    @property
    def wobble(self) -> float:
        """Scatter of the total energy over the standard deviation of the kinetic energy."""
        spread = float(np.std(self.kinetic)) if len(self.kinetic) else 0.0
        return scatter(self.potential + self.kinetic) / spread if spread > 0 else math.nan

    @property
    def scatter(self) -> float:
        """Of the total energy about its drift, in meV per atom."""
        return scatter(self.total)

    @property
    def step_jump(self) -> float:
        """Largest change of the total energy in a single step, in meV per atom."""
        return 1e3 * _largest(self.jumps) / self.atoms

    @property
    def residuals(self) -> Residuals:
        """What the work leaves unexplained; the track must have been seen at every step."""
        return residuals(*split_residuals(self.potential, self.unexplained, POINTS // 2))

    @property
    def end_error(self) -> float:
        """|E(end) − E(start)| in meV per atom."""
        return end_error(self.total)


Tracks = Mapping[str, Track]


@dataclass(frozen=True)
class Blame:
    """The culprit and the numbers that say so.

    Args:
        culprit: one of `CULPRITS`.
        reason: one sentence.
        numbers: by name, in SI-like units of their names.
    """

    culprit: str
    reason: str
    numbers: dict[str, float] = field(default_factory=dict)


def numbers_of(tracks: Tracks) -> dict[str, float]:
    """Return what a verdict rests on, by name; nan where a run was not made.

    Args:
        tracks: "base", "half", "quarter", and where there are such "double" and "kept".
    """
    base, half, quarter = tracks["base"], tracks["half"], tracks["quarter"]
    double, kept = tracks.get("double"), tracks.get("kept")
    fine, coarse = quarter.residuals, half.residuals
    rough = fine.rough if double is None else double.residuals.rough
    quiet = _least(fine.noise, math.nan if kept is None else kept.residuals.noise)
    spread = float(np.std(quarter.kinetic)) if len(quarter.kinetic) else math.nan
    return {
        "scatter_ratio": _ratio(_scatter(base, half.time), _scatter(half, half.time)),
        "wobble": base.wobble,
        "jump": fine.jump,
        "jump_double": math.nan if double is None else double.residuals.jump,
        "fall": _ratio(coarse.rough, fine.rough),
        "rough": fine.rough,
        "rough_double": math.nan if double is None else rough,
        "mismatch": fine.mismatch,
        "growth": fine.growth,
        "growth_double": math.nan if double is None else double.residuals.growth,
        "noise": fine.noise / spread if spread else math.nan,
        "kept": math.nan if kept is None else kept.kept,
        "kept_tolerance": max(KEPT, 30 * quiet),
    }


def blame(tracks: Tracks) -> Blame:
    """Say what is to blame in one structure.

    Args:
        tracks: as for `numbers_of`.
    """
    n = numbers_of(tracks)
    base, half, quarter = tracks["base"], tracks["half"], tracks["quarter"]
    if n["kept"] > n["kept_tolerance"]:
        return Blame("neighbors", f"neighbors that are kept change the energy by {n['kept']:.2g} eV", n)
    # An unstable integrator explodes within a few steps, a bad surface after a time, whatever the step.
    hasty = base.kind == half.kind == "exploded" and (
        2 * base.left_at < half.left_at or max(base.steps, half.steps) <= HASTY
    )
    finest = tracks.get("double", quarter)
    found = None if hasty else _of_the_surface(n, finest.zoomed)
    if found:
        return Blame(*found, n)
    if hasty or (base.left and base.left_at < min(half.left_at, quarter.left_at)):
        return Blame("integrator", f"the step of {base.timestep:g} fs is too long: {base.left}", n)
    if n["wobble"] > WOBBLE:
        words = f"the total energy fluctuates by {n['wobble']:.2g} of what the kinetic energy does"
        return Blame("integrator", f"the step of {base.timestep:g} fs is too long: {words}", n)
    if base.left:
        return Blame("surface", f"whatever the step, {base.left}", n)
    slopes = base.slopes
    # A crystal at rest that begins to move shifts the error of a finite step once: that is no drift.
    if _drifts(slopes) and _drifts(slopes[len(slopes) // 2 :]):
        words = f"energy drifts by {slopes.mean():.2g} meV/atom/ps, and the work of the force explains it"
        return Blame("integrator", f"the step of {base.timestep:g} fs is too long: {words}", n)
    return Blame("none", "what work leaves unexplained falls with the step as on a smooth surface", n)


def _of_the_surface(n: Mapping[str, float], kind: str) -> tuple[str, str] | None:
    """Return culprit and reason where a quarter of the step still leaves something that is not resolved.

    Args:
        n: of `numbers_of`.
        kind: of what is left in the worst interval, see `metrics.drift.zoom`.
    """
    double = math.isfinite(n["rough_double"])
    if n["noise"] > NOISE and (n["rough_double"] < 0.1 * n["rough"] if double else kind == "noise"):
        words = f"{n['noise']:.2g} of the fluctuations of the kinetic energy"
        gone = ", and is gone in double precision" if double else ""
        return "precision", f"the energy is noisy by {words}{gone}"
    jump = n["jump_double"] if double else n["jump"]
    left = jump > LEAST_JUMP and not n["fall"] >= SMOOTH
    if kind == "spread" and (left or n["mismatch"] > MISMATCH):
        part = f"{n['mismatch']:.2g} of its work is not in the energy"
        return "forces", f"the force is not the gradient: {part}, however short the step"
    if kind != "jump" and n["mismatch"] > MISMATCH and n["growth"] > GROWS:
        return (
            "forces",
            f"the force is not the gradient: {n['mismatch']:.2g} of its work is not in the energy",
        )
    if left and (double or kind != "noise"):
        what = "has a kink: a change of" if kind == "gone" else "jumps by"
        return "surface", f"the energy {what} up to {jump:.2g} eV in a step, however short"
    return None


def _drifts(slopes: Floats) -> bool:
    """Whether the mean of slopes in meV per atom and ps is beyond `DRIFT` by three standard errors."""
    if len(slopes) < 2:
        return False
    return bool(abs(slopes.mean()) - 3 * slopes.std(ddof=1) / math.sqrt(len(slopes)) > DRIFT)


def _largest(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else math.nan


def _least(*values: float) -> float:
    """The smallest that is known, or 0: wrong neighbors make noise only where they are kept."""
    return min((value for value in values if math.isfinite(value)), default=0.0)


def _scatter(track: Track, window: Floats) -> float:
    """Scatter of the total energy in meV per atom over the time that another track covers."""
    within = track.time <= (window[-1] if len(window) else 0.0)
    return scatter(track.total[within])


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def overall(found: Mapping[str, Blame]) -> tuple[str, list[str]]:
    """Return the culprit of a model and the structures that show it: the most frequent but "none".

    Args:
        found: structure → blame.
    """
    groups: dict[str, list[str]] = {}
    for name, one in found.items():
        groups.setdefault(one.culprit, []).append(name)
    guilty = [key for key in CULPRITS if key in groups and key != "none"]
    if not guilty:
        return "none", []
    worst = max(guilty, key=lambda key: (len(groups[key]), -CULPRITS.index(key)))
    return worst, groups[worst]
