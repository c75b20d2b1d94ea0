"""Core potentials that belong to basis sets: each family as PySCF ships it."""

import pytest

pytest.importorskip("pyscf")

from sfumato.potentials.engines import PySCF
from sfumato.potentials.engines.cores import core_potentials


@pytest.mark.parametrize(
    ("basis", "cores"),
    [
        ("lanl2dz", {17: 10, 53: 46}),
        ("sbkjc", {6: 2, 17: 10}),
        ("stuttgart", {6: 2, 17: 10, 53: 46}),
        ("crenbl", {6: 2, 53: 36}),
        ("def2-tzvppd", {53: 28}),
        ("ma-def2-svp", {53: 28}),
        ("def2-mtzvp", {53: 28}),
        ("cc-pvdz-pp", {53: 28}),
        ("aug-cc-pvtz-pp", {79: 60}),
        ("cc-pwCVDZ-PP", {79: 60}),
        ("BFD-VDZ", {6: 2, 17: 10, 53: 46}),
        ("ccecp-cc-pvdz", {6: 2, 17: 10, 79: 60}),
        ("ccecp-aug-cc-pvtz", {8: 2}),
    ],
)
def test_every_family_of_valence_basis_sets_has_its_cores(basis, cores):
    found = core_potentials(basis, cores)
    assert {z: potential[0] for z, potential in found.items()} == cores


@pytest.mark.parametrize(
    ("basis", "numbers"),
    [
        ("sto-3g", (1, 3, 6, 17, 53)),
        ("6-31g*", (1, 6, 17)),
        ("cc-pvtz", (1, 6, 17, 35)),
        ("dzp", (1, 6, 53, 79)),
        ("def2-svp", (1, 6, 17)),
        ("lanl2dz", (1, 6)),
        ("no-such-basis", (6,)),
    ],
)
def test_elements_with_all_electrons_in_the_basis_have_none(basis, numbers):
    assert core_potentials(basis, numbers) == {}


@pytest.mark.parametrize(("basis", "z", "symbol"), [("gth-dzvp", 6, "C"), ("cc-pvdz-pp-nr", 79, "Au")])
def test_a_valence_basis_without_a_known_core_is_refused(basis, z, symbol):
    with pytest.raises(ValueError, match=f"no functions for the core electrons of {symbol}"):
        core_potentials(basis, [1, z])


def test_labels_of_basis_sets_that_had_no_core_potential_have_another_identity():
    assert PySCF(basis="lanl2dz").identity != PySCF(basis="lanl2tz").identity
    assert PySCF("wb97m-v").identity != PySCF("wb97m-d3bj").identity
