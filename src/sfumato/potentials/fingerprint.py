"""The hash of everything that a calculator or model computes with."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sfumato.systems import digest

VOLATILE = frozenset({"results", "atoms", "_directory", "prefix"})
"""Attributes of an ASE calculator that change with use or place, not with the model."""

TORCH_INTERNALS = frozenset({"_parameters", "_buffers", "_modules", "_version", "training"})
"""Attributes of a torch module that are followed under their own names, or are not settings of the model."""

DEEPEST = 50
"""Objects inside objects that `fingerprint` follows, well below Python's recursion limit."""


def fingerprint(thing: object) -> str:
    """Return the SHA-256 of what a calculator or model computes with.

    That is its class, the version of its package, and all its attributes, followed down to numbers,
    strings, arrays, tensors, and the weights and settings of every torch module; not its last results.
    Functions count by name. torch is not imported. Take it before the first use: some calculators keep
    neighbor lists and the like on themselves.

    Args:
        thing: any object.

    Returns:
        The same hash in every process for the same weights and settings. An object that holds something
        different in every process (a time, a temporary path) needs an explicit identity instead.
    """
    return _hash(thing, {}, 0)


def _hash(value: Any, known: dict[int, tuple[Any, str]], depth: int) -> str:
    """Return the digest of a value; `known` keeps those of objects seen, and the objects, by id."""
    torch = sys.modules.get("torch")
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return digest([type(value).__name__, repr(value)])
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return digest([value])
    if torch is not None and isinstance(value, torch.Tensor):
        # Bytes, because numpy knows neither bfloat16 nor float8; flat, because a scalar has no byte view.
        flat = value.detach().to_dense().cpu().contiguous().reshape(-1).view(torch.uint8)
        return digest([f"{value.dtype}{tuple(value.shape)}", flat.numpy()])
    if isinstance(value, Path | np.dtype) or (torch and isinstance(value, torch.dtype | torch.device)):
        return digest([str(value)])
    if isinstance(value, logging.Logger):
        return digest([value.name])
    if isinstance(value, type | ModuleType) or (callable(value) and hasattr(value, "__name__")):
        name = getattr(value, "__qualname__", value.__name__)
        return digest([f"{getattr(value, '__module__', '')}.{name}"])
    if id(value) not in known:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        known[id(value)] = (value, digest([kind]))  # what a cycle, or the deepest object, counts as
        if depth < DEEPEST:
            parts = [part for name, item in _inside(value) for part in (name, _hash(item, known, depth + 1))]
            version = _package_version(type(value).__module__)
            known[id(value)] = (value, digest([kind, version, *parts]))
    return known[id(value)][1]


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named contents of a container, a torch module or any other object, in a fixed order."""
    torch = sys.modules.get("torch")
    held = _attributes(value)
    if isinstance(value, Mapping):
        yield from sorted(((repr(key), value[key]) for key in value), key=lambda item: item[0])
    elif isinstance(value, list | tuple):
        yield from ((str(k), item) for k, item in enumerate(value))
    elif isinstance(value, np.ndarray):
        yield "items", value.tolist()
    elif isinstance(value, set | frozenset):
        yield "items", sorted(_hash(item, {}, 0) for item in value)
    elif isinstance(value, functools.partial):
        yield "call", [value.func, value.args, value.keywords]
    elif torch is not None and isinstance(value, torch.nn.Module):
        for group in ("_parameters", "_buffers", "_modules"):
            yield from getattr(value, group).items()
        # Settings, but not the compiled graphs and the like that some packages keep on their modules.
        held = {k: v for k, v in held.items() if k not in TORCH_INTERNALS and _is_setting(v)}
    yield from ((name, held[name]) for name in sorted(held) if name not in VOLATILE)


def _is_setting(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return all(_is_setting(item) for item in value)
    if isinstance(value, Mapping):
        return all(_is_setting(item) for item in value.values())
    torch = sys.modules["torch"]
    return value is None or isinstance(
        value, bool | int | float | complex | str | np.ndarray | np.generic | torch.Tensor | torch.nn.Module
    )


def _attributes(value: Any) -> dict[str, Any]:
    """Return what an object holds in its dict and its slots."""
    names: set[str] = set()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names.update([slots] if isinstance(slots, str) else slots)
    held = {name: getattr(value, name) for name in names if name[:2] != "__" and hasattr(value, name)}
    return held | dict(getattr(value, "__dict__", {}))


@functools.cache
def _package_version(module: str) -> str:
    """Return the version of the package that a module belongs to, empty where it has none."""
    top = module.partition(".")[0]
    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        # The import name may differ from the distribution's: mace comes with mace-torch.
        return str(getattr(sys.modules.get(top), "__version__", ""))
