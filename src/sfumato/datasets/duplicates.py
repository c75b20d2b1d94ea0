"""The same structure twice, and the same molecule in two splits.

Candidates for duplicates come from numbers that no rigid motion changes and that change by no more than a
known amount when atoms move by `TOLERANCE`, so that none is missed; candidates are compared atom by atom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from sfumato.datasets.consistency import superposed
from sfumato.datasets.loader import Rows, gather
from sfumato.graph.neighbors import half_pairs
from sfumato.systems import Batch, Bools, Floats, Ints, System

TOLERANCE = 1e-4
"""Å: largest distance between corresponding atoms of two structures that count as one."""

MOST_CANDIDATES = 20_000
"""Pairs that are compared atom by atom; a set with more says so."""

BOND = 1.25
"""times the sum of covalent radii: atoms closer than this are bonded."""

TOGETHER = 1024
"""Pairs or frames that are in memory at once."""

LOOKED_AT = 4
"""Frames of one molecule whose bonds are looked at."""

ROUNDS = 4
"""Steps along bonds that the fingerprint of an atom sees."""


def invariants(batch: Batch) -> Floats:
    """Return numbers of each structure that no rigid motion changes.

    Args:
        batch: the structures.

    Returns:
        (S, 6). Of a molecule the three singular values of its centerd coordinates over √N, in Å, which
        change by at most the largest movement of an atom. Of a crystal the means over its atoms of the
        cosine and sine of the phase against the first atom, and the edges of the cell added to the
        sines.
    """
    s = len(batch)
    counts = np.maximum(np.diff(batch.offsets), 1)
    found = np.zeros((s, 6))

    def mean(values: Floats) -> Floats:
        columns = values.reshape(len(values), -1).T
        return np.stack([np.bincount(batch.index, c, s) for c in columns], axis=1) / counts[:, None]

    x = batch.positions - mean(batch.positions)[batch.index]
    gram = mean(x[:, :, None] * x[:, None, :]).reshape(s, 3, 3)
    found[:, :3] = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    periodic = _periodic(batch)
    if periodic.any():
        inverse = np.zeros((s, 3, 3))
        inverse[periodic] = np.linalg.inv(batch.cell[periodic])
        fractional = np.einsum("ni,nij->nj", batch.positions, inverse[batch.index])
        first = fractional[np.minimum(batch.offsets[:-1], len(fractional) - 1)]
        phase = 2 * np.pi * (fractional - first[batch.index])
        edges = np.linalg.norm(batch.cell, axis=2)
        found[periodic] = np.concatenate([mean(np.cos(phase)), mean(np.sin(phase)) + edges], axis=1)[periodic]
    return found


def _periodic(batch: Batch) -> Bools:
    """Return (S,) which structures repeat; directions that do not are left to their cell vectors."""
    return np.asarray(batch.pbc.any(axis=1) & (np.abs(np.linalg.det(batch.cell)) > 0))


def reach(batch: Batch) -> Floats:
    """Return (S,) by how much `invariants` may differ between two structures that count as one."""
    edges = np.linalg.norm(batch.cell, axis=2)
    height = np.abs(np.linalg.det(batch.cell)) / np.maximum(edges.prod(axis=1), 1e-300) * edges.min(axis=1)
    phase = 2 * np.pi * 2 * TOLERANCE / np.maximum(height, 1e-12)  # no height of the cell is less
    return np.where(_periodic(batch), phase + 2 * TOLERANCE, 1.01 * TOLERANCE)


def same(a: System, b: System) -> bool:
    """Return whether two structures are one up to a rigid motion, atoms in the same order.

    Mirror images of a molecule count as different, and so do two choices of a cell for one crystal.
    """
    if not (np.array_equal(a.numbers, b.numbers) and np.array_equal(a.pbc, b.pbc)):
        return False
    if not len(a):
        return True
    if not (a.pbc.any() and np.linalg.det(a.cell) and np.linalg.det(b.cell)):
        x, y = (s.positions - s.positions.mean(axis=0) for s in (a, b))
        off = np.linalg.norm(y @ superposed(x[None], y[None])[0] - x, axis=1)
        return bool(off.max() < TOLERANCE)
    corners = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T
    lengths = [np.linalg.norm(corners @ s.cell, axis=1) for s in (a, b)]
    if np.abs(lengths[0] - lengths[1]).max() > 2 * TOLERANCE:
        return False
    f, g = (s.positions @ np.linalg.inv(s.cell) for s in (a, b))
    change = (f - f[0]) - (g - g[0])
    change[:, a.pbc] -= np.round(change[:, a.pbc])
    change -= change.mean(axis=0)
    return bool(np.linalg.norm(change @ a.cell, axis=1).max() < TOLERANCE)


def candidates(keys: Ints, numbers: Floats, near: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of frames whose keys are equal and whose invariants are near.

    Args:
        keys: (S,) equal only for the same atoms in the same order.
        numbers: (S, 6) invariants.
        near: (S,) how far apart they may be.

    Yields:
        Frames i and j of some pairs.
    """
    order = np.lexsort((numbers[:, 2], keys))
    keys, numbers, near = keys[order], numbers[order], near[order]
    here = np.arange(len(order))
    for step in range(1, len(order)):
        here = here[here + step < len(order)]
        there = here + step
        # Sorted by the third invariant: once it is too far for one frame, it stays so for later ones.
        close = (keys[here] == keys[there]) & (numbers[there, 2] - numbers[here, 2] <= near[here])
        here, there = here[close], there[close]
        if not len(here):
            return
        alike = (np.abs(numbers[there] - numbers[here]) <= near[here, None]).all(axis=1)
        yield order[here[alike]], order[there[alike]]


def duplicates(rows: Rows, keys: Ints, exact: Ints, numbers: Floats, near: Floats) -> tuple[Ints, bool]:
    """Find frames that repeat an earlier one.

    Args:
        rows: the frames.
        keys: (S,) equal only for the same atoms in the same order.
        exact: (S,) equal for structures that are equal to the last bit.
        numbers: (S, 6) invariants.
        near: (S,) how far apart those may be.

    Returns:
        (n, 2) the earlier frame and the one that repeats it, and whether all candidates were compared.
    """
    _, first, place = np.unique(exact, return_index=True, return_inverse=True)
    original = first[place]
    again = np.flatnonzero(original != np.arange(len(exact)))
    found = [np.stack([original[again], again], axis=1)]
    left = np.unique(first)
    near_ones = [left[np.stack(pair, axis=1)] for pair in candidates(keys[left], numbers[left], near[left])]
    pairs = np.sort(np.concatenate([*near_ones, np.zeros((0, 2), dtype=np.int64)]), axis=1)
    seen: set[int] = set()
    for start in range(0, min(len(pairs), MOST_CANDIDATES), TOGETHER):
        some = pairs[start : start + TOGETHER]
        systems = list(gather(rows, some.ravel())[0])
        for (low, high), a, b in zip(some.tolist(), systems[::2], systems[1::2]):
            if high not in seen and same(a, b):
                seen.add(high)
                found.append(np.array([[low, high]]))
    return np.concatenate(found), len(pairs) <= MOST_CANDIDATES


def bond_graphs(batch: Batch) -> list[str]:
    """Return a fingerprint of each structure's bonds, equal for configurations of one molecule.

    Bonds are pairs closer than 1.25 times the sum of covalent radii; atoms are told apart by their element
    and, four steps deep, by their neighbors (Weisfeiler and Leman 1968), so that isomers differ.
    """
    from ase.data import covalent_radii

    radii = covalent_radii[batch.numbers]
    half = half_pairs(batch, 2 * BOND * float(radii.max(initial=0.5)))
    length = np.linalg.norm(half.vectors(batch), axis=1)
    bonded = length < BOND * (radii[half.i] + radii[half.j])
    i = np.concatenate([half.i[bonded], half.j[bonded]])
    j = np.concatenate([half.j[bonded], half.i[bonded]])
    around: list[list[int]] = [[] for _ in batch.numbers]
    for a, b in zip(i.tolist(), j.tolist()):
        around[a].append(b)
    labels = [str(z) for z in batch.numbers.tolist()]
    for _ in range(ROUNDS):
        labels = [
            hashlib.blake2b(
                f"{labels[a]}({','.join(sorted(labels[b] for b in near))})".encode(), digest_size=8
            ).hexdigest()
            for a, near in enumerate(around)
        ]
    return [
        hashlib.blake2b(",".join(sorted(labels[start:stop])).encode(), digest_size=8).hexdigest()
        for start, stop in zip(batch.offsets, batch.offsets[1:])
    ]


def shared_molecules(rows: Rows, composition: Ints, train: Bools, held: Bools) -> Ints:
    """Find held-out frames of molecules that are also trained on, whatever they are called.

    Args:
        rows: the frames.
        composition: (S,) equal for the same numbers of each element.
        train: (S,) frames that are trained on.
        held: (S,) frames that are held out.

    Returns:
        Their numbers: frames whose molecule has composition and bonds in common with one of train. Of
        each name, composition and side a few frames are looked at.
    """
    both = np.intersect1d(composition[train], composition[held])
    frames = np.flatnonzero(np.isin(composition, both) & (train | held))
    side = train[frames].astype(np.int64)
    kinds = np.stack([composition[frames], rows.molecule.codes[frames], side], axis=1)
    _, kind = np.unique(kinds, axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    order = np.argsort(kind, kind="stable")
    rank = np.arange(len(order)) - np.searchsorted(kind[order], kind[order])
    graphs: dict[int, set[tuple[int, str]]] = {}
    trained: set[tuple[int, str]] = set()
    chosen = np.sort(order[rank < LOOKED_AT])
    for start in range(0, len(chosen), TOGETHER):
        some = chosen[start : start + TOGETHER]
        for k, bonds in zip(some.tolist(), bond_graphs(gather(rows, frames[some])[0])):
            graph = int(composition[frames[k]]), bonds
            if side[k]:
                trained.add(graph)
            else:
                graphs.setdefault(int(kind[k]), set()).add(graph)
    leaked = [k for k, found in graphs.items() if found & trained]
    return frames[np.isin(kind, leaked)]
