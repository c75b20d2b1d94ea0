"""Functions of a user's own files that make potentials and protocols: `path/to/file.py:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sfumato.files import expanded
from sfumato.systems import digest
from sfumato.words import nearest


@dataclass(frozen=True)
class Made:
    """What a factory returned.

    Args:
        thing: the object.
        name: short, from the names of file and function.
        source: SHA-256 of the source file and the function's name.
        wishes: what of the wishes the factory took.
    """

    thing: Any
    name: str
    source: str
    wishes: dict[str, str]

    @property
    def what(self) -> str:
        """What came back, for an error."""
        kind = type(self.thing).__name__
        what = f"the class {self.thing.__name__}" if isinstance(self.thing, type) else f"a {kind}"
        return f"{self.name.rpartition('-')[2]}() returned {what}"


def call_factory(spec: str, **wishes: str) -> Made:
    """Call a function without arguments, or with those of the wishes that it takes.

    Args:
        spec: "path/to/file.py:factory" or "package.module:factory".
        wishes: arguments by name; an empty one is not a wish.

    Raises:
        ValueError: there is no such file, module or function, or it raised.
    """
    module_name, _, factory_name = spec.rpartition(":")
    is_file = module_name.endswith(".py")
    path = expanded(module_name).resolve()
    if is_file and not path.is_file():
        raise ValueError(f"model {spec!r}: there is no file {module_name}")
    with _importable(path.parent if is_file else Path.cwd()):
        module, source = _load(spec, path if is_file else module_name)
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise ValueError(
                f"model {spec!r}: no function {factory_name!r}; {nearest(factory_name, functions)}"
            )
        taken = _taken(factory, wishes)
        try:
            thing = factory(**taken)
        except Exception as error:
            raise ValueError(
                f"model {spec!r}: {factory_name}() raised {type(error).__name__}: {error}"
            ) from error
    return Made(thing, _short_name(module_name, factory_name), digest([source, factory_name]), taken)


def _taken(factory: Callable[..., Any], wishes: dict[str, str]) -> dict[str, str]:
    """Return the wishes that a factory has an argument for."""
    try:
        takes = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a callable of C has none
        return {}
    return {key: value for key, value in wishes.items() if value and key in takes}


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a user's file import its neighbors, as it could if Python ran it; only inside this block."""
    # At the end: a file of the user's that is called like a module of Python's takes nobody's place.
    sys.path.append(str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def _load(spec: str, where: Path | str) -> tuple[ModuleType, str]:
    """Import the user's module, and return it with its source text."""
    try:
        if isinstance(where, str):
            module = importlib.import_module(where)
            path = Path(module.__file__ or "")
            return module, path.read_text(encoding="utf-8") if path.suffix == ".py" else ""
        return _load_file(where)
    except ModuleNotFoundError as error:
        raise ValueError(f"model {spec!r}: {error}: is it installed in this environment?") from error
    except Exception as error:
        raise ValueError(f"model {spec!r}: importing it raised {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> tuple[ModuleType, str]:
    source = path.read_text(encoding="utf-8")
    name = f"sfumato_user_{path.stem}_{digest([source])[:8]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(found)  # dataclasses look it up there
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module, source


def _short_name(module_name: str, factory_name: str) -> str:
    stem = Path(module_name).stem if module_name.endswith(".py") else module_name.rpartition(".")[2]
    return re.sub(r"[^\w.+-]", "_", f"{stem}-{factory_name}")
