"""The compiled core: MinDScAIP in single precision on a CPU, with derivatives written by hand.

It is built from the C++ files of this folder when the package is installed on a machine with a compiler, and
it is optional: whatever it does, torch does too.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
FAST = ("AVX2", "AVX512")
"""What torch calls processors that run the build for x86-64-v3."""


class Graph(ctypes.Structure):
    """`GraphSettings` of geometry.h."""

    _fields_ = [
        *((name, c_double) for name in ("k", "d0", "beta", "cutoff", "rank_offset", "f_max")),
        ("mutual", c_int),
    ]


class Settings(ctypes.Structure):
    """`Settings` of parts.h."""

    _fields_ = [
        *(
            (name, c_int)
            for name in ("width", "heads", "inner", "hidden", "layers", "radial", "degree", "l_max")
        ),
        *((name, c_int) for name in ("gated", "node_ffn", "layer_readout")),
        *((name, c_float) for name in ("scale", "smear_height")),
        ("smear_width", c_double),
        ("graph", Graph),
    ]


class Pairs(ctypes.Structure):
    """`Topology` of geometry.h."""

    _fields_ = [
        *((name, c_int64) for name in ("n_atoms", "n_edges", "n_pairs", "n_systems")),
        *((name, c_void_p) for name in ("numbers", "system", "source", "target", "shift", "reverse")),
    ]


def build_name() -> str:
    """Return the file of the build for this processor, or "" where none was built."""
    fast: bool = torch.backends.cpu.get_cpu_capability() in FAST
    names = ["libsfumato_v3.so"] * fast + ["libsfumato.so"]
    return next((name for name in names if (FOLDER / name).exists()), "")


@lru_cache
def library() -> ctypes.CDLL | None:
    """Return the core for this processor; None where it was not built, or cannot be loaded."""
    name = build_name()
    if not name:
        return None
    try:
        core = ctypes.CDLL(str(FOLDER / name))
    except OSError:  # built on another machine
        return None
    pointer = c_void_p
    core.sfumato_network.restype = pointer
    core.sfumato_network.argtypes = [POINTER(Settings), pointer, pointer, pointer, pointer, pointer]
    core.sfumato_pack.argtypes = core.sfumato_free_network.argtypes = [pointer]
    core.sfumato_pass.restype, core.sfumato_free_pass.argtypes = pointer, [pointer]
    core.sfumato_selection.restype, core.sfumato_free_selection.argtypes = pointer, [pointer]
    core.sfumato_select.argtypes = [
        *(pointer, POINTER(Graph), c_int64, pointer, pointer, pointer, pointer, c_int64, pointer)
    ]
    core.sfumato_selected.argtypes = [pointer] * 5
    core.sfumato_bytes.restype, core.sfumato_bytes.argtypes = c_int64, [pointer]
    core.sfumato_forward.argtypes = [
        *(pointer, pointer, POINTER(Pairs), c_int64, c_int64, pointer, pointer, c_int),
        *(pointer, pointer, pointer),
    ]
    core.sfumato_pull.argtypes = [pointer] * 5
    core.sfumato_learn.argtypes = [pointer] * 5
    return core
