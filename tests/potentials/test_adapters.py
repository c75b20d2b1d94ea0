"""Third-party models: what can be tested without them, and what needs them (skipped where they are missing).

With the packages installed, the figures are those observed: SevenNet 2e-5 eV/Å on forces up to 60 eV/Å
(single precision), CHGNet 5e-9 (the digits stored), MACE 0.
"""

import os
import sys
import types

import numpy as np
import pytest

from sfumato.potentials.adapters import BOX, LEGACY_FLAG, InBox, boxed, legacy_torch_load
from sfumato.potentials.potential import Abilities, Potential
from sfumato.potentials.specs import describe, resolve
from sfumato.systems import Batch, Prediction, System
from tests import SHARED

DATA = SHARED / "data"
MOLECULE = System([6, 1, 8], [[-3.0, 2, 0], [-2, 2, 0], [-3, 7, 1]], charge=1, multiplicity=2)
CRYSTAL = System([14], [[0, 0, 0]], 3 * np.eye(3), [True] * 3)


def test_a_molecule_is_centerd_in_the_box_and_a_crystal_left_alone():
    found = boxed(MOLECULE)
    np.testing.assert_array_equal(found.cell, BOX * np.eye(3))
    assert found.pbc.all()
    assert (found.charge, found.multiplicity) == (1, 2)
    middle = (found.positions.min(axis=0) + found.positions.max(axis=0)) / 2
    np.testing.assert_allclose(middle, [BOX / 2] * 3, atol=1e-12)
    np.testing.assert_allclose(
        found.positions - found.positions[0], MOLECULE.positions - MOLECULE.positions[0], atol=1e-12
    )
    assert boxed(CRYSTAL) is CRYSTAL


def test_a_molecule_longer_than_the_box_allows_and_a_slab_are_refused():
    boxed(System([1, 1], [[0, 0, 0], [0, 0, 48.0]]))
    with pytest.raises(ValueError, match=r"48\.1 Å long.*60 Å box"):
        boxed(System([1, 1], [[0, 0, 0], [0, 0, 48.1]]))
    with pytest.raises(ValueError, match="some directions only"):
        boxed(System([1], [[0, 0, 0]], np.eye(3), [True, True, False]))


class Crystals(Potential):
    """Refuses molecules, and says where the atoms are."""

    name, identity, abilities = "crystals", "0" * 64, Abilities(batch=7, stress=True)

    def compute(self, batch):
        assert batch.pbc.all()
        return Prediction(batch.cell[:, 0, 0], batch.positions, np.tile(np.eye(3), (len(batch), 1, 1)))


def test_the_box_is_for_molecules_only_and_its_stress_is_nobodys():
    potential = InBox(Crystals())
    assert (potential.name, potential.identity, potential.abilities.batch) == ("crystals", "0" * 64, 7)
    mixed = potential.predict(Batch.of([CRYSTAL, MOLECULE]))
    assert mixed.energy.tolist() == [3.0, BOX]
    assert mixed.stress is None
    assert potential.predict(Batch.of([CRYSTAL])).stress.shape == (1, 3, 3)


@pytest.fixture
def pickled(tmp_path):
    """A file that torch reads only if it may run code: it holds an object of a class of ours."""
    import torch

    torch.save({"model": Crystals()}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_pickles_load_inside_the_block_only(pickled):
    import pickle

    import torch

    original = torch.load
    with legacy_torch_load():
        assert isinstance(torch.load(pickled)["model"], Crystals)
        assert isinstance(torch.load(pickled, weights_only=None)["model"], Crystals)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(pickled, weights_only=True)
    assert torch.load is original
    with pytest.raises(pickle.UnpicklingError):
        torch.load(pickled)


@pytest.mark.parametrize("flag", [None, "0"])
def test_everything_is_put_back_even_when_loading_fails(monkeypatch, flag):
    import torch

    original = torch.load
    monkeypatch.delenv(LEGACY_FLAG, raising=False)
    if flag is not None:
        monkeypatch.setenv(LEGACY_FLAG, flag)

    def load_badly():
        with legacy_torch_load():
            assert torch.load is not original
            os.environ[LEGACY_FLAG] = "1"  # as importing mace does
            raise OSError("truncated")

    with pytest.raises(OSError, match="truncated"):
        load_badly()
    assert torch.load is original
    assert os.environ.get(LEGACY_FLAG) == flag


def fake_sevenn(monkeypatch, build):
    """Install a package of the shape of sevenn whose calculator is `build`."""
    package, module = types.ModuleType("sevenn"), types.ModuleType("sevenn.calculator")
    module.SevenNetCalculator = build
    monkeypatch.setitem(sys.modules, "sevenn", package)
    monkeypatch.setitem(sys.modules, "sevenn.calculator", module)


def test_a_constructor_may_load_pickles_and_print_and_nothing_stays(monkeypatch, pickled, capsys):
    import torch

    original = torch.load

    class Calculator:
        def __init__(self, model, device):
            print("a banner")
            self.content, self.type_map = torch.load(model), {6: 0}

    fake_sevenn(monkeypatch, Calculator)
    potential = resolve(f"sevennet:{pickled}")
    assert potential.name == "sevennet-model"
    assert torch.load is original
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="sevennet-model has no parameters for H, O"):
        potential.predict(Batch.of([MOLECULE])).require()


def test_a_constructor_that_fails_is_explained_and_nothing_stays(monkeypatch):
    import torch

    original = torch.load

    def build(model, device):
        raise ValueError("Not a valid potential")

    fake_sevenn(monkeypatch, build)
    with pytest.raises(ValueError, match=r"sevennet:7net-9: .*Not a valid potential") as caught:
        resolve("sevennet:7net-9")
    assert "Not a valid potential" in str(caught.value.__cause__)
    assert torch.load is original


@pytest.mark.parametrize(
    ("spec", "package"),
    [("sevennet:sevennet-0", "sevenn"), ("chgnet", "chgnet"), ("mace:FILE", "mace-torch")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path, spec, package):
    monkeypatch.setitem(sys.modules, package.removesuffix("-torch"), None)
    file = tmp_path / "some.model"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=f"pip install {package}"):
        resolve(spec.replace("FILE", str(file)))


def golden(potential, calculator, scan="C-P/3299", frames=(0, 25, 60, 99)):
    """Largest deviations of energies and forces from stored ones, in a 10-atom molecule."""
    released = DATA / "bsct-spice.tar.zst"
    if not released.exists():
        pytest.skip("the released bond scans are not in ../shared/data")
    import io
    import tarfile

    import zstandard
    from ase.io import read

    stored = np.load(DATA / "golden-bsct" / f"{calculator}.npz")
    wanted = {f"bsct_spice/{scan}/atoms_{frame}.xyz": frame for frame in frames}
    energy, force = [], []
    with (
        zstandard.open(released, "rb") as raw,
        tarfile.open(fileobj=raw, mode="r|") as archive,
    ):
        for member in archive:
            if (frame := wanted.get(member.name.removeprefix("./"))) is None:
                continue
            text = archive.extractfile(member).read().decode()
            atoms = read(io.StringIO(text), format="extxyz")
            found = potential.predict(Batch.of([System(atoms.numbers, atoms.positions)]))
            energy.append(abs(found.energy[0] - stored[f"{scan}/energy"][frame]))
            force.append(np.abs(found.forces - stored[f"{scan}/forces"][frame]).max())
    assert len(energy) == len(frames)
    return max(energy), max(force)


with_their_warnings = pytest.mark.filterwarnings("default")  # not ours to fix


@pytest.mark.slow
@with_their_warnings
def test_sevennet_gives_the_stored_predictions():
    pytest.importorskip("sevenn", reason="sevenn is not installed")
    import torch

    original = torch.load
    energy, force = golden(resolve("sevennet:sevennet-0"), "sevennet-0")
    assert energy < 1e-4
    assert force < 1e-4
    assert torch.load is original


@with_their_warnings
def test_chgnet_gives_the_stored_predictions():
    pytest.importorskip("chgnet", reason="chgnet is not installed")
    potential = resolve("chgnet")
    energy, force = golden(potential, "chgnet-0.3.0")
    assert energy < 1e-4
    assert force < 1e-4
    assert potential.predict(Batch.of([CRYSTAL])).stress.shape == (1, 3, 3)


@with_their_warnings
def test_mace_gives_what_its_own_calculator_gives(tmp_path, monkeypatch):
    pytest.importorskip("mace", reason="mace-torch is not installed")
    import torch
    from ase import Atoms
    from e3nn import o3
    from mace import modules
    from mace.calculators import MACECalculator

    monkeypatch.delenv(LEGACY_FLAG, raising=False)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    torch.manual_seed(3)
    torch.set_default_dtype(torch.float64)
    try:
        model = modules.MACE(
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=4,
            hidden_irreps=o3.Irreps("8x0e + 8x1o"),
            MLP_irreps=o3.Irreps("8x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.array([-1.0, -2.0, -3.0, -4.0]),
            avg_num_neighbors=8,
            atomic_numbers=[1, 6, 7, 8],
            correlation=2,
            radial_type="bessel",
        )
    finally:
        torch.set_default_dtype(torch.float32)
    torch.save(model, tmp_path / "tiny.model")
    potential = resolve(f"mace:{tmp_path / 'tiny.model'}")
    assert potential.name == "mace-tiny"
    assert torch.get_default_dtype() == torch.float32
    assert LEGACY_FLAG not in os.environ
    theirs = MACECalculator(models=model, device="cpu", default_dtype="float64")
    rng = np.random.default_rng(0)
    for cell, pbc in ((np.zeros((3, 3)), [False] * 3), (4 * np.eye(3) + 0.1, [True] * 3)):
        system = System(rng.choice([1, 6, 7, 8], 8), rng.uniform(0, 4, (8, 3)), cell, pbc)
        found = potential.predict(Batch.of([system]))
        atoms = Atoms(system.numbers, system.positions, cell=cell, pbc=pbc, calculator=theirs)
        assert found.energy[0] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-8)
        if all(pbc):
            np.testing.assert_allclose(found.stress[0], atoms.get_stress(voigt=False), rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="mace-tiny has no parameters for Si"):
        potential.predict(Batch.of([CRYSTAL]))


def test_the_list_of_models_says_whose_files_run_code():
    said = {spec.partition(":")[0].partition("[")[0]: what for spec, what, _ in describe()}
    for name in ("sevennet", "chgnet", "mace"):
        assert "pickles, which run code: load only what you trust" in said[name]
