"""Read settings from YAML; an unknown key is an error that names the nearest valid one."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sfumato.words import nearest

SettingsType = TypeVar("SettingsType", bound=BaseModel)


LARGEST = 1 << 20
"""Bytes of a file of settings."""

MOST_VALUES = 100_000
"""Values in a file of settings, each alias counted with all that it stands for."""

WORDS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
"""How YAML tags the keys of groups."""


class Settings(BaseModel):
    """Frozen; numbers are finite; an unknown key, at any depth, is an error that names the nearest one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}; {nearest(str(key), cls.model_fields)}")
        return values


def read_settings(kind: type[SettingsType], path: Path | None = None, /, **overrides: Any) -> SettingsType:
    """Return settings from a YAML file and explicit values, the latter winning; None overrides nothing.

    Args:
        kind: the pydantic model.
        path: a YAML mapping; None for the defaults.
        overrides: from the command line.

    Raises:
        ValueError: an unreadable file, an unknown key, or a value out of range; says which and where.
    """
    where = "settings" if path is None else str(path)
    values = {} if path is None else read_yaml(path)
    values |= {key: value for key, value in overrides.items() if value is not None}
    for key in values:
        if key not in kind.model_fields:
            raise ValueError(f"{where}: unknown key {key!r}; {nearest(str(key), kind.model_fields)}")
    try:
        return kind(**values)
    except ValidationError as error:
        raise ValueError(f"{where}: {explained(error)}") from None


def explained(error: ValidationError) -> str:
    """Return the first thing that is wrong with settings: where, the value unless it is a group, and why."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{where}: is missing"
    what = first["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    value = "" if isinstance(first["input"], Mapping) else f" = {_shown(first['input'])}"
    return f"{where}{value}: {what}" if where else what


def _shown(value: Any) -> str:
    """Return a value, of which there may be much, in some words."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    return short.repr(value)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return what a YAML file says: a mapping of words to values; empty where the file is.

    Args:
        path: the file.

    Raises:
        ValueError: no such file, one that is not YAML or not a mapping, a key that is not a word or stated
            twice, or more values than any settings have; names the file.
    """

    path = Path(path)
    try:
        if path.is_file() and path.stat().st_size > LARGEST:
            raise ValueError(f"{path}: settings have at most {LARGEST} bytes")
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected key: value lines, got a {type(values).__name__}")
    return values


def parse_yaml(text: str) -> Any:
    """Return what a text says in YAML.

    Raises:
        ValueError: it is not YAML, has a key that is not a word or stated twice, or more values than any
            settings have; says in which line.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            _require_sound(node, {})
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"cannot be read as YAML: {error}") from None


def _require_sound(node: Any, sizes: dict[int, int]) -> int:
    """Return how many values a YAML node stands for, aliases resolved; refuse too many, cycles, double keys.

    Args:
        node: of PyYAML, or None.
        sizes: those of the nodes seen, by id; 0 while a node is being counted.
    """
    import yaml

    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise ValueError("an alias stands for a group that it is part of")
        return sizes[id(node)]
    sizes[id(node)] = 0
    where = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{where}: a key is a list or a group, not a word")
            if key.tag not in WORDS:
                raise ValueError(f"{where}: the key {key.value[:60]} is not a word")
        words = Counter(key.value for key, _ in node.value)
        if words and (most := words.most_common(1)[0])[1] > 1:
            raise ValueError(f"{where}: the key {most[0]!r} is stated twice")
        inside = [part for pair in node.value for part in pair]
    else:
        inside = node.value
    size = 1 + sum(_require_sound(part, sizes) for part in inside)
    if size > MOST_VALUES:
        raise ValueError(f"{where}: more than {MOST_VALUES} values, aliases resolved")
    sizes[id(node)] = size
    return size
