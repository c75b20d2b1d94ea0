"""Checked arrays of a scan, and numbers over a scan and its two sides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sfumato.systems import Floats, Ints


class Sides(NamedTuple):
    """A number over the whole scan and over its two sides; nan where a side has fewer than two frames.

    The frame of the reference minimum belongs to both sides.
    """

    full: float
    compress: float
    stretch: float

    @classmethod
    def of_frames(cls, values: Floats, minimum: int, reduce: Callable[[Floats], float]) -> Sides:
        """Reduce one value per frame, (F,), over each side of frame `minimum`."""
        parts = (values, values[: minimum + 1], values[minimum:])
        return cls(*(float(reduce(part)) if len(part) >= 2 else math.nan for part in parts))

    @classmethod
    def of_intervals(cls, values: Floats, minimum: int, reduce: Callable[[Floats], float]) -> Sides:
        """Reduce one value per interval between frames, (F − 1,), over each side of frame `minimum`."""
        parts = (values, values[:minimum], values[minimum:])
        return cls(*(float(reduce(part)) if len(part) else math.nan for part in parts))

    @classmethod
    def largest(cls, values: Floats, minimum: int) -> Sides:
        """Return the largest of (F − 1,) finite values, one per interval, on the sides of frame `minimum`."""
        left, right = values[:minimum], values[minimum:]
        compress = float(left.max()) if len(left) else math.nan
        stretch = float(right.max()) if len(right) else math.nan
        full = max(compress, stretch) if len(left) and len(right) else stretch if len(right) else compress
        return cls(full, compress, stretch)


def checked(values: ArrayLike, shape: tuple[int | None, ...], what: str) -> Floats:
    """Return `values` as floats of the expected shape (None: any length), or say what is wrong."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape and (
        array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape))
    ):
        expected = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"{what}: expected shape {expected}, got {array.shape}")
    return array


def labeled_frames(*references: Floats) -> Ints:
    """Return the frames in which every reference array, each (F, …), is finite.

    Raises:
        ValueError: there are none.
    """
    if len(references[0]) and all(np.isfinite(r).all() for r in references):
        return np.arange(len(references[0]))
    finite = np.logical_and.reduce([np.isfinite(r).reshape(len(r), -1).all(axis=1) for r in references])
    if not finite.any():
        raise ValueError("no frame has a finite reference: there is nothing to compare with")
    return np.flatnonzero(finite)


def require_finite(values: Floats, frames: Ints, what: str) -> Floats:
    """Return `values[frames]`, or name the frames in which it is not finite.

    Args:
        values: (F, …).
        frames: (f,) in rising order, each once.
        what: the values are.

    Raises:
        ValueError: a value in `frames` is not finite.
    """
    chosen = values if len(frames) == len(values) else values[frames]
    if np.isfinite(chosen).all():
        return chosen
    bad = frames[~np.isfinite(chosen).reshape(len(chosen), -1).all(axis=1)]
    if len(bad):
        listed = ", ".join(map(str, bad[:8])) + (", …" if len(bad) > 8 else "")
        raise ValueError(f"{what}: not finite in {len(bad)} of {len(frames)} frames ({listed})")
    return chosen


def check_minimum(minimum: int, frames: int) -> int:
    """Return `minimum` if it is one of `frames` frame numbers counted from 0.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= minimum < frames:
        raise ValueError(f"minimum: frame {minimum} is not one of 0…{frames - 1}")
    return int(minimum)


def increasing(coordinate: Floats) -> Floats:
    """Return the coordinate, (F,), if it increases from frame to frame.

    Raises:
        ValueError: it does not, or is not finite.
    """
    if not (np.diff(coordinate) > 0).all():
        raise ValueError("coordinate: must be finite and increase from frame to frame")
    return coordinate
