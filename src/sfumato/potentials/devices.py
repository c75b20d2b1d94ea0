"""Devices and precisions that a user can ask for."""

from __future__ import annotations

DTYPES = ("float32", "float64")

KINDS = ("cpu", "cuda")


def require_device(device: str) -> None:
    """Raise if a device is not here, before anything is started on it.

    Args:
        device: "cpu", "cuda", "cuda:1", or empty for no wish.

    Raises:
        ValueError: another word, or a GPU that torch does not see.
    """
    kind, _, number = device.partition(":")
    if kind not in ("", *KINDS) or (number and not number.isdigit()):
        raise ValueError(f"device: {device!r} is unknown; write cpu, cuda or cuda:0")
    if kind == "cuda" and int(number or 0) >= (count := gpus()):
        raise ValueError(f"device: {device!r} is not there; torch sees {count} GPUs")


def gpus() -> int:
    """Return how many GPUs torch can use."""
    import torch

    return torch.cuda.device_count()


def spread(device: str) -> tuple[str, ...]:
    """Return the devices that workers are bound to, one after the other.

    Args:
        device: one device, several with commas between, or "cuda" for every GPU there is.

    Raises:
        ValueError: what `require_device` refuses.
    """
    names = [name.strip() for name in device.split(",")]
    for name in names:
        require_device(name)
    if names == ["cuda"]:
        return tuple(f"cuda:{k}" for k in range(gpus()))
    return tuple(names) if device else ()
