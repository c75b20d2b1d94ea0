"""What the machinery of a campaign costs, against the bare engine, as ratios taken in one go.

    python benchmarks/campaign.py slow     # points of a second and more: wall time over engine time
    python benchmarks/campaign.py quick    # points of ~20 atoms, two workers against two bare loops

Machines are noisy: both sides of a ratio run in turn, medians and ranges are printed. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from cyclopts import App

from sfumato.campaigns.campaign import CampaignOptions, label
from sfumato.execution.pool import PoolSettings
from sfumato.execution.runner import Tally
from sfumato.jobs.frames import Frame
from sfumato.potentials.engines import TBLite

app = App(help=__doc__, help_format="plaintext")


def spread(values: list[float], unit: str = "") -> str:
    """Median with range."""
    return f"{statistics.median(values):.3f}{unit} [{min(values):.3f}, {max(values):.3f}]"


def clusters(waters: int, count: int) -> list[Frame]:
    """Distorted clusters of water molecules on a grid, each another one."""
    rng = np.random.default_rng(waters)
    molecule = np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    side = int(np.ceil(waters ** (1 / 3)))
    grid = 3.1 * np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 1, 3)[:waters]
    atoms = (grid + molecule).reshape(-1, 3)
    numbers = np.tile([8, 1, 1], waters)
    return [Frame(numbers, atoms + 0.05 * rng.normal(size=atoms.shape), 0, 1) for _ in range(count)]


@app.command
def slow(*, waters: int = 40, points: int = 60, repeats: int = 3) -> None:
    """Real GFN2-xTB calls of a second and more through one worker: wall time over the engine's own time."""
    frames = clusters(waters, points)
    whole, steady, start, each = [], [], [], []
    for _ in range(repeats):
        arrivals: list[float] = []

        def note(tally: Tally, arrivals: list[float] = arrivals) -> None:
            arrivals.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            records = label(
                frames, TBLite(), Path(folder), options=CampaignOptions(PoolSettings(1)), watch=note
            )
            wall = time.perf_counter() - begun
        seconds = [record["seconds"] for record in records]
        each += seconds
        whole.append(wall / sum(seconds) - 1)
        steady.append((arrivals[-1] - arrivals[1]) / sum(seconds[1:]) - 1)
        start.append(wall - (arrivals[-1] - arrivals[1]) - seconds[0])
    print(f"GFN2-xTB, {3 * waters} atoms, {points} points, each {spread(each, ' s')}")
    print(f"wall over engine time - 1, all included:     {spread(whole)}")
    print(f"the same from the first point to the last:   {spread(steady)}")
    print(f"start and end, once per campaign:            {spread(start, ' s')}")


def cpu_seconds() -> float:
    """Processor time of this process and of those it has waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def bare_loop(frames: list[Frame]) -> None:
    """What anyone would write: label one structure after the other."""
    engine = TBLite()
    labels = [engine.label(frame.system()) for frame in frames]
    assert all(found.converged for found in labels)


@app.command
def quick(*, waters: int = 7, points: int = 600, repeats: int = 3, workers: int = 2) -> None:
    """A campaign with two workers against two bare loops in two processes; both include their start."""
    frames = clusters(waters, points)
    context = multiprocessing.get_context("spawn")

    def bare() -> tuple[float, float]:
        begun, cpu = time.perf_counter(), cpu_seconds()
        loops = [context.Process(target=bare_loop, args=(frames[k::workers],)) for k in range(workers)]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
        assert all(loop.exitcode == 0 for loop in loops)
        return time.perf_counter() - begun, cpu_seconds() - cpu

    def campaign() -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            begun, cpu = time.perf_counter(), cpu_seconds()
            records = label(frames, TBLite(), Path(folder), options=CampaignOptions(PoolSettings(workers)))
            taken = time.perf_counter() - begun, cpu_seconds() - cpu
        assert all(record["status"] == "ok" for record in records)
        return taken

    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for k in range(repeats):
        pairs.append((bare(), campaign()) if k % 2 == 0 else (campaign(), bare())[::-1])
    print(f"GFN2-xTB, {3 * waters} atoms, {points} points, {workers} workers")
    print(f"bare loops:                        {spread([points / b for (b, _), _ in pairs], ' points/s')}")
    print(f"campaign:                          {spread([points / c for _, (c, _) in pairs], ' points/s')}")
    print(f"rate of the campaign over bare:    {spread([b / c for (b, _), (c, _) in pairs])}")
    print(f"the same by processor time:        {spread([b / c for (_, b), (_, c) in pairs])}")


if __name__ == "__main__":
    app()
