"""A training run that is killed at any moment, again and again, ends with the bits of one that was not."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from sfumato.models.mindscaip import native
from sfumato.training.log import read_log
from tests import made_training as made
from tests.training.test_resume import LAUNCH, curve, same, state

KILLS = 20
STEPS = 600


def start(config, folder, threads):
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(config), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )


def moved(process, folder, seconds):
    """Wait until the run wrote its first state, then a while; say whether it still runs."""
    while process.poll() is None and not (folder / "state.pt").exists():
        time.sleep(0.02)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_twenty_kills_leave_the_bits_as_they_are(tmp_path, threads):
    data = made.written(tmp_path / "set.h5")
    stage = {"name": "s", "steps": STEPS, "batch": 4, "lr": 1e-3}
    settings = made.settings(
        data, stage, model={"preset": "nano"}, threads=threads, checkpoint_minutes=0.0, log_steps=20
    )
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(json.loads(settings.model_dump_json())))
    whole = start(config, tmp_path / "whole", threads)
    assert whole.communicate()[0].split() == ["finished", str(STEPS)]
    if native.library() is not None:
        assert read_log(tmp_path / "whole")[0]["backend"] == "native"
    folder, rng, kills = tmp_path / "run", np.random.default_rng(threads), 0
    for _ in range(KILLS):
        process = start(config, folder, threads)
        if moved(process, folder, rng.uniform(2.0, 6.0)):
            process.kill()
            kills += 1
        process.communicate()
    last = start(config, folder, threads)
    assert last.communicate()[0].split() == ["finished", str(STEPS)]
    assert kills >= KILLS // 2
    assert same(state(tmp_path / "whole"), state(folder))
    assert curve(tmp_path / "whole") == curve(folder)
    assert not list(folder.glob(".*.part"))
