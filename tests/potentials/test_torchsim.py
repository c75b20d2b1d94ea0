"""The TorchSim model: the numbers of the potential, in batches, through TorchSim's own integrators."""

import sys
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from sfumato.graph import GraphSettings
from sfumato.io import from_ase
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.potentials import torchsim
from sfumato.potentials.network import NetworkPotential
from sfumato.potentials.potential import MissingElementError
from sfumato.systems import Batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own dependencies are deprecated in parts
    ts = pytest.importorskip("torch_sim", reason="the extra torchsim is not installed")

CPU = torch.device("cpu")
WATER = Atoms("OHH", [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])


def potential(dtype="float64"):
    config = MinDScAIPConfig(
        width=8,
        heads=2,
        layers=1,
        radial=8,
        directional="angular_bias",
        graph=GraphSettings(k=6, cutoff=4.0),
        elements=(1, 6, 8, 12, 13, 14, 26),
    )
    model = MinDScAIP(config, torch.Generator().manual_seed(5))
    model.scale.fill_(50.0)
    model.reference[13] = -6600.123456789
    return NetworkPotential(model, "tiny", dtype=dtype)


def crystals():
    found = [
        bulk("Al", "fcc", 3.9, cubic=True),
        bulk("Si", "diamond", 5.43),
        bulk("Fe", "bcc", 2.87) * (3, 1, 1),
    ]
    found[1].set_cell(found[1].cell @ [[1, 0.1, 0], [0, 1, 0.05], [0, 0, 0.97]], scale_atoms=True)
    for k, atoms in enumerate(found):
        atoms.rattle(0.1, seed=k)
    return found


def state(atoms, dtype=torch.float64):
    return ts.io.atoms_to_state(atoms, CPU, dtype)


@pytest.mark.parametrize(
    ("network", "dtype", "tolerance"),
    [
        ("float64", torch.float64, 1e-11),
        ("float32", torch.float64, 1e-4),
        ("float64", torch.float32, 2e-3),  # energies of 10⁴ eV in seven digits
    ],
)
def test_a_batch_of_crystals_gets_the_numbers_of_the_potential(network, dtype, tolerance):
    one = potential(network)
    found = one.torchsim()(state(crystals(), dtype))
    expected = one.predict(Batch.of([from_ase(atoms) for atoms in crystals()]))
    for key, value in found.items():
        assert value.dtype == dtype
        assert not value.requires_grad
        np.testing.assert_allclose(value, getattr(expected, key), rtol=0, atol=tolerance)
    assert set(found) == {"energy", "forces", "stress"}
    assert np.abs(expected.forces).max() > 0.05


def test_molecules_have_energy_and_forces():
    one = potential()
    other = WATER.copy()
    other.rattle(0.1, seed=1)
    found = one.torchsim(stress=False)(state([WATER, other]))
    expected = one.predict(Batch.of([from_ase(WATER), from_ase(other)]))
    assert set(found) == {"energy", "forces"}
    np.testing.assert_allclose(found["energy"], expected.energy, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found["forces"], expected.forces, rtol=0, atol=1e-11)
    asked = one.torchsim(stress=True)(state([WATER, other]))
    assert all(torch.equal(asked[key], found[key]) for key in ("energy", "forces"))
    assert set(asked) == {"energy", "forces"}


def test_slabs_and_wires_never_become_clusters():
    slab = Atoms("C4", [[0, 0, 0], [0, 1.42, 0], [1.23, 2.13, 0.1], [1.23, 3.55, 0]], cell=[2.46, 4.26, 15.0])
    one = potential()
    model = one.torchsim(stress=False)
    for directions in ([1, 1, 0], [1, 0, 0], [0, 1, 1]):
        slab.pbc = directions
        with pytest.raises(ValueError, match="a cell but no periodic direction"):
            model(state([slab]))
        whole = vars(state([slab])) | {"pbc": torch.tensor(directions, dtype=torch.bool)}
        expected = one.predict(Batch.of([from_ase(slab)]))
        np.testing.assert_allclose(model(whole)["forces"], expected.forces, rtol=0, atol=1e-11)
    assert np.abs(expected.forces).max() > 0.05
    flat = Atoms("C2", [[0, 0, 0], [0, 1.4, 0.1]], cell=[2.46, 4.26, 0.0], pbc=[1, 1, 0])
    with pytest.raises(ValueError, match="a cell but no periodic direction"):
        model(state([WATER, flat]))


def test_inference_mode_of_torch_changes_nothing():
    model = potential().torchsim()
    expected = model(state(crystals()))
    with torch.inference_mode():
        found = model(state(crystals()))
    model.neighbors.skin = 0.0
    for key, value in model(state(crystals())).items():
        assert torch.equal(value, expected[key])
        assert torch.equal(found[key], expected[key])


def test_it_is_what_torchsim_asks_of_a_model():
    model = potential("float32").torchsim()
    assert isinstance(model, ts.models.interface.ModelInterface)
    assert (model.device, model.dtype, model.memory_scales_with) == (CPU, torch.float64, "n_atoms")
    assert (model.compute_forces, model.compute_stress) == (True, True)
    ts.models.interface.validate_model_outputs(model, model.device, model.dtype)


def test_a_state_may_be_a_dictionary():
    whole = state(crystals())
    names = ("positions", "cell", "pbc", "atomic_numbers", "system_idx")
    model = potential().torchsim()
    found = model({name: getattr(whole, name) for name in names})
    assert torch.equal(found["forces"], model(whole)["forces"])


def test_neighbors_are_kept_from_step_to_step_and_found_anew_for_other_structures():
    one = potential()
    model, rng = one.torchsim(skin=0.6), np.random.default_rng(0)
    steps = crystals()
    for _ in range(20):
        for atoms in steps:
            atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
        found = model(state(steps))
        expected = one.predict(Batch.of([from_ase(atoms) for atoms in steps]))
        np.testing.assert_allclose(found["forces"], expected.forces, rtol=0, atol=1e-11)
    assert 1 < model.neighbors.searches < 10
    before = model.neighbors.searches
    found = model(state([steps[1], steps[0]]))  # as when a batch is refilled
    assert model.neighbors.searches == before + 1
    expected = one.predict(Batch.of([from_ase(steps[1]), from_ase(steps[0])]))
    np.testing.assert_allclose(found["energy"], expected.energy, rtol=0, atol=1e-11)


def integrator(model, dt):
    """What starts and what continues a simulation at 0.05 eV, always with the same momenta."""
    kT = torch.tensor(0.05, dtype=torch.float64)
    if not hasattr(ts.integrators, "nve_init"):  # TorchSim 0.3
        begin, step = ts.integrators.nve(model=model, dt=dt, kT=kT)
        return lambda start: begin(start, seed=1), step

    def seeded(start):
        if not hasattr(start, "rng"):
            return ts.integrators.nve_init(start, model, kT=kT, seed=1)
        start.rng = 1
        return ts.integrators.nve_init(start, model, kT=kT)

    return seeded, lambda now: ts.integrators.nve_step(now, model, dt=dt)


def test_torchsims_own_dynamics_conserve_the_energy():
    model = potential().torchsim()
    kinetic = ts.quantities.calc_kinetic_energy
    error = []
    for dt in (2e-3, 1e-3):
        start = state(crystals()[:2])
        begin, step = integrator(model, torch.tensor(dt, dtype=torch.float64))
        now = begin(start)
        total = []
        for _ in range(round(0.06 / dt)):
            now = step(now)
            moving = kinetic(masses=now.masses, momenta=now.momenta, system_idx=now.system_idx)
            total.append(now.energy + moving)
        error.append(float((torch.stack(total) - total[0]).abs().max()))
    assert error[1] < 0.4 * error[0]  # of second order in the step


def test_what_it_cannot_do_is_said(monkeypatch):
    model = potential().torchsim()
    with pytest.raises(
        ValueError, match=r"stress needs three periodic directions in every .*; otherwise use stress=False"
    ):
        model(vars(state(crystals())) | {"pbc": torch.tensor([True, True, False])})
    with pytest.raises(MissingElementError, match=r"for Cu, first met in structure 1 of .* knows H, .*"):
        model(state([bulk("Al"), bulk("Cu")]))
    same = crystals()[0]
    same.positions[1] = same.positions[0]
    with pytest.raises(ValueError, match="atoms 0 and 1 of structure 1 are at the same place"):
        model(state([crystals()[1], same]))
    lost = state(crystals())
    lost.positions[2, 1] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        model(lost)
    broken = potential()
    broken.network.reference[13] = np.inf
    with pytest.raises(ValueError, match="a prediction is not a finite number"):
        broken.torchsim()(state(crystals()))
    monkeypatch.setitem(sys.modules, "torch_sim.models.interface", None)
    with pytest.raises(ValueError, match=r"pip install 'sfumato\[torchsim\]'"):
        potential().torchsim()


def test_out_of_memory_is_left_to_torchsim_which_looks_for_it(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torchsim, "evaluate", full)
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        potential().torchsim()(state(crystals()))
