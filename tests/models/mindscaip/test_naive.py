"""The model against the same written down slowly, and the weights it starts from."""

import math

import pytest
import torch

from sfumato.graph.settings import GraphSettings
from sfumato.models.families import preset
from sfumato.models.harmonics import gaussians, smearing
from sfumato.models.mindscaip.config import PRESETS
from sfumato.models.mindscaip.initial import ROUGHEST, radial_weights
from sfumato.models.mindscaip.network import MinDScAIP
from tests import naive_mindscaip
from tests.tiny_models import crystal, energy, model, molecule

GRAPH = GraphSettings(k=3, cutoff=3.0)
SMALL = {"width": 8, "heads": 2, "layers": 2, "radial": 8, "graph": GRAPH}
VARIANTS = [
    {"directional": "angular_bias"},
    {"directional": "harmonics"},
    {"attention_factor": 2, "gated": True, "node_ffn": False, "layer_readout": False, "temperature": 5.0},
    {"attention_factor": 2, "node_ffn": False, "directional": "angular_bias"},
    {"graph": GraphSettings(k=3, cutoff=3.0, mode="out"), "directional": "angular_bias"},
    {"graph": GraphSettings(k=3, cutoff=3.0, mode="out", rank_offset=0.5)},
]


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("method", ["blocked", "plain"])
def test_the_energy_is_what_the_equations_say(changes, method):
    """Observed 4e-15 eV."""
    of = model(**(SMALL | changes))
    of.method = method
    of.scale.fill_(0.7)
    of.reference[6] = -3.5
    for system in (molecule(5), crystal()):
        assert energy(of, system) == pytest.approx(naive_mindscaip.energy(of, system), abs=1e-12)


@pytest.mark.parametrize("scale", [1.0, 5.0, 10.0])
def test_distances_start_with_unit_variance_and_no_rougher_than_promised(scale):
    config = preset("small", smearing=scale)
    weights = radial_weights(config, torch.Generator().manual_seed(0))
    centers, width, height = smearing(config.radial, config.graph.cutoff, scale)
    d = torch.linspace(1, 5, 400, dtype=torch.float64)
    values = gaussians(d, centers, width, height) @ weights.T
    assert values.std() == pytest.approx(1.0, abs=0.1)
    # A random sum of Gaussians of width w has slope 1/(√2 w) for unit variance.
    slope = (values.diff(dim=0) / (d[1] - d[0])).std()
    assert slope == pytest.approx(1 / (math.sqrt(2) * max(width, ROUGHEST)), rel=0.25)


def test_maps_that_end_a_block_start_small():
    started = MinDScAIP(preset("nano", layers=4))
    block = started.layers[0].leaving
    weights = {name: weight.detach() for name, weight in block.attention.named_parameters()}
    bound = 1 / math.sqrt(PRESETS["nano"].width)
    assert float(weights["qkv.weight"].abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(weights["out.weight"].abs().max()) == pytest.approx(bound / 4, rel=0.01)
    assert float(weights["angles"].std()) == pytest.approx(0.5, rel=0.5)
