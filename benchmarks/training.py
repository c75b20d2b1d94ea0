"""How fast a training step is, against the same network and loss written plainly; both in one run.

    python benchmarks/training.py --data 3bpa-300K.h5 --rounds 5

The reference is what one writes down first: padded tokens, autograd through everything twice, the graph found
anew in every step, the optimizer and the averages weight by weight, memory as the system gives it. Both make
the same step: forces as a gradient, batches of 5, double backward, AdamW, averaged weights. Before it
measures, the benchmark checks that both see the same energies and gradients.

With --processes N, whole runs in one and in N processes of one thread each take turns, in batches of 16. What
is counted comes after the first epoch, in which graphs are searched by a thread of its own.

With --mace PYTHON, an interpreter that has mace-torch, the same step of a MACE model of about as many
parameters is measured too (`training_mace.py`), in turn with ours.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.functional import layer_norm, silu

from sfumato.datasets.loader import Loader
from sfumato.datasets.named import frames_path
from sfumato.graph.layout import index_stage
from sfumato.models.mindscaip.config import PRESETS
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import Output
from sfumato.training.batches import Batches, as_sample
from sfumato.training.gradients import backward, total
from sfumato.training.launch import keep_memory
from sfumato.training.losses import terms
from sfumato.training.optim import AdamW, Flat, clip, follow
from sfumato.training.settings import TrainSettings

WARM, STEPS = 4, 12
SHARED = 16
"""Structures of a batch that processes share."""


def settings(data, **changes):
    stage = {"name": "bench", "epochs": 1000, "batch": 5, "lr": 1e-3}
    return TrainSettings(model="nano", data={"path": str(data)}, stages=[stage], accelerator="cpu", **changes)


def batches_of(run):
    stage = run.stages[0]
    path = frames_path(run.data.path)
    return Batches(Loader(path, "train", run.loader(stage)), run, stage)


# The reference, from the equations: tokens (N, K, C), padded; slot 0 of each atom is the atom itself.


def reference_graph(t, positions, graph):
    """Vectors, distances and log e of the edges, by autograd."""
    ends = positions[t.pair_target] - positions[t.pair_source]
    distance = ends.norm(dim=1)
    edges = len(t.reverse)
    table = distance.new_full((len(t.numbers) * t.columns[0],), 1e3).index_put((t.place,), distance)
    others = table.view(len(t.numbers), -1)[t.source]
    y = (distance[:edges, None] - others) / (4 * graph.d0)
    inside = y.abs() < 0.999
    z = torch.where(inside, y, 0)
    rank = torch.where(inside, torch.sigmoid(4 * z / (1 - z * z)), (y > 0).to(y)).sum(1)
    parts = torch.stack([rank / graph.k, rank[t.reverse] / graph.k, distance[:edges] / graph.cutoff])
    f = torch.logsumexp(graph.beta * parts, 0) / graph.beta
    return ends[:edges], distance[:edges], -f * f / (1 - f * f)


def reference_energy(model, t, positions):
    """Energies (G,) of the network, written down plainly."""
    config, n = model.config, len(t.numbers)
    vector, distance, log_e = reference_graph(t, positions, config.graph)
    k = t.out_slots.shape[1]
    real = t.out_slots < n + len(distance)
    there = torch.where(real, t.out_slots, 0)
    # Gaussians, elements, and the angles among the edges of an atom.
    width = config.smearing * config.graph.cutoff / (config.radial - 1)
    centers = torch.linspace(0, config.graph.cutoff, config.radial)
    v = torch.exp(-((distance[:, None] - centers) ** 2) / (2 * width**2))
    geometry = silu(model.geometry(v * (config.smearing * math.pi**0.5) ** -0.5))
    rows = torch.cat([model.itself.expand(n, -1), geometry])
    rows = rows + model.sources(torch.cat([t.numbers, t.numbers[t.source]]))
    rows = rows + model.targets(torch.cat([t.numbers, t.numbers[t.target]]))
    x = model.mix(layer_norm(rows, rows.shape[-1:]))[there]
    bias = torch.cat([log_e.new_zeros(n), log_e])[there].masked_fill(~real, -1e30)
    unit = torch.cat([vector.new_zeros(n, 3), vector / distance[:, None]])[there] * real[:, :, None]
    cosine = unit @ unit.transpose(1, 2)
    mask = ((there >= n) & real)[:, :, None] & ((there >= n) & real)[:, None, :]
    p = [torch.ones_like(cosine), cosine]
    for m in range(1, config.angular_degree):
        p.append(((2 * m + 1) * cosine * p[m] - m * p[m - 1]) / (m + 1))
    angles = torch.stack(p[1:], -1) * mask[..., None]
    place = torch.empty(n + len(distance), dtype=torch.long)
    place[there[real]] = torch.nonzero(real.view(-1))[:, 0]
    back = place[torch.cat([torch.arange(n), n + t.reverse])]
    turn = torch.arange(n * k)
    turn[place] = back
    nodes = 0
    for layer in model.layers:
        for block in (layer.leaving, layer.arriving):
            x = x + reference_attention(block.attention, layer_norm(x, x.shape[-1:]), bias, angles)
            h = layer_norm(x, x.shape[-1:])
            own, edge = block.feed["node"], block.feed["edge"]
            x = x + torch.cat([own.down(silu(own.up(h[:, :1]))), edge.down(silu(edge.up(h[:, 1:])))], dim=1)
            x = x.reshape(n * k, -1)[turn].view(n, k, -1)
        h = layer_norm(x[:, 0], x.shape[-1:])
        nodes = nodes + layer.readout.down(silu(layer.readout.up(h)))
    h = layer_norm(nodes + x[:, 0], x.shape[-1:])
    head = model.heads["energy"]
    atoms = model.scale * head.down(silu(head.up(h)))[:, 0].double() + model.reference[t.numbers]
    return atoms.new_zeros(t.n_systems).index_add(0, t.system, atoms)


def reference_attention(attention, x, bias, angles):
    n, k, c = x.shape
    q, key, value = attention.qkv(x).view(n, k, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    logits = q @ key.transpose(2, 3) * attention.scale + bias[:, None, None, :]
    logits = logits + torch.einsum("nabl,hl->nhab", angles, attention.angles)
    return attention.out((logits.softmax(-1) @ value).transpose(1, 2).reshape(n, k, c))


def reference_gradient(model, whole, run, dtype=torch.float32):
    """Loss terms of a step, gradients added; the graph is found anew."""
    stage = run.stages[0]
    sample = as_sample(whole, Fresh(), dtype)
    positions = sample.positions.requires_grad_()
    energy = reference_energy(model, sample.topology, positions)
    forces = -torch.autograd.grad(energy.sum(), positions, create_graph=True)[0]
    found = terms(Output(energy, forces), sample.targets)
    total(found, stage).backward()
    return found


class Fresh:
    """Graphs found anew for every batch."""

    def of(self, frames, batch, displaced=False):
        arrays = (batch.positions, batch.cell, batch.pbc, batch.numbers, batch.index)
        return index_stage(*(torch.from_numpy(a.copy()) for a in arrays), PRESETS["nano"].graph)


def agree(run):
    """Check that both see the same energies and gradients, in double precision."""
    batches, stage = batches_of(run), run.stages[0]
    whole = next(batches.epoch(0))
    models = [MinDScAIP(run.network(stage), torch.Generator().manual_seed(0), torch.float64) for _ in "ab"]
    found = backward(models[0], batches.sample(whole, torch.float64), stage)
    expected = reference_gradient(models[1], whole, run, torch.float64)
    pairs = [(found[name].item(), expected[name].item()) for name in found]
    pairs += [
        (a.grad.norm().item(), (a.grad - b.grad).norm().item() + a.grad.norm().item())
        for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True)
    ]
    worst = max(abs(a - b) / (abs(b) + 1e-9) for a, b in pairs)
    assert worst < 1e-6, f"the reference is not the same network: off by {worst:.1e}"


def one(kind, data, threads):
    """Measure in this process: seconds of wall and of processor time per structure."""
    torch.set_num_threads(threads)
    run = settings(data)
    stage = run.stages[0]
    if kind == "ours":
        keep_memory()
    batches = batches_of(run)
    model = MinDScAIP(run.network(stage), torch.Generator().manual_seed(0))
    average = copy.deepcopy(model).requires_grad_(False)
    wholes = [next(batches.epoch(0))] * (WARM + STEPS)
    if kind == "ours":
        adam, averages = AdamW(model, run, 1e-3), Flat(average).weights

        def step(whole):
            adam.zero_grad()
            backward(model, batches.sample(whole, torch.float32), stage)
            clip(adam.gradient, run.clip)
            adam.step(1e-3)
            follow(averages, adam.weights, run.ema, 100)
    else:
        adam = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)

        def step(whole):
            adam.zero_grad()
            reference_gradient(model, whole, run)
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.clip, foreach=False)
            adam.step()
            with torch.no_grad():
                for a, b in zip(average.parameters(), model.parameters(), strict=True):
                    a.mul_(run.ema).add_(b, alpha=1 - run.ema)

    found = []
    for whole in wholes:
        wall, cpu = time.perf_counter(), time.process_time()
        step(whole)
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = zip(*found[WARM:], strict=True)
    b = len(wholes[0])
    said = {"wall": statistics.median(walls) / b, "cpu": statistics.median(cpus) / b}
    print(json.dumps(said | {"parameters": sum(weight.numel() for weight in model.parameters())}))


def together(data, devices):
    """Seconds per structure of a run in several processes of one thread each, after its first epoch."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "run.yaml"
        run = settings(data, devices=devices, threads=1, log_steps=10)
        batch = run.stages[0].batch.model_copy(update={"structures": SHARED})
        epoch = Loader(frames_path(data), "train", run.loader(run.stages[0])).steps(0) * 5 // SHARED
        changes = {"epochs": None, "steps": epoch + 60, "batch": batch}
        stages = [run.stages[0].model_copy(update=changes)]
        run = run.model_copy(
            update={"stages": stages, "data": run.data.model_copy(update={"validation": None})}
        )
        config.write_text(yaml.safe_dump(json.loads(run.model_dump_json())))
        code = "import sys; from sfumato.training.launch import run; run(sys.argv[1], sys.argv[2])"
        script = Path(folder) / "go.py"
        script.write_text(code)
        command = [sys.executable, str(script), str(config), f"{folder}/run"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        lines = [json.loads(line) for line in Path(f"{folder}/run/log.jsonl").read_text().splitlines()]
    later = [x for x in lines if x["event"] == "train" and x["step"] > epoch + 10]
    return 1 / statistics.median(x["structures_per_second"] for x in later)


def processes(data, rounds, count):
    """Print how much faster several processes are than one."""
    ratios = []
    for _ in range(rounds):
        alone, shared = (together(data, n) for n in (1, count))
        ratios.append(alone / shared)
        print(f"1: {1 / alone:.1f}, {count}: {1 / shared:.1f} structures/s", file=sys.stderr, flush=True)
    print(f"wall {count} processes over one: {spread(ratios, 2)}")


def alone(kind, data, cores, mace):
    """Measure one kind of step in a process of its own."""
    words = [mace, Path(__file__).with_name("training_mace.py")]
    if kind != "mace":
        words = [sys.executable, __file__, "--one", kind]
    command = [*map(str, words), "--data", str(frames_path(data)), "--threads", str(cores)]
    env = os.environ | {"OMP_NUM_THREADS": str(cores)}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return json.loads(out.stdout.splitlines()[-1])


def measure(data, rounds, cores, mace):
    agree(settings(data))
    kinds = {"reference": [], "ours": []} | ({"mace": []} if mace else {})
    for _ in range(rounds):
        for kind, found in kinds.items():
            if kind == "ours" and cores > 1:
                found.append({"wall": together(data, cores), "cpu": float("nan")})
            else:
                found.append(alone(kind, data, cores, mace))
            print(kind, found[-1], file=sys.stderr, flush=True)
    for kind, found in kinds.items():
        if "parameters" in found[0]:
            print(f"{kind}: {found[0]['parameters']} parameters")
    for clock in ("wall", "cpu"):
        rates = {kind: [1 / f[clock] for f in found] for kind, found in kinds.items()}
        for kind, values in rates.items():
            print(f"{clock} {kind}: {spread(values, 1)} structures/s")
        for kind in rates.keys() - {"ours"}:
            ratios = [b / a for a, b in zip(rates[kind], rates["ours"], strict=True)]
            print(f"{clock} ours over {kind}: {spread(ratios, 2)}")


def spread(values, digits):
    low, middle, high = (f"{x:.{digits}f}" for x in (min(values), statistics.median(values), max(values)))
    return f"{middle} [{low}, {high}]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="organic-mini")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--processes", type=int, help="compare so many processes with one")
    parser.add_argument("--mace", help="a Python interpreter with mace-torch")
    parser.add_argument("--one", choices=["ours", "reference"])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.data, given.threads)
    elif given.processes:
        processes(given.data, given.rounds, given.processes)
    else:
        measure(given.data, given.rounds, given.cores, given.mace)


if __name__ == "__main__":
    main()
