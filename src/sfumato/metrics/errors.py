"""Errors of energies and forces over many labeled structures.

Every number is a sum over structures divided by a count, so that it is pooled over whatever is asked for: all
structures, or one subset. Intervals resample the molecules the structures are of, because structures of one
molecule err together.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from sfumato.metrics.stats import Estimate
from sfumato.systems import Floats, Ints

Table = dict[str, tuple[Floats, Floats]]
"""Name of a number → what every structure (S,) adds to its numerator and to its denominator."""

SMALLEST = 0.01
"""eV/Å; a smaller reference force has no direction worth comparing with."""

EDGES = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, np.inf)
"""eV/Å, between the bins of the reference force on an atom."""

RESAMPLES = 2000
CHUNK = 1 << 22
"""Random weights in memory at once."""


def energy_errors(off: ArrayLike, atoms: ArrayLike, composition: ArrayLike) -> Table:
    """Return what each structure adds to the errors of energies.

    Args:
        off: (S,) eV, predicted − reference; nan where there is no prediction.
        atoms: (S,) of each structure.
        composition: (S,) a number for each composition.

    Returns:
        "energy_mae" and "energy_rmse" in eV per atom, "total_energy_mae" and "total_energy_rmse" in eV, and
        "relative_energy_mae" in eV per atom: each error measured from the mean error of its composition,
        which another zero of energy does not change; a composition seen once has none.
    """
    off, atoms = np.asarray(off, dtype=float), np.asarray(atoms, dtype=float)
    known = np.isfinite(off).astype(float)
    total = np.where(known > 0, off, 0.0)
    _, code = np.unique(np.asarray(composition), return_inverse=True)
    seen = np.bincount(code, known)
    mean = np.bincount(code, total) / np.maximum(seen, 1)
    several = known * (seen[code] > 1)
    each = total / atoms
    return {
        "energy_mae": (np.abs(each), known),
        "energy_rmse": (each**2, known),
        "total_energy_mae": (np.abs(total), known),
        "total_energy_rmse": (total**2, known),
        "relative_energy_mae": (np.abs(total - mean[code]) / atoms * several, several),
    }


def element_energies(off: ArrayLike, counts: ArrayLike) -> Floats:
    """Return the energy of each element that explains most of the energy errors: another zero of energy.

    Least squares of Δ/N = Σ_e (n_e/N) ε_e over structures, so that large ones do not decide alone.

    Args:
        off: (S,) eV, predicted − reference; nan where there is no prediction.
        counts: (S, E) atoms of each element.

    Returns:
        (E,) eV; the smallest solution where compositions do not tell elements apart. NaN where fewer than two
        structures are known for each number that is fitted, which would explain anything.
    """
    off, counts = np.asarray(off, dtype=float), np.asarray(counts, dtype=float)
    known = np.isfinite(off)
    atoms = counts[known].sum(axis=1)
    energies, _, rank, _ = np.linalg.lstsq(counts[known] / atoms[:, None], off[known] / atoms, rcond=None)
    if known.sum() < 2 * rank or not known.any():
        return np.full(counts.shape[1], np.nan)
    return np.asarray(energies)


def fitted_errors(off: ArrayLike, counts: ArrayLike) -> Table:
    """Return what each structure adds to the error of energies after `element_energies` are taken off.

    Args:
        off: (S,) eV, predicted − reference; nan where there is no prediction.
        counts: (S, E) atoms of each element.

    Returns:
        "fitted_energy_mae" in eV per atom; nothing counts where the fit does not exist. The interval of the
        pooled number takes the fit as it is, so it is a little too narrow.
    """
    off, counts = np.asarray(off, dtype=float), np.asarray(counts, dtype=float)
    left = (off - counts @ element_energies(off, counts)) / counts.sum(axis=1)
    known = np.isfinite(left)
    return {"fitted_energy_mae": (np.abs(np.where(known, left, 0.0)), known.astype(float))}


def force_errors(predicted: ArrayLike, reference: ArrayLike, index: Ints, structures: int) -> Table:
    """Return what each structure adds to the errors of forces.

    Args:
        predicted: (N, 3) eV/Å; nan where there is no prediction.
        reference: (N, 3) eV/Å; nan where there is no label.
        index: (N,) the structure of each atom.
        structures: S.

    Returns:
        "force_mae" and "force_rmse" in eV/Å, over components; "force_cosine", the mean over atoms of the
        cosine between the two forces where the reference is at least `SMALLEST`; it is 0 where the
        predicted force is zero.
    """
    f, g = np.asarray(predicted, dtype=float), np.asarray(reference, dtype=float)
    known = np.isfinite(f).all(axis=1) & np.isfinite(g).all(axis=1)
    f, g = np.where(known[:, None], f, 0.0), np.where(known[:, None], g, 0.0)

    def add(values: ArrayLike) -> Floats:
        return np.asarray(np.bincount(index, values, structures), dtype=float)

    components = add(3.0 * known)
    lengths = np.linalg.norm(f, axis=1) * np.linalg.norm(g, axis=1)
    counted = known & (np.linalg.norm(g, axis=1) >= SMALLEST)
    cosine = np.einsum("ij,ij->i", f, g) / np.where(lengths > 0, lengths, 1.0)
    return {
        "force_mae": (add(np.abs(f - g).sum(axis=1)), components),
        "force_rmse": (add(((f - g) ** 2).sum(axis=1)), components),
        "force_cosine": (add(np.where(counted, cosine, 0.0)), add(counted)),
    }


def by_magnitude(predicted: ArrayLike, reference: ArrayLike) -> list[tuple[float, float, float, int]]:
    """Return the force error among atoms whose reference force is of about one size.

    Args:
        predicted: (N, 3) eV/Å; nan where there is no prediction.
        reference: (N, 3) eV/Å; nan where there is no label.

    Returns:
        For each bin between `EDGES` that holds an atom: from, to (eV/Å), mean absolute error of the
        components (eV/Å), and the number of atoms.
    """
    f, g = np.asarray(predicted, dtype=float), np.asarray(reference, dtype=float)
    known = np.isfinite(f).all(axis=1) & np.isfinite(g).all(axis=1)
    f, g = f[known], g[known]
    bins = np.digitize(np.linalg.norm(g, axis=1), EDGES) - 1
    error = np.abs(f - g).mean(axis=1)
    return [
        (EDGES[k], EDGES[k + 1], float(error[bins == k].mean()), int((bins == k).sum()))
        for k in np.unique(bins).tolist()
    ]


def pooled(table: Mapping[str, tuple[Floats, Floats]], molecule: Ints, seed: int) -> dict[str, Estimate]:
    """Return every number of a table with its 95 % bootstrap interval.

    Args:
        table: of the structures (S,) to pool.
        molecule: (S,) what each is a configuration of.
        seed: of the resamples, which draw whole molecules.

    Returns:
        By name: sum over sum, of "…_rmse" the root of it; n of N structures that count. Fewer than two
        molecules that count have no interval (nan).
    """
    if not table:
        return {}
    above, below = (np.array([pair[k] for pair in table.values()]) for k in (0, 1))
    _, code = np.unique(molecule, return_inverse=True)
    groups = int(code.max(initial=-1)) + 1
    sums = np.array([np.bincount(code, row, groups) for row in (*above, *below)])
    rng = np.random.default_rng(seed)
    drawn = [
        rng.multinomial(groups, np.full(groups, 1 / groups), min(RESAMPLES - start, _rows(groups))) @ sums.T
        for start in range(0, RESAMPLES, _rows(groups))
        if groups
    ]
    samples = np.concatenate([*drawn, np.zeros((0, len(sums)))])
    found = {}
    for k, name in enumerate(table):
        tops, bottoms = samples[:, k], samples[:, k + len(table)]
        counted = sums[k + len(table)] > 0
        low = high = mean = np.nan
        if counted.any():
            mean = float(sums[k].sum() / sums[k + len(table)].sum())
        if counted.sum() > 1:
            low, high = np.quantile(tops[bottoms > 0] / bottoms[bottoms > 0], [0.025, 0.975])
        root = np.sqrt if name.endswith("rmse") else float
        mean, low, high = (float(root(value)) for value in (mean, low, high))
        found[name] = Estimate(mean, low, high, int((below[k] > 0).sum()), below.shape[1])
    return found


def _rows(groups: int) -> int:
    return max(1, CHUNK // max(1, groups))
