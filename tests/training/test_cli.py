"""`sfumato train` and `sfumato eval` as a person types them, and settings changed from the command line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from sfumato import load
from sfumato.cli import main
from sfumato.commands.train import Display
from sfumato.frames import Category
from sfumato.io import read_frame_set, write_frame_set
from sfumato.systems import Prediction, System
from sfumato.training.distributed import launched, lead
from sfumato.training.errors import Errors
from sfumato.training.launch import require_sound
from sfumato.training.log import read_log
from sfumato.training.progress import Pace
from sfumato.training.settings import read_run
from sfumato.training.status import HEADING, Status
from sfumato.units import HARTREE_PER_BOHR
from tests import made_training as made

ALLOWED = ["large forces", "shared molecules"]
"""What does not hold of chains of atoms made at random."""

PACE = Pace({"energy": 1.2e-3}, 31.4159, 8000.0)
STATUS = Status("conservative fine-tuning", 0.123, 1_234_567, 1e-3, PACE, None)


def exit_code(words):
    """Return how the program ends when a person types these words."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


def sfumato(folder, *words):
    command = [str(Path(sys.executable).parent / "sfumato"), *map(str, words)]
    env = os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def config(folder, *stages, allow=ALLOWED, **changes):
    """Write frames and settings of a short run."""
    path = folder / "set.h5"
    if not path.exists():
        made.written(path)
    settings = made.settings("set.h5", *stages, data={"path": "set.h5", "allow": allow}, **changes)
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(json.loads(settings.model_dump_json())))
    return file


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--turned", "-1"], "turned = -1: input should be greater than or equal to 0"),
        (
            ["--limit-per-subset", "0"],
            "limit_per_subset = 0: input should be greater than or equal to 1",
        ),
    ],
)
def test_numbers_of_an_evaluation_are_checked_in_one_clear_line(capsys, words, message):
    assert exit_code(["eval", "--model", "lj", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_an_evaluation_takes_its_folder_by_one_letter(tmp_path):
    made.written(tmp_path / "set.h5", made.molecules(8))
    words = ["--model", "lj", "--data", str(tmp_path / "set.h5"), "--turned", "0"]
    assert exit_code(["eval", *words, "-o", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "run.json").exists()


def test_train_then_eval_as_the_words_at_the_end_say(tmp_path, monkeypatch, capsys):
    config(tmp_path)
    first = sfumato(tmp_path, "train", "run.yaml", "--set", "seed=3", "stages.only.lr=1e-3")
    assert first.returncode == 0, first.stderr
    assert max(map(len, first.stderr.splitlines())) == 80
    assert HEADING.splitlines()[1] in first.stderr
    folder = tmp_path / "runs" / "train-run"
    said = json.loads((folder / "settings.json").read_text())
    assert (said["seed"], said["stages"][0]["lr"]) == (3, 1e-3)
    assert load(folder / "model.safetensors").abilities.elements == {6, 7, 8}
    following = re.search(r"next:  sfumato (.*)", first.stdout)[1].split()
    monkeypatch.chdir(tmp_path)
    assert exit_code([*following, "--json", "errors.json", "--turned", "3"]) == 0
    errors = json.loads((tmp_path / "errors.json").read_text())["models"]["train-run"]["subsets"]["all"]
    held_out = [line for line in read_log(folder) if line["event"] == "validation"]
    kept = min(held_out, key=lambda line: line["loss"])
    assert errors["force_mae"]["value"] == pytest.approx(kept["forces"], rel=1e-4)
    assert errors["energy_mae"]["value"] == pytest.approx(kept["energy"], rel=1e-4)
    assert errors["force_rmse"]["value"] == pytest.approx(kept["forces_rms"], rel=1e-4)
    assert exit_code(["report", "runs"]) == 0
    assert "Training" in (tmp_path / "runs" / "report.html").read_text()
    assert "train-run" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_stopped_run_says_so_leaves_a_model_and_goes_on(tmp_path, number):
    config(
        tmp_path, {"name": "s", "steps": 40_000, "batch": 4, "lr": 1e-4}, evaluate_steps=10_000, log_steps=1
    )
    command = [str(Path(sys.executable).parent / "sfumato"), "train", "run.yaml", "-o", "r"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    folder = tmp_path / "r"
    try:
        for _ in range(1200):
            if (folder / "log.jsonl").exists() and len(read_log(folder)) > 5:
                break
            time.sleep(0.1)
        process.send_signal(number)
        said, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "the same command continues" in errors
    assert "to be continued" in said
    assert load(folder / "model.safetensors").abilities.elements == {6, 7, 8}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothere.yaml"], "nothere.yaml: cannot be read"),
        (
            ["run.yaml", "--set", "stages.only.lrr=1"],
            "run.yaml: stages.0: unknown key 'lrr'; did you mean 'lr'",
        ),
        (["run.yaml", "--set", "stages.onyl.lr=1"], "there is no stage 'onyl'; did you mean 'only'"),
        (["run.yaml", "--set", "stages.only.lr=-1"], "stages.0.lr = -1: "),
        (["run.yaml", "--set", "data.path=orgnic-mini"], "did you mean 'organic-mini'"),
        (["run.yaml", "--set", "data.allow=[shared moleculs]"], "did you mean 'shared molecules'"),
        (["run.yaml", "--set", "stages.0.loss.stress=1"], "has a stress"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words, message):
    config(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert exit_code(["train", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("sfumato: ")


def test_what_is_given_with_set(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: nano\ndata: {path: a.h5}\nstages:\n- {name: s, steps: 3, batch: 4}\npatience: 3\n"
    )
    given = ["model.directional=harmonics", "model.graph.k=9", "data.validation=null", "patience="]
    found = read_run(path, given)
    assert found.model.directional == "harmonics"
    assert (found.model.width, found.model.graph.k, found.model.graph.cutoff) == (48, 9, 5.0)
    assert (found.data.validation, found.patience) == (None, None)
    found = read_run(path, ["stages.s.steps=null", "stages.0.epochs=2"])
    assert (found.stages[0].steps, found.stages[0].epochs) == (None, 2)
    for change, match in (
        ("lr", "write key=value"),
        ("stages.=3", "write key=value"),
        ("data.allow=shared molecules", r"data.allow = .*: write a list: \[shared molecules\]"),
        ("data=organic-mini", "write data: {path: organic-mini}, or data.path=organic-mini"),
        ("betas=[2,3]", "betas.0 = 2: input should be less than 1"),
        ("seed.x=3", "seed: input should be a valid integer"),
        ("stages.s.batch.atoms=30", "not a group of settings"),
        ("stages.1.lr=3", "no stage '1'"),
        ("stages.name=3", "not a group of settings"),
        ("seed=[", "cannot be read as YAML"),
        ("seed=x", r"seed = 'x'"),
    ):
        with pytest.raises(ValueError, match=match):
            read_run(path, [change])
    for text, match in (("- 1\n", "got a list"), ("a: [", "cannot be read"), ("", "model: is missing")):
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            read_run(path)


def test_forces_in_other_units_are_named(tmp_path):
    frames = read_frame_set(made.written(tmp_path / "a.h5", made.wells(40)))
    require_sound(made.settings(tmp_path / "a.h5", data={"path": str(tmp_path / "a.h5"), "allow": ALLOWED}))
    labels = Prediction(frames.labels.energy, frames.labels.forces / HARTREE_PER_BOHR)
    write_frame_set(tmp_path / "b.h5", replace(frames, labels=labels))
    settings = made.settings("", data={"path": str(tmp_path / "b.h5"), "allow": ALLOWED})
    with pytest.raises(ValueError, match="hartree/bohr"):
        require_sound(settings)


def test_the_splits_that_are_compared_are_those_of_the_run(tmp_path):
    """Val and test hold the same molecule: no matter, unless one is trained on and the other held out."""
    others = [System([7, 7, 8, 8], system.positions) for system in made.wells(16, seed=1)]
    frames = made.frame_set([*made.wells(24), *others])
    names = ["train"] * 24 + ["val", "test"] * 8
    write_frame_set(tmp_path / "a.h5", replace(frames, split=Category.of(names)))
    given = {"path": str(tmp_path / "a.h5"), "allow": ["large forces"]}
    require_sound(made.settings("", data=given))
    with pytest.raises(ValueError, match="shared molecules"):
        require_sound(made.settings("", data=given | {"train": "val", "validation": "test"}))


def test_validation_that_shares_molecules_is_refused_unless_allowed_or_there_is_none(tmp_path):
    path = made.written(tmp_path / "a.h5", made.wells(40))
    for data in ({"allow": ["shared molecules"]}, {"validation": None}):
        require_sound(made.settings("", data={"path": str(path)} | data))
    with pytest.raises(ValueError, match=r"set data\.allow to"):
        require_sound(made.settings("", data={"path": str(path)}))


def test_a_line_of_progress_has_80_columns():
    errors = Errors(50, 1.234e-4, 4.567e-2, 0.1, 0.1, float("nan"), 100, 0)
    for status in (
        STATUS,
        replace(STATUS, errors=errors, pace=replace(PACE, losses={"energy": 123.4, "forces": 5e-2})),
    ):
        assert len(status.line()) == 80
    assert max(map(len, HEADING.splitlines())) == 80
    assert "2.2 h" in status.line()
    assert " 0.123    45.7 " in status.line()
    assert replace(STATUS, pace=replace(PACE, seconds_left=12.0)).line().endswith("12 s")


def test_a_batch_log_gets_a_line_after_every_evaluation_and_now_and_then(capsys):
    display = Display()
    first, second = (Errors(50, 1e-4, forces, 0.1, 0.1, 0.0, 100, 0) for forces in (4e-2, 3e-2))
    for k in range(10):
        display(replace(STATUS, step=k, errors=first if k < 5 else second))
    lines = capsys.readouterr().err.splitlines()[2:]
    assert [int(line[17:25]) for line in lines] == [0, 5]


def test_what_torchrun_and_slurm_say(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched() is None
    assert lead()
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert not lead()
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert launched() == (4, 2)
    assert lead()


@pytest.mark.slow
def test_the_same_command_gives_the_same_curve_twice(tmp_path):
    config(tmp_path)
    curves = []
    for out in "ab":
        sfumato(tmp_path, "train", "run.yaml", "-o", out)
        events = [line for line in read_log(tmp_path / out) if line["event"] in ("train", "validation")]
        curves.append([(line["step"], line["energy"], line["forces"]) for line in events])
    assert curves[0] == curves[1]
    assert np.isfinite(curves[0]).all()
