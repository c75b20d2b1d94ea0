"""Data that is not what was written is not trained on, neither at the start nor later."""

import h5py
import pytest
import yaml

from sfumato.training.launch import run
from tests import made_training as made


def damage(path):
    with h5py.File(path, "r+") as file:
        file["atom/forces"][0] += 0.5


def test_changed_labels_stop_a_run_at_its_start_and_when_it_goes_on(tmp_path):
    path = made.written(tmp_path / "set.h5")
    config = tmp_path / "run.yaml"
    settings = made.settings(path, data={"path": str(path), "allow": ["lengths", "clashes", "large forces"]})
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_unset=True)))
    whole = path.read_bytes()
    damage(path)
    with pytest.raises(ValueError, match="the contents are not those that were written"):
        run(config, tmp_path / "run")
    path.write_bytes(whole)
    run(config, tmp_path / "run")
    damage(path)
    with pytest.raises(ValueError, match="the contents are not those that were written"):
        run(config, tmp_path / "run")


def test_a_run_is_read_with_bounds(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ValueError, match=r"run\.yaml: line 1: the key 'seed' is stated twice"):
        run(config, tmp_path / "run")
