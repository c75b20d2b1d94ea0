"""Training sets: labels belong to the stored frames, kills leave no trace, everything left out is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato.campaigns.campaign import CampaignOptions
from sfumato.campaigns.samples import BSCT_MINI, ORGANIC, RECIPES, Recipe, Sampling, explore, group, sample
from sfumato.execution.records import RecordError, RecordFile, encode, read_records
from sfumato.io import Exclusion, Molecule, Molecules, read_frame_set, read_molecules
from sfumato.potentials.engines import Label, TBLite
from sfumato.reference.sampling import pair_distances, supercell
from sfumato.systems import System
from tests.reference.test_sampling import Springs

pytest.importorskip("rdkit", reason="RDKit is not installed")

FEW = Sampling(conformers=1, temperatures=(300.0,), thermal=2, dynamics=(), scans=2, strains=0)
BUNDLED = ORGANIC.with_name("organic-mini.h5")


@dataclass(frozen=True, eq=False)
class Flat:
    """No forces anywhere, so that every structure is a minimum; counts its calls and can be stopped."""

    calls: Counter[str] = field(default_factory=Counter)
    stop_at: int = 10**9
    refuse: int = 0
    push: float = 0.0
    level: str = "flat"
    identity: str = "flat"

    def label(self, system: System, guess: Any = None) -> Label:
        self.calls["label"] += 1
        if self.calls["label"] >= self.stop_at:
            raise KeyboardInterrupt
        forces = np.full_like(system.positions, self.push)
        works = self.refuse not in system.numbers
        return Label(float(system.positions.sum()), forces, works, None, 0.001, "flat", "" if works else "no")

    def self_test(self) -> bool:
        self.calls["self_test"] += 1
        return False


PAIRS = np.stack(np.triu_indices(4, 1), axis=1)


def cage(edge: float) -> System:
    """A tetrahedron of carbon, every pair bonded."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    return System([6, 6, 6, 6], corners * edge / np.sqrt(8))


def molecules(tmp_path: Path, text: str) -> Molecules:
    (tmp_path / "in.smi").write_text(text)
    return read_molecules(tmp_path / "in.smi")


# --- the whole way -------------------------------------------------------------------------------


def test_labels_belong_to_the_stored_frames_and_all_that_is_missing_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    engine = TBLite("GFN2-xTB")
    found = molecules(tmp_path, "O water\nOO peroxide\nCC( open\nN#C acid\nNO gone\nS sulfane\n")
    recipe = Recipe("CC0-1.0", FEW, fractions=(0.5, 0.25, 0.25), held_out=("ON",))
    frames, excluded = sample(found, engine, tmp_path / "set.h5", recipe)
    assert excluded == (
        Exclusion("open", "line 3: 'CC(' is not a SMILES"),
        Exclusion("gone", "held out: it tests the result"),
    )
    assert (frames.name, frames.level, frames.licence) == ("set", "GFN2-xTB", "CC0-1.0")
    assert frames.molecule.counts() == {"O": 3, "OO": 5, "C#N": 3, "S": 3}
    assert frames.subset.counts() == {"minimum": 4, "300 K": 8, "bond scan": 2}
    assert set(frames.split) <= {"train", "val", "test"}
    assert frames.provenance["excluded"] == [[e.name, e.reason] for e in excluded]
    assert frames.provenance["engine"] == engine.identity
    assert frames.provenance["recipe"]["sampling"]["seed"] == 0
    assert read_frame_set(tmp_path / "set.h5").identity == frames.identity
    for k in (0, 4, len(frames) - 1):
        label = engine.label(list(frames.batch)[k])
        assert label.energy == frames.labels.energy[k]
        rows = slice(*frames.batch.offsets[k : k + 2])
        np.testing.assert_array_equal(label.forces.astype(np.float32), frames.labels.forces[rows])


def test_a_second_run_calculates_nothing_and_a_stopped_one_goes_on(tmp_path: Path) -> None:
    found = molecules(tmp_path, "O\nCCO\nN\nCOC\n")
    whole, _ = sample(found, Flat(), tmp_path / "whole.h5", Recipe("MIT", FEW))
    again = Flat()
    repeated, _ = sample(found, again, tmp_path / "whole.h5", Recipe("MIT", FEW))
    assert (again.calls["label"], repeated.identity) == (0, whole.identity)
    stops = 0
    while not (tmp_path / "parts.h5").exists():
        try:
            parts, _ = sample(found, Flat(stop_at=60), tmp_path / "parts.h5", Recipe("MIT", FEW))
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2
    assert parts.identity == whole.identity


def test_a_molecule_that_fails_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    found = molecules(tmp_path, "O water\nCS thiol\n")
    frames, excluded = sample(found, Flat(refuse=16), tmp_path / "a.h5", Recipe("MIT", FEW))
    assert set(frames.molecule) == {"O"}
    assert [e.name for e in excluded] == ["thiol"]
    assert "no minimum: flat did not converge: no" in excluded[0].reason
    with pytest.raises(ValueError, match=r"no frame is left: .*did not converge.*\(1×\)"):
        sample(found[1:], Flat(refuse=16), tmp_path / "b.h5", Recipe("MIT", FEW))


def test_what_failed_is_tried_again_on_request_in_a_shared_store(tmp_path: Path) -> None:
    found, store = molecules(tmp_path, "O water\nCS thiol\n"), tmp_path / "store"
    recipe = Recipe("MIT", FEW)
    for engine, again, groups in (
        (Flat(refuse=16), False, {"O"}),
        (Flat(), False, {"O"}),
        (Flat(), True, {"O", "CS"}),
    ):
        frames, _ = sample(
            found, engine, tmp_path / "a.h5", recipe, store=store, options=CampaignOptions(retry_failed=again)
        )
        assert set(frames.molecule) == groups
    assert not (tmp_path / "a.h5.campaign").exists()


def test_a_set_is_begun_anew_on_request(tmp_path: Path) -> None:
    found, out = molecules(tmp_path, "O water\n"), tmp_path / "a.h5"
    first, _ = sample(found, Flat(), out, Recipe("MIT", FEW))
    engine = Flat()
    again, _ = sample(found, engine, out, Recipe("MIT", FEW), options=CampaignOptions(fresh=True))
    assert engine.calls["label"] > len(again)
    assert again.identity == first.identity
    old = [file.name for file in (tmp_path / "a.h5.campaign/records").glob("*.old-1")]
    assert sorted(old) == ["flat.jsonl.old-1", "flat_geometries.sample.jsonl.old-1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subsets": ["minimum"]}, "'positions' has the shape"),
        ({"subsets": "minimum"}, "'subsets' is not a list of words"),
        ({"cells": encode(np.zeros((1, 3, 3)))}, "'cells' has the shape"),
        ({"dropped": [1]}, "'dropped' is not a list of words"),
        ({"positions": None}, "'positions' is not an array"),
    ],
)
def test_frames_of_another_form_are_a_damaged_record(tmp_path: Path, changes: Any, message: str) -> None:
    found, out = molecules(tmp_path, "O water\n"), tmp_path / "a.h5"
    sample(found, Flat(), out, Recipe("MIT", FEW))
    path = tmp_path / "a.h5.campaign" / "records" / "flat_geometries.sample.jsonl"
    header, records = read_records(path)
    (record,) = records.values()
    path.unlink()
    with RecordFile(path, header) as file:
        file.append([record | changes])
    with pytest.raises(RecordError, match=message):
        sample(found, Flat(), out, Recipe("MIT", FEW))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conformers": 0}, "conformers: at least 1, got 0"),
        ({"thermal": -1}, "thermal: at least 0, got -1"),
        ({"seed": -1}, "seed: at least 0"),
        ({"temperatures": (300.0, float("nan"))}, "temperatures: positive numbers are needed, got nan"),
        ({"dynamics": (0.0,)}, "dynamics: positive"),
        ({"span": (0.6, float("inf"))}, "span: positive"),
    ],
)
def test_impossible_samplings_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**changes)


def test_a_frame_with_too_large_a_force_is_left_out_and_named(tmp_path: Path) -> None:
    found = molecules(tmp_path, "OO peroxide\n")
    pytest.importorskip("tblite")
    stretch = replace(FEW, scans=8, span=(0.61, 0.65))
    recipe = Recipe("MIT", stretch, max_force=100.0)
    frames, excluded = sample(found, TBLite("GFN2-xTB"), tmp_path / "a.h5", recipe)
    assert excluded
    for exclusion in excluded:
        assert exclusion.name == "peroxide/bond scan"
        assert exclusion.reason.startswith("force: ")
        assert exclusion.reason.endswith("eV/Å on an atom, above 100")
    assert np.linalg.norm(frames.labels.forces, axis=1).max() <= 100


def test_two_isomers_of_one_graph_share_a_split_and_a_licence_costs_no_label(tmp_path: Path) -> None:
    found = molecules(tmp_path, "F/C=C/F trans\nF/C=C\\F cis\n")
    frames, _ = sample(found, Flat(), tmp_path / "a.h5", Recipe("MIT", FEW))
    assert frames.molecule.names == ("FC=CF",)
    assert len(frames.split.names) == 1
    engine = Flat()
    sample(found, engine, tmp_path / "a.h5", Recipe("CC0-1.0", FEW, fractions=(0.0, 0.0, 1.0), seed=3))
    assert engine.calls["label"] == 0


# --- exploring one molecule ----------------------------------------------------------------------


def test_frames_are_distinct_conformers_rounded_as_stored_and_independent_of_the_other_molecules(
    tmp_path: Path,
) -> None:
    one, two = molecules(tmp_path, "OCCCO a\nO b\n")
    settings = Sampling(conformers=3, temperatures=(), dynamics=(), scans=0)
    found = explore(one, Flat(), settings)
    assert found.subsets == ["minimum"] * 3
    shapes = [pair_distances(system) for system in found.systems]
    assert min(np.sqrt(((shapes[i] - shapes[j]) ** 2).mean()) for i in range(3) for j in range(i)) > 0.1
    for system in found.systems:
        np.testing.assert_array_equal(system.positions.astype(np.float32), system.positions)
    explore(two, Flat(), settings)
    again = explore(one, Flat(), settings)
    assert [s.identity for s in again.systems] == [s.identity for s in found.systems]
    other = explore(one, Flat(), replace(settings, seed=1))
    assert [s.identity for s in other.systems] != [s.identity for s in found.systems]


def test_a_molecule_without_a_graph_keeps_its_geometry(tmp_path: Path) -> None:
    (water,) = molecules(tmp_path, "O\n")
    settings = replace(FEW, conformers=4, scans=3)
    found = explore(Molecule("w", water.system, "O"), Flat(), settings)
    assert found.subsets == ["minimum", "300 K", "300 K"]
    assert found.dropped == ["conformers: its SMILES does not map every atom"]
    np.testing.assert_allclose(found.systems[0].positions, water.system.positions, atol=1e-6)


def test_a_relaxation_that_breaks_or_forms_a_bond_is_no_conformer() -> None:
    start = cage(1.7)
    broken = Springs(cage(3.0))
    with pytest.raises(ValueError, match="no minimum: relaxation broke the bond 0-1"):
        explore(Molecule("t", start, bonds=PAIRS), broken, FEW)
    with pytest.raises(ValueError, match="no minimum: relaxation formed the bond 2-3"):
        explore(Molecule("t", start, bonds=PAIRS[:-1]), Springs(cage(1.5)), FEW)
    assert explore(Molecule("t", start, bonds=PAIRS), Springs(cage(1.5)), FEW).dropped == []


def test_clashes_and_duplicates_are_dropped_and_counted() -> None:
    start = cage(1.5)
    settings = replace(FEW, conformers=1, temperatures=(1e-6, 1e5), thermal=4, scans=0)
    found = explore(Molecule("t", start, bonds=PAIRS), Springs(start), settings)
    assert found.subsets.count("1e-06 K") == 0  # the same as the minimum
    counts = Counter(found.dropped)
    assert counts["duplicate"] == 4
    assert counts["clash"] >= 1
    assert len(found.systems) + sum(counts.values()) == 9


def test_a_molecule_in_two_pieces_is_sampled_without_bond_scans() -> None:
    two = System([6, 6] * 2, [[0, 0, 0], [0, 0, 1.5], [4, 0, 0], [4, 0, 1.5]])
    found = explore(Molecule("two", two), Springs(two), FEW)
    assert found.subsets == ["minimum", "300 K", "300 K"]
    (reason,) = found.dropped
    assert reason.startswith("bond scan: ")
    assert "pieces" in reason


def test_dynamics_that_fails_costs_only_itself() -> None:
    start = cage(1.5)

    @dataclass(frozen=True, eq=False)
    class Brittle(Springs):
        def label(self, system: System, guess: Any = None) -> Label:
            far = np.abs(pair_distances(system) - pair_distances(start)).max() > 0.3
            return replace(super().label(system), converged=not far, message="too far")

    settings = replace(FEW, dynamics=(300.0, 30000.0), scans=0)
    molecule = Molecule("t", start, bonds=PAIRS)
    found = explore(molecule, Brittle(start), settings)
    assert found.subsets.count("dynamics 300 K") == 1
    assert "dynamics at 30000 K: springs did not converge: too far" in found.dropped


def test_a_crystal_is_displaced_and_strained(tmp_path: Path) -> None:
    salt = System(
        [11, 17], [[0, 0, 0], [2.8, 0, 0]], 2.8 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), [True] * 3
    )
    crystal = Molecule("salt", supercell(salt, (2, 2, 1)))
    recipe = Recipe("MIT", replace(FEW, strains=3))
    frames, excluded = sample([crystal], Flat(), tmp_path / "a.h5", recipe)
    assert excluded == ()
    assert frames.subset.counts() == {"minimum": 1, "300 K": 2, "strain": 3}
    assert frames.molecule.names == ("ClNa",)
    volumes = np.abs(np.linalg.det(frames.batch.cell))
    assert (volumes[:3] == volumes[0]).all()
    assert len(set(volumes)) == 4
    assert read_frame_set(tmp_path / "a.h5").batch.pbc.all()


def test_the_group_is_the_graph_or_else_the_formula() -> None:
    water = System([8, 1, 1], np.eye(3))
    assert group(Molecule("a", water, "[H:2][O:1][H:3]")) == "O"
    assert group(Molecule("b", water)) == "H2O"
    cell = System([12, 8, 12, 8], np.eye(4, 3), 5 * np.eye(3), [True] * 3)
    assert group(Molecule("c", cell)) == "MgO"


# --- the named sets ------------------------------------------------------------------------------


def test_the_bundled_molecules_are_many_small_neutral_and_none_is_a_test_molecule() -> None:
    found = read_molecules(ORGANIC)
    assert found.rejected == ()
    groups = [group(molecule) for molecule in found]
    assert len(set(groups)) == len(groups) >= 200
    assert not set(BSCT_MINI) & set(groups)
    assert set(RECIPES["organic-mini"].held_out) == set(BSCT_MINI)
    assert {int(z) for m in found for z in m.system.numbers} == {1, 6, 7, 8, 9, 15, 16, 17}
    assert max(len(m.system) for m in found) <= 20
    assert {(m.system.charge, m.system.multiplicity) for m in found} == {(0, 1)}


def test_the_bundled_set_is_what_it_says() -> None:
    frames = read_frame_set(BUNDLED)
    assert BUNDLED.stat().st_size < 4e6
    assert len(frames) >= 3000
    assert len(frames.molecule.names) >= 150
    assert not set(BSCT_MINI) & set(frames.molecule.names)
    assert set(frames.batch.numbers.tolist()) == {1, 6, 7, 8, 9, 15, 16, 17}
    assert (frames.batch.charge == 0).all()
    assert (frames.batch.multiplicity == 1).all()
    assert frames.subset.counts()["bond scan"] > 300
    molecules_of = {
        split: set(frames.take(frames.split.where(split)).molecule) for split in frames.split.names
    }
    assert sum(map(len, molecules_of.values())) == len(frames.molecule.names)
    assert set(frames.batch.numbers[np.isin(frames.batch.index, frames.split.where("test"))]) >= {
        1,
        6,
        7,
        8,
        9,
        15,
    }


def test_labels_of_the_bundled_set_are_reproduced() -> None:
    pytest.importorskip("tblite")
    frames = read_frame_set(BUNDLED)
    engine = TBLite("GFN2-xTB")
    for k in np.linspace(0, len(frames) - 1, 5).astype(int):
        part = frames.take([k])
        label = engine.label(next(iter(part.batch)))
        assert label.energy == pytest.approx(part.labels.energy[0], abs=1e-5)
        np.testing.assert_allclose(label.forces, part.labels.forces, atol=2e-4)
