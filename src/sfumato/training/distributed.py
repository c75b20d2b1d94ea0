"""Several processes that train one model: sums and decisions that all of them share.

Lightning Fabric finds and connects the processes (torchrun, Slurm, MPI, or started by itself). Its wrapper of
the model is not used: that reduces gradients while one backward pass runs, and here a gradient may take two,
or none for some heads. Instead every process adds its gradients, the terms of the loss and its wish to stop
into one buffer per step. So all see the same numbers and take the same turn.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sfumato.training.settings import TrainSettings

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a run, as one of them sees them.

    Args:
        rank: which this one is.
        size: how many.
        device: of this one.
        local: how many share this machine.
    """

    rank: int
    size: int
    device: torch.device
    local: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def add_up(self, gradient: Tensor, numbers: Sequence[float]) -> list[float]:
        """Sum a gradient, in place, and some numbers over all processes, in one exchange.

        Args:
            gradient: (P,) of all weights.
            numbers: as many everywhere.

        Returns:
            The sums of the numbers.
        """
        if self.size == 1:
            return list(numbers)
        flat = torch.cat([gradient, torch.tensor(numbers, dtype=torch.float32, device=self.device)])
        torch.distributed.all_reduce(flat)
        gradient.copy_(flat[: len(gradient)])
        return [float(x) for x in flat[len(gradient) :].tolist()]

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of some numbers over all processes, in double precision."""
        if self.size == 1:
            return list(numbers)
        flat = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(flat)
        return [float(x) for x in flat.tolist()]

    def agree(self, value: T) -> T:
        """Return what the first process says."""
        if self.size == 1:
            return value
        said: list[Any] = [value]
        torch.distributed.broadcast_object_list(said, src=0, device=self.device)
        return said[0]  # type: ignore[no-any-return]


def alone(settings: TrainSettings) -> Group:
    """Return the group of this process only."""
    device = settings.accelerator
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator: there is no CUDA device here; set accelerator: cpu")
    return Group(0, 1, torch.device(device))


def connect(settings: TrainSettings) -> Group:
    """Join the processes of this run, starting them where no launcher has.

    Args:
        settings: how many devices and nodes.

    Raises:
        ValueError: Lightning Fabric is not installed, there are fewer devices than asked for, or srun has
            started several tasks for a run on one device.
    """
    devices, nodes = launched() or (settings.devices, settings.nodes)
    if devices * nodes == 1:
        tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
        if tasks > 1:
            raise ValueError(
                f"srun has started {tasks} tasks, and each would train alone; say what they are to share: "
                f"--set devices={tasks}, devices of each node, and nodes=N if there are several"
            )
        return alone(settings)
    try:
        from lightning.fabric import Fabric  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from lightning_fabric import Fabric
        except ImportError:
            raise ValueError(
                f"devices: {devices} × {nodes} need Lightning Fabric: pip install 'sfumato[train]'"
            ) from None
    accelerator = alone(settings).device.type
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp",
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"devices: {devices} of {accelerator}: {error}") from None
    fabric.launch()
    return Group(fabric.global_rank, fabric.world_size, fabric.device, devices)


def launched() -> tuple[int, int] | None:
    """Return processes per machine and machines that torchrun has started; None where it has not."""
    size, local = (int(os.environ.get(name, "0")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return (local, size // local) if local else None


def lead() -> bool:
    """Return whether this is the first process of its run, before they are connected."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"
