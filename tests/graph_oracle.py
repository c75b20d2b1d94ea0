"""The graph of one structure written down slowly from its equations, one pair at a time."""

import itertools
import math

import numpy as np


def step(x: float) -> float:
    """Eq. 10, corrected, as the ratio it is printed as; x in units of d0."""
    y = x / 4
    if abs(y) >= 1:
        return float(y > 0)
    a, b = math.exp(-2 / (1 + y)), math.exp(-2 / (1 - y))
    return a / (a + b)


def images(cell, pbc, reach, offset) -> list[tuple[int, ...]]:
    """All lattice shifts that could bring an atom `offset` away to within reach."""
    periodic = np.where(pbc)[0]
    bound = np.zeros(3, dtype=int)
    if len(periodic):
        # |r| ≥ |n_a| · (distance of the lattice planes) for any r on the lattice.
        inverse = np.linalg.pinv(cell[periodic])
        bound[periodic] = np.ceil((reach + offset) * np.linalg.norm(inverse, axis=0)) + 1
    return list(itertools.product(*[range(-n, n + 1) for n in bound]))


def neighbours(positions, cell, pbc, reach) -> dict[tuple[int, ...], np.ndarray]:
    """(i, j, *S) → r_ij for every neighbour within reach."""
    found = {}
    offset = np.ptp(positions, axis=0)
    for s in images(cell, pbc, reach, float(np.linalg.norm(offset))):
        across = np.array(s) @ cell
        for i, j in itertools.product(range(len(positions)), repeat=2):
            r = positions[j] + across - positions[i]
            if np.linalg.norm(r) < reach and (i, j, *s) != (i, i, 0, 0, 0):
                found[i, j, *s] = r
    return found


def graph(positions, cell, pbc, settings) -> dict[tuple[int, ...], tuple[np.ndarray, float]]:
    """(i, j, *S) → (r_ij, log e) for every edge with e > 0, for the soft ranks."""
    vectors = neighbours(positions, cell, pbc, settings.cutoff + 4 * settings.d0)
    d = {key: float(np.linalg.norm(r)) for key, r in vectors.items()}
    row = {i: [d[key] for key in d if key[0] == i] for i in range(len(positions))}

    def rank(key):
        total = settings.rank_offset
        for other in row[key[0]]:
            x = (d[key] - other) / settings.d0
            if settings.rank == "compact":
                total += step(x)
            else:
                inside = step(2 * (settings.cutoff + 2 * settings.d0 - other) / settings.d0)
                total += inside / (1 + math.exp(-x))
        return total

    near = {key: rank(key) for key in d if d[key] < settings.cutoff}
    edges = {}
    for key, out in near.items():
        i, j, a, b, c = key
        terms = [out / settings.k, d[key] / settings.cutoff]
        if settings.mode == "mutual":
            terms.append(near[j, i, -a, -b, -c] / settings.k)
        f = math.log(sum(math.exp(settings.beta * t) for t in terms)) / settings.beta
        if f < settings.f_max:
            edges[key] = vectors[key], -(f**2) / (1 - f**2)
    return edges
