"""The contract as a protocol: findings as those of `sfumato check`, one record per check, one verdict."""

import json

import numpy as np
import pytest

from sfumato.cli import main
from sfumato.execution.records import RecordError
from sfumato.jobs.perform import Way
from sfumato.models.pair import PAIRS
from sfumato.potentials.specs import ModelSpec
from sfumato.protocols.contract import ContractProtocol
from sfumato.protocols.contract import analysis as contract
from sfumato.protocols.contract.data import read_structures
from sfumato.protocols.contract.settings import Settings
from sfumato.protocols.overview import report_pages, verdicts
from sfumato.protocols.run import load_run, plan, run
from sfumato.protocols.verdict import QUESTIONS
from sfumato.testing import CHECKS, check
from sfumato.testing.contract import OWN
from tests import broken_potentials as broken
from tests.broken_potentials import Changed
from tests.made_runs import shown
from tests.testing.test_apart import KILLER

QUICK = {"quick": True, "periodic": False}
CONTROLS = ["lj-hard-cutoff", "lj-neighbor-cap", "lj-direct-noise"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run("contract", ["lj", *CONTROLS], settings=QUICK, out=tmp_path_factory.mktemp("c") / "run")


def outcome(results):
    return [(r.name, r.status, str(float(r.measured)), str(float(r.tolerance)), r.where) for r in results]


def test_it_finds_what_check_finds(done):
    for name in ("lj", "lj-hard-cutoff"):
        alone = check(PAIRS[name], settings=Settings(**QUICK).asked())
        ours = [r for r in outcome(done.models[name].report.results) if r[0] != "input untouched"]
        assert ours == [r for r in outcome(alone.results) if r[0] != "input untouched"]
    assert done.complete
    assert done.models["lj"].report.passed
    assert done.models["lj"].report.evaluations > 100


def test_every_control_is_broken_for_its_own_reason(done):
    found = verdicts([done])
    assert found["lj"].sound
    for name in CONTROLS:
        assert found[name].broken
        assert found[name].control
    answers = {name: found[name].answer for name in CONTROLS}
    assert answers["lj-hard-cutoff"]("continuous") == "no"
    assert answers["lj-hard-cutoff"]("gradient") == "yes"
    assert answers["lj-direct-noise"]("gradient") == "no"
    assert answers["lj-direct-noise"]("continuous") == "yes"
    assert answers["lj-neighbor-cap"]("continuous") == "no"
    line = found["lj-hard-cutoff"].in_words()
    assert line.startswith("broken: the surface jumps (cutoff: 0.09")
    assert "C–C at 2.5 Å" in line


def test_a_resumed_run_is_the_same(done, tmp_path):
    part = run("contract", ["lj"], settings=QUICK, out=tmp_path / "r")
    file = part.folder / "records" / "lj.contract.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], *lines[5:12]]))  # a few checks from the middle
    cut = load_run(part.folder)
    assert not cut.complete
    assert cut.verdict("lj").answer("symmetric") == "unknown"
    assert "not checked: " in cut.verdict("lj").in_words()
    again = run("contract", ["lj"], settings=QUICK, out=part.folder)
    assert outcome(again.models["lj"].report.results)[:-1] == outcome(part.models["lj"].report.results)[:-1]
    assert outcome(load_run(part.folder).models["lj"].report.results) == outcome(
        again.models["lj"].report.results
    )


def test_a_process_that_dies_costs_its_check(tmp_path):
    (tmp_path / "fragile.py").write_text(KILLER)
    spec = ModelSpec(f"{tmp_path / 'fragile.py'}:one")
    settings = QUICK | {"elements": "C", "points": 40}
    from sfumato.execution.pool import PoolSettings

    died = run("contract", [spec], settings=settings, out=tmp_path / "r", way=Way(PoolSettings(1)))
    (model,) = died.models.values()
    assert {r.name for r in model.report.unchecked} == {"isolated", "batching"}
    assert "SIGABRT" in model.report["isolated"].where
    assert model.report["force"].status == "passed"
    n, total = model.coverage
    assert total - n == 2
    verdict = died.verdict(model.name)
    assert verdict.answer("symmetric") == verdict.answer("reliable") == "unknown"
    assert verdict.answer("gradient") == "yes"


def test_structures_of_the_user_are_checked(tmp_path):
    from ase.build import molecule
    from ase.io import write

    atoms = molecule("CH3OH")
    atoms.rattle(0.05, seed=1)
    write(tmp_path / "mine.xyz", [atoms, atoms])
    data = read_structures(tmp_path / "mine.xyz")
    assert len(data.own) == 2
    where = np.linalg.norm(data.own[0].positions[0] - data.own[0].positions[1]) + 0.03

    def farther(batch):
        gap = np.linalg.norm(batch.positions[0] - batch.positions[1]) if len(batch.numbers) == 6 else 0
        return 0.01 * (gap > where)

    stepped = Changed(broken.add_energy(farther))
    settings = QUICK | {"seed": 1}
    found = run(ContractProtocol(), [stepped], tmp_path / "mine.xyz", settings=settings, out=tmp_path / "r")
    report = found.models["changed"].report
    assert report[OWN.name].status == "failed"
    assert found.verdict("changed").answer("continuous") == "no"
    assert "1 structure of the user" not in str(report_pages([found])[1])
    assert load_run(tmp_path / "r").models["changed"].report[OWN.name].status == "failed"


def test_contract_and_scans_in_one_folder_give_one_line(tmp_path, capsys):
    for protocol, more in (
        ("contract", ["--quick", "--no-periodic"]),
        ("bsct", ["--limit-per-bond", "1"]),
    ):
        out = ["--out", str(tmp_path / "r"), "--json", str(tmp_path / "r.json")]
        with pytest.raises(SystemExit) as ended:
            main(["run", protocol, "--model", "lj-hard-cutoff", *out, *more])
        assert ended.value.code == 0
    shown_last = capsys.readouterr().out.rsplit("Verdict", 1)[1]
    words = " ".join(shown_last.split())
    assert "the surface jumps (cutoff" in words
    assert "energy and force disagree in" in words
    assert "From bsct on bsct-mini, contract on standard" in words
    verdict = json.loads((tmp_path / "r.json").read_text())["models"]["lj-hard-cutoff"]["verdict"]
    assert verdict["broken"]
    assert [e["source"] for e in verdict["answers"]["continuous"]["evidence"]] == [
        "contract on standard",
        "bsct on bsct-mini",
    ]


def test_each_check_is_in_one_question_or_only_reported():
    grouped = [name for names in contract.GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert contract.GROUPS.keys() == contract.FAULTS.keys() <= QUESTIONS.keys()
    required = {row.name for row in CHECKS if row.required} | {OWN.name}
    assert required <= set(grouped)
    assert set(grouped) - required == {"short range"}


def test_tables_and_page_name_what_fails(done):
    text = shown(done.protocol.tables(done))
    assert max(map(len, text.splitlines())) <= 80
    assert "What fails" in text
    assert "neighbor swap" in text
    page = "".join(done.protocol.page([done]).body)
    assert 'id="contract0-cutoff"' in page
    links = [page for page in report_pages([done])[0].body if 'href="#contract0-cutoff"' in page]
    assert links
    one = run("contract", ["lj"], settings=QUICK, out=done.folder)
    assert "keeps the contract" in shown(one.protocol.tables(one))
    assert done.as_json()["models"]["lj"]["passed"]


def test_a_plan_is_made_from_a_few_evaluations(tmp_path):
    (cost,) = plan("contract", ["lj"], settings=QUICK, out=tmp_path / "r")
    assert cost.items > 20
    assert 0 < cost.seconds < 60
    assert not (tmp_path / "r").exists()


def test_bad_input_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="neither 'standard' nor a file"):
        run("contract", ["lj"], "nowhere.xyz", out=tmp_path / "r")
    with pytest.raises(ValueError, match="did you mean"):
        run("contract", ["lj"], settings={"elements": "Xy"}, out=tmp_path / "r")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(ValueError, match="empty"):
        run("contract", ["lj"], tmp_path / "empty.xyz", out=tmp_path / "r")


def test_a_record_of_something_else_is_an_error(done, tmp_path):
    data = read_structures("standard")
    settings = Settings(**QUICK)
    task = next(iter(contract.plan(data, settings)))
    record = {"key": task.key("id"), "status": "ok", "seconds": 0.1, "result": "splendid"}
    with pytest.raises(RecordError, match="damaged record"):
        contract.analyse(data, {record["key"]: record}, "m", "id", settings)
