"""Rare events in trajectories: a vacancy that hops, the published flags, the command, and what is refused."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from sfumato.cli import main
from sfumato.datasets.events import (
    CUBIC,
    Trajectory,
    crystal_of,
    find_events,
    labeled_events,
    lattice_of,
    load_trajectory,
    require_events,
)
from sfumato.datasets.named import load_rare_events
from sfumato.io import from_ase
from sfumato.metrics.rare_events import detection
from sfumato.models.pair import PAIRS
from sfumato.protocols.rare_events.data import read_events
from tests.silicon_layout import REAL, needs_real


def hopping(frames=12, *, drift=0.0, labels=False):
    """A crystal with a vacancy, into which a neighbor goes, halfway there from frame 5 to frame 6."""
    perfect = bulk("Si", "diamond", 5.43, cubic=True).repeat(2)
    empty, mover = 0, 1 + int(np.argmin(perfect.get_distances(0, range(1, 64), mic=True)))
    path = perfect.get_distance(mover, empty, mic=True, vector=True)
    rng = np.random.default_rng(0)
    found = []
    for k in range(frames):
        atoms = perfect.copy()
        atoms.positions[mover] += path * np.clip((k - 3.5) / 4, 0, 1)
        atoms.positions += rng.normal(0, 0.05, size=atoms.positions.shape) + drift * k
        del atoms[empty]
        if labels:
            atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * k, forces=np.zeros((63, 3)))
        found.append(atoms)
    return found, mover - 1


def trajectory(frames):
    return Trajectory("t", tuple(from_ase(atoms) for atoms in frames))


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_a_vacancy_hop_is_found(drift):
    frames, mover = hopping(drift=drift)
    moving = trajectory(frames)
    found = find_events(moving, crystal_of("diamond", moving))
    assert [hop.atom for hop in found.hops] == [mover]
    assert np.argwhere(found.flags).tolist() == [[5, mover], [6, mover]]
    assert (found.defect, found.sites) == ("vacancy", 64)
    assert found.chosen(1).tolist() == [5]
    assert found.chosen(9).tolist() == [5, 6]


def test_an_atom_that_returns_is_no_hop_unless_each_frame_is_judged_alone():
    frames, mover = hopping()
    moving = trajectory([*frames[:7], *frames[3::-1]])
    found = find_events(moving, crystal_of("diamond", moving))
    assert not found.hops
    with pytest.raises(ValueError, match="no atom changed its site for good in 11 frames"):
        require_events(found, moving)
    alone = find_events(moving, crystal_of("diamond", moving), single=True)
    assert alone.flags[:, mover].sum() == 2
    assert require_events(alone, moving) is alone
    jump = trajectory([*frames[:4], *frames[8:]])
    with pytest.raises(ValueError, match="1 hops in 8 frames, but no frame shows an atom in the middle"):
        require_events(find_events(jump, crystal_of("diamond", jump)), jump)


def test_a_set_is_labeled_by_any_potential():
    frames, mover = hopping()
    moving = trajectory(frames)
    events = find_events(moving, crystal_of("diamond", moving))
    found = labeled_events(moving, events, PAIRS["lj"], most=10, name="mine")
    (one,) = found.sets
    assert (found.level, one.name, len(one)) == ("lj", "vacancy", 2)
    assert np.flatnonzero(one.migrating).tolist() == [mover, 63 + mover]
    assert one.r[mover] == 0
    assert one.r[:63].max() > 4
    assert np.isfinite(one.forces).all()
    with pytest.raises(ValueError, match="frames without energies and forces; label them with --model"):
        labeled_events(moving, events, None, most=10, name="mine")


def test_crystals(tmp_path):
    frames, _ = hopping(2)
    moving = trajectory(frames)
    for name, sites in {"diamond": 64, "fcc": 108, "bcc": 54}.items():
        crystal = crystal_of(name, moving)
        assert len(crystal) == CUBIC[name]
        assert abs(len(lattice_of(crystal, frames[0].cell.array)) - sites) <= sites
    primitive = bulk("Si", "diamond", 5.43)
    share = lattice_of(from_ase(primitive), frames[0].cell.array)
    assert len(share) == 64
    ase.io.write(tmp_path / "si.cif", primitive)
    assert len(crystal_of(str(tmp_path / "si.cif"), moving)) == 2
    with pytest.raises(ValueError, match="'diamnd' is not a file; did you mean 'diamond'"):
        crystal_of("diamnd", moving)
    with pytest.raises(ValueError, match="does not fill that of the trajectory in whole repeats"):
        lattice_of(from_ase(bulk("Si", "diamond", 4.4, cubic=True)), frames[0].cell.array)


def test_trajectories_that_cannot_be_used(tmp_path):
    frames, _ = hopping(2)
    ase.io.write(tmp_path / "two.extxyz", [frames[0], frames[1][:60]])
    with pytest.raises(ValueError, match="frame 1 has other atoms than frame 0"):
        load_trajectory(tmp_path / "two.extxyz")
    frames[0].pbc = (True, True, False)
    ase.io.write(tmp_path / "slab.extxyz", frames[0])
    with pytest.raises(ValueError, match="frame 0 is not periodic in three directions"):
        load_trajectory(tmp_path / "slab.extxyz")
    with pytest.raises(ValueError, match=r"none\.extxyz"):
        load_trajectory(tmp_path / "none.extxyz")


def command(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


def test_the_command(tmp_path, capsys):
    frames, _ = hopping(labels=True)
    path, out = tmp_path / "md.extxyz", tmp_path / "mine.h5"
    ase.io.write(path, frames)
    assert command("data", "rare-events", path, "--crystal", "diamond", "-o", out, "--level", "none") == 0
    assert "vacancy, 2 snapshots with 2 migrating atoms, labels: none" in capsys.readouterr().out
    (one,) = load_rare_events(out).sets
    assert one.energy.tolist() == [-5.0, -6.0]
    assert len(read_events(out)) == 2
    assert command("data", "check", out) in (0, 1)
    capsys.readouterr()
    ase.io.write(path, frames[:4])
    assert command("data", "rare-events", path, "--crystal", "diamond", "-o", out) == 2
    assert "no atom changed its site" in capsys.readouterr().err
    assert command("data", "rare-events", path, "--crystal", "diamond", "-o", tmp_path / "x.xyz") == 2


@needs_real
def test_the_published_flags_are_found_from_single_structures():
    """By the middle third alone, no threshold fitted; the published lattice lies fixed at the origin."""
    expected = {"interstitial": 0.902, "vacancy": 0.898}
    for one in read_events(REAL).sets:
        flags = []
        for system in one.batch:
            moving = Trajectory("snapshot", (system,))
            events = find_events(moving, crystal_of("diamond", moving), fixed=True, single=True)
            flags.append(events.flags[0])
        found = detection(np.concatenate(flags), one.migrating)
        assert found["f1"] == pytest.approx(expected[one.name], abs=1e-3)
