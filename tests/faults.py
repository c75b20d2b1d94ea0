"""Planted faults, who catches each, whom the verdict blames: `python -m tests.faults [--seeds 5] [ROW …]`.

Each fault is planted into a smooth potential and looked for with the protocol whose business it is, once for
each seed; smooth potentials must raise no alarm anywhere.
"""

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from sfumato.models.pair import PAIRS
from sfumato.potentials.specs import ModelSpec
from sfumato.protocols.nve import NVE
from sfumato.protocols.probes import Probes
from sfumato.protocols.probes.settings import SIZES
from sfumato.protocols.run import run
from sfumato.testing import Settings
from sfumato.testing.contract import CHECKS, Contract
from tests.planted import FAULTS
from tests.protocols.probes import small

QUICK = {"size": "dev", "time": 0.4, "repeat": 80}


@dataclass(frozen=True)
class Row:
    """A fault.

    Args:
        potential: with it, or the name of a smooth one.
        blamed: what the verdict must be.
        look: of the potential and a seed → the verdict, and the number behind it.
    """

    potential: object
    blamed: str
    look: object


def dynamics(potential, seed, data="Cu", **more):
    """Whom `run nve` blames."""
    with TemporaryDirectory() as folder:
        done = run(NVE(), [potential], data, settings=QUICK | more | {"seed": seed}, out=folder)
    (model,) = done.models.values()
    culprit, _, reason = model.blame
    if not model.done:
        (one, *_) = model.structures.values()
        return ("excluded" if "smaller than twice the reach" in one.reason else one.status), one.reason
    return culprit, reason


def stress(potential, seed):
    """Whether the contract finds the stress to be a derivative of the energy."""
    contract = Contract(potential, Settings(seed=seed), [], None)
    result = contract.result(next(check for check in CHECKS if check.name == "stress"))
    verdict = {"passed": "none", "failed": "stress"}.get(str(result.status), str(result.status))
    return verdict, f"off by {result.measured:.3g} {result.unit} in {result.where}"


def probes(potential, seed):
    """Which questions `run probes` answers with no."""
    with TemporaryDirectory() as folder, patch.dict(SIZES, {"dev": small.TINY}):
        data = small.two_molecules(Path(folder) / "two.xyz")
        asked = {"size": "dev", "seed": seed, "elements": "H,C,N,O"}
        done = run(Probes(), [potential], str(data), settings=asked, out=Path(folder) / "run")
    (name,) = done.models
    answers = done.protocol.answers(done, name)
    bad = [a for a in answers if a.answer == "no"]
    return (bad[0].question if bad else "none"), "; ".join(a.fault for a in bad) or "no fault"


TABLE = {
    "hard cutoff": Row(FAULTS["hard cutoff"], "surface", dynamics),
    "hard neighbor cap": Row(FAULTS["hard neighbor cap"], "surface", dynamics),
    "direct force with noise": Row(FAULTS["direct force with noise"], "forces", dynamics),
    "virial of the wrong sign": Row(FAULTS["virial of the wrong sign"], "stress", stress),
    "missing periodic image": Row(FAULTS["missing periodic image"], "excluded", dynamics),
    "stale neighbor list": Row(FAULTS["stale neighbor list"], "neighbors", dynamics),
    "positions wrapped": Row(FAULTS["positions wrapped, pairs kept"], "neighbors", dynamics),
    "float32 sums": Row(FAULTS["float32 sums"], "precision", dynamics),
    "step too long": Row(PAIRS["lj"], "integrator", partial(dynamics, timestep=30.0)),
    "kink of the energy": Row(FAULTS["kink of the energy"], "surface", dynamics),
    "kink of the force": Row(FAULTS["kink of the force"], "surface", dynamics),
    "step of 1e-5 eV": Row(FAULTS["step of 1e-5 eV"], "surface", dynamics),
    "hole at 0.5 Å": Row(small.FAULTS["hole at 0.5 Å"], "holes", probes),
    "force off by 1 %": Row(FAULTS["force off by 1 %"], "forces", dynamics),
    "lj": Row("lj", "none", partial(dynamics, data="Cu,W")),
    # Where its crystals are compressed it is too stiff for the 5 fs of metals, and the verdict says so.
    "morse": Row("morse", "none", partial(dynamics, data="Cu,W", timestep=2.0)),
    "gfn2-xtb": Row("gfn2-xtb", "none", partial(dynamics, data="ethanol")),
    "mindscaip-nano": Row("mindscaip-nano", "none", partial(dynamics, data="ethanol,malonaldehyde")),
    "lj, probed": Row("lj", "none", probes),
    "morse, probed": Row("morse", "none", probes),
}


def verdicts(name, seeds):
    """Yield (seed, verdict, the number behind it) of a row."""
    row = TABLE[name]
    potential = row.potential
    if isinstance(potential, str):
        potential = PAIRS.get(potential) or ModelSpec(potential, "", "").resolve()
    for seed in seeds:
        yield seed, *row.look(potential, seed)


def main(arguments=None):
    """Print the table; exit with 1 if a fault is missed, blamed wrongly, or seen where there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=[], help=f"of: {', '.join(TABLE)}")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args(arguments)
    wrong = 0
    for name in asked.rows or TABLE:
        right, last = 0, ""
        for seed, verdict, why in verdicts(name, range(asked.seeds)):
            right += verdict == TABLE[name].blamed
            last = why
            if verdict != TABLE[name].blamed:
                print(f"  {name}, seed {seed}: {verdict}: {why}")
        wrong += right < asked.seeds
        print(f"{name:26s} {TABLE[name].blamed:10s} {right}/{asked.seeds}  {last[:90]}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
