"""Structures, and their graphs written down slowly from the equations, one pair at a time."""

import itertools
import math

import numpy as np
import torch
from ase.build import bulk
from hypothesis import strategies as st

from sfumato.graph.layout import GraphSettings, differentiable_stage, index_stage
from sfumato.systems import Batch, System


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


def neighbors(positions, cell, pbc, reach) -> dict[tuple[int, ...], np.ndarray]:
    """(i, j, *S) → r_ij for every neighbor within reach."""
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
    vectors = neighbors(positions, cell, pbc, settings.cutoff + 4 * settings.d0)
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

    # A little more than the cutoff, so that rounding leaves no edge without its reverse.
    near = {key: rank(key) for key in d if d[key] < settings.cutoff + 1e-6}
    edges = {}
    for key, out in near.items():
        i, j, a, b, c = key
        terms = [out / settings.k, d[key] / settings.cutoff]
        if settings.mode == "mutual":
            terms.append(near[j, i, -a, -b, -c] / settings.k)
        most = max(terms)  # of a crowded atom β rank/k has no exponential
        f = most + math.log(sum(math.exp(settings.beta * (t - most)) for t in terms)) / settings.beta
        if f < settings.f_max:
            edges[key] = vectors[key], -(f**2) / (1 - f**2)
    return edges


def tensors(batch, dtype=torch.float64) -> dict[str, torch.Tensor]:
    batch = Batch.of([batch]) if isinstance(batch, System) else batch
    return {
        "positions": torch.tensor(batch.positions, dtype=dtype),
        "cell": torch.tensor(batch.cell, dtype=dtype),
        "pbc": torch.tensor(batch.pbc),
        "numbers": torch.tensor(batch.numbers),
        "system": torch.tensor(batch.index),
    }


def both_stages(batch, given_, skin=0.0, dtype=torch.float64, bucket=1):
    parts = tensors(batch, dtype)
    topology = index_stage(**parts, settings=given_, skin=skin, bucket=bucket)
    return topology, differentiable_stage(topology, parts["positions"], parts["cell"], given_)


def named(topology, geometry) -> dict[tuple[int, ...], tuple[np.ndarray, float]]:
    """(i, j, *S) → (r_ij, log e), without the edges of no weight."""
    names = zip(topology.source.tolist(), topology.target.tolist(), *topology.shift.T.tolist())
    edges = zip(names, geometry.vector.detach().double().numpy(), geometry.bias.tolist())
    return {name: (vector, bias) for name, vector, bias in edges if bias > -math.inf}


def same(found, expected, tolerance=1e-12):
    """The same edges with the same vectors and weights; in doubt where a weight of 1e-86 ends."""
    for name in set(found) ^ set(expected):
        assert {**found, **expected}[name][1] < -199
    both = sorted(set(found) & set(expected))
    if both:
        (vectors, biases), (vectors_too, biases_too) = (zip(*[g[n] for n in both]) for g in (found, expected))
        np.testing.assert_allclose(vectors, vectors_too, rtol=0, atol=tolerance)
        np.testing.assert_allclose(biases, biases_too, rtol=tolerance, atol=tolerance)


def make(positions, cell=None, pbc=(False, False, False)) -> System:
    return System(np.ones(len(positions)), positions, np.zeros((3, 3)) if cell is None else cell, pbc)


def crystal(name="C", structure="diamond", a=3.567, repeat=2, seed=0) -> System:
    atoms = bulk(name, structure, a=a, cubic=True).repeat(repeat)
    atoms.rattle(0.05, seed=seed)
    return System(atoms.numbers, atoms.positions, atoms.cell[:], atoms.pbc)


def cluster(count=40, density=0.1, seed=0) -> System:
    rng = np.random.default_rng(seed)
    return make(rng.uniform(0, (count / density) ** (1 / 3), (count, 3)))


@st.composite
def structures(draw) -> tuple[System, GraphSettings]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = draw(st.tuples(*[st.floats(1.2, 6.0)] * 3))
    cell = np.diag(lengths) + draw(st.floats(0, 0.5)) * rng.uniform(-1, 1, (3, 3))
    if draw(st.booleans()):
        cell = cell[[1, 0, 2]]  # left-handed
    positions = rng.uniform(-1, 1, (draw(st.integers(1, 6)), 3)) * draw(st.floats(1.0, 5.0))
    chosen = GraphSettings(
        k=draw(st.integers(1, 9)),
        d0=draw(st.sampled_from([0.05, 0.2, 0.4])),
        beta=draw(st.sampled_from([5.0, 10.0])),
        cutoff=draw(st.floats(1.5, 3.5)),
        rank=draw(st.sampled_from(["compact", "sigmoid"])),
        mode=draw(st.sampled_from(["mutual", "out"])),
        rank_offset=draw(st.sampled_from([0.0, 1.0])),
    )
    return make(positions, cell, draw(st.tuples(*[st.booleans()] * 3))), chosen
