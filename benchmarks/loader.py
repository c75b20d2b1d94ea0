"""Speed of the training data: from a packed file into batches, and from files of others into a packed one.

    python benchmarks/loader.py batches --frames 100000 --atoms 30
    python benchmarks/loader.py convert --frames 20000

Each repeat of `batches` is a fresh process with one thread that opens the file, which is in the system's
cache, and makes two epochs of batches. Seconds are of processor time: other work on the machine counts less.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from cyclopts import App

from sfumato.frames import Category
from sfumato.io.frames_hdf5 import writing_frames
from sfumato.systems import Batch, Prediction

app = App(help=__doc__, help_format="plaintext")

EPOCH = """
import resource, sys, time
from sfumato.datasets.loader import Loader, LoaderSettings
path, limits, turn = sys.argv[1], eval(sys.argv[2]), eval(sys.argv[3])
u = time.process_time()
loader = Loader(path, "train", LoaderSettings(rotate=turn, **limits))
v = time.process_time()
atoms = sum(len(batch.numbers) for batch, labels in loader.batches(0))
w = time.process_time()
second = sum(len(batch.numbers) for batch, labels in loader.batches(1))
x = time.process_time()
frames = len(loader.frames)
print(v - u, frames / (w - v), frames / (x - w), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def spread(values: list[float]) -> str:
    """Median with range."""
    return f"{statistics.median(values):,.0f} [{min(values):,.0f}, {max(values):,.0f}]"


def made(path: Path, frames: int, atoms: int, crystal: bool) -> None:
    """Write random structures at about the density of matter, in pieces of 1,000."""
    rng = np.random.default_rng(0)
    side = (10.0 * atoms) ** (1 / 3)
    with writing_frames(path, name="made", level="none", licence="none", source="") as writer:
        for start in range(0, frames, 1000):
            n = min(1000, frames - start)
            batch = Batch(
                numbers=rng.choice([1, 6, 7, 8], n * atoms),
                positions=rng.uniform(0, side, (n * atoms, 3)).astype(np.float32),
                index=np.repeat(np.arange(n), atoms),
                cell=np.broadcast_to(side * np.eye(3) * crystal, (n, 3, 3)),
                pbc=np.full((n, 3), crystal),
                charge=np.zeros(n, dtype=int),
                multiplicity=np.ones(n, dtype=int),
            )
            stress = rng.normal(size=(n, 3, 3)) if crystal else None
            writer.append(batch, Prediction(rng.normal(size=n), rng.normal(size=(n * atoms, 3)), stress))
        words = Category(tuple(map(str, range(frames))), np.arange(frames))
        one = np.zeros(frames, dtype=int)
        writer.finish(words, Category(("all",), one), Category(("train",), one), {})


@app.command
def batches(*, frames: int = 100_000, atoms: int = 30, repeats: int = 3) -> None:
    """Frames per second into batches, first epoch (with reading) and second (from memory)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    cases = [
        ("32 structures", False, {"structures": 32}, True),
        ("32 structures, not turned", False, {"structures": 32}, False),
        ("5 structures", False, {"structures": 5}, True),
        ("1,000 atoms", False, {"atoms": 1000}, True),
        ("32 crystals with stress", True, {"structures": 32}, True),
        ("32 structures, windows of 8,192", False, {"structures": 32, "window": 8192}, True),
        ("20,000 edges within 6 Å", False, {"edges": 20_000}, True),
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = {crystal: Path(folder) / f"{crystal}.h5" for crystal in (False, True)}
        for crystal, path in files.items():
            start = time.process_time()
            made(path, frames, atoms, crystal)
            size = path.stat().st_size / 1e6
            print(f"{frames:,} × {atoms} atoms, {size:.0f} MB, in {time.process_time() - start:.1f} s")
        for name, crystal, limits, turn in cases:
            command = [sys.executable, "-c", EPOCH, str(files[crystal]), repr(limits), repr(turn)]
            found = []
            for _ in range(repeats):
                run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                found.append([float(word) for word in run.stdout.split()])
            opened, first, second, memory = (list(column) for column in zip(*found, strict=True))
            print(f"{name}: opened in {max(opened):.1f} s, peak memory {max(memory):.0f} MiB")
            print(f"    frames/s, first epoch {spread(first)}, next {spread(second)}")


@app.command
def convert(*, frames: int = 20_000, atoms: int = 30) -> None:
    """Frames per second, and peak memory, from files of others into a packed file."""
    writers = {"extxyz": _write_extxyz, "spice": _write_spice, "mptrj": _write_mptrj}
    with tempfile.TemporaryDirectory() as folder:
        for layout, write in writers.items():
            for count in (frames // 10, frames):
                path = Path(folder) / f"{layout}-{count}"
                write(path, count, atoms)
                command = [sys.executable, "-c", CONVERT, layout, str(path), f"{path}.h5"]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, memory = (float(word) for word in run.stdout.split())
                size = path.stat().st_size / 1e6
                print(
                    f"{layout}: {count:,} frames, {size:.0f} MB: {count / seconds:,.0f} frames/s, "
                    f"peak memory {memory:.0f} MiB"
                )
                path.unlink()


CONVERT = """
import resource, sys, time
from sfumato.datasets.convert import convert
from sfumato.datasets.sources import SourceSettings
layout, path, out = sys.argv[1:]
known = {"layout": layout, "name": "made", "level": "none", "licence": "none", "molecule": "frame"}
if layout == "extxyz":
    known |= {"keys": {"energy": "energy", "forces": "forces"}, "absent": ["stress"]}
    known |= {"units": {"energy": "eV", "length": "Å", "forces": "eV/Å"}}
t = time.process_time()
convert(path, out, SourceSettings(**known))
print(time.process_time() - t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def _write_extxyz(path: Path, frames: int, atoms: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for _ in range(frames):
            file.write(
                f'{atoms}\nProperties=species:S:1:pos:R:3:forces:R:3 energy={rng.normal()} pbc="F F F"\n'
            )
            for row in rng.uniform(0, 8, (atoms, 6)):
                file.write("C " + " ".join(f"{x:.8f}" for x in row) + "\n")


def _write_spice(path: Path, frames: int, atoms: int) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for k in range(frames // 50):
            group = file.create_group(f"molecule {k}")
            group["atomic_numbers"] = rng.choice([1, 6, 8], atoms)
            group["conformations"] = rng.uniform(0, 15, (50, atoms, 3)).astype(np.float32)
            group["dft_total_energy"] = rng.normal(size=50)
            group["dft_total_gradient"] = rng.normal(size=(50, atoms, 3)).astype(np.float32)
            for key, word in (("smiles", f"C{k}"), ("subset", "made")):
                group.create_dataset(key, data=[word], dtype=h5py.string_dtype())


def _write_mptrj(path: Path, frames: int, atoms: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for k in range(frames // 10):
            file.write("{" if k == 0 else ", ")
            file.write(
                json.dumps(f"mp-{k}") + ": " + json.dumps({f"{k}-{n}": _mptrj(rng, atoms) for n in range(10)})
            )
        file.write("}")


def _mptrj(rng: np.random.Generator, atoms: int) -> dict[str, Any]:
    sites = [
        {"species": [{"element": "Si", "occu": 1}], "abc": x, "xyz": x, "label": "Si", "properties": {}}
        for x in rng.uniform(0, 8, (atoms, 3)).tolist()
    ]
    return {
        "structure": {"lattice": {"matrix": (8 * np.eye(3)).tolist()}, "sites": sites, "charge": None},
        "uncorrected_total_energy": rng.normal(),
        "force": rng.normal(size=(atoms, 3)).tolist(),
        "stress": rng.normal(size=(3, 3)).tolist(),
        "magmom": rng.normal(size=atoms).tolist(),
    }


if __name__ == "__main__":
    app()
