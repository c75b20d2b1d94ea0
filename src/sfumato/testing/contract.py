"""The contract: one table of checks, and the function that runs a potential through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfumato.potentials.adopted import adopted
from sfumato.testing import derivatives, invariance, robustness, smoothness
from sfumato.testing.bench import Bench, Settings
from sfumato.testing.result import ContractReport, Measured, NotApplicableError, Result, Status

if TYPE_CHECKING:
    from sfumato.potentials.potential import Potential

_SYMMETRY = (
    "equal but for rounding: 1e-10 eV and eV/Å in double precision, 1e-4 in single, since sums are taken in "
    "another order; plus ten times the potential's own noise"
)
_RELATIVE = (
    "1e-6 of the size of what is compared, which differences of a function of 16 digits resolve; plus ten "
    "times the potential's noise divided by the step"
)
_JUMPS = (
    "1e-10 eV, 1e-8 eV/Å, 1e-5 eV/Å²: what rounding leaves of a continuous function of each order; plus ten "
    "times the potential's noise as the stencil amplifies it. What fades with the stencil is no jump. "
    "In double precision where the potential offers it, since noise hides jumps"
)


@dataclass(frozen=True)
class Check:
    """A row of the contract.

    Args:
        name: short.
        meaning: one line.
        run: yields measured values for a potential on its bench.
        reason: why the tolerance is what it is.
        required: whether a failure breaks the contract; otherwise it is reported.
        double: run in double precision where the potential offers it.
    """

    name: str
    meaning: str
    run: Callable[[Bench], Iterable[Measured]]
    reason: str
    required: bool = True
    double: bool = False


CHECKS: tuple[Check, ...] = (
    Check(
        "accepted",
        "no structure is refused that belongs to the potential",
        robustness.accepted,
        "none: what is refused is not checked; molecules and clusters belong together, crystals and slabs to "
        "a potential whose `periodic` is true or that is asked for them",
    ),
    Check(
        "noise",
        "energies and forces carry little numerical noise, as little as claimed",
        robustness.noise,
        "1e-4 eV per atom and 1e-3 eV/Å: more heats a simulation and hides defects; 1e-9 for a potential "
        "whose `dtype` says float64",
    ),
    Check(
        "precisions",
        "float32 and float64 agree, and the noise shrinks",
        robustness.precisions,
        "agreement 1e-4 plus ten times the noise in float32; noise falls at least 1000-fold, as only "
        "rounding does: a defect stays",
    ),
    Check(
        "repeatable",
        "the same input gives the same output, whatever came before",
        invariance.repeatable,
        "1e-10 in double precision, 1e-4 in single: sums in parallel may be taken in another order",
    ),
    Check("permutation", "the order of atoms does not matter", invariance.permutation, _SYMMETRY),
    Check("translation", "the place in space does not matter", invariance.translation, _SYMMETRY),
    Check("wrap", "the choice of images and of cell vectors does not matter", invariance.wrap, _SYMMETRY),
    Check(
        "supercell", "n cells have n times the energy and the same forces", invariance.supercell, _SYMMETRY
    ),
    Check(
        "isolated",
        "an atom alone is fine, and what is far apart adds up",
        invariance.isolated,
        "1e-8, since multipoles of real atoms still interact by 1e-10 eV at 1000 Å; 1e-4 in single "
        "precision; plus ten times the noise",
    ),
    Check("batching", "a structure does not feel others in its batch", invariance.batching, _SYMMETRY),
    Check(
        "net force",
        "forces add up to zero: momentum is conserved",
        invariance.net_force,
        "as for symmetries, times the square root of the number of atoms summed over",
    ),
    Check("force", "F = −dE/dr", derivatives.force, _RELATIVE),
    Check("stress", "V σ = dE/dε, and σ is symmetric", derivatives.stress, _RELATIVE),
    Check(
        "closed loop",
        "the force does no work on a closed path",
        derivatives.closed_loop,
        "what an error of 1e-6 of the typical force does that changes over 0.1 Å; plus ten times the noise",
    ),
    Check("jacobian", "∂F/∂x is symmetric: the force has no curl", derivatives.jacobian, _RELATIVE),
    Check(
        "neighbor swap",
        "no jump where two neighbors exchange their order",
        smoothness.neighbor_swap,
        _JUMPS,
        double=True,
    ),
    Check(
        "cutoff",
        "no jump where a pair or a third atom is pulled apart",
        smoothness.cutoff,
        _JUMPS,
        double=True,
    ),
    Check(
        "third atom",
        "no jump where one atom changes the ranks of others",
        smoothness.third_atom,
        _JUMPS,
        double=True,
    ),
    Check("rotation", "the direction in space does not matter", invariance.rotation, _SYMMETRY, False),
    Check(
        "torque",
        "torques add up to zero: angular momentum is conserved",
        invariance.torque,
        "as for symmetries, times the extent of the structure",
        False,
    ),
    Check(
        "short range",
        "compressed pairs repel, ever harder",
        robustness.short_range,
        "no exception among 30 points: a hole in the wall traps atoms for good",
        False,
    ),
    Check(
        "bad input",
        "input without meaning is refused",
        robustness.bad_input,
        "none may pass in silence: a finite number from nonsense is found too late",
        False,
    ),
    Check("input untouched", "the arrays handed in stay as they are", invariance.untouched, "not one bit"),
)
"""The contract in the order in which it is run: later checks use what earlier ones found."""


@dataclass(frozen=True)
class Progress:
    """How far a contract is: checks done and in all, the one at work, structures evaluated so far."""

    done: int
    total: int
    check: str
    evaluations: int


def check(
    potential: Potential,
    *,
    settings: Settings | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> ContractReport:
    """Run a potential through the contract.

    Every check is run, whatever the others find. One that raises has failed, with what it raised; one that
    makes no sense for the potential is not applicable, with the reason.

    Args:
        potential: any potential; what it can do is what its `abilities` say.
        settings: by default those of `Settings`.
        watch: called before each check, and at the end.

    Returns:
        All results; `passed` if no required check failed. About 800 structures are evaluated, half of them
        of two or three atoms.

    Raises:
        ValueError: the potential can evaluate none of the test structures.
    """
    settings = settings or Settings()
    start = time.perf_counter()
    potential = adopted(potential)
    bench = Bench(potential, settings)
    results = []
    for k, row in enumerate(CHECKS):
        watch(Progress(k, len(CHECKS), row.name, bench.counted))
        results.append(_run(row, bench))
    watch(Progress(len(CHECKS), len(CHECKS), "", bench.counted))
    return ContractReport(
        potential=potential.name,
        identity=potential.identity,
        results=tuple(results),
        evaluations=bench.counted,
        seconds=time.perf_counter() - start,
        settings=settings.model_dump(mode="json"),
    )


def _run(row: Check, bench: Bench) -> Result:
    found: list[Measured] = []
    reason = ""
    try:
        found.extend(row.run(bench.double if row.double else bench))
    except NotApplicableError as error:
        if not found:
            return _result(row, "not applicable", str(error))
    except Exception as error:  # noqa: BLE001 (whatever a potential raises is a finding)
        reason = f"raised {type(error).__name__}: {error}"
    if reason or not found:
        return _result(row, "failed", reason or "nothing was measured")
    worst = max(found, key=lambda m: (not m.passed, m.excess))
    status: Status = "passed" if worst.passed else "failed"
    return Result(
        row.name,
        row.meaning,
        row.required,
        status,
        worst.value,
        worst.tolerance,
        worst.unit,
        row.reason,
        worst.where,
    )


def _result(row: Check, status: Status, where: str) -> Result:
    fixed = (row.name, row.meaning, row.required)
    return Result(*fixed, status, math.nan, math.nan, "", row.reason, where)
