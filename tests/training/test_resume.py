"""A run that was interrupted goes on to the same bits, or refuses to go on."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
import pytest
import torch
import yaml

from sfumato.training import loop
from sfumato.training import state as states
from sfumato.training.distributed import alone
from sfumato.training.errors import measure
from sfumato.training.log import Log, read_log
from sfumato.training.loop import train
from sfumato.training.optim import AdamW
from sfumato.training.progress import Progress
from tests import made_training as made

TIMES = ("seconds", "cpu", "structures_per_second")

STAGES = (
    {"name": "pre", "objective": "direct", "denoising": {"share": 0.5}, "epochs": 2, "batch": 4, "lr": 3e-3},
    {"name": "fine", "steps": 9, "batch": 5, "lr": 3e-3, "warmup": 2},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return made.written(tmp_path_factory.mktemp("data") / "set.h5")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of a run without a break."""
    folder = tmp_path_factory.mktemp("whole")
    found = go(made.settings(data, *STAGES), folder)
    assert found.finished
    assert found.steps == 12 + 9
    return folder


def go(settings, folder, steps=None, **options):
    """Run, and stop after so many steps of this call."""
    left = [steps]

    def stop():
        if left[0] is None:
            return False
        left[0] -= 1
        return left[0] <= 0

    return train(settings, folder, alone(settings), stop=stop, **options)


def state(folder):
    return states.content(folder / "state.pt")


def same(one, other):
    """Whether two nested states are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one if k not in TIMES)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)  # NaN is NaN


def curve(folder):
    kept = [line for line in read_log(folder) if line["event"] not in ("resume", "stop", "start")]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in kept]


@pytest.mark.parametrize("first", [6, 8, 12, 21])
def test_interrupted_runs_end_with_the_same_bits(data, whole, tmp_path, first):
    """At every place: at the end of an epoch, within it, at the end of a stage and after the last one."""
    settings, folder = made.settings(data, *STAGES), tmp_path / "run"
    stopped = go(settings, folder, steps=first)
    assert not stopped.finished
    assert stopped.steps == first
    assert go(settings, folder).finished
    assert same(state(whole), state(folder))
    assert curve(whole) == curve(folder)


@pytest.mark.slow
def test_interrupted_runs_of_turned_structures_end_with_the_same_bits(data, tmp_path):
    model = made.MODEL | {"directional": "harmonics"}
    settings = made.settings(data, *STAGES, model=model, patience=50)
    go(settings, tmp_path / "whole")
    for first in (1, 8, 12):
        folder = tmp_path / f"at-{first}"
        go(settings, folder, steps=first)
        assert go(settings, folder).finished
        assert same(state(tmp_path / "whole"), state(folder)), first
        assert curve(tmp_path / "whole") == curve(folder), first


def test_a_run_goes_until_a_number_of_steps_in_all(data, whole, tmp_path):
    """Also when it was stopped before, and asked for as many again."""
    settings, folder = made.settings(data, *STAGES), tmp_path / "run"
    go(settings, folder, steps=3)
    for until in (8, 8, 5):
        stopped = go(settings, folder, until=until)
        assert (stopped.finished, stopped.steps) == (False, 8)
        assert stopped.model == folder / "model.safetensors"  # something to look at
        assert stopped.model.is_file()
    assert go(settings, folder, until=1000).finished
    assert go(settings, folder, until=1).finished
    assert same(state(whole), state(folder))
    assert curve(whole) == curve(folder)


def test_stopped_again_and_again(data, whole, tmp_path):
    settings = made.settings(data, *STAGES)
    for _ in range(10):
        go(settings, tmp_path / "run", steps=2)
    assert go(settings, tmp_path / "run").finished
    assert same(state(whole), state(tmp_path / "run"))


def test_a_killed_run_goes_on_from_its_last_checkpoint(data, whole, tmp_path):
    """What was logged after it is dropped, and comes again."""
    settings = made.settings(data, *STAGES)
    go(settings, tmp_path / "run", steps=5)
    kept = (tmp_path / "run" / "state.pt").read_bytes()
    go(settings, tmp_path / "run", steps=4)
    (tmp_path / "run" / "state.pt").write_bytes(kept)  # as if the process had died at step 9
    with (tmp_path / "run" / "log.jsonl").open("a") as file:
        file.write('{"event": "train", "ste')
    assert go(settings, tmp_path / "run").finished
    assert same(state(whole), state(tmp_path / "run"))
    assert curve(whole) == curve(tmp_path / "run")


def test_the_time_left_is_told_as_if_nothing_had_happened(data, tmp_path):
    """Speed times time left are the structures left, also in the first line after a break or a stage."""
    told = []
    stages = {"name": "one", "epochs": 4, "batch": 4}, {"name": "two", "epochs": 2, "batch": 3}
    settings = made.settings(data, *stages, log_steps=5)
    go(settings, tmp_path / "run", steps=13, watch=told.append)
    assert go(settings, tmp_path / "run", watch=told.append).finished
    assert [
        (status.step, round(status.pace.structures_per_second * status.pace.seconds_left)) for status in told
    ] == [
        (5, 4 * 24 - 5 * 4),
        (10, 4 * 24 - 10 * 4),
        (15, 4 * 24 - 15 * 4),
        (20, 4 * 24 - 20 * 4),
        (24, 0),
        (25, 2 * 24 - 3),
        (30, 2 * 24 - 6 * 3),
        (35, 2 * 24 - 11 * 3),
        (40, 0),
    ]


def test_a_finished_run_is_left_as_it_is(data, tmp_path):
    settings = made.settings(data)
    first = go(settings, tmp_path / "run")
    before = (tmp_path / "run" / "log.jsonl").read_text()
    again = go(settings, tmp_path / "run")
    assert again.finished
    assert again.steps == first.steps
    assert again.model == first.model
    assert (tmp_path / "run" / "log.jsonl").read_text() == before


def test_the_test_sees_a_forgotten_state(data, whole, tmp_path, monkeypatch):
    """Guards the comparisons above: without the moments of the optimizer the bits differ."""
    settings = made.settings(data, *STAGES)
    go(settings, tmp_path / "run", steps=3)
    monkeypatch.setattr(AdamW, "load_state_dict", lambda self, state: None)
    go(settings, tmp_path / "run")
    assert not same(state(whole), state(tmp_path / "run"))


def test_other_settings_or_data_are_another_run(data, tmp_path):
    go(made.settings(data, *STAGES), tmp_path / "run", steps=2)
    with pytest.raises(ValueError, match="other settings"):
        go(made.settings(data, *STAGES, seed=1), tmp_path / "run")
    other = made.written(tmp_path / "other.h5", made.molecules(30, seed=1))
    with pytest.raises(ValueError, match="other data"):
        go(made.settings(other, *STAGES), tmp_path / "run")


def test_going_on_inexactly_must_be_asked_for(data, tmp_path, monkeypatch):
    settings = made.settings(data, *STAGES)
    go(settings, tmp_path / "run", steps=2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    with pytest.raises(ValueError, match="now 64"):
        go(settings, tmp_path / "run")
    assert go(settings, tmp_path / "run", inexact=True).finished


def test_a_damaged_state_is_an_error_and_no_fresh_start(data, tmp_path):
    settings = made.settings(data, *STAGES)
    go(settings, tmp_path / "run", steps=2)
    path = tmp_path / "run" / "state.pt"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cannot be read"):
        go(settings, tmp_path / "run")


@pytest.mark.parametrize("old", [False, True], ids=["now", "of 0.1.0"])
def test_one_flipped_bit_of_a_state_is_an_error(data, tmp_path, old):
    folder = tmp_path / "run"
    go(made.settings(data, *STAGES), folder, steps=2)
    path = folder / "state.pt"
    kept = path.read_bytes()
    around = state(folder)["around"]
    before = states.load(folder, around)
    if old:  # without the line that holds the digest
        path.write_bytes(kept := kept.partition(b"\n")[2])
    rng = np.random.default_rng(0)
    for bit in rng.choice(8 * len(kept), 60 if old else 200, replace=False).tolist():
        damaged = bytearray(kept)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            after = states.load(folder, around)
        except ValueError:
            continue
        assert old, f"bit {bit} was not noticed"  # of a zip, what no checksum covers may change nothing
        assert same(before[1], after[1])
        assert before[0] == after[0]


def test_a_full_disk_leaves_the_state_before_and_is_an_os_error(data, tmp_path):
    folder = tmp_path / "run"
    go(made.settings(data, *STAGES), folder, steps=2)
    before = (folder / "state.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            states.save(folder, Progress(), {"model": state(folder)["model"]}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (folder / "state.pt").read_bytes() == before
    assert not list(folder.glob("*.part"))


def test_an_interrupted_write_leaves_the_state_before(data, tmp_path, monkeypatch):
    settings = made.settings(data, *STAGES)
    go(settings, tmp_path / "run", steps=2)
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def half(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", half)
    with pytest.raises(OSError, match="disk full"):
        states.save(tmp_path / "run", Progress(), {}, {})
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


def test_a_stop_at_an_evaluation_is_written_down_before_it(data, whole, tmp_path, monkeypatch):
    """Killed in an evaluation, the run goes on with that evaluation, and its log has every line once."""
    settings = made.settings(data, *STAGES)
    for place in (3, 12, 21):  # within a stage, at the end of one, at the end of the run
        folder = tmp_path / f"at-{place}"
        with monkeypatch.context() as patched:

            def killed(*args, place=place, folder=folder):
                if state(folder)["progress"]["total"] == place:
                    raise KeyboardInterrupt
                return measure(*args)

            patched.setattr(loop, "measure", killed)
            with pytest.raises(KeyboardInterrupt):
                go(settings, folder)
        assert state(folder)["progress"]["total"] == place
        log = Log(folder, write=True)
        log.add("validation", place, loss=1.0, seconds=1.0, frames=6)  # as if it had been killed after these
        log.add("train", place, energy=1.0, seconds=1.0)
        assert go(settings, folder).finished
        assert same(state(whole), state(folder)), place
        assert curve(whole) == curve(folder), place


def test_a_folder_without_its_state_is_no_fresh_start(data, tmp_path):
    settings, folder = made.settings(data, *STAGES), tmp_path / "run"
    go(settings, folder, steps=4)
    (folder / "state.pt").unlink()
    for path in ("model.safetensors", "log.jsonl"):
        with pytest.raises(ValueError, match=r"not its state \(state\.pt\); choose another folder"):
            go(settings, folder)
        (folder / path).unlink()
    assert go(settings, folder).finished


def test_one_run_at_a_time_is_in_a_folder(data, tmp_path):
    settings, folder = made.settings(data, *STAGES), tmp_path / "run"
    with (
        states.in_use(folder, alone(settings)),
        pytest.raises(ValueError, match="another process trains in this folder"),
    ):
        go(settings, folder)
    assert go(settings, folder).finished


@pytest.mark.parametrize("module", ["sfumato", "numpy"])
def test_another_version_is_not_exact(data, tmp_path, monkeypatch, module):
    settings = made.settings(data, *STAGES)
    go(settings, tmp_path / "run", steps=2)
    monkeypatch.setattr(states, "version", lambda name: "9.9" if name == module else version(name))
    with pytest.raises(ValueError, match=f"{module} was '.*', now '9.9'"):
        go(settings, tmp_path / "run")


def test_a_state_of_another_schema_is_refused(data, tmp_path):
    settings = made.settings(data, *STAGES)
    go(settings, tmp_path / "run", steps=2)
    found = state(tmp_path / "run") | {"schema": 99}
    torch.save(found, tmp_path / "run" / "state.pt")
    with pytest.raises(ValueError, match="schema 99"):
        go(settings, tmp_path / "run")


def test_the_log_tolerates_one_cut_line_at_its_end_only(tmp_path):
    log = Log(tmp_path, write=True)
    for step in range(4):
        log.add("train", step, loss=0.5)
    with log.path.open("a") as file:
        file.write('{"event"')
    assert [line["step"] for line in read_log(tmp_path)] == [0, 1, 2, 3]
    log.cut(1)
    assert [line["step"] for line in read_log(tmp_path)] == [0, 1]
    log.path.write_text('{"event"\n{"event": "train", "step": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_log(tmp_path)
    with pytest.raises(ValueError, match="not the folder"):
        read_log(tmp_path / "elsewhere")


LAUNCH = """
import sys
from sfumato.training.launch import run
found = run(sys.argv[1], sys.argv[2])
print("finished" if found.finished else "stopped", found.steps)
"""


@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGUSR1", marks=pytest.mark.slow)])
def test_a_signal_writes_a_checkpoint_and_ends(data, tmp_path, name):
    settings = made.settings(data, {"name": "s", "steps": 100_000, "batch": 4, "lr": 1e-4}, log_steps=1)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(json.loads(settings.model_dump_json())))
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(config), str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(1200):
            if (folder / "log.jsonl").exists() and len(read_log(folder)) > 5:
                break
            time.sleep(0.1)
        process.send_signal(getattr(signal, name))
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    word, steps = said.split()
    assert word == "stopped"
    assert process.returncode == 0
    assert state(folder)["progress"]["total"] == int(steps) == read_log(folder)[-1]["step"]
    assert read_log(folder)[-1]["event"] == "stop"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3", "every line has an event and a step"),
        ('{"event": "train"}', "every line has an event and a step"),
        ('{"event": 1, "step": 2}', "every line has an event and a step"),
        ('{"event": "train", "step": "2"}', "every line has an event and a step"),
        ('{"event": "train", "step": 2, "seconds": "7"}', "'seconds' is not a number"),
        ('{"event": "train", "step": 2, "seconds": Infinity}', "'seconds' is not a number"),
        ('{"event": "validation", "step": 2, "seconds": 1, "frames": 3}', "'loss' is not a number"),
        (
            '{"event": "validation", "step": 2, "loss": 1, "seconds": 1, "frames": 3, "energy": []}',
            "'energy' is",
        ),
        ("[" * 20_000, "cannot be read as JSON"),
        ("\udcff", "cannot be read as JSON"),
    ],
)
def test_a_log_of_another_form_is_an_error_that_names_the_line(tmp_path, line, message):
    text = '{"event": "start", "step": 0}\n' + line + '\n{"event": "end", "step": 3}\n'
    (tmp_path / "log.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=f"line 2: .*{message}"):
        read_log(tmp_path)
