"""Denoising of structures that are not at rest: displaced atoms, known by their forces.

A model that is shown the forces of a structure and then the same structure with atoms displaced can tell by
how much, as the forces say how far from rest the atoms were. That teaches it the surface around each frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.systems import Bools, Floats
from sfumato.training.stages import Denoising


@dataclass(frozen=True, eq=False)
class Displaced:
    """Structures with atoms out of place.

    Args:
        positions: (N, 3) Å.
        known_forces: (N, 3) eV/Å of the structure before, zero for atoms that stayed: these are asked for.
        noise: (N, 3) displacements over their standard deviation, NaN for atoms that stayed.
        forces: (N, 3) eV/Å to compare with, NaN for atoms that moved.
    """

    positions: Floats
    known_forces: Floats
    noise: Floats
    forces: Floats


def displace(
    positions: Floats, forces: Floats, settings: Denoising, rng: np.random.Generator
) -> Displaced | None:
    """Displace a batch, or leave it as it is, with the chance that the settings give.

    Args:
        positions: (N, 3) Å.
        forces: (N, 3) eV/Å; atoms whose forces are not known stay.
        settings: chance, size and share.
        rng: a generator for this batch alone.

    Returns:
        What to train on instead; None: the batch as it is.

    Source: Liao et al. 2024, "Generalizing denoising to non-equilibrium structures".
    """
    if rng.random() >= settings.probability:
        return None
    moved: Bools = (rng.random(len(positions)) < settings.share) & np.isfinite(forces).all(axis=1)
    noise = np.where(moved[:, None], rng.standard_normal(positions.shape), np.nan)
    return Displaced(
        positions=positions + settings.sigma * np.nan_to_num(noise),
        known_forces=np.where(moved[:, None], forces, 0.0),
        noise=noise,
        forces=np.where(moved[:, None], np.nan, forces),
    )
