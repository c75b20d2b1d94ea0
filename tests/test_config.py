"""Settings from YAML: what is wrong is named, nothing hangs, nothing is printed whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.config import Settings, read_settings, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 10)
)


class Inner(Settings):
    rate: float = 1.0


class Outer(Settings):
    name: str = ""
    inner: Inner = Inner()
    rates: tuple[float, ...] = ()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line [0-9]: more than 100000 values, aliases resolved"),
        ("name: &a [*a]\n", "an alias stands for a group that it is part of"),
        ("name: x\nname: y\n", "line 1: the key 'name' is stated twice"),
        ("inner:\n  rate: 1\n  rate: 2\n", "line 2: the key 'rate' is stated twice"),
        ("1: 2\n", "line 1: the key 1 is not a word"),
        ("inner:\n  1.5: 2\n", "line 2: the key 1.5 is not a word"),
        ("inner: {[a]: 2}\n", "line 1: a key is a list or a group"),
        ("{}: 1\n", "line 1: a key is a list or a group"),
        ("[" * 5000, "cannot be read as YAML"),
        ("# " + "x" * (1 << 20), "settings have at most 1048576 bytes"),
        ("- a\n", "expected key: value lines, got a list"),
        ("inner: {rate: .inf}\n", "inner.rate = inf: input should be a finite number"),
        ("inner: {rate: .nan}\n", "inner.rate = nan: input should be a finite number"),
        ("inner:\n", "inner = None: "),
        ("nam: x\n", "unknown key 'nam'; did you mean 'name'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.yaml: {message}") as caught:
        read_settings(Outer, written(tmp_path, text))
    assert len(str(caught.value)) < 400


def test_a_value_of_another_kind_is_shown_in_part(tmp_path: Path) -> None:
    path = written(tmp_path, "base: &a [" + "x, " * 3000 + "x]\nname: [*a, *a, *a]\n")
    values = read_yaml(path)
    del values["base"]
    with pytest.raises(ValueError, match="name = ") as caught:
        read_settings(Outer, None, **values)
    assert len(str(caught.value)) < 400


def test_aliases_and_merges_are_fine(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x\ninner: &a {rate: 2}\nrates: [1, 2]\n")
    assert read_settings(Outer, path).inner.rate == 2
    assert read_yaml(written(tmp_path, "a: &a {x: 1}\nb: {<<: *a, y: 2}\n"))["b"] == {"x": 1, "y": 2}
    assert read_yaml(written(tmp_path, "")) == {}
