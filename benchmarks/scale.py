"""Large inputs: many models on many scans, many records, large molecules, many frames.

    python benchmarks/scale.py runs --models 20                # report and compare of 20 models × 485 scans
    python benchmarks/scale.py resume                          # 48,500 records: run again with nothing to do
    python benchmarks/scale.py molecules --atoms 1001          # torsions, angles and bonds of one molecule
    python benchmarks/scale.py check --frames 1000000          # `sfumato data check`

Each command runs in a process of its own; printed are its wall time, processor time (all its processes) and
largest memory (of one process). A loop of ten million additions says how fast the machine is at that moment.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cyclopts import App

from sfumato.datasets import named
from sfumato.execution.folder import RunFolder, provenance
from sfumato.execution.records import Header, Record, encode, failed, ok
from sfumato.frames import Category
from sfumato.io.frames_hdf5 import writing_frames
from sfumato.jobs.evaluate import Evaluate
from sfumato.protocols.bsct import BSCT
from sfumato.systems import Batch, Floats, Prediction, Scan

app = App(help=__doc__, help_format="plaintext")


def measured(what: str, *command: str) -> None:
    """Run a command of the program and print what it took."""
    calibration = time.process_time()
    total = 0
    for k in range(10_000_000):
        total += k
    calibration = time.process_time() - calibration
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).parent / "sfumato"), *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wall = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    print(
        f"{what}: {wall:.1f} s wall, {processor:.1f} s processor, {used.ru_maxrss / 1024:.0f} MiB; "
        f"loop {calibration:.2f} s",
        flush=True,
    )


def _predicted(scan: Scan, k: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return energies and forces with a bump somewhere, the larger the higher the number of the model."""
    b = scan.coordinate
    energy = np.where(np.isfinite(scan.energy), scan.energy, np.nanmin(scan.energy))
    forces = np.where(np.isfinite(scan.forces), scan.forces, 0.0)
    place, width = rng.uniform(b[0], b[-1]), rng.uniform(0.02, 0.2)
    bump = 0.02 * (k + 1) * rng.normal() * np.exp(-(((b - place) / width) ** 2))
    ripple = 0.02 * (k + 1) * rng.normal(size=forces.shape[1:])
    waves = np.sin(rng.uniform(3, 30) * b)[:, None, None]
    return energy + bump + 0.02 * np.sin(rng.uniform(1, 4) * b), forces * 1.01 + ripple * waves


def _write_run(path: Path, models: int, data: str, failing: float = 0.01) -> None:
    """Write a run folder with records as any potential would leave them."""
    protocol, scans = BSCT(), named.load(data)
    settings, folder = protocol.settings(), RunFolder(path)
    identities = {f"model-{k:02d}": hashlib.sha256(f"{k}".encode()).hexdigest() for k in range(models)}
    entry = {"device": "cpu", "dtype": "float64", "settings": settings.model_dump(mode="json")}
    manifest = {
        "protocol": protocol.name,
        "version": protocol.version,
        "data": {"spec": data, "name": scans.name, "identity": scans.identity, **protocol.describe(scans)},
        "models": {name: entry | {"spec": name, "identity": of} for name, of in identities.items()},
        "provenance": provenance(),
    }
    folder.begin(manifest, protocol.reads)
    for k, (name, identity) in enumerate(identities.items()):
        rng = np.random.default_rng(k)
        with folder.open(Header("evaluate", Evaluate.version, name, identity, provenance())) as file:
            for scan in scans:
                keys = Evaluate().subject(identity).keys(scan, scan.positions)
                energy, forces = _predicted(scan, k, rng)
                records: list[Record] = [
                    ok(key, seconds=0.001, energy=float(e), forces=encode(f))
                    for key, e, f in zip(keys, energy, forces, strict=True)
                ]
                if rng.random() < failing:
                    records[0] = failed(keys[0], "MissingElementError: no parameters for Br")
                file.append(records)


@app.command
def runs(*, models: int = 20, data: str = "bsct-spice", folder: Path | None = None) -> None:
    """Report and compare models on all scans of a set."""
    with tempfile.TemporaryDirectory() as temporary:
        path = folder or Path(temporary) / "run"
        if not (path / "run.json").exists():
            _write_run(path, models, data)
        size = sum(file.stat().st_size for file in (path / "records").iterdir()) / 1e6
        print(f"{models} models, {size:.0f} MB of records, {len(os.sched_getaffinity(0))} cores")
        page = Path(temporary) / "report.html"
        measured("report", "report", str(path), "--out", str(page))
        print(f"    page of {page.stat().st_size / 1e6:.1f} MB")
        if models > 1:
            measured("compare", "compare", str(path))


@app.command
def resume(*, data: str = "bsct-spice", model: str = "lj") -> None:
    """Run a quick model on all scans of a set, run it again with nothing to do, and report."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("run", "bsct", "--model", model, "--data", data, "--out", folder)
        measured("first run", *command)
        measured("again, all recorded", *command)
        measured("report", "report", folder)


def _chain(carbons: int) -> Batch:
    """Return an alkane chain in its plane."""
    k = np.arange(carbons)
    spine = np.stack([1.26 * k, 0.87 * (k % 2), 0 * k], axis=1)
    up = np.where(k % 2, 1, -1)
    sides = [spine + np.stack([0 * k, 0.63 * up, s * 0.89 + 0 * k], axis=1) for s in (1, -1)]
    ends = spine[[0, -1]] + np.array([[-1.03, 0.36, 0], [1.03, -0.36 * up[-1], 0]])
    positions = np.concatenate([spine, *sides, ends])
    n = len(positions)
    return Batch(
        numbers=np.repeat([6, 1], [carbons, n - carbons]),
        positions=positions,
        index=np.zeros(n, dtype=int),
        cell=np.zeros((1, 3, 3)),
        pbc=np.zeros((1, 3), dtype=bool),
        charge=np.zeros(1, dtype=int),
        multiplicity=np.ones(1, dtype=int),
    )


@app.command
def molecules(*, atoms: int = 1001) -> None:
    """Scans that one large molecule offers, with 100 frames each."""
    from sfumato.reference.scans import candidates

    (chain,) = _chain((atoms - 2) // 3)
    for coordinate in ("torsion", "angle", "bond"):
        start, processor = time.perf_counter(), time.process_time()
        found = candidates(chain, coordinate)
        wall, processor = time.perf_counter() - start, time.process_time() - processor
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{len(chain)} atoms, {len(found)} {coordinate}s: {wall:.1f} s wall, {processor:.1f} s "
            f"processor, {memory:.0f} MiB",
            flush=True,
        )


def _write_frames(path: Path, frames: int, atoms: int) -> None:
    """Write distorted copies of random molecules, a hundred of each."""
    rng = np.random.default_rng(0)
    side, copies = (10.0 * atoms) ** (1 / 3), 100
    with writing_frames(path, name="large", level="none", licence="none", source="") as writer:
        for start in range(0, frames, 10_000):
            n = min(10_000, frames - start)
            kinds = -(-n // copies)
            grid = np.stack(np.meshgrid(*[np.arange(np.ceil(atoms ** (1 / 3)))] * 3), axis=-1).reshape(-1, 3)
            rest = side / 2 * grid[:atoms] + rng.uniform(0, 0.3, (kinds, 1, 3))
            numbers = np.repeat(rng.choice([1, 6, 7, 8], (kinds, atoms)), copies, axis=0)[:n].ravel()
            moved = rng.normal(scale=0.05, size=(n, atoms, 3))
            batch = Batch(
                numbers=numbers,
                positions=(np.repeat(rest, copies, axis=0)[:n] + moved).reshape(-1, 3).astype(np.float32),
                index=np.repeat(np.arange(n), atoms),
                cell=np.zeros((n, 3, 3)),
                pbc=np.zeros((n, 3), dtype=bool),
                charge=np.zeros(n, dtype=int),
                multiplicity=np.ones(n, dtype=int),
            )
            energy = 10 * (moved**2).sum(axis=(1, 2))
            writer.append(batch, Prediction(energy, -20 * moved.reshape(-1, 3)))
        molecule = Category(tuple(map(str, range(frames // copies + 1))), np.arange(frames) // copies)
        one = np.zeros(frames, dtype=int)
        writer.finish(molecule, Category(("all",), one), Category(("train",), one), {})


@app.command
def check(*, frames: int = 1_000_000, atoms: int = 9) -> None:
    """Check a packed set of frames."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.h5"
        _write_frames(path, frames, atoms)
        print(f"{frames:,} frames of {atoms} atoms, {path.stat().st_size / 1e6:.0f} MB")
        measured("data check", "data", "check", str(path))


if __name__ == "__main__":
    app()
