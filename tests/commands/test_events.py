"""The command that makes a testing set from the path of a hop."""

import pytest

from sfumato.cli import main
from sfumato.datasets.named import load_rare_events

FACTORY = """
import numpy as np
from sfumato.potentials.potential import Potential
from sfumato.systems import Prediction

class Sized(Potential):
    name = identity = "sized"

    def compute(self, batch):
        edge = np.linalg.norm(batch.cell[:, 0], axis=1)
        return Prediction(np.diff(batch.offsets) * ((edge - 3.7) ** 2 - 3), 0 * batch.positions)

def make():
    return Sized()
"""


def command(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_a_set_from_a_path(tmp_path, capsys):
    (tmp_path / "sized.py").write_text(FACTORY)
    asked = [
        "data",
        "hop-path",
        "Cu",
        "--by",
        f"{tmp_path / 'sized.py'}:make",
        "--images",
        "5",
    ]
    assert command(*asked, "-o", tmp_path / "x.xyz") == 2
    assert "name a file that ends in .h5" in capsys.readouterr().err
    assert command(*asked[:2], "H", *asked[3:], "-o", tmp_path / "x.h5") == 2
    assert "'H' is neither a file nor an element that crystallizes as" in capsys.readouterr().err
    assert command(*asked, "-o", tmp_path / "x.h5") == 0
    assert "path of a vacancy hop in Cu by sized" in capsys.readouterr().out
    (one,) = load_rare_events(tmp_path / "x.h5").sets
    assert one.migrating.any()
