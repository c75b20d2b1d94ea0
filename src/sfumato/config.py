"""Read settings from YAML; an unknown key is an error that names the nearest valid one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sfumato.words import nearest

SettingsType = TypeVar("SettingsType", bound=BaseModel)


class Settings(BaseModel):
    """Frozen; an unknown key is an error that names the nearest valid one, at any depth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {key!r}; {nearest(str(key), cls.model_fields)}")
        return values


def read_settings(kind: type[SettingsType], path: Path | None = None, **overrides: Any) -> SettingsType:
    """Return settings from a YAML file and explicit values, the latter winning; None overrides nothing.

    Args:
        kind: the pydantic model.
        path: a YAML mapping; None for the defaults.
        overrides: from the command line.

    Raises:
        ValueError: an unreadable file, an unknown key, or a value out of range; says which and where.
    """
    where = "settings" if path is None else str(path)
    values = {} if path is None else _mapping(path)
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
    value = "" if isinstance(first["input"], Mapping) else f" = {first['input']!r}"
    return f"{where}{value}: {what}" if where else what


def _mapping(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise ValueError(f"{path}: expected key: value lines, found a {type(values).__name__}")
    return values or {}
