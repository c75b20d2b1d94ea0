"""The numerical tools of the contract: noise of a function, its derivative, its jumps. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.systems import Floats

SETTLED = 4.0
"""Three noise estimates in a row agree when they are within this factor (Moré & Wild 2011)."""

STENCIL = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
"""Places of `jumps`, in units of its width."""

JUMP_NOISE = 3.3
"""Noise of a jump of the values over the noise of one value: √2 |(15, −10, 3)/8|."""

SLOPE_NOISE = 5.3
"""Noise of a jump of the slope, times the width, over the noise of one value: √2 |(−2, 3, −1)|."""


def noise_level(values: Floats) -> float:
    """Return the standard deviation of the noise in a smooth function, from values at equal small steps.

    The k-th differences of a smooth function die away with k; those of noise do not. With γ_k = (k!)²/(2k)!,
    σ_k = √(γ_k ⟨(Δ^k f)²⟩) estimates the noise once three of them in a row agree; if none do, the smallest
    bounds it from above. Numbers that all fit single precision are at least as noisy as its rounding, even
    where a few of them happen to be rounded alike.

    Args:
        values: (M, …) at M ≥ 5 equidistant points; further axes are components with noise of one size.

    Source: Moré & Wild 2011, "Estimating computational noise", Eq. 2.2 and section 3.
    """
    estimates, differences = [], values
    for k in range(1, len(values)):
        differences = np.diff(differences, axis=0)
        weight = math.factorial(k) ** 2 / math.factorial(2 * k)
        estimates.append(math.sqrt(weight * float(np.mean(differences**2))))
    rounding = 0.0
    if np.ptp(values) > 0 and (values.astype(np.float32) == values).all():
        rounding = float(np.spacing(np.abs(values).max().astype(np.float32))) / math.sqrt(12)
    for k in range(len(estimates) - 2):
        three = estimates[k : k + 3]
        if max(three) <= SETTLED * min(three):
            return float(max(three[0], rounding))
    return float(max(min(estimates), rounding))


@dataclass(frozen=True)
class Derivative:
    """A derivative by extrapolated central differences.

    Args:
        value: unit of the function over unit of the step.
        error: its own estimate of what extrapolation leaves, without noise.
        step: the smallest step that went into it; noise enters as σ / (√2 step).
    """

    value: float
    error: float
    step: float


def ridders(steps: Floats, above: Floats, below: Floats) -> Derivative:
    """Return df/dx at 0 from f at ±h for a series of steps, each half of the one before.

    Central differences have errors in h², h⁴, …, which a triangular table removes one by one; the entry is
    taken that its neighbors contradict least, so neither the answer nor the error knows what is expected.

    Args:
        steps: (K,) h.
        above: (K,) f(h).
        below: (K,) f(−h).

    Source: Ridders 1982, "Accurate computation of F'(x) and F'(x)F''(x)".
    """
    table = [(above - below) / (2 * steps)]
    best = Derivative(float(table[0][0]), math.inf, float(steps[0]))
    for order in range(1, len(steps)):
        last = table[-1]
        finer = last[1:] + (last[1:] - last[:-1]) / (4.0**order - 1)
        table.append(finer)
        errors = np.maximum(np.abs(finer - last[1:]), np.abs(finer - last[:-1]))
        k = int(np.argmin(errors))
        if errors[k] < best.error:
            best = Derivative(float(finer[k]), float(errors[k]), float(steps[k + order]))
    return best


def jumps(values: Floats, width: float) -> tuple[float, float]:
    """Return by how much a function and its slope jump at 0: right-hand limits minus left-hand ones.

    Each side is continued to 0 by a parabola; where the function is smooth both vanish as width³.

    Args:
        values: (6, …) at `STENCIL` times `width`.
        width: distance of neighboring points.

    Returns:
        The largest jump of any component, and of any component's slope.
    """
    left, right = values[2::-1], values[3:]
    value = np.tensordot([15 / 8, -10 / 8, 3 / 8], right - left, 1)
    slope = np.tensordot([-2.0, 3.0, -1.0], right + left, 1) / width
    return float(np.abs(value).max()), float(np.abs(slope).max())


def continued(points: Sequence[tuple[float, Floats]], at: float) -> Floats:
    """Return the polynomial through some points, continued to another place.

    Args:
        points: distinct places, and values of one shape.
        at: where.
    """
    x = np.array([place for place, _ in points])
    weights = [np.prod((at - np.delete(x, k)) / (x[k] - np.delete(x, k))) for k in range(len(x))]
    return np.asarray(np.tensordot(weights, np.stack([value for _, value in points]), 1), dtype=float)


def suspects(values: Floats, noise: float, most: int) -> list[int]:
    """Return the intervals of an equidistant grid most likely to hold a jump, most suspicious first.

    A jump J shows as J in the fifth difference over 6, to which a smooth function adds only h⁵. In turn,
    those are taken that stand out most from both sides of their surroundings, and the largest: a small jump
    in the quiet tail of a potential is far below what its wall does smoothly.

    Args:
        values: (M, …) at equidistant points; any component may jump.
        noise: standard deviation of one value.
        most: how many to return.

    Returns:
        Numbers k of intervals [k, k + 1], no two of them closer than three.
    """
    size = np.abs(np.diff(values.reshape(len(values), -1), 5, axis=0)).max(axis=1) / 6
    outstanding = np.empty(len(size))
    for k in range(len(size)):  # a jump shows in two intervals to either side; compare with those beyond
        sides = [side for side in (size[max(0, k - 7) : max(0, k - 2)], size[k + 3 : k + 8]) if len(side)]
        around = max(float(np.median(side)) for side in sides)
        outstanding[k] = size[k] / (around + 3 * noise + np.finfo(float).tiny)
    chosen: list[int] = []
    for start in np.stack([np.argsort(-outstanding), np.argsort(-size)], axis=1).ravel():
        near = range(max(0, int(start) - 2), min(len(size), int(start) + 3))
        peak = max(near, key=lambda k: size[k]) + 2
        if all(abs(peak - other) > 2 for other in chosen):
            chosen.append(peak)
    return chosen[:most]


Evaluate = Callable[[Sequence[float]], list[Floats]]
"""A function of places along a path: one flat array for each, scaled so that its components compare."""


def bisect(evaluate: Evaluate, places: Floats, values: Sequence[Floats], k: int, width: float) -> float:
    """Return where in an interval of a grid, or in one next to it, a function jumps, to within `width`.

    At each step the point in the middle goes to the side whose smooth continuation it fits.

    Args:
        evaluate: the function.
        places: (M,) increasing.
        values: its values there.
        k: the interval [k, k + 1]; a kink may lie in either neighbor.
        width: of the last bracket.
    """
    known = list(zip(places.tolist(), values, strict=True))
    left, right = known[max(0, k - 4) : k], known[k + 2 : k + 6]

    def fits_left(point: tuple[float, Floats]) -> bool:
        misfit = [np.abs(point[1] - continued(side, point[0])).max() for side in (left[-4:], right[:4])]
        return bool(misfit[0] < misfit[1])

    for n in (k, k + 1):
        if not fits_left(known[n]):
            right = known[n : k + 2] + right
            break
        left.append(known[n])
    while right[0][0] - left[-1][0] > width:
        middle = (left[-1][0] + right[0][0]) / 2
        (found,) = evaluate([middle])
        if fits_left((middle, found)):
            left.append((middle, found))
        else:
            right.insert(0, (middle, found))
    return float(left[-1][0] + right[0][0]) / 2
