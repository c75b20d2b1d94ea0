"""Molecules beside crystals in a set with a stress: those without a volume have none, and stop nothing."""

import numpy as np
import pytest

from sfumato.systems import System
from sfumato.training.loop import train
from tests import made_training as made

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("gradient", ["double_backward", "finite_difference"])
def test_crystals_with_lone_atoms_are_learned_with_their_stress(tmp_path, gradient):
    lone = [System([z], np.zeros((1, 3))) for z in (6, 8, 6, 8)]
    systems = [*lone, *made.crystals(12)]
