"""Seconds per structure of a training step of MACE, for `training.py`; runs where mace-torch is installed.

    python training_mace.py --data 3bpa-300K.h5

The usual two layers (correlation 3, spherical harmonics to 3, scalars and vectors) with the cutoff of nano;
64 channels have about as many parameters as nano (0.22 million for four elements). The same batches of 5,
single precision, weights of energy and forces, AdamW with averaged weights. Neighbor lists are made before
the clock starts, as its own loader does.
"""

import argparse
import json
import statistics
import time

import h5py
import numpy as np
import torch
from mace import data, modules, tools  # first: it lets e3nn read its own files
from mace.tools import torch_geometric

# isort: split
from e3nn import o3
from torch_ema import ExponentialMovingAverage

CUTOFF, BATCH = 5.0, 5


def frames(path, count):
    """Yield the first frames of the training split."""
    with h5py.File(path) as file:
        names = [name.decode() for name in file["split/names"][:]]
        rows = np.flatnonzero(file["split/codes"][:] == names.index("train"))[:count]
        offset = file["frame/offset"][:]
        for row in rows:
            atoms = slice(offset[row], offset[row + 1])
            found = [file[f"atom/{name}"][atoms] for name in ("numbers", "positions", "forces")]
            yield (*found, float(file["frame/energy"][row]))


def batch_of(path, elements):
    """Return the first batch, on the z-table of the set."""
    table = tools.AtomicNumberTable(elements)
    made = []
    for numbers, positions, forces, energy in frames(path, BATCH):
        config = data.Configuration(
            atomic_numbers=numbers.astype(int),
            positions=positions.astype(float),
            properties={"energy": energy, "forces": forces.astype(float)},
            property_weights={"energy": 1.0, "forces": 1.0},
            cell=np.zeros((3, 3)),
            pbc=(False, False, False),
        )
        made.append(data.AtomicData.from_config(config, z_table=table, cutoff=CUTOFF))
    return torch_geometric.batch.Batch.from_data_list(made)


def model_of(channels, elements, neighbors):
    return modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(f"{channels}x0e + {channels}x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=neighbors,
        atomic_numbers=elements,
        correlation=3,
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


def count(model):
    return sum(weight.numel() for weight in model.parameters())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warm", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    with h5py.File(given.data) as file:
        elements = sorted(set(file["atom/numbers"][:].tolist()))
    batch = batch_of(given.data, elements)
    neighbors = batch.edge_index.shape[1] / len(batch.positions)
    model = model_of(given.channels, elements, neighbors)
    loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=10.0)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)
    average = ExponentialMovingAverage(model.parameters(), decay=0.99)
    found = []
    for _ in range(given.warm + given.steps):
        wall, cpu = time.perf_counter(), time.process_time()
        here = batch.clone()
        adam.zero_grad(set_to_none=True)
        output = model(here.to_dict(), training=True, compute_force=True)
        loss(pred=output, ref=here).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        adam.step()
        average.update()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    walls, cpus = zip(*found[given.warm :], strict=True)
    said = {"wall": statistics.median(walls) / BATCH, "cpu": statistics.median(cpus) / BATCH}
    print(json.dumps(said | {"parameters": count(model)}))


if __name__ == "__main__":
    torch.set_default_dtype(torch.float32)
    main()
