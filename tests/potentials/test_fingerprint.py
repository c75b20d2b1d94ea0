"""Identities of calculators: what computes differently has another one, and nothing else has."""

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as AseLennardJones

from sfumato.models.pair import PAIRS
from sfumato.potentials.fingerprint import fingerprint
from sfumato.potentials.potential import as_calculator
from tests.potentials.test_potentials import Spring


class Model:
    """A wrapper of the kind packages write: settings in attributes, weights one level down."""

    def __init__(self, weights, cutoff=5.0, options=None):
        self.net, self.cutoff, self.options = weights, cutoff, options or {"b": 1, "a": (1, 2)}


def test_fingerprints_tell_apart_what_computes_differently_and_nothing_else():
    weights = np.arange(3.0)
    base = fingerprint(Model(weights))
    assert fingerprint(Model(weights.copy(), options={"a": (1, 2), "b": 1})) == base
    others = [
        Model(weights + 1e-16 + np.array([0, 0, 1e-12])),
        Model(weights.astype(np.float32)),
        Model(weights.reshape(3, 1)),
        Model(weights, cutoff=5),
        Model(weights, cutoff=5.1),
        Model(weights, options={"a": (2, 1), "b": 1}),
        Model(weights, options={"a": [1, 2], "b": 1}),
        Model(weights, options={"a": np.sin}),
        Model(weights, options={"a": np.cos}),
        Spring(2.0),
        Spring(2.5),
        EMT(),
        AseLennardJones(sigma=1.0),
        AseLennardJones(sigma=1.1),
        as_calculator(PAIRS["lj"]),
        as_calculator(PAIRS["morse"]),
    ]
    assert len({base, *map(fingerprint, others)}) == len(others) + 1


def test_fingerprints_do_not_depend_on_results_and_survive_cycles():
    calculator = EMT()
    before = fingerprint(calculator)
    calculator.results, calculator.atoms = {"energy": 1.0}, Atoms("H")
    assert fingerprint(calculator) == before
    model = Model(np.zeros(1))
    model.options = {"self": model, "all": [model]}
    assert fingerprint(model) == fingerprint(model)


def test_fingerprints_see_weights_of_every_type_and_settings_of_submodules():
    import torch

    def build(value=0.0, dtype=torch.float32, slope=0.1):
        net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.LeakyReLU(slope), torch.nn.BatchNorm1d(1))
        with torch.no_grad():
            for weight in net.parameters():
                weight.fill_(value)
        return Model([net.to(dtype)])

    kinds = [build(), build(1.0), build(dtype=torch.bfloat16), build(slope=0.2)]
    kinds.append(build())
    kinds[-1].net[0][2].num_batches_tracked += 1  # a tensor without dimensions
    assert len({fingerprint(kind) for kind in kinds}) == len(kinds)
    assert fingerprint(build()) == fingerprint(kinds[0])
    evaluated = build()
    evaluated.net[0].eval()
    assert fingerprint(evaluated) == fingerprint(kinds[0])
