"""Small training sets labeled by a Morse potential, and settings of runs that take a second."""

import numpy as np

from sfumato.frames import Category, FrameSet
from sfumato.io.frames_hdf5 import write_frame_set
from sfumato.models.pair import PAIRS
from sfumato.systems import Batch, Prediction, System
from sfumato.training.settings import TrainSettings

MODEL = {
    "width": 8,
    "heads": 2,
    "layers": 1,
    "radial": 16,
    "smearing": 2.0,
    "l_max": 2,
    "directional": "angular_bias",
    "graph": {"k": 4, "cutoff": 4.0},
}


def molecules(count, seed=0):
    """Chains of three to six atoms, a little out of shape."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        n = int(rng.integers(3, 7))
        chain = np.arange(n)[:, None] * np.array([1.2, 0.0, 0.0])
        chain[1::2, 1] = 0.6
        positions = (chain + rng.uniform(-0.1, 0.1, (n, 3))).astype(np.float32)
        found.append(System(rng.choice([6, 7, 8], n), positions))
    return found


def crystals(count, seed=0):
    """Sheared cells of two to four atoms."""
    rng = np.random.default_rng(seed)
    sites = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    found = []
    for _ in range(count):
        n = int(rng.integers(2, 5))
        cell = (np.eye(3) * 3.4 + rng.uniform(-0.2, 0.2, (3, 3))).astype(np.float32)
        positions = (sites[:n] @ cell + rng.uniform(-0.1, 0.1, (n, 3))).astype(np.float32)
        found.append(System(rng.choice([6, 8], n), positions, cell, [True] * 3))
    return found


def frame_set(systems, validation=6, hidden=(), unstressed=()):
    """Label structures; the last ones are held out, and forces or stress of some are not known."""
    batch = Batch.of(systems)
    labels = PAIRS["morse"].predict(batch)
    forces = labels.forces.copy()
    for frame in hidden:
        forces[batch.index == frame] = np.nan
    stress = None if labels.stress is None else labels.stress.copy()
    if len(unstressed):
        stress[list(unstressed)] = np.nan
    n = len(systems)
    return FrameSet(
        "made",
        "Morse",
        "CC0-1.0",
        "tests",
        batch,
        Prediction(labels.energy, forces, stress),
        Category.of(str(k) for k in range(n)),
        Category.of(["all"] * n),
        Category.of(["train"] * (n - validation) + ["val"] * validation),
        absent=("forces",) * (len(hidden) > 0) + ("stress",) * (len(unstressed) > 0),
    )


def written(path, systems=None, **kind):
    """Write a set to a file and return where it is."""
    write_frame_set(path, frame_set(molecules(30) if systems is None else systems, **kind))
    return path


def settings(path, *stages, **changes):
    """Settings of a small run."""
    stages = stages or ({"name": "only", "steps": 6, "batch": 4, "lr": 3e-3},)
    given = {
        "model": MODEL,
        "data": {"path": str(path)},
        "stages": stages,
        "evaluate_steps": 3,
        "log_steps": 2,
        "accelerator": "cpu",
        "threads": 1,
    }
    return TrainSettings(**(given | changes))


def wells(count, seed=0):
    """Configurations of one molecule near its minimum, as dynamics makes them."""
    rng = np.random.default_rng(seed)
    square = 1.5 * np.array([[0, 0, 0], [1, 0, 0.2], [1, 1, 0], [0, 1, 0.2]], dtype=float)
    return [
        System([6, 7, 8, 6], (square + rng.uniform(-0.05, 0.05, (4, 3))).astype(np.float32))
        for _ in range(count)
    ]
