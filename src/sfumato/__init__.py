"""Sfumato: measure how smooth a machine-learned interatomic potential is, and build ones smooth by design."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "System": "systems",
    "Batch": "systems",
    "Prediction": "systems",
    "Scan": "systems",
    "ScanSet": "systems",
    "load": "potentials.specs",
    "from_ase": "potentials.ase",
    "load_scans": "datasets.named:load",
    "run": "protocols.run",
    "load_run": "protocols.run",
    "ModelSpec": "potentials.specs",
    "Potential": "potentials.potential",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 (the names above, imported when first used)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import sfumato` stays quick."""
    try:
        module, _, attribute = _PUBLIC[name].partition(":")
    except KeyError:
        raise AttributeError(f"module 'sfumato' has no attribute {name!r}") from None
    return getattr(import_module(f"sfumato.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
