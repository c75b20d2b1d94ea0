"""Who is whose neighbor, as plain index arrays, and how strongly, differentiably."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Pairs": "neighbors",
    "neighbor_pairs": "neighbors",
    "StructureError": "neighbors",
    "GraphSettings": "settings",
    "Candidates": "candidates",
    "find_candidates": "candidates",
    "Topology": "layout",
    "Geometry": "layout",
    "index_stage": "layout",
    "select_edges": "layout",
    "differentiable_stage": "layout",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 (the names above, imported when first used)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: all but the neighbor pairs load torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sfumato.graph' has no attribute {name!r}")
    return getattr(import_module(f"sfumato.graph.{_PUBLIC[name]}"), name)
