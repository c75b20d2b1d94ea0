"""Time and memory of the differentiable nearest-neighbor graph: each structure in a process of its own.

    python benchmarks/graph.py table
    python benchmarks/graph.py one diamond 1000 --dtype float64

Seconds are processor time of one thread, since machines are shared: the median of nine runs, one run above
20,000 atoms. "search" finds candidates, "index" is the whole index stage, search included, "place" is the
differentiable stage, "and gradient" that and its gradient. Memory is the peak of the process, torch
included, before and after a gradient was taken.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from ase.build import bulk
from cyclopts import App

from sfumato.graph.layout import GraphSettings, differentiable_stage, find_candidates, index_stage

app = App(help=__doc__, help_format="plaintext")

HEAD = (
    "structure  atoms dtype    k  pairs edges  K | search  index  place  and gradient (s)"
    " | µs per atom | peak MB"
)
CASES = [
    "diamond 216",
    "diamond 1000",
    "diamond 1000 --dtype float64",
    "diamond 1000 --k 12 --cutoff 5",
    "diamond 2744",
    "liquid 1000",
    "diamond 97336",
    "liquid 100000",
    "slab 97336",
]


def structure(kind: str, atoms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, cell and periodic directions of about so many atoms."""
    rng = np.random.default_rng(0)
    if kind == "liquid":
        # As many atoms per volume as in water; a shaken grid with gaps keeps them apart as repulsion would.
        side = int(np.ceil(atoms ** (1 / 3)))
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        spacing = (atoms / 0.1) ** (1 / 3) / side
        places = rng.permutation(grid)[:atoms] + rng.uniform(-0.4, 0.4, (atoms, 3))
        return places * spacing, np.eye(3) * side * spacing, np.ones(3, dtype=bool)
    crystal = bulk("C", "diamond", a=3.567, cubic=True).repeat(round((atoms / 8) ** (1 / 3)))
    cell, pbc = np.array(crystal.cell), np.ones(3, dtype=bool)
    if kind == "slab":
        cell[2, 2], pbc[2] = cell[2, 2] + 20.0, False
    return crystal.positions + rng.normal(scale=0.05, size=(len(crystal), 3)), cell, pbc


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Return the median processor time of a call."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def peak() -> float:
    """Return the most memory this process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@app.command
def one(
    kind: Literal["diamond", "liquid", "slab"],
    atoms: int,
    *,
    dtype: Literal["float32", "float64"] = "float32",
    k: int = 30,
    cutoff: float = 6.0,
    rank: Literal["compact", "sigmoid", "hard"] = "compact",
    mode: Literal["mutual", "out"] = "mutual",
) -> None:
    """Print one row of the table."""
    torch.set_num_threads(1)
    settings = GraphSettings(k=k, cutoff=cutoff, rank=rank, mode=mode)
    parts = structure(kind, atoms)
    positions, cell = (torch.tensor(part, dtype=getattr(torch, dtype)) for part in parts[:2])
    cell, pbc, system = (
        cell[None],
        torch.tensor(parts[2])[None],
        torch.zeros(len(positions), dtype=torch.long),
    )
    numbers, n = torch.full_like(system, 6), len(positions)
    repeats = 1 if n > 20000 else 9
    search = seconds(lambda: find_candidates(positions, cell, pbc, system, settings), repeats)
    index = seconds(lambda: index_stage(positions, cell, pbc, numbers, system, settings), repeats)
    topology = index_stage(positions, cell, pbc, numbers, system, settings)
    place = seconds(lambda: differentiable_stage(topology, positions, cell, settings), repeats)
    before = peak()
    inputs = positions.clone().requires_grad_(), cell.clone().requires_grad_()

    def gradient() -> None:
        geometry = differentiable_stage(topology, *inputs, settings)
        torch.autograd.grad(geometry.bias.sum() + geometry.vector.sum(), inputs)

    both = seconds(gradient, repeats)
    pairs, edges = len(topology.pair_source) / n, len(topology.reverse) / n
    print(
        f"{kind:8} {n:7} {dtype} {k:2}  {pairs:5.1f}  {edges:4.1f} {topology.out_slots.shape[1]:2}"
        f" | {search:6.3f} {index:6.3f} {place:6.3f} {both:6.3f} | {(index + both) / n * 1e6:5.0f}"
        f" | {before:.0f}, {peak():.0f}"
    )


@app.command
def table() -> None:
    """Print all rows."""
    print(HEAD, flush=True)
    for case in CASES:
        subprocess.run([sys.executable, __file__, "one", *case.split()], check=True)


if __name__ == "__main__":
    app()
