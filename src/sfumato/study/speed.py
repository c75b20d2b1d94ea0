"""What a prediction of a trained model costs."""

from __future__ import annotations

import time
from pathlib import Path

from sfumato.datasets.loader import Loader
from sfumato.datasets.named import frames_path
from sfumato.potentials.network import from_file
from sfumato.training.settings import TrainSettings

NUMBER = "speed.time"
ROUNDS = 7


def seconds_per_atom(model: Path, settings: TrainSettings) -> float:
    """Return the processor time of energies and forces per atom, searching neighbors included.

    The least of a few rounds over the first batch that a training learns from: what disturbs a machine only
    adds to it.

    Args:
        model: its file.
        settings: of its training.
    """
    data, potential = settings.data, from_file(model)
    loader = Loader(frames_path(data.path), data.train, settings.loader(settings.stages[0]))
    batch, _ = next(iter(loader.batches(0, 0)))
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        potential.predict(batch)
        times.append(time.process_time() - start)
    return min(times) / len(batch.numbers)
