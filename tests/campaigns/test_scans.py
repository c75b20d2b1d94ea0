from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from sfumato.campaigns.campaign import CampaignOptions
from sfumato.campaigns.label import label_structures
from sfumato.campaigns.scans import Recipe, build_scans, lay_out
from sfumato.execution.pool import PoolSettings
from sfumato.io import (
    Exclusion,
    Molecule,
    Molecules,
    read_molecules,
    read_predictions,
    read_scan_set,
    read_systems,
)
from sfumato.potentials.engines import Label
from sfumato.systems import System

RDKIT = "makes structures from SMILES"
ETHANE = System(
    [6, 6, 1, 1, 1, 1, 1, 1],
    [
        [0.0, 0.0, 0.77],
        [0.0, 0.0, -0.77],
        [1.02, 0.0, 1.16],
        [-0.51, 0.88, 1.16],
        [-0.51, -0.88, 1.16],
        [-1.02, 0.0, -1.16],
        [0.51, -0.88, -1.16],
        [0.51, 0.88, -1.16],
    ],
)


@dataclass(frozen=True)
class Spring:
    """A level of theory one can compute by hand: E = ½ (r − 1.5)² + step(r), r between the first two atoms.

    Args:
        step: eV added beyond 2 Å, which the forces do not know of.
        hard: Å; a point with a longer bond converges only from a neighbor's density.
        hopeless: points as long as this never converge.
        branch: eV by which a path that comes from longer bonds lies lower.
    """

    step: float = 0.0
    hard: float = 9.0
    hopeless: float = 9.0
    branch: float = 0.0
    level: str = "spring"
    asked: list[float] = field(default_factory=list, compare=False)

    @property
    def identity(self) -> str:
        return f"{self.step}/{self.hard}/{self.hopeless}/{self.branch}"

    def self_test(self) -> bool:
        return True

    def label(self, system: System, guess: object = None) -> Label:
        r = system.positions[1] - system.positions[0]
        length = float(np.linalg.norm(r))
        self.asked.append(length)
        forces = np.zeros((len(system), 3))
        forces[1] = -(length - 1.5) * r / length
        forces[0] = -forces[1]
        good = length < self.hopeless and (length < self.hard or guess is not None)
        energy = 0.5 * (length - 1.5) ** 2 + self.step * (length > 2.0)
        if isinstance(guess, float) and guess > length:
            energy -= self.branch
        spent = {"spin_squared": 0.0, "seconds": 1e-3, "engine": "spring 1"}
        if not good:
            return Label(np.nan, np.full((len(system), 3), np.nan), False, message="it swings", **spent)
        return Label(energy, forces, True, density=length, **spent)


def ethane(name: str = "C-C/7") -> list[Molecule]:
    return [Molecule(name, ETHANE, "CC")]


def test_a_smooth_set_keeps_names_facts_and_labels(tmp_path):
    built = build_scans(ethane(), Spring(), tmp_path / "e.h5", Recipe("MIT", frames=40))
    (scan,) = read_scan_set(tmp_path / "e.h5")
    assert scan.name == "C-C/7"
    np.testing.assert_allclose(scan.energy, 0.5 * (scan.coordinate - 1.5) ** 2, atol=1e-12)
    facts = built.scan_set.provenance
    assert facts["recipe"]["frames"] == 40
    assert facts["unlabeled"] == {}
    assert facts["spin_squared"] == {"C-C/7": 0.0}
    assert "hysteresis" not in facts


def test_a_second_build_asks_the_engine_nothing(tmp_path):
    first = build_scans(ethane(), Spring(), tmp_path / "e.h5", Recipe("MIT", frames=40))
    engine = Spring()
    again = build_scans(ethane(), engine, tmp_path / "e.h5", Recipe("MIT", frames=40))
    assert engine.asked == []
    assert again.scan_set.identity == first.scan_set.identity


def test_a_set_is_begun_anew_on_request(tmp_path):
    recipe = Recipe("MIT", frames=5, hysteresis=True)
    build_scans(ethane(), Spring(), tmp_path / "e.h5", recipe)
    engine = Spring()
    build_scans(ethane(), engine, tmp_path / "e.h5", recipe, options=CampaignOptions(fresh=True))
    assert len(engine.asked) == 5 + 9
    old = [file.name for file in (tmp_path / "e.h5.campaign/records").glob("*.old-1")]
    assert sorted(old) == ["spring.jsonl.old-1", "spring_sweep.jsonl.old-1"]


def test_two_sets_may_share_their_labels(tmp_path):
    store = tmp_path / "labels"
    build_scans(ethane(), Spring(), tmp_path / "a.h5", Recipe("MIT", frames=11), store=store)
    engine = Spring()
    build_scans(ethane(), engine, tmp_path / "b.h5", Recipe("MIT", frames=21), store=store)
    assert len(engine.asked) == 10  # every other frame is there


def test_a_scan_whose_energy_jumps_is_left_out_with_the_reason(tmp_path):
    two = [*ethane(), Molecule("C-C/8", ETHANE)]
    with pytest.raises(ValueError, match=r"every scan was left out.*jump"):
        build_scans(two, Spring(step=0.3), tmp_path / "e.h5", Recipe("MIT", frames=60))
    assert not (tmp_path / "e.h5").exists()


def test_what_does_not_converge_is_tried_from_the_nearest_frame_that_does(tmp_path):
    engine = Spring(hard=2.5)
    built = build_scans(ethane(), engine, tmp_path / "e.h5", Recipe("MIT", frames=40))
    (scan,) = built.scan_set
    assert scan.labeled.all()
    beyond = np.flatnonzero(scan.coordinate >= 2.5)
    messages = built.scan_set.provenance["messages"]["C-C/7"]
    assert sorted(map(int, messages)) == beyond.tolist()
    assert all("neighboring frame" in message for message in messages.values())
    lender = scan.coordinate[beyond[0] - 1]
    assert engine.asked.count(pytest.approx(lender)) == 1 + len(beyond)


def test_what_never_converges_is_no_number_and_its_reason_is_kept(tmp_path):
    built = build_scans(ethane(), Spring(hopeless=2.9), tmp_path / "e.h5", Recipe("MIT", frames=40))
    (scan,) = built.scan_set
    lost = np.flatnonzero(scan.coordinate >= 2.9)
    assert np.isnan(scan.energy[lost]).all()
    assert scan.labeled.sum() == 40 - len(lost)
    reasons = built.scan_set.provenance["unlabeled"]["C-C/7"]
    assert sorted(map(int, reasons)) == lost.tolist()
    assert all("it swings" in reason for reason in reasons.values())


def test_hysteresis_is_measured_on_request(tmp_path):
    recipe = Recipe("MIT", frames=40, hysteresis=True)
    built = build_scans(ethane(), Spring(branch=0.04), tmp_path / "e.h5", recipe)
    assert built.scan_set.provenance["hysteresis"] == {"C-C/7": pytest.approx(0.04)}
    none = build_scans(ethane(), Spring(), tmp_path / "n.h5", recipe)
    assert none.scan_set.provenance["hysteresis"] == {"C-C/7": 0.0}


def test_what_could_not_be_read_is_among_the_exclusions(tmp_path):
    molecules = Molecules(ethane(), [Exclusion("x", "line 3: not a SMILES")])
    built = build_scans(molecules, Spring(), tmp_path / "e.h5", Recipe("MIT", frames=5))
    assert Exclusion("x", "line 3: not a SMILES") in built.excluded
    assert ["x", "line 3: not a SMILES"] in built.scan_set.provenance["excluded"]


def test_scans_of_one_name_are_refused_before_anything_is_labeled():
    twins = [Molecule(f"{group}/ethane", ETHANE) for group in ("first", "second")]
    with pytest.raises(ValueError, match="2 scans would be called 'C-C/ethane'"):
        lay_out(twins, Recipe("MIT"))


def test_molecules_without_a_scan_are_named_with_their_reason():
    water = Molecule("water", System([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]))
    with pytest.raises(ValueError, match=r"no molecule gives a scan: no bridge bond \(1×\)"):
        lay_out([water], Recipe("MIT"))
    with pytest.raises(ValueError, match="there are no molecules"):
        lay_out([], Recipe("MIT"))
    geometry = lay_out([*ethane(), water], Recipe("MIT"))
    assert geometry.excluded == (Exclusion("water", "no bridge bond"),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coordinate": "bnod"}, r"unknown coordinate 'bnod'.*bond"),
        ({"frames": 1}, "at least 2, got 1"),
        ({"per_type": 0}, "at least 1"),
    ],
)
def test_an_impossible_recipe_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe("MIT", **settings)


def test_sampling_keeps_so_many_of_each_type_by_the_seed():
    pytest.importorskip("rdkit", reason=RDKIT)
    many = [Molecule(f"m{k}", ETHANE) for k in range(8)]
    kept = {seed: lay_out(many, Recipe("MIT", per_type=3, seed=seed, frames=3)) for seed in (0, 0, 1, 2)}
    names = {seed: [scan.name for scan in geometry.scans] for seed, geometry in kept.items()}
    assert all(len(found) == 3 for found in names.values())
    assert len({tuple(found) for found in names.values()}) > 1
    assert lay_out(many, Recipe("MIT", per_type=3, frames=3)).scans[0].name == names[0][0]
    assert len(kept[0].excluded) == 5
    assert "more than 3 of its type" in kept[0].excluded[0].reason


@pytest.mark.parametrize(("coordinate", "kind"), [("angle", "angle"), ("torsion", "torsion")])
def test_angles_and_torsions_take_the_same_way(tmp_path, coordinate, kind):
    pytest.importorskip("rdkit", reason=RDKIT)
    path = tmp_path / "m.smi"
    path.write_text("CCCC butane\n")
    geometry = lay_out(read_molecules(path), Recipe("MIT", coordinate, frames=7))
    assert geometry.scans
    assert {scan.kind for scan in geometry.scans} == {kind}
    assert all(len(scan) == 7 for scan in geometry.scans)


def test_labels_of_structures_read_back(tmp_path):
    far = System(ETHANE.numbers, ETHANE.positions * 1.9)
    molecules = [Molecule("near", ETHANE, r"F/C=C\F"), Molecule("far", far)]
    out = tmp_path / "o.extxyz"
    engine = Spring(hard=2.0)
    labeled = label_structures(
        molecules, engine, out, store=tmp_path / "s", options=CampaignOptions(PoolSettings(0))
    )
    assert labeled.count == 1
    assert labeled.failed == (Exclusion("far", "not converged: it swings"),)
    (system,) = read_systems(out)
    prediction = read_predictions(out)
    assert system.positions.tolist() == ETHANE.positions.tolist()
    assert prediction.energy[0] == engine.label(ETHANE).energy
    assert prediction.forces.tolist() == engine.label(ETHANE).forces.tolist()
    (back,) = read_molecules(out)
    assert (back.name, back.smiles) == ("near", r"F/C=C\F")


def test_nothing_is_written_where_nothing_could_be_labeled(tmp_path):
    out = tmp_path / "o.extxyz"
    labeled = label_structures([Molecule("a", ETHANE)], Spring(hard=1.0), out, store=tmp_path / "s")
    assert labeled.count == 0
    assert not out.exists()
