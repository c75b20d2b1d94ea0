"""What a batch takes of memory, and what there is: atoms without edges, and the limits of containers."""

import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.potentials import memory
from sfumato.potentials import network as module
from sfumato.potentials.network import NetworkPotential
from sfumato.systems import Batch, System
from tests.tiny_models import model


def test_atoms_without_edges_take_memory_too(monkeypatch):
    seen, original = [], module.evaluate

    def counting(model, topology, *args, **kwargs):
        seen.append(topology.n_systems)
        return original(model, topology, *args, **kwargs)

    monkeypatch.setattr(module, "evaluate", counting)
    gas = Batch.of([System([1], [[0.0, 0, 0]])] * 50)
    of = model(torch.float32)
    NetworkPotential(of, memory_limit=10 * 4 * of.numbers_per_atom).predict(gas)
    assert seen == [10] * 5
    seen.clear()
    one = NetworkPotential(of)
    one.predict(gas)
    monkeypatch.setattr(module, "free_memory", lambda _: 10**6)
    one.predict(gas)
    assert seen[0] == 50
    assert len(seen) > 2


def test_memory_that_was_only_kept_is_given_back_before_layers_are_recomputed(monkeypatch):
    """An evaluation leaves gigabytes with the allocator: the machine is not full for the next one."""
    free = [10]
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "free_memory", lambda _: free[0])
    one, water = NetworkPotential(model()), Batch.of([System([8, 1, 1], np.eye(3))])
    one.predict(water)
    assert one.network.checkpointing
    monkeypatch.setattr(module, "give_back", lambda: free.__setitem__(0, 10**12))
    one.predict(water)
    assert not one.network.checkpointing


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc keeps freed memory")
def test_freed_memory_goes_back_to_the_system():
    """Five thousand blocks below the size that is mapped by itself, under one that stays."""
    blocks = [torch.ones(20_000) for _ in range(5_000)]
    held = torch.ones(20_000)
    full = resident()
    del blocks
    memory.give_back()
    assert full - resident() > 300e6
    assert held.sum() == 20_000


def resident():
    """Bytes of this process in memory."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def group(folder, limit, used, stat, version):
    """Write the files of a control group."""
    folder.mkdir(parents=True, exist_ok=True)
    names = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    for name, value in zip((*names, "memory.stat"), (limit, used, stat), strict=True):
        (folder / name).write_text(f"{value}\n")


def test_the_limits_of_a_container_or_a_job_count(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.write_text("0::/slurm/job/step\n")
    group(tmp_path / "slurm/job/step", "max", 500, "inactive_file 7", 2)
    group(tmp_path / "slurm/job", 1000, 600, "anon 1\ninactive_file 50", 2)
    assert list(memory.group_room(tmp_path, own)) == [450]
    own.write_text("3:cpuset:/\n2:memory:/outside/this/container\n0::/\n")
    group(tmp_path / "memory", 2000, 500, "inactive_file 1\ntotal_inactive_file 30", 1)
    assert list(memory.group_room(tmp_path, own)) == [1530]
    assert list(memory.group_room(tmp_path, tmp_path / "absent")) == []
    here = memory.free_memory(torch.device("cpu"))
    monkeypatch.setattr(memory, "group_room", lambda: iter([here // 2]))
    assert memory.free_memory(torch.device("cpu")) == here // 2
