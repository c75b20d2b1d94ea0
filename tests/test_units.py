"""The constants agree with CODATA as SciPy has it, and with each other."""

import pytest
from scipy import constants

from sfumato import units

EV = constants.e


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HARTREE", constants.physical_constants["Hartree energy in eV"][0]),
        ("BOHR", constants.physical_constants["Bohr radius"][0] * 1e10),
        ("KCAL_PER_MOL", constants.calorie * 1e3 / constants.N_A / EV),
        ("KJ_PER_MOL", 1e3 / constants.N_A / EV),
        ("KELVIN", constants.k / EV),
        ("AMU_A2_PER_FS2", constants.atomic_mass * 1e10 / EV),
    ],
)
def test_constants_match_codata(name, expected):
    assert getattr(units, name) == pytest.approx(expected, rel=2e-9)


def test_derived_units():
    assert units.HARTREE_PER_BOHR == units.HARTREE / units.BOHR
    assert units.MEV == 1e-3
