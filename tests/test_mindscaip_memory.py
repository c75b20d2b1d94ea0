"""What a batch takes of memory, and what there is: atoms without edges, and the limits of containers."""

import torch

from sfumato.potentials import mindscaip as module
from sfumato.potentials.mindscaip import MinDScAIPPotential
from sfumato.systems import Batch, System
from tests.tiny_models import model


def test_atoms_without_edges_take_memory_too(monkeypatch):
    seen, original = [], module.evaluate

    def counting(model, topology, *args, **kwargs):
        seen.append(topology.n_systems)
        return original(model, topology, *args, **kwargs)

    monkeypatch.setattr(module, "evaluate", counting)
    gas = Batch.of([System([1], [[0.0, 0, 0]])] * 50)
    MinDScAIPPotential(model(), most_edges=10 * module.ATOM).predict(gas)
    assert seen == [10] * 5
    seen.clear()
    one = MinDScAIPPotential(model())
    one.predict(gas)
    monkeypatch.setattr(module, "free_memory", lambda _: 10**6)
    one.predict(gas)
    assert seen[0] == 50
    assert len(seen) > 2


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
    assert list(module.group_room(tmp_path, own)) == [450]
    own.write_text("3:cpuset:/\n2:memory:/outside/this/container\n0::/\n")
    group(tmp_path / "memory", 2000, 500, "inactive_file 1\ntotal_inactive_file 30", 1)
    assert list(module.group_room(tmp_path, own)) == [1530]
    assert list(module.group_room(tmp_path, tmp_path / "absent")) == []
    here = module.free_memory(torch.device("cpu"))
    monkeypatch.setattr(module, "group_room", lambda: iter([here // 2]))
    assert module.free_memory(torch.device("cpu")) == here // 2
