"""Options that several commands share, and those that a protocol's settings become."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import Parameter, Token

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from sfumato.execution.pool import PoolSettings

Flat = Parameter(name="*")
"""The fields of a dataclass become options of the command."""


def _number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"a whole number is needed, got {word[:40]!r}") from None


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    return _number(tokens[0].value)


def _count(_: Any, tokens: Sequence[Token]) -> int:
    number = _number(tokens[0].value)
    if number < 1:
        raise ValueError(f"at least one is needed, got {number}")
    return number


def _size(_: Any, tokens: Sequence[Token]) -> int:
    number = _number(tokens[0].value)
    if number < 0:
        raise ValueError(f"a number that is not negative is needed, got {number}")
    return number


Whole = Annotated[int, Parameter(converter=_whole)]
"""An integer as it was typed; without this 1.5 would be rounded."""

Count = Annotated[int, Parameter(converter=_count)]
"""Of things of which there is at least one."""

Size = Annotated[int, Parameter(converter=_size)]
"""Of things of which there may be none, and the seed of random numbers."""

Out = Annotated[Path | None, Parameter(name=["--out", "-o"])]


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Which models on which data.

    Args:
        model: a name from `sfumato list`, a .safetensors file, the folder of a training run, file.py:factory,
            package.module:factory, or NAME=SPEC; repeat for several.
        data: a named data set, a packed .h5 file, or what else the protocol reads (docs/protocols.md).
        out: run folder; default runs/PROTOCOL-DATA.
        config: YAML file of the protocol's settings; options win.
        device: cpu, cuda, cuda:1, or several with commas between; workers are spread over them.
        dtype: float32 or float64, of models that have a choice.
        workers: worker processes.
        threads: threads of each worker.
    """

    model: Annotated[list[str], Parameter(negative="")]
    data: str | None = None
    out: Out = None
    config: Path | None = None
    device: str = ""
    dtype: str = ""
    workers: Count = 1
    threads: Count = 1


@dataclass(frozen=True, kw_only=True)
class RunOptions(PlanOptions):
    """The same, and how to run it.

    Args:
        timeout: seconds one task may take.
        retry_failed: work again on what failed before.
        fresh: set earlier records of these models aside and begin anew.
        keep_going: go on where everything fails for one reason.
        json: also write the results as JSON to this file.
    """

    timeout: float | None = None
    retry_failed: Annotated[bool, Parameter(negative="")] = False
    fresh: Annotated[bool, Parameter(negative="")] = False
    keep_going: Annotated[bool, Parameter(negative="")] = False
    json: Path | None = None

    def pool(self) -> PoolSettings:
        """Who does the work."""
        from sfumato.execution.pool import PoolSettings

        return PoolSettings(self.workers, self.threads, self.timeout)


def options_of(settings: type[BaseModel], base: type[PlanOptions]) -> type[PlanOptions]:
    """Return the options of a command: those of `base`, and one for each setting.

    A setting that is not given on the command line is None, so that a config file or the default decides.

    Args:
        settings: of a protocol; its docstring explains each field under "Args:".
        base: options that the command has anyway.
    """
    fields = [
        (name, Annotated[_typed(info.annotation), _option(name, info)], field(default=None))
        for name, info in settings.model_fields.items()
    ]
    own = {"__module__": __name__}  # without it the command line takes the class for one of Python's own
    made = make_dataclass(base.__name__, fields, bases=(base,), namespace=own, frozen=True, kw_only=True)
    parts = [_arguments(kind.__doc__ or "") for kind in reversed(base.__mro__[:-1])]
    made.__doc__ = "\n".join(["Options.", "", "Args:", *parts, _arguments(settings.__doc__ or "")])
    return made


def _option(name: str, info: FieldInfo) -> Parameter:
    """Return how an option is written: what is undecided by default can also be turned off."""
    undecided = info.default is None and bool in get_args(info.annotation)
    return Parameter(negative=f"--no-{name.replace('_', '-')}" if undecided else "")


def given(options: PlanOptions, settings: type[BaseModel]) -> dict[str, Any]:
    """Return the settings that were given on the command line."""
    values = {name: getattr(options, name) for name in settings.model_fields}
    return {name: value for name, value in values.items() if value is not None}


def _typed(annotation: Any) -> Any:
    """Return the type of an option, or None: a simple one as it is, several values as one text with commas
    between; a group of settings is a file.
    """
    simple = (int, float, str, bool, Path)
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    kinds = [part for part in parts if part is not type(None)]
    kinds = [str if get_origin(kind) is tuple else kind for kind in kinds]
    plain = all(kind in simple or get_origin(kind) is Literal for kind in kinds)
    kinds = [Whole if kind is int else kind for kind in kinds]
    return Union[(*kinds, None)] if plain else Union[Path, None]  # noqa: UP007 (built at run time)


def _arguments(docstring: str) -> str:
    """Return the lines under "Args:" of a docstring."""
    lines = docstring.expandtabs().splitlines()
    try:
        start = next(k for k, line in enumerate(lines) if line.strip() == "Args:") + 1
    except StopIteration:
        return ""
    rest = lines[start:]
    stop = next((k for k, line in enumerate(rest) if not line.strip()), len(rest))
    return "\n".join(rest[:stop])
