"""Structures to simulate: bundled molecules, metals, a user's own."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from sfumato.datasets.metals import MELTING, kelvin_of, metal
from sfumato.datasets.structures import BUNDLED, SETS, SMALL, load_structures
from sfumato.models.pair import PAIRS
from sfumato.systems import Batch


def test_bundled_molecules_are_those_they_are_called_after():
    formulas = {
        "ethanol": "C2H6O",
        "malonaldehyde": "C3H4O2",
        "aspirin": "C9H8O4",
        "Ac-Ala3-NHMe": "C12H22N4O4",
        "DHA": "C22H32O2",
        "AT-AT": "C20H22N14O4",
        "stachyose": "C24H42O21",
    }
    for name, formula in formulas.items():
        (setup,) = load_structures(name, "dev")
        assert Atoms(setup.system.numbers).get_chemical_formula() == formula
        assert setup.kelvin == 500
        assert setup.timestep == 1.0
        assert "GFN2-xTB" in setup.source
    assert BUNDLED.stat().st_size < 120_000


@pytest.mark.slow
def test_bundled_molecules_are_at_rest_with_gfn2():
    potential = pytest.importorskip("tblite") and __import__(
        "sfumato.potentials.specs", fromlist=["load"]
    ).load("gfn2-xtb")
    for setup in load_structures("small", "dev"):
        found = potential.predict(Batch.of([setup.system]))
        assert np.abs(found.forces).max() < 0.03


def test_every_metal_is_a_crystal_with_a_vacancy():
    assert len(MELTING) == 27
    for symbol in MELTING:
        system = metal(symbol)
        assert system.pbc.all()
        assert 26 <= len(system) <= 57
        found = PAIRS["lj"].predict(Batch.of([system]))
        assert not found.failures
        # around the vacancy forces do not cancel, far from it they nearly do
        assert np.linalg.norm(found.forces, axis=1).max() > 1e-2
    assert kelvin_of("Cu") == pytest.approx(1.25 * 1357.77, abs=0.01)


def test_the_size_decides_how_many_a_set_has():
    assert [setup.name for setup in load_structures("molecules", "dev")] == list(SMALL)
    assert len(load_structures("molecules", "fast")) == 6
    assert len(load_structures("metals", "dev")) == 3
    assert len(load_structures("metals", "standard")) == 27
    assert {setup.timestep for setup in load_structures("all", "dev")} == {1.0, 5.0}
    assert [setup.name for setup in load_structures("ethanol, Cu", "dev")] == ["ethanol", "Cu"]


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown structures 'etanol': neither a file.*'ethanol'"):
        load_structures("etanol", "dev")
    with pytest.raises(ValueError, match="unknown structures 'Na'"):
        load_structures("Cu,Na", "dev")


def test_structures_of_a_file_with_what_it_says(tmp_path):
    hot = molecule("CH4")
    hot.info |= {"name": "methane", "kelvin": 700}
    crystal = bulk("Cu", cubic=True)
    path = tmp_path / "mine.xyz"
    write(path, [hot, molecule("H2O"), crystal])
    found = load_structures(path, "standard")
    assert [(setup.name, setup.kelvin) for setup in found] == [("methane", 700), ("1", 500), ("2", 300)]
    assert {setup.timestep for setup in found} == {1.0}
    assert found.name == "mine"
    again = load_structures(str(path), "dev")
    assert again.identity == found.identity


@pytest.mark.parametrize("kelvin", [0, -5, "hot"])
def test_a_temperature_in_a_file_is_a_temperature(tmp_path, kelvin):
    atoms = molecule("CH4")
    atoms.info["kelvin"] = kelvin
    write(tmp_path / "mine.xyz", atoms)
    with pytest.raises(ValueError, match=r"mine.xyz, structure 0: kelvin is .* above 0 K"):
        load_structures(tmp_path / "mine.xyz", "dev")


def test_an_empty_file(tmp_path):
    path = tmp_path / "none.xyz"
    path.write_text("")
    with pytest.raises(ValueError, match=r"none.xyz"):
        load_structures(path, "dev")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("size", ["dev", "fast", "standard"])
def test_every_named_set_can_be_loaded(name, size):
    found = load_structures(name, size)
    assert len({setup.name for setup in found}) == len(found) > 0
