"""Molecules beside crystals in a set with a stress: they have none to compare, and stop nothing."""

import numpy as np
import pytest
import torch

from sfumato.datasets.loader import Loader
from sfumato.frames import Category, FrameSet
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.systems import Batch, Prediction, System
from sfumato.training.batches import Batches
from sfumato.training.gradients import backward, skin
from tests import made_training as made


def mixed():
    """Lone atoms, without a stress, and crystals, with one."""
    crystals = made.frame_set(made.crystals(4), validation=0)
    lone = [System([z], np.zeros((1, 3))) for z in (6, 8)]
    batch = Batch.of([*lone, *crystals.batch])
    labels = Prediction(
        np.concatenate([[-1.0, -2.0], crystals.labels.energy]),
        np.concatenate([np.zeros((2, 3)), crystals.labels.forces]),
        np.concatenate([np.full((2, 3, 3), np.nan), crystals.labels.stress]),
    )
    words = Category.of(map(str, range(6)))
    split, subset = Category.of(["train"] * 6), Category.of(["all"] * 6)
    return FrameSet("m", "Morse", "MIT", "tests", batch, labels, words, subset, split, absent=("stress",))


@pytest.mark.parametrize("gradient", ["double_backward", "finite_difference"])
def test_crystals_beside_lone_atoms_are_learned_with_their_stress(gradient):
    stage = {
        "name": "s",
        "steps": 1,
        "batch": 6,
        "lr": 1e-3,
        "loss": {"energy": 1, "forces": 1, "stress": 1},
        "gradient": gradient,
    }
    settings = made.settings("x", stage | {"batch": {"structures": 6}})
    stage = settings.stages[0]
    batches = Batches(Loader(mixed(), "train", settings.loader(stage)), settings, stage, skin(stage))
    (whole,) = batches.epoch(0)
    model = MinDScAIP(settings.model)
    terms = backward(model, batches.sample(whole, torch.float32), stage)
    assert 0 < terms["stress"] < 10
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
