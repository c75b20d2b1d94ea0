"""Probes as a protocol: data, elements, exclusions, resuming, tables, the page, the result file."""

import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rich.console import Console

from sfumato.cli import main
from sfumato.io import write_systems
from sfumato.models.pair import PAIRS
from sfumato.potentials.potential import Abilities, Potential
from sfumato.protocols.probes import Probes
from sfumato.protocols.probes.data import read_structures, reference_curves
from sfumato.protocols.probes.elements import elements_of
from sfumato.protocols.probes.paths import couple, fours, lump, pairs_of
from sfumato.protocols.probes.plan import probes
from sfumato.protocols.probes.settings import SIZES, Settings
from sfumato.protocols.run import load_run, plan, run
from sfumato.report.html import report_text
from sfumato.systems import System
from sfumato.testing import structures
from tests import ROOT
from tests.protocols.probes.small import METHANOL, TINY, tiny, two_molecules

SILICON = System([14, 14], [[0, 0, 0], [1.36, 1.36, 1.36]], 2.72 * (1 - np.eye(3)), [True] * 3)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of a smooth and a broken model, and what was asked."""
    folder = tmp_path_factory.mktemp("probes")
    with pytest.MonkeyPatch.context() as patch:
        tiny(patch)
        data = two_molecules(folder / "two.xyz")
        yield run(
            Probes(),
            ["lj", "lj-hard-cutoff"],
            str(data),
            settings={"size": "dev", "elements": "C,O,H,N"},
            out=folder / "run",
        )


def shown(renderable, width=80):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


# --- data


def test_a_named_set_gives_one_structure_of_each_molecule():
    data = read_structures("organic-mini")
    assert len(data) == len(set(data.names)) == 365
    assert data.level == "GFN2-xTB"
    assert data.elements[:2] == (1, 6)
    scans = read_structures("bsct-mini")
    assert len(scans) == 9


def test_a_file_of_the_user_gives_all_its_structures(tmp_path):
    write_systems(tmp_path / "mine.xyz", [METHANOL, SILICON])
    data = read_structures(tmp_path / "mine.xyz")
    assert data.names == ("structure 1", "structure 2")
    assert data.excluded((1, 6, 8)) == {"structure 2": "Si unknown"}
    assert data.identity != read_structures(two_molecules(tmp_path / "two.xyz")).identity


def test_bad_data_is_named(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'organic-mini'"):
        read_structures("organic-minj")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(ValueError, match=r"empty\.xyz"):
        read_structures(tmp_path / "empty.xyz")


def test_the_reference_curves_repel_and_bind():
    curves = reference_curves()
    assert len(curves) == 92
    assert all((np.diff(curve.distances) > 0).all() for curve in curves.values())
    hydrogen = curves[1]
    assert hydrogen.force[0] > 100
    assert hydrogen.distances[np.argmin(hydrogen.energy)] == pytest.approx(0.75, abs=0.03)


# --- elements


class Silicon(Potential):
    """Lennard-Jones that does not say that it knows silicon only."""

    name, identity = "silicon", "silicon"
    abilities = Abilities(batch=16)

    def compute(self, batch):
        if (batch.numbers != 14).any():
            raise ValueError("no parameters")
        return PAIRS["lj"].compute(batch)


def test_a_model_is_probed_with_the_elements_it_says_it_knows(tmp_path):
    data = read_structures(two_molecules(tmp_path / "two.xyz"))
    numbers = elements_of(PAIRS["lj"], data, ())
    assert set(numbers[:4]) == {1, 6, 7, 8}
    assert set(numbers) == set(range(1, 97))
    assert elements_of(PAIRS["lj"], data, (29, 6)) == (29, 6)


def test_a_model_that_says_nothing_is_tried(tmp_path):
    data = read_structures(two_molecules(tmp_path / "two.xyz"))
    assert elements_of(Silicon(), data, ()) == (14,)

    class Nothing(Silicon):
        def compute(self, batch):
            raise ValueError("never")

    with pytest.raises(ValueError, match=r"none of the elements that were tried; name elements.*--elements"):
        elements_of(Nothing(), data, ())


def test_an_element_that_a_model_does_not_know_is_named(tmp_path):
    data = read_structures(two_molecules(tmp_path / "two.xyz"))

    class Few(Silicon):
        abilities = Abilities(elements=frozenset({14}))

    with pytest.raises(ValueError, match="silicon has no parameters for C; it knows Si"):
        elements_of(Few(), data, (6, 14))
    with pytest.raises(ValueError, match="'Cx' is not an element"):
        Settings(elements="C,Cx")


def test_structures_with_an_unknown_element_are_left_out_by_name(tmp_path, monkeypatch):
    tiny(monkeypatch)
    data = two_molecules(tmp_path / "two.xyz")
    found = run(Probes(), [Silicon()], str(data), settings={"size": "dev"}, out=tmp_path / "run")
    result = found.models["silicon"]
    assert found.complete
    assert set(result.excluded) == {"structure 1", "structure 2"}
    assert result.as_json()["elements"] == ["Si"]
    assert "2 structures of 2 left out" in shown(found.protocol.tables(found))


# --- what is planned


def test_pairs_are_those_of_the_first_elements_where_there_are_many():
    assert pairs_of((1, 6), 9) == [(1, 1), (6, 6), (1, 6)]
    many = pairs_of(tuple(range(1, 97)), 12)
    assert len(many) == 12
    assert {(1, 2), (1, 3), (96, 96)} <= set(many)
    assert len(pairs_of(tuple(range(1, 97)), 10_000)) == 96 * 97 // 2


def test_groups_of_four_elements_hold_every_pair():
    elements = (1, 6, 7, 8, 9, 15, 16, 17)
    groups = fours(elements, 20, 0)
    held = {tuple(sorted((a, b))) for four in groups for a in four for b in four if a != b}
    assert len(held) == 28
    assert len(groups) <= 10


def test_a_lump_is_dense_and_no_two_atoms_overlap():
    base = lump((1, 6, 7, 8), np.random.default_rng(0))
    i, j = np.triu_indices(8, 1)
    r = structures.distances(base)
    bonds = np.array([structures.bond(int(a), int(b)) for a, b in zip(base.numbers[i], base.numbers[j])])
    assert (r >= 0.95 * bonds).all()
    assert np.median(r / bonds) < 2.2


def test_couples_have_the_spin_of_their_ground_state():
    spins = {(8, 8): 3, (7, 7): 1, (6, 6): 1, (1, 7): 3, (8, 16): 3, (14, 14): 3, (1, 1): 1, (7, 8): 2}
    assert {pair: couple(*pair, np.eye(3)[:2]).multiplicity for pair in spins} == spins


def test_every_size_plans_more_and_every_probe_has_a_name_and_key_of_its_own():
    data = read_structures("organic-mini")
    counts = []
    for size in ("dev", "fast"):
        planned = probes(data, Settings(size=size, elements="H,C,N,O", reach=12.0))
        counts.append(len(planned))
        assert len({(probe.part, probe.name) for probe in planned}) == len(planned)
        assert len({probe.task.key("a") for probe in planned}) == len(planned)
        assert sum(probe.part == "places" for probe in planned) == SIZES[size].places
    assert counts[0] < counts[1]


def test_a_crystal_is_probed_with_its_images(tmp_path, monkeypatch):
    tiny(monkeypatch)
    write_systems(tmp_path / "si.xyz", [SILICON])
    data = read_structures(tmp_path / "si.xyz")
    planned = probes(data, Settings(size="dev", elements="Si"))
    (place, *_) = [probe.task.frame for probe in planned if probe.part == "places"]
    start = np.linalg.norm(SILICON.positions[1] - SILICON.positions[0])
    assert place.distances[0] == pytest.approx(0.85 * start)


# --- a run


def test_a_run_is_read_again_as_it_was(done):
    again = load_run(done.folder)
    assert {name: m.as_json() for name, m in again.models.items()} == {
        name: m.as_json() for name, m in done.models.items()
    }


def test_spins_that_were_chosen_here_are_not_held_against_a_model(done):
    assert done.remarks == []


def test_the_result_file_is_plain_json_with_numbers_and_verdicts(done):
    text = json.dumps(done.as_json(), allow_nan=False)
    broken = json.loads(text)["models"]["lj-hard-cutoff"]
    assert broken["jumps"]["largest"]["energy"]["cause"]["words"].endswith("at 2.5000 Å")
    assert broken["verdict"]["answers"]["continuous"]["answer"] == "no"
    assert broken["compression"]["pairs"]["rates"]["energy"]["interval95"][1] == 1
    smooth = json.loads(text)["models"]["lj"]
    assert smooth["jumps"]["proven"] == 0
    rates = [smooth["compression"][what]["rates"].values() for what in ("pairs", "places")]
    assert all(rate["value"] == 1 for some in rates for rate in some)
    assert smooth["forces"]["blame"] == "none"
    assert smooth["verdict"]["sound"]


def test_the_tables_fit_80_columns_and_say_what_is_wrong(done):
    text = shown(done.protocol.tables(done))
    assert max(map(len, text.splitlines())) <= 80
    assert "at 2.5000 Å" in text
    assert "none above" in text
    assert "the force is the gradient of the energy" in " ".join(text.split())


def test_the_page_shows_every_part_and_evidence_leads_there(done):
    page = done.protocol.page([done])
    text = report_text([page])
    for anchor in ("jumps", "walls", "forces", "diatomics"):
        assert f'id="probes0-{anchor}"' in text
    leads = {e.anchor for name in done.models for a in done.protocol.answers(done, name) for e in a.evidence}
    assert leads <= {"-jumps", "-walls", "-forces"}
    for _, figure in page.figures:
        axes = [a for a in figure.to_dict()["layout"] if a.startswith(("xaxis", "yaxis"))]
        assert len(axes) >= 2
    assert text == report_text([done.protocol.page([done])])


def test_the_cost_of_probes_is_planned(tmp_path, monkeypatch):
    tiny(monkeypatch)
    data = two_molecules(tmp_path / "two.xyz")
    (cost,) = plan(Probes(), ["lj"], str(data), settings={"size": "dev", "elements": "C,O,H,N"})
    assert cost.items > 20
    assert cost.seconds > 0


def test_the_command_line_refuses_what_it_does_not_know(tmp_path, capsys):
    for arguments, message in (
        (["--size", "huge"], "huge"),
        (["--elements", "C,Qq"], "'Qq' is not an element"),
        (["--data", "organic-minj"], "did you mean 'organic-mini'"),
        (["--reach", "1"], "reach"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["run", "probes", "--model", "lj", "--out", str(tmp_path / "run"), *arguments])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


KILLED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.protocols.probes import small
small.module.SIZES["dev"] = small.TINY
from sfumato.protocols.probes import Probes
from sfumato.protocols.run import run
asked = {{"size": "dev", "elements": "C,O,H,N"}}
run(Probes(), ["lj-hard-cutoff"], sys.argv[1], settings=asked, out=sys.argv[2])
"""


@pytest.mark.slow
def test_killed_probes_go_on_to_the_same_numbers(done, tmp_path):
    assert TINY.pairs == 2
    data, folder = two_molecules(tmp_path / "two.xyz"), tmp_path / "run"
    records = folder / "records"
    started = subprocess.Popen([sys.executable, "-c", KILLED, str(data), str(folder)])
    while started.poll() is None and _lines(records) < 6:
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", KILLED, str(data), str(folder)], check=True)
    again, expected = load_run(folder).models["lj-hard-cutoff"], done.models["lj-hard-cutoff"]
    assert again.as_json() == expected.as_json()


def _lines(folder):
    """Count records while they are written: a file may not have its whole header yet."""
    return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in folder.glob("*.jsonl"))
