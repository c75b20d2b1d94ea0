"""Two processes train the model of one: every exchange and every decision, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from sfumato.training.distributed import Group, alone, connect
from sfumato.training.log import read_log
from sfumato.training.loop import train
from sfumato.training.state import content
from tests import made_training as made

pytest.importorskip("lightning_fabric", reason="Lightning Fabric connects the processes")

LAUNCH = """
import sys
from sfumato.training.launch import run
found = run(sys.argv[1], sys.argv[2])
word = "finished" if found.finished else "stopped"
sys.stdout.write(f"{word} {found.steps}\\n")  # in one piece: two processes write to the same pipe
"""

STAGES = (
    {"name": "pre", "objective": "direct", "denoising": {"share": 0.5}, "epochs": 2, "batch": 7, "lr": 3e-3},
    {"name": "fine", "steps": 9, "batch": 6, "lr": 3e-3, "warmup": 2},
    {"name": "still", "steps": 50, "batch": 6, "lr": 1e-13},
)
"""The last one changes no weight, so that it ends when patience does."""


@pytest.fixture
def data(tmp_path):
    return made.written(tmp_path / "set.h5", made.molecules(29))  # divides neither by 7 nor by 2


def start(settings, folder, config):
    """Start two processes as torchrun does."""
    config.write_text(
        yaml.safe_dump(json.loads(settings.model_copy(update={"devices": 2}).model_dump_json()))
    )
    script = config.with_suffix(".py")
    script.write_text(LAUNCH)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*command, str(script), str(config), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def two(settings, folder, config):
    process = start(settings, folder, config)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return said


def values(folder, event, name):
    return [line[name] for line in read_log(folder) if line["event"] == event and name in line]


def test_tasks_of_srun_that_would_each_train_alone_are_refused(data, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match=r"srun has started 4 tasks.*--set devices=4"):
        connect(made.settings(data))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert connect(made.settings(data)).size == 1


def test_two_processes_give_the_curve_of_one(data, tmp_path):
    """Through stage changes, evaluations, an early stop and batches that do not divide; to rounding."""
    settings = made.settings(data, *STAGES, log_steps=1, patience=2)
    train(settings, tmp_path / "one", alone(settings))
    said = two(settings, tmp_path / "two", tmp_path / "run.yaml")
    assert said.split() == ["finished", str(8 + 9 + 9)] * 2
    for event, name in (("train", "energy"), ("train", "forces"), ("train", "noise"), ("validation", "loss")):
        expected = values(tmp_path / "one", event, name)
        assert expected
        assert values(tmp_path / "two", event, name) == pytest.approx(expected, rel=1e-4), (event, name)
    states = [content(tmp_path / name / "state.pt") for name in ("one", "two")]
    assert states[0]["progress"]["total"] == states[1]["progress"]["total"]
    for name, weight in states[0]["model"].items():
        if name.endswith("qkv.bias"):
            continue  # that of keys changes nothing: its gradient is rounding, of which Adam makes steps
        torch.testing.assert_close(states[1]["model"][name], weight, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_the_run_goes_on(data, tmp_path):
    stage = {"name": "s", "steps": 100_000, "batch": 6, "lr": 1e-4}
    settings = made.settings(data, stage, log_steps=1)
    process = start(settings, tmp_path / "run", tmp_path / "c.yaml")
    try:
        for _ in range(1200):
            if (tmp_path / "run" / "log.jsonl").exists() and len(read_log(tmp_path / "run")) > 5:
                break
            time.sleep(0.1)
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
        )
        os.kill(int(listed.stdout.split()[-1]), signal.SIGTERM)
        said, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    first, second = (line.split() for line in said.splitlines())
    assert first == second
    assert first[0] == "stopped"
    with pytest.raises(ValueError, match="devices was 2, now 1"):
        train(settings, tmp_path / "run", alone(settings))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_both(data, tmp_path):
    stage = {"name": "s", "steps": 50, "batch": 6, "lr": 1e18}
    process = start(made.settings(data, stage), tmp_path / "run", tmp_path / "c.yaml")
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "not finite" in errors
    assert {path.name for path in (tmp_path / "run").glob("*.npz")} == {"diverged-0.npz", "diverged-1.npz"}


def test_one_process_needs_no_exchange():
    group = Group(0, 1, torch.device("cpu"))
    gradient = torch.ones(3)
    assert group.add_up([gradient], [2.0]) == [2.0]
    assert group.total([1.0]) == [1.0]
    assert group.agree("yes") == "yes"
    assert gradient.tolist() == [1, 1, 1]


def test_more_devices_than_there_are_is_an_error(data, monkeypatch):
    from sfumato.training import distributed

    settings = made.settings(data, devices=2, accelerator="cuda")
    if torch.cuda.device_count() > 1:
        pytest.skip("there are two CUDA devices")
    with pytest.raises(ValueError, match="CUDA"):
        distributed.connect(settings)


def test_without_fabric_the_error_says_what_to_install(data, monkeypatch):
    from sfumato.training import distributed

    for name in ("lightning", "lightning.fabric", "lightning_fabric"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"sfumato\[train\]"):
        distributed.connect(made.settings(data, devices=2))
