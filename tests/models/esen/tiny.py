"""Small eSEN models with lively energies."""

import torch

from sfumato.graph.settings import GraphSettings
from sfumato.models.esen.config import ESENConfig, radius_graph
from sfumato.models.esen.network import ESEN

SOFT = {"envelope": "graph", "graph": GraphSettings(k=5, cutoff=4.0)}


def config(**changes):
    settings = {"width": 8, "hidden": 8, "edge_width": 8, "radial": 6, "graph": radius_graph(4.0)}
    return ESENConfig(**(settings | changes))


def model(dtype=torch.float64, seed=0, **changes):
    """A model whose energy depends strongly on the geometry, as after training."""
    made = ESEN(config(**changes), torch.Generator().manual_seed(seed), dtype)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "edgewise.second" in name or "nodewise.down" in name:
                weight.mul_(3.0)
    return made
