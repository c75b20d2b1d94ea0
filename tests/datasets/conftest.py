"""What several tests of data sets start from."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule
from scipy.spatial.transform import Rotation

from sfumato.datasets.energies import AtomEnergies
from sfumato.frames import FrameSet
from sfumato.io import from_ase
from sfumato.systems import Batch, Prediction
from tests.datasets.made_frames import (
    ATOMS,
    MOLECULES,
    NAMES,
    SPLITS,
    of,
    rounded,
)


@pytest.fixture(scope="module")
def molecules() -> FrameSet:
    """Rattled and turned molecules with the energies of a Morse potential and of their atoms."""
    rng = np.random.default_rng(0)
    systems, words, split = [], [], []
    for name, part in zip(NAMES, SPLITS):
        system = from_ase(molecule(name))
        for k in range(16):
            turn = Rotation.random(random_state=k).as_matrix()
            moved = system.positions + rng.normal(0, 0.04, system.positions.shape)
            systems.append(rounded(system, moved @ turn.T + rng.normal(0, 1, 3)))
            words.append(name)
            split.append(part)
    batch = Batch.of(systems)
    labels = MOLECULES.predict(batch)
    atoms = AtomEnergies(ATOMS, "a table").total(batch)
    return of(batch, Prediction(labels.energy + atoms, labels.forces), words, split)
