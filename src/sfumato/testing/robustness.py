"""Checks of precision, of the repulsive wall, and of what happens with input that makes no sense."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from sfumato.metrics.noise import MARGIN
from sfumato.systems import Batch, System
from sfumato.testing import structures
from sfumato.testing.bench import DOUBLE_NOISE, SYMMETRY, Bench
from sfumato.testing.result import Measured, NotApplicableError

NOISE_LIMITS = (1e-4, 1e-3)
"""eV per atom and eV/Å: noisier forces heat a simulation and hide every other defect."""

SHRINKS = 1e-3
"""Of the noise in single precision, what may be left in double; rounding itself shrinks 2e-9-fold."""

COMPRESSED = np.linspace(0.30, 0.03, 20)
"""Å, distances of the compression scan."""

MOVED = 0.1
"""Å, by which atoms are moved to see whether anything changes."""

FLAT_CELL = np.array([[3.0, 0, 0], [0, 3.0, 0], [3.0, 3.0, 0]])
"""Å: three vectors in one plane."""


def accepted(bench: Bench) -> Iterator[Measured]:
    """Every structure that the potential must take is evaluated, in both precisions where it has two."""
    for each in dict.fromkeys((bench, bench.double)):
        for kind in ("molecule", "cluster", "crystal", "slab"):
            try:
                each.structure(kind)
            except NotApplicableError as error:
                if each.must_take(kind):
                    yield Measured(1, 0, "refused", str(error))
            else:
                yield Measured(0, 0, "refused", kind)


def responds(bench: Bench) -> Iterator[Measured]:
    """Energies and forces change when atoms move: what never changes would pass every other check."""
    names = []
    for kind, base in bench.available("molecule", "cluster", "crystal").items():
        rng = bench.rng(f"responds {kind}")
        here = bench.point(base)
        there = bench.point(
            structures.moved(base, base.positions + rng.uniform(-MOVED, MOVED, base.positions.shape))
        )
        energy, force = bench.noise(base)
        change = float(np.abs(there.forces - here.forces).max())
        if abs(there.energy - here.energy) > MARGIN * energy or change > MARGIN * force:
            yield Measured(0, 0, "silent", kind)
            return
        names.append(kind)
    yield Measured(
        1, 0, "silent", f"{', '.join(names)}: the same energy and forces after atoms moved by {MOVED:g} Å"
    )


def noise(bench: Bench) -> Iterator[Measured]:
    """Numerical noise of energies and forces, and whether it fits the precision the potential claims."""
    claims = bench.claims
    claimed = claims == "float64"
    for kind, base in bench.available("molecule", "crystal").items():
        floor = bench.floor(base)
        where = f"{kind}; works in {bench.precision} precision" + (f", claims {claims}" if claims else "")
        limits = (DOUBLE_NOISE, DOUBLE_NOISE) if claimed else NOISE_LIMITS
        yield Measured(floor.energy / len(base), limits[0], "eV/atom", where)
        yield Measured(floor.force, limits[1], "eV/Å", where)


def precisions(bench: Bench) -> Iterator[Measured]:
    """Run in float32 and float64: the same numbers, and only rounding shrinks.

    Uses `Potential.to(dtype=…)` of a potential that offers both.
    """
    if len(bench.potential.abilities.dtypes) < 2:
        raise NotApplicableError(f"{bench.potential.name} offers one precision only")
    potential = bench.potential.to(dtype="float32")
    single, double = Bench(potential, bench.settings, guard=bench.guard), bench.double
    base = bench.reference
    coarse, fine = single.floor(base), double.floor(base)
    low, high = single.point(base), double.point(base)
    same = SYMMETRY["single"]
    agree = "float32 against float64"
    yield Measured(abs(low.energy - high.energy), same + MARGIN * coarse.energy, "eV", agree)
    difference = float(np.abs(low.forces - high.forces).max())
    yield Measured(difference, same + MARGIN * coarse.force, "eV/Å", agree)
    left = "noise in float64"
    yield Measured(fine.energy, max(SHRINKS * coarse.energy, 1e-3 * DOUBLE_NOISE), "eV", left)
    yield Measured(fine.force, max(SHRINKS * coarse.force, 1e-3 * DOUBLE_NOISE), "eV/Å", left)


def short_range(bench: Bench) -> Iterator[Measured]:
    """Pairs compressed from 0.30 to 0.03 Å: energy and repulsion rise all the way, repulsive at the end.

    Source: Geng, Burger, Bernales & Aspuru-Guzik 2026, "Attracting Trouble?", the compression scan.
    """
    from ase.data import chemical_symbols

    bench.require_molecules()
    for z in dict.fromkeys(bench.elements[:2]):
        path = [structures.system([z, z], np.array([[0, 0, 0], [r, 0, 0]])) for r in COMPRESSED]
        points = bench.points(path)
        push = [p.forces[1, 0] for p in points]
        falls = sum(not b.energy > a.energy for a, b in pairwise(points))
        weaker = sum(not b > a for a, b in pairwise(push))
        name = f"{chemical_symbols[z]}–{chemical_symbols[z]}"
        yield Measured(falls, 0, "points", f"{name}, energy does not rise")
        yield Measured(weaker, 0, "points", f"{name}, repulsion does not rise")
        yield Measured(int(not push[-1] > 0), 0, "points", f"{name}, attractive at {COMPRESSED[-1]:g} Å")


def bad_input(bench: Bench) -> Iterator[Measured]:
    """Input without meaning raises an error or gives NaN, never a finite energy."""
    base = bench.reference
    nan = base.positions.copy()
    nan[-1, 0] = np.nan
    on_top = base.positions.copy()
    on_top[-1] = on_top[0]
    cases = {
        "NaN position": _batch(base, positions=nan),
        "two atoms at one place": _batch(base, positions=on_top),
        "unknown element 118": _batch(base, numbers=np.full(len(base), 118)),
    }
    try:
        crystal = bench.structure("crystal")
        cases["cell without volume"] = _batch(crystal, cell=FLAT_CELL[None])
    except NotApplicableError:
        pass
    for name, batch in cases.items():
        try:
            with np.errstate(all="ignore"):
                found = bench.predict(batch)
        except Exception:  # noqa: BLE001 (any error is an answer)
            yield Measured(0, 0, "silent", f"{name}: an error")
            continue
        finite = bool(np.isfinite(found.energy).all() and np.isfinite(found.forces).all())
        energy = f"energy {found.energy[0]:.4g} eV"
        yield Measured(int(finite), 0, "silent", f"{name}: {energy if finite else 'not finite'}")


def _batch(base: System, **changed: np.ndarray) -> Batch:
    """Return one structure as a batch, with arrays that a `System` would refuse."""
    batch = Batch.of([base])
    arrays = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    return Batch(**(arrays | changed))
