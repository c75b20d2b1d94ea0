"""Time and memory of eSEN beside MinDScAIP: energy and forces of diamond, random weights, float32, a thread.

    OMP_NUM_THREADS=1 python benchmarks/esen.py [--repeat 1] [MODEL …]

Each model runs in a process of its own; memory is what its peak grew by.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

MODELS = ("mindscaip:large", "esen:large", "mindscaip:small", "esen:small")


def measure(spec: str, repeat: int) -> tuple[int, int, float, float]:
    """Return atoms, edges, seconds of processor time per atom, and MB per atom."""
    import torch
    from ase.build import bulk

    from sfumato.io import from_ase
    from sfumato.models.families import build, preset
    from sfumato.models.network import evaluate, prepare
    from sfumato.systems import Batch

    torch.set_num_threads(1)
    architecture, size = spec.split(":")
    network = build(preset(size, architecture)).requires_grad_(False)
    atoms = bulk("C", "diamond", cubic=True) * (repeat, repeat, repeat)
    ready = prepare(network, Batch.of([from_ase(atoms)]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(2):
        start = time.process_time()
        evaluate(network, ready.topology, ready.positions, ready.cell)
        seconds.append(time.process_time() - start)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    n = len(atoms)
    return n, len(ready.topology.reverse), min(seconds) / n, grown / n / 1e6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1, help="cells of 8 atoms along each direction")
    parser.add_argument("models", nargs="*", default=MODELS)
    given = parser.parse_args()
    print(f"{'model':18} {'atoms':>6} {'edges':>7} {'s/atom':>8} {'MB/atom':>8}")
    for spec in given.models:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            n, edges, seconds, memory = pool.apply(measure, (spec, given.repeat))
        print(f"{spec:18} {n:6} {edges:7} {seconds:8.3f} {memory:8.1f}", flush=True)


if __name__ == "__main__":
    main()
