"""Labels as records: the reason of a failure is the engine's own."""

import pytest
from ase.calculators.calculator import CalculationFailed

from sfumato.campaigns.campaign import label
from sfumato.potentials.engines import make_engine
from sfumato.systems import System

MODEL = """
from ase.calculators.calculator import CalculationFailed
from ase.calculators.lj import LennardJones

class Broken(LennardJones):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def calculate(self, *arguments, **options):
        raise self.error

def missing(): return Broken(KeyError("He"))
def failed(): return Broken(CalculationFailed("no licence"))
"""


@pytest.mark.parametrize(
    ("factory", "reason"),
    [("missing", "KeyError: 'He'"), ("failed", f"{CalculationFailed.__name__}: no licence")],
)
def test_what_a_calculator_raises_is_the_reason_and_not_called_a_lack_of_convergence(
    factory, reason, tmp_path
):
    (tmp_path / "model.py").write_text(MODEL)
    engine = make_engine("ase", f"{tmp_path}/model.py:{factory}")
    (record,) = label([System([2], [[0.0, 0.0, 0.0]])], engine, tmp_path / "store")
    assert (record["status"], record["reason"]) == ("failed", reason)
