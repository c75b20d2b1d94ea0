"""Campaigns label every structure once, whoever asks for it, and never mix what differs."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from sfumato.campaigns.campaign import CampaignOptions, estimate, label, label_of, retry, sweep
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import RecordError, decode, encode
from sfumato.execution.runner import Item, SameFailureError
from sfumato.jobs.frames import Frame, Subject, energies_and_forces, frames_of
from sfumato.jobs.label import LabelWith
from sfumato.potentials.engines import Label, make_engine
from sfumato.systems import Scan, System

CELL = np.diag([10.0, 11.0, 12.0])


@dataclass(frozen=True)
class Springs:
    """An engine of two states: E = Σx², from scratch; 1 eV more where it starts from a state of x > 2.

    Structures with a first x above 9 do not converge from scratch, above 99 never, and a helium atom is an
    error. A label's seconds are the number of its atoms.
    """

    log: Path
    broken: bool = False
    identity: str = "springs 1"
    level: str = "springs/constant"

    def label(self, system, guess=None):
        x = system.positions[0, 0]
        with open(self.log, "a") as log:
            log.write(f"{x:g}{'' if guess is None else '*'}\n")
        if 2 in system.numbers:
            raise ValueError("no parameters for helium")
        converged = bool(x <= 9 or (guess is not None and x <= 99))
        upper = 1.0 if guess is not None and guess > 2 else 0.0
        return Label(
            energy=float((system.positions**2).sum()) + upper if converged else float("nan"),
            forces=-2 * system.positions if converged else np.full_like(system.positions, np.nan),
            converged=converged,
            spin_squared=0.75,
            seconds=float(len(system)),
            engine="springs",
            message="" if converged else "stuck",
            density=x + upper,
        )

    def self_test(self):
        with open(self.log, "a") as log:
            log.write("test\n")
        if self.broken:
            raise ValueError("self-test of springs: the energy is another")
        return True


@pytest.fixture
def engine(tmp_path):
    return Springs(tmp_path / "calls.txt")


def calls(engine):
    return engine.log.read_text().split() if engine.log.exists() else []


def hydrogen(x, **changes):
    return System(np.array([1]), np.array([[x, 0.0, 0.0]]), multiplicity=2, **changes)


def scan(*xs, **changes):
    positions = np.array([[[x, 0.0, 0.0]] for x in xs])
    nothing = {"energy": np.full(len(xs), np.nan), "forces": np.full(positions.shape, np.nan)}
    return Scan(
        name="H/1",
        numbers=np.array([1]),
        positions=positions,
        coordinate=np.arange(len(xs)),
        atoms=np.array([0]),
        fragment=np.array([1]),
        charge=0,
        multiplicity=2,
        **nothing,
        **changes,
    )


def test_a_key_is_the_hash_of_subject_state_numbers_and_positions():
    positions = np.array([[0, 0, 0], [0, 0, 0.75]])
    system = System(np.array([1, 1]), positions, charge=1, multiplicity=2)
    words = b"label/1/abc/1/2"
    expected = hashlib.sha256(words + np.array([1, 1], "<i8").tobytes() + positions.astype("<f8").tobytes())
    assert Subject("label", 1, "abc").key(Frame.of(system)) == expected.hexdigest()
    assert expected.hexdigest() == "ff9c4576a2d589737162478ef35dd47c92685e5e2e80d6e2928aa8145f28199c"


def test_cell_and_directions_count_where_there_are_any():
    subject = Subject("label", 1, "abc")
    molecule = subject.key(Frame.of(hydrogen(0)))
    assert subject.key(Frame.of(hydrogen(0, cell=CELL))) == molecule
    crystals = [
        hydrogen(0, cell=CELL, pbc=np.array([1, 1, 1])),
        hydrogen(0, cell=2 * CELL, pbc=np.array([1, 1, 1])),
        hydrogen(0, cell=CELL, pbc=np.array([1, 1, 0])),
    ]
    assert len({molecule, *(subject.key(Frame.of(crystal)) for crystal in crystals)}) == 4


@pytest.mark.parametrize("changes", [{}, {"cell": CELL, "pbc": np.array([True, True, False])}])
def test_a_frame_of_a_scan_is_known_as_the_structure_it_is(changes):
    subject = Subject("label", 1, "abc")
    path = scan(0.0, 0.5, 1.0, **changes)
    systems = [path.system(k) for k in range(3)]
    assert subject.keys(path, path.positions) == [subject.key(Frame.of(system)) for system in systems]
    for item, system in zip(subject.items(path, path.positions), systems, strict=True):
        assert item.payload.system().identity == system.identity


def test_every_structure_is_labeled_once_whoever_asks(engine, tmp_path):
    path = scan(0.0, 1.0, 2.0)
    records = label([hydrogen(1.0), hydrogen(3.0), hydrogen(1.0)], engine, tmp_path / "store")
    assert [record["energy"] for record in records] == [1.0, 9.0, 1.0]
    assert calls(engine) == ["test", "1", "3"]
    energies, forces = energies_and_forces(label(frames_of(path), engine, tmp_path / "store"))
    assert energies.tolist() == [0.0, 1.0, 4.0]
    assert forces[2].tolist() == [[-4.0, 0.0, 0.0]]
    assert calls(engine) == ["test", "1", "3", "test", "0", "2"]
    label([hydrogen(0.0), hydrogen(3.0)], engine, tmp_path / "store")
    assert calls(engine)[6:] == []
    assert records[0]["spin_squared"] == 0.75
    assert [file.name for file in (tmp_path / "store/records").iterdir()] == ["springs_constant.jsonl"]


def test_labels_of_a_level_are_set_aside_on_request(engine, tmp_path):
    store = tmp_path / "store"
    label([hydrogen(1.0)], engine, store)
    label([hydrogen(1.0), hydrogen(3.0)], engine, store, options=CampaignOptions(fresh=True))
    assert calls(engine) == ["test", "1", "test", "1", "3"]
    files = sorted(file.name for file in (store / "records").iterdir())
    assert files == ["springs_constant.jsonl", "springs_constant.jsonl.old-1"]


def test_a_campaign_in_which_everything_fails_for_one_reason_ends_unless_it_is_to_keep_going(
    engine, tmp_path
):
    frames = [System([2], np.full((1, 3), k)) for k in range(60)]
    with pytest.raises(SameFailureError, match=r"no parameters for helium.*--keep-going"):
        label(frames, engine, tmp_path / "store")
    tried = len(calls(engine))
    assert tried < 60
    records = label(frames, engine, tmp_path / "store", options=CampaignOptions(keep_going=True))
    assert len(records) == 60
    assert len(calls(engine)) == 60 + 2  # and two self-tests


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": "1.0"}, "'energy' is not a finite number"),
        ({"energy": None}, "'energy' is not a finite number"),
        ({"forces": encode(np.zeros((2, 3)))}, r"'forces' has the shape \(2, 3\)"),
        ({"forces": [[0, 0, 0]]}, "'forces' is not an array"),
    ],
)
def test_a_label_of_another_form_is_a_damaged_record(changes, message):
    record = {"key": "k", "status": "ok", "energy": 1.0, "forces": encode(np.zeros((1, 3)))}
    assert label_of(record, 1)[0] == 1.0
    with pytest.raises(RecordError, match=message):
        label_of(record | changes, 1)


def test_an_engine_that_fails_its_self_test_labels_nothing(engine, tmp_path):
    with pytest.raises(ValueError, match="self-test of springs"):
        label([hydrogen(0.0)], replace(engine, broken=True), tmp_path / "store")
    assert calls(engine) == ["test"]


def test_records_of_another_version_of_the_level_are_not_mixed(engine, tmp_path):
    label([hydrogen(0.0)], engine, tmp_path / "store")
    with pytest.raises(RecordError, match="the model changed since"):
        label([hydrogen(0.0)], replace(engine, identity="springs 2"), tmp_path / "store")
    other = replace(engine, identity="coils", level="coils/constant")
    assert label([hydrogen(0.0)], other, tmp_path / "store")[0]["status"] == "ok"


def test_what_fails_is_a_record_with_its_reason(engine, tmp_path):
    helium = System(np.array([2]), np.zeros((1, 3)))
    odd = System(np.array([1]), np.array([[1.0, 0, 0]]))
    frames = [hydrogen(10.0), helium, hydrogen(1.0)]
    records = label(frames, engine, tmp_path / "store")
    assert [record["status"] for record in records] == ["failed", "failed", "ok"]
    assert records[0]["reason"] == "not converged: stuck"
    assert "no parameters for helium" in records[1]["reason"]
    label(frames, engine, tmp_path / "store", options=CampaignOptions(retry_failed=True))
    assert calls(engine).count("10") == 2
    assert calls(engine).count("1") == 1
    (record,) = label([odd], make_engine("tblite", "GFN2-xTB"), tmp_path / "store")
    assert "1 electrons (charge 0) cannot have multiplicity 1" in record["reason"]


def test_a_retry_starts_from_the_neighbor_and_says_so(engine, tmp_path):
    store = tmp_path / "store"
    path = scan(8.0, 10.0, 11.0, 100.0)
    frames = frames_of(path)
    assert [r["status"] for r in label(frames, engine, store)] == ["ok", "failed", "failed", "failed"]
    before = len(calls(engine))
    pairs = [(frames[1], frames[0]), (frames[2], frames[1]), (frames[3], frames[0]), (frames[0], frames[1])]
    first, second, third, untouched = retry(pairs, engine, store)
    assert first["energy"] == 101.0  # from the upper state of its neighbor
    assert first["message"] == "from the orbitals of a neighboring frame"
    assert first["neighbor"] == Subject("label", 1, engine.identity).key(frames[0])
    assert second["reason"] == "not converged: neither did the neighboring frame: stuck"
    assert third["reason"] == "not converged: from the orbitals of a neighboring frame; stuck"
    assert "neighbor" not in untouched
    assert calls(engine)[before:] == ["test", "8", "10*", "10", "8", "100*"]
    assert label(frames, engine, store)[1] == first
    before = len(calls(engine))
    retry(pairs, engine, store)
    assert calls(engine)[before:] == []
    assert retry([(frames[2], frames[0])], engine, store)[0]["status"] == "ok"


def test_a_sweep_shows_on_which_branch_each_direction_is(engine, tmp_path):
    path = scan(1.0, 2.0, 3.0, 100.0)
    (record,) = sweep([path], engine, tmp_path / "store")
    assert decode(record["forward"])[:3].tolist() == [1.0, 4.0, 9.0]
    assert decode(record["backward"])[:3].tolist() == [2.0, 5.0, 10.0]
    assert np.isnan(decode(record["forward"])[3])
    assert np.isnan(decode(record["backward"])[3])
    assert calls(engine) == ["test", "1", "2*", "3*", "100*", "3*", "2*", "1*"]
    assert sweep([path], engine, tmp_path / "store") == [record]
    assert len(calls(engine)) == 8
    (alone,) = sweep([scan(1.0)], engine, tmp_path / "store")
    assert decode(alone["forward"]).tolist() == decode(alone["backward"]).tolist() == [1.0]
    label(frames_of(path), engine, tmp_path / "store")
    names = sorted(file.name for file in (tmp_path / "store/records").iterdir())
    assert names == ["springs_constant.jsonl", "springs_constant_sweep.jsonl"]


def water(rng, count):
    base = np.array([[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
    return [System(np.array([8, 1, 1]), base + 0.05 * rng.normal(size=(3, 3))) for _ in range(count)]


def test_an_engine_without_a_density_sweeps_and_retries_from_scratch(tmp_path):
    engine = make_engine("tblite", "GFN2-xTB")
    frames = np.stack([system.positions for system in water(np.random.default_rng(0), 3)])
    path = replace(
        scan(0.0, 1.0, 2.0),
        numbers=np.array([8, 1, 1]),
        positions=frames,
        forces=np.full(frames.shape, np.nan),
        fragment=np.array([1, 1, -1]),
        multiplicity=1,
    )
    (record,) = sweep([path], engine, tmp_path)
    assert record["forward"] == record["backward"]
    one, other = frames_of(path)[:2]
    (again,) = retry([(one, other)], engine, tmp_path)
    assert "message" not in again
    assert again["energy"] == decode(record["forward"])[0]


def test_dft_takes_the_orbitals_of_the_neighbor(tmp_path):
    pytest.importorskip("pyscf")
    engine = make_engine("pyscf", "lda,vwn/sto-3g")
    near, far = (Frame(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, z]]), 0, 1) for z in (0.7, 0.75))
    (helped,) = retry([(far, near)], engine, tmp_path / "helped")
    (alone,) = label([far], engine, tmp_path / "alone")
    assert helped["message"] == "from the orbitals of a neighboring frame"
    assert helped["energy"] == pytest.approx(alone["energy"], abs=1e-6)
    assert helped["key"] == alone["key"]


def test_workers_make_the_records_this_process_makes(tmp_path):
    engine = make_engine("tblite", "GFN2-xTB")
    systems = water(np.random.default_rng(1), 12)
    crystal = replace(systems[0], cell=CELL, pbc=np.array([True] * 3))
    here = label([*systems, crystal], engine, tmp_path / "here")
    there = label([*systems, crystal], engine, tmp_path / "there", options=CampaignOptions(PoolSettings(2)))
    assert [r["key"] for r in here] == [r["key"] for r in there]
    # A worker has one thread, this process as many as it was given: sums of tblite differ in the last digits.
    for one, other in zip(here, there, strict=True):
        assert one["energy"] == pytest.approx(other["energy"], abs=1e-9)
        np.testing.assert_allclose(decode(one["forces"]), decode(other["forces"]), rtol=0, atol=1e-7)
    energies = [r["energy"] for r in here]
    assert np.ptp(energies) > 1e-3  # they are different points


@dataclass(frozen=True)
class Changing:
    """An engine whose identity is another in every process."""

    level: str = "changing"
    uses: list = field(default_factory=list, compare=False)

    @property
    def identity(self):
        self.uses.append(1)
        return f"version {len(self.uses)}"


def test_a_worker_with_another_version_of_the_engine_is_an_error():
    with pytest.raises(ValueError, match="changing: this worker has another version"):
        LabelWith(Changing()).build("")


def test_a_point_costs_what_the_samples_cost_interpolated_by_size(engine, tmp_path):
    def chain(n):
        return Frame(np.ones(n, dtype=int), np.zeros((n, 3)), 0, 1)

    sizes = [2, 4, 8, 3, 6, 7, 5]
    assert estimate(map(chain, sizes), engine, samples=3) == pytest.approx(5.0)
    assert calls(engine) == ["test", "0", "0", "0"]
    assert estimate([hydrogen(0.0)] * 4, engine, samples=5) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="nothing to label"):
        estimate([], engine)
    assert not (tmp_path / "store").exists()


def test_items_of_a_chunk_that_fails_are_told_apart(engine):
    work = LabelWith(engine).build("")
    items = tuple(Item(str(x), Frame.of(hydrogen(x))) for x in (1.0, 10.0, 2.0))
    assert [record["status"] for record in work(items)] == ["ok", "failed", "ok"]
