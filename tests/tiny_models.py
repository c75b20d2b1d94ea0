"""Small MinDScAIP models with lively energies, and structures to try them on."""

import numpy as np
import torch

from sfumato.graph.settings import GraphSettings
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import predict
from sfumato.systems import Batch, System

GRAPH = GraphSettings(k=5, cutoff=4.0)
DIRECTIONAL = ("harmonics", "angular_bias")


def config(**changes):
    settings = {
        "width": 16,
        "heads": 2,
        "layers": 2,
        "radial": 16,
        "smearing": 2.0,
        "l_max": 3,
        "graph": GRAPH,
    }
    return MinDScAIPConfig(**(settings | changes))


def model(dtype=torch.float64, seed=0, **changes):
    """A model whose energy depends strongly on the geometry, as after training."""
    made = MinDScAIP(config(**changes), torch.Generator().manual_seed(seed), dtype)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                weight.mul_(3.0)
    return made


def molecule(n=9, seed=0, spread=1.5):
    """Atoms near the sites of a grid: random, never on top of each other."""
    rng = np.random.default_rng(seed)
    sites = np.array([(x, y, z) for x in range(3) for y in range(3) for z in range(3)])[:n]
    return System(rng.choice([1, 6, 7, 8], n), spread * sites + rng.uniform(-0.3, 0.3, (n, 3)))


def crystal(seed=1):
    rng = np.random.default_rng(seed)
    cell = np.array([[4.2, 0.3, 0.0], [0.0, 4.0, 0.4], [0.2, 0.0, 4.4]])
    basis = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return System([6, 8, 7, 6], (basis + rng.uniform(-0.05, 0.05, (4, 3))) @ cell, cell, [True] * 3)


def moved(system, positions, cell=None):
    return System(system.numbers, positions, system.cell if cell is None else cell, system.pbc)


def said(of, *systems):
    """Energies, forces and stress (or None) as arrays."""
    found = predict(of, Batch.of(systems))
    return tuple(
        None if value is None else value.numpy() for value in (found.energy, found.forces, found.stress)
    )


def energy(of, system):
    return float(said(of, system)[0][0])
