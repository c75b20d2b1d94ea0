"""Energy and forces of diamond: time and memory of MinDScAIP and of MACE of equal size and a quarter of it.

    python benchmarks/inference.py --mace ~/venv-mace/bin/python --out inference.jsonl
    python benchmarks/inference.py --presets nano --atoms 216 1000 5832 21952
    python benchmarks/inference.py --quick

Every number comes from a process of its own, MACE's in the environment that it is installed in. In each round
all contestants take turns at every size, so that what disturbs the machine disturbs them alike; ratios are
taken within a round. A size that runs out of time or memory ends the larger ones. Weights are random, those
of MACE in the recipe of its published materials model (two layers, l = 2, 6 Å, 89 elements; 128 channels are
16 million parameters) with as many channels as the count asks for. Neighbors are searched every time.

Seconds are processor time where one thread of a CPU is used, else wall time. The matrix rate is what the
machine does in each round in products of square float32 matrices. FLOPs are those of the products that the
equations need, without padding or anything done twice: twice a product for energy and forces, three times
that of queries with keys and of weights with values; of the last attention only what self tokens ask for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ATOMS = [216, 512, 1000, 1728, 2744, 4096, 8000, 21952]
MILLIONS = {"nano": 0.22, "small": 3.8, "medium": 15.0, "large": 60.0}
WARM = [64, 64]
"""Atoms of the crystals that each process starts with, before once the one that is measured."""

SHARE = 0.8
"""Of the free memory, what a process may take: one that wants more fails, and nothing else suffers."""


Evaluate = Callable[[Any], dict[str, Any]]


# --- one contestant, one size: a process of its own


def diamond(atoms: int) -> Any:
    """Return a shaken supercell of about so many atoms."""
    from ase.build import bulk

    crystal = bulk("C", "diamond", a=3.567, cubic=True).repeat(round((atoms / 8) ** (1 / 3)))
    crystal.positions += np.random.default_rng(0).normal(scale=0.05, size=crystal.positions.shape)
    return crystal


def peak(device: str) -> float:
    """Return the most memory in MB: of this process so far, or of the GPU."""
    if device != "cpu":
        import torch

        return float(torch.cuda.max_memory_allocated()) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def of_ours(
    family: str, preset: str, args: argparse.Namespace, crystal: Any
) -> tuple[Evaluate, int, float | None]:
    """Return what evaluates a crystal, the number of parameters, and FLOPs of MinDScAIP for this crystal."""
    import torch

    from sfumato import Batch
    from sfumato.io import from_ase
    from sfumato.models.families import build
    from sfumato.models.families import preset as named
    from sfumato.models.network import prepare
    from sfumato.potentials.network import NetworkPotential

    config = named(preset, family, **({"directional": args.directional} if args.directional else {}))
    potential = NetworkPotential(build(config), device=args.device)
    flops = None
    if family == "mindscaip":
        flops = needed(potential.network, prepare(potential.network, Batch.of([from_ase(crystal)])).topology)

    def evaluate(atoms: Any) -> Any:
        with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
            found = potential.predict(Batch.of([from_ase(atoms)]))
        return {"recomputed": potential.network.checkpointing, "energy": float(found.energy[0])}

    return evaluate, sum(p.numel() for p in potential.network.parameters()), flops


def needed(model: Any, topology: Any) -> float:
    """Return the FLOPs of the products for energy and forces; see the head of this file."""
    c = model.config
    n, edges, width, hidden = len(topology.numbers), len(topology.reverse), c.width, c.width * c.hidden_factor
    rows, inner, up = n + edges, c.width * c.attention_factor, 3 if c.gated else 2
    features = model.geometry.in_features
    leaving, arriving = ((slots < rows).sum(1).double() for slots in (topology.out_slots, topology.in_slots))
    attended = c.layers * (leaving.square().sum() + arriving.square().sum())
    linear = edges * features * width + rows * width**2 + n * (width + 1) * hidden
    linear += c.layers * 2 * rows * (4 * width * inner + up * width * hidden)
    linear += c.layers * c.layer_readout * n * 2 * width * hidden
    linear -= edges * (2 * width * inner + up * width * hidden)
    attended -= arriving.square().sum() - arriving.sum()
    return float(2 * (2 * linear + 3 * 2 * inner * attended))


def of_mace(millions: float, args: argparse.Namespace) -> tuple[Evaluate, int]:
    """Return what evaluates a crystal, and the number of parameters."""
    import torch
    from mace import data, tools

    torch.set_default_dtype(torch.float32)
    model = mace_of(millions).to(args.device)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    table = tools.AtomicNumberTable(list(range(1, 90)))

    def evaluate(atoms: Any) -> Any:
        config = data.config_from_atoms(atoms)
        found = data.AtomicData.from_config(config, z_table=table, cutoff=6.0)
        batch = next(iter(tools.torch_geometric.dataloader.DataLoader([found], batch_size=1)))
        out = model(batch.to(args.device).to_dict(), compute_force=True)
        return {"energy": float(out["energy"]), "forces": tuple(out["forces"].cpu().shape)}

    return evaluate, sum(p.numel() for p in model.parameters())


def mace_of(millions: float) -> Any:
    """Return a MACE whose number of parameters is closest to the one asked for, in steps of 8 channels."""
    import torch
    from e3nn import o3
    from mace import modules

    def made(channels: int) -> Any:
        residual = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
        return modules.ScaleShiftMACE(
            r_max=6.0,
            num_bessel=10,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=residual,
            interaction_cls_first=residual,
            num_interactions=2,
            num_elements=89,
            hidden_irreps=o3.Irreps(f"{channels}x0e + {channels}x1o + {channels}x2e"),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(89),
            avg_num_neighbors=60.0,
            atomic_numbers=list(range(1, 90)),
            correlation=3,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )

    # The count is a polynomial of second degree in the channels.
    at = [8, 16, 32]
    counts = [sum(p.numel() for p in made(c).parameters()) for c in at]
    a, b, c = np.polyfit(at, counts, 2)
    channels = (-b + math.sqrt(b * b - 4 * a * (c - 1e6 * millions))) / (2 * a)
    return made(max(8, 8 * round(channels / 8)))


def available() -> int:
    """Return the bytes of memory that are free."""
    rows = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(row.split()[1]) for row in rows if row.startswith("MemAvailable:"))


def one(args: argparse.Namespace) -> None:
    """Print one JSON object: seconds of each evaluation, peak memory in MB now and before."""
    import torch

    torch.set_num_threads(args.threads)
    if args.tf32:
        torch.set_float32_matmul_precision("high")
    limit = int(args.memory * 2**30 if args.memory else SHARE * available())
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    family, _, size = args.one.partition(":")
    if family == "matrix":
        print(json.dumps({"rate": matrix_rate(args)}))
        return
    crystal = diamond(args.atoms[0])
    flops = None
    if family == "mace":
        evaluate, parameters = of_mace(float(size), args)
    else:
        evaluate, parameters, flops = of_ours(family, size, args, crystal)
    for atoms in WARM:
        evaluate(diamond(atoms))
    before = peak(args.device)
    found = evaluate(crystal)
    seconds = []
    for _ in range(args.repeats):
        start = clock(args)
        found = evaluate(crystal)
        seconds.append(clock(args) - start)
    facts = {"parameters": parameters, "flops": flops, "seconds": seconds}
    memory = {"peak": peak(args.device), "before": before}
    print(json.dumps(found | facts | memory | {"atoms": len(crystal)}))


def clock(args: argparse.Namespace) -> float:
    """Return the time in seconds, of the processor or, with several threads or a GPU, of the wall."""
    if args.device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.process_time() if args.device == "cpu" and args.threads == 1 else time.perf_counter()


def matrix_rate(args: argparse.Namespace) -> float:
    """Return FLOP/s of the product of two float32 matrices, the best size, the median of five."""
    import torch

    found = []
    for n in (512, 1024, 2048) if args.device == "cpu" else (4096, 8192):
        a, b = (torch.randn(n, n, device=args.device) for _ in range(2))
        seconds = []
        for _ in range(6):
            start = clock(args)
            a @ b
            seconds.append(clock(args) - start)
        found.append(2 * n**3 / statistics.median(seconds[1:]))
    return max(found)


# --- all of them in turn


def measure(contestant: str, atoms: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return what one process reports, or `failed` with the reason."""
    python = args.mace if contestant.startswith("mace") else sys.executable
    command = [python, __file__, "--one", contestant, "--atoms", str(atoms)]
    for name in ("repeats", "device", "threads", "memory", "directional"):
        if getattr(args, name):
            command += [f"--{name}", str(getattr(args, name))]
    command += [f"--{name}" for name in ("tf32", "bf16") if getattr(args, name)]
    try:
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=args.limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {args.limit:g} s"}
    with contextlib.suppress(ValueError, IndexError):
        return dict(json.loads(run.stdout.splitlines()[-1]))
    return {"failed": (run.stderr.strip().splitlines() or [f"exit {run.returncode}"])[-1]}


def contestants(args: argparse.Namespace) -> list[str]:
    """Return the presets, and for each of them MACE of a quarter of its parameters and of all."""
    found = []
    for preset in args.presets:
        found.append(f"mindscaip:{preset}")
        if args.mace:
            found += [f"mace:{MILLIONS[preset] * part:g}" for part in (0.25, 1)]
    return list(dict.fromkeys(found))


def measured(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for every round, size and contestant."""
    last: dict[str, int] = {}
    for turn in range(args.rounds):
        for atoms in args.atoms:
            rate = measure("matrix:", atoms, args).get("rate")
            for name in contestants(args):
                if atoms >= last.get(name, atoms + 1):
                    continue
                found = measure(name, atoms, args)
                if "failed" in found:
                    last[name] = atoms
                yield {"round": turn, "name": name, "atoms": atoms, "rate": rate} | found


def spread(values: list[float], digits: int = 2) -> str:
    """Return a median with its range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield lines of Markdown: time, memory, share of the matrix rate, and speed over each MACE."""
    columns = "atoms", "model", "10⁶ parameters", "ms per atom", "MB peak (per atom)", "of the matrix rate"
    yield f"| {' | '.join([*columns, 'speed over MACE'])} |"
    yield "|---|---|---|---|---|---|---|"
    for atoms, name in dict.fromkeys((row["atoms"], row["name"]) for row in rows):
        mine = [row for row in rows if (row["atoms"], row["name"]) == (atoms, name)]
        if any("failed" in row for row in mine):
            yield f"| {atoms} | {name} | | {mine[-1].get('failed')} | | | |"
            continue
        per_atom = {row["round"]: statistics.median(row["seconds"]) / row["atoms"] for row in mine}
        shares = [
            row["flops"] / statistics.median(row["seconds"]) / row["rate"] for row in mine if row["flops"]
        ]
        ratios = []
        for peer in dict.fromkeys(row["name"] for row in rows if row["name"].startswith("mace")):
            theirs = {
                row["round"]: statistics.median(row["seconds"]) / row["atoms"]
                for row in rows
                if (row["atoms"], row["name"]) == (atoms, peer) and "seconds" in row
            }
            over = [theirs[turn] / value for turn, value in per_atom.items() if turn in theirs]
            if over and not name.startswith("mace"):
                ratios.append(f"{peer.partition(':')[2]} M: {spread(over)}")
        memory = max(row["peak"] for row in mine)
        growth = max(row["peak"] - row["before"] for row in mine) / atoms
        yield (
            f"| {atoms} | {name}{' (recomputed)' if mine[0].get('recomputed') else ''} "
            f"| {mine[0]['parameters'] / 1e6:.1f} | {spread([1e3 * value for value in per_atom.values()])} "
            f"| {memory:.0f} ({growth:.2f}) | {spread(shares) if shares else ''} | {'; '.join(ratios)} |"
        )


def main() -> None:
    """Measure, keep every row, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=["small", "medium", "large"], choices=list(MILLIONS))
    parser.add_argument("--atoms", nargs="+", type=int, default=ATOMS)
    parser.add_argument("--mace", help="the Python of an environment that has mace-torch; without: no peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2, help="evaluations in one process")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds of a process")
    parser.add_argument(
        "--memory", type=float, help="GiB that a process may take; by default four fifths of what is free"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--directional", choices=["harmonics", "angular_bias"])
    parser.add_argument("--tf32", action="store_true", help="products of ten bits, on a GPU")
    parser.add_argument("--bf16", action="store_true", help="linear maps of eight bits, in plain operations")
    parser.add_argument("--out", type=Path, help="every row as a line of JSON")
    parser.add_argument("--quick", action="store_true", help="one round of 64 and 216 atoms, nano and small")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args)
        return
    if args.quick:
        args.presets, args.atoms, args.rounds, args.repeats = ["nano", "small"], [64, 216], 1, 1
    rows = []
    for row in measured(args):
        rows.append(row)
        text = json.dumps(row)
        print(text, file=sys.stderr, flush=True)
        if args.out:
            with args.out.open("a") as file:
                file.write(text + "\n")
    print("\n".join(table(rows)))
    rates = [row["rate"] / 1e9 for row in rows if row["rate"]]
    print(f"\nmatrix products: {spread(rates, 0)} GFLOP/s")


if __name__ == "__main__":
    main()
