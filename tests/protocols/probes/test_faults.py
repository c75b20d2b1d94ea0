"""Planted faults are caught and blamed rightly, and nothing smooth is called broken."""

import numpy as np
import pytest

from sfumato.models.pair import Morse, PairPotential
from sfumato.protocols.probes import Probes
from sfumato.protocols.run import run
from tests.protocols.probes.small import FAULTS, tiny, two_molecules

SEEDS = range(5)
STIFF = PairPotential("stiff", Morse(depth=20.0, steepness=6.0))


def probed(potential, folder, seed=0, **settings):
    asked = {"size": "dev", "seed": seed, "elements": "H,C,N,O"} | settings
    data = two_molecules(folder / "two.xyz")
    return run(Probes(), [potential], str(data), settings=asked, out=folder / "run")


def answers(done):
    (name,) = done.models
    return {a.question: a.answer for a in done.protocol.answers(done, name)}


def causes(result):
    return {(cause.kind, cause.rank or round(cause.distance, 3)) for cause, _ in result.jumps.causes()}


EXPECTED = {
    "hard cutoff": ("continuous", lambda m: causes(m) == {("cutoff", 2.5)} and m.jumps.found[0].order == 0),
    "hard neighbor cap": ("continuous", lambda m: causes(m) == {("rank", 3)}),
    "C1 kink": (
        "continuous",
        lambda m: ("cutoff", 2.6) in causes(m) and {f.order for f in m.jumps.found} == {2},
    ),
    "step of 1e-5 eV": (
        "continuous",
        lambda m: (
            ("cutoff", 3.3) in causes(m)
            and m.jumps.found[0].order == 0
            and m.jumps.found[0].size == pytest.approx(1e-5, rel=0.01)
        ),
    ),
    "hole at 0.5 Å": ("holes", lambda m: m.pairs.holes[0].hole.place == pytest.approx(0.5, abs=0.05)),
    "force off by 1 %": (
        "gradient",
        lambda m: m.forces.blame == "factor" and m.forces.factor == pytest.approx(1.01, abs=1e-6),
    ),
    "direct noise": (
        "gradient",
        lambda m: m.forces.blame == "not a gradient" and m.forces.worst("asymmetry") is not None,
    ),
    "wrong component": (
        "gradient",
        lambda m: m.forces.blame == "component" and m.forces.wrong_components == ["z of C"],
    ),
}


def each(fault):
    """Two faults are quick; the jobs of the probes are tested on the others."""
    quick = fault in ("hard neighbor cap", "wrong component")
    return fault if quick else pytest.param(fault, marks=pytest.mark.slow)


@pytest.mark.parametrize("fault", [each(fault) for fault in FAULTS])
def test_a_planted_fault_is_caught_and_blamed(fault, tmp_path, monkeypatch):
    tiny(monkeypatch)
    done = probed(FAULTS[fault], tmp_path)
    (result,) = done.models.values()
    question, right = EXPECTED[fault]
    assert done.complete
    found = answers(done)
    assert found.pop(question) == "no"
    assert set(found.values()) == {"yes"}
    assert right(result)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_with_every_seed(fault, seed, tmp_path):
    done = probed(FAULTS[fault], tmp_path, seed)
    (result,) = done.models.values()
    question, right = EXPECTED[fault]
    found = answers(done)
    assert found.pop(question) == "no"
    assert set(found.values()) == {"yes"}
    assert right(result)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["lj", "morse", "stiff", "mindscaip-nano", "gfn2-xtb"])
def test_nothing_smooth_is_called_broken_with_any_seed(name, seed, tmp_path):
    if name == "gfn2-xtb":
        pytest.importorskip("tblite")
    done = probed(STIFF if name == "stiff" else name, tmp_path, seed)
    (result,) = done.models.values()
    found = answers(done)
    assert found["continuous"] == found["gradient"] == "yes", result.jumps.as_json()["causes"]
    assert found["holes"] == "yes" or name == "mindscaip-nano"
    assert np.isfinite(result.jumps.floor).all()
