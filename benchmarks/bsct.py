"""Speed of a BSCT run, as ratios taken in one go: analysis, harness overhead, two workers against one.

    python benchmarks/bsct.py analysis --data bsct-spice
    python benchmarks/bsct.py overhead --data bsct-spice --scans 9 --repeats 3

Machines are noisy: both sides of a ratio run in turn, medians and ranges are printed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cyclopts import App

from sfumato.datasets import named as datasets
from sfumato.execution.pool import PoolSettings
from sfumato.jobs.perform import Way
from sfumato.potentials.specs import resolve
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.run import run
from sfumato.systems import Batch, ScanSet

app = App(help=__doc__, help_format="plaintext")


def spread(values: list[float], unit: str = "") -> str:
    """Median with range."""
    return f"{statistics.median(values):.3f}{unit} [{min(values):.3f}, {max(values):.3f}]"


@app.command
def analysis(*, data: str = "bsct-spice", model: str = "morse", repeats: int = 3) -> None:
    """Load and analyse every scan from its records, in a fresh process on one core."""
    with tempfile.TemporaryDirectory() as folder:
        found = run("bsct", [model], data, out=Path(folder))
        frames = sum(len(scan) for scan in found.data)
        code = (
            "import time; t = time.perf_counter()\n"
            "from sfumato.protocols.run import load_run\n"
            f"run = load_run({folder!r}); u = time.perf_counter()\n"
            "run.as_json(); v = time.perf_counter(); print(u - t, v - t)"
        )
        timed = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            for _ in range(repeats)
        ]
        loads, totals = zip(*([float(word) for word in t.stdout.split()] for t in timed), strict=True)
    print(f"{len(found.data)} scans, {frames} frames")
    print(f"load and analyse:              {spread(list(loads), ' s')}")
    print(f"and all bootstrap intervals:   {spread(list(totals), ' s')}")


@app.command
def overhead(*, data: str = "bsct-mini", scans: int = 9, model: str = "gfn2-xtb", repeats: int = 3) -> None:
    """The bare loop over a calculator against one worker, and one worker against two."""
    whole = datasets.load(data)
    step = max(1, len(whole) // scans)
    chosen = ScanSet(whole.name, whole.level, whole.licence, whole.source, whole.scans[::step][:scans])
    frames = sum(len(scan) for scan in chosen)
    potential = resolve(model)

    def bare() -> float:
        start = time.perf_counter()
        for scan in bsct.select(chosen, None):
            for frame in range(len(scan)):
                potential.predict(Batch.of([scan.system(frame)]))
        return time.perf_counter() - start

    def harness(workers: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run("bsct", [model], chosen, out=Path(folder), way=Way(pool=PoolSettings(workers)))
            return time.perf_counter() - start

    harness(0), bare()
    rows = [(bare(), harness(0), harness(1), harness(2)) for _ in range(repeats)]
    print(f"{model}, {len(chosen)} scans, {frames} frames")
    print(f"bare loop:                       {spread([r[0] for r in rows], ' s')}")
    print(f"in this process / bare loop:     {spread([r[1] / r[0] for r in rows])}")
    print(f"one worker / bare loop:          {spread([r[2] / r[0] for r in rows])}")
    print(f"one worker / two workers:        {spread([r[2] / r[3] for r in rows])}")


if __name__ == "__main__":
    app()
