"""The contract: one table of checks, and the function that runs a potential through it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sfumato.potentials.adopted import adopted
from sfumato.systems import System
from sfumato.testing import derivatives, invariance, offpath, robustness, smoothness
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
    "times the potential's noise as the stencil amplifies it. What fades with the stencil is not a jump. "
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
        "responds",
        "energies and forces depend on where the atoms are",
        robustness.responds,
        "ten times the potential's own noise: what never changes passes every comparison",
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
    Check("vacuum", "a slab does not feel the vacuum beside it", invariance.vacuum, _SYMMETRY),
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
    Check(
        "charge",
        "what says that it does not feel charge does not",
        invariance.charge,
        "as for symmetries; to refuse a charged molecule is as good",
    ),
    Check("force", "F = −dE/dr", derivatives.force, _RELATIVE),
    Check("stress", "V σ = dE/dε, and σ is symmetric", derivatives.stress, _RELATIVE),
    Check(
        "stress given",
        "what says that it gives a stress does",
        derivatives.stress_given,
        "none may be missing: dynamics at constant pressure would end on the way",
    ),
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
    Check(
        "all pairs",
        "no jump where any two elements are at any distance",
        offpath.all_pairs,
        _JUMPS,
        double=True,
    ),
    Check(
        "angle",
        "no jump where an angle opens, a torsion turns, or a bond lies on an axis",
        offpath.angle,
        _JUMPS,
        double=True,
    ),
    Check(
        "coordination",
        "no jump where a fifth neighbor comes",
        offpath.coordination,
        _JUMPS,
        double=True,
    ),
    Check(
        "random paths",
        "no jump where all atoms move, at random or as in dynamics",
        offpath.random_paths,
        _JUMPS,
        double=True,
    ),
    Check(
        "in line",
        "atoms exactly in line are the limit of those nearly so",
        offpath.in_line,
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
        "no exception among 20 points: a hole in the wall traps atoms for good",
        False,
    ),
    Check(
        "bad input",
        "input without meaning is refused",
        robustness.bad_input,
        "none may pass in silence: a finite number from nonsense is found too late",
        False,
    ),
    Check(
        "charge felt",
        "what says that it feels charge does",
        invariance.charge_felt,
        "none may be ignored; an ASE calculator cannot say, so this is reported",
        False,
    ),
    Check("input untouched", "the arrays handed in stay as they are", invariance.untouched, "not one bit"),
)
"""The contract in the order in which it is run: later checks use what earlier ones found."""


QUICK = {
    "precisions": "left out by quick",
    "closed loop": "left out by quick; force is checked",
    "jacobian": "left out by quick; force is checked",
    "third atom": "left out by quick; neighbor swap is checked",
    "coordination": "left out by quick; all pairs is checked",
    "random paths": "left out by quick; all pairs is checked",
    "short range": "left out by quick",
}
"""Checks that `Settings.quick` leaves out → why that is bearable."""

OWN = Check(
    "own structures",
    "your structures: force, net force, no jump around them",
    offpath.own_structures,
    "as for force, net force and jumps",
)
"""The row that is added for structures of the user."""

COST = {"noise": 60, "cutoff": 250, "random paths": 300, "angle": 260, "all pairs": 90, "stress": 60}
"""Structures that a check evaluates, where that is far from `COST_OTHERS`."""

COST_OTHERS, COST_QUICK, COST_OWN = 20, 0.25, 110
"""Structures of other checks; part of all that is left with `quick`; for each structure of the user."""


class OutOfTimeError(Exception):
    """The time for the contract is up."""


@dataclass(frozen=True)
class Progress:
    """How far a contract is.

    Args:
        done: checks made.
        total: checks in all.
        check: the one at work.
        evaluations: structures evaluated so far.
        seconds: since the start.
        expected: structures in all, roughly.
    """

    done: int
    total: int
    check: str
    evaluations: int
    seconds: float = 0.0
    expected: int = 0

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the evaluations so far; None before there are enough."""
        if self.evaluations < 5:
            return None
        return max(0, self.expected - self.evaluations) * self.seconds / self.evaluations


def rows(settings: Settings, own: int) -> list[Check]:
    """Return the checks for a number of the user's structures, those left out by the settings included."""
    return [*CHECKS[:-1], *([OWN] if own else []), CHECKS[-1]]


def expected_cost(names: Iterable[str], settings: Settings, own: int) -> int:
    """Return about how many structures some checks evaluate."""
    costs = (own * COST_OWN if n == OWN.name else COST.get(n, COST_OTHERS) for n in names)
    return int(sum(costs) * (COST_QUICK if settings.quick else 1))


def check(
    potential: Potential,
    *,
    settings: Settings | None = None,
    structures: Sequence[System] = (),
    budget: float | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> ContractReport:
    """Run a potential through the contract.

    Every check is run, whatever the others find. One that raises has failed, with what it raised; one that
    makes no sense for the potential is not applicable, with the reason.

    Args:
        potential: any potential; what it can do is what its `abilities` say.
        settings: by default those of `Settings`.
        structures: of the user, to be checked too; of more than `Settings.own` evenly spaced ones are taken.
        budget: seconds; checks that are not done by then are `not checked`.
        watch: called before each check, and at the end.

    Returns:
        All results; `passed` if no required check failed. 1,200 to 1,900 structures are evaluated, most of
        them of two to eight atoms; with `quick` about 320.

    Raises:
        ValueError: the potential can evaluate none of the test structures.
    """
    settings = settings or Settings()
    run = Contract(adopted(potential), settings, sample(structures, settings), budget)
    table = rows(settings, len(structures))
    expected = expected_cost((row.name for row in table), settings, len(run.own))
    results = []
    for k, row in enumerate(table):
        watch(Progress(k, len(table), row.name, run.evaluations, run.seconds, expected))
        results.append(run.result(row))
    watch(Progress(len(table), len(table), "", run.evaluations, run.seconds, expected))
    return run.report(results)


def sample(structures: Sequence[System], settings: Settings) -> list[tuple[int, System]]:
    """Return as many structures as the settings want, evenly spaced, with their numbers from 1."""
    most = min(len(structures), max(1, settings.own // 3) if settings.quick else settings.own)
    places = np.linspace(0, len(structures) - 1, most).round().astype(int).tolist()
    return [(k + 1, structures[k]) for k in dict.fromkeys(places)]


class Contract:
    """One potential on its way through the contract.

    Args:
        potential: any.
        settings: what is checked.
        own: structures of the user, by number.
        budget: seconds from now; None: no limit.
        beat: called with the number of structures evaluated so far, before each evaluation.

    Raises:
        ValueError: the potential can evaluate none of the test structures.
    """

    def __init__(
        self,
        potential: Potential,
        settings: Settings,
        own: Sequence[tuple[int, System]] = (),
        budget: float | None = None,
        beat: Callable[[int], None] = lambda evaluations: None,
    ) -> None:
        self.start, self.budget, self.beat, self.own = time.perf_counter(), budget, beat, own
        self.handed = 0
        self.bench = Bench(potential, settings, own, self._guard)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.start

    @property
    def evaluations(self) -> int:
        """Structures evaluated so far."""
        return self.handed

    def _guard(self, count: int) -> None:
        if self.budget is not None and self.seconds > self.budget and hasattr(self, "bench"):
            raise OutOfTimeError("the time was up")
        self.handed += count
        self.beat(self.handed)

    def result(self, row: Check) -> Result:
        """Make one check; see `check`."""
        if self.bench.settings.quick and row.name in QUICK:
            return nothing(row, "left out", QUICK[row.name])
        found: list[Measured] = []
        reason = ""
        try:
            found.extend(row.run(self.bench.double if row.double else self.bench))
        except OutOfTimeError as error:
            return nothing(row, "not checked", str(error))
        except NotApplicableError as error:
            if not found:
                return nothing(row, "not applicable", str(error))
        except Exception as error:  # noqa: BLE001 (whatever a potential raises is a finding)
            reason = f"raised {type(error).__name__}: {error}"
        if reason or not found:
            return nothing(row, "failed", reason or "nothing was measured")
        worst = max(found, key=lambda m: (not m.passed, m.excess))
        status: Status = "passed" if worst.passed else "failed"
        fixed = (row.name, row.meaning, row.required, status)
        return Result(*fixed, worst.value, worst.tolerance, worst.unit, row.reason, worst.where)

    def report(self, results: Sequence[Result]) -> ContractReport:
        """Return all results together."""
        potential = self.bench.potential
        return ContractReport(
            potential=potential.name,
            identity=potential.identity,
            results=tuple(results),
            evaluations=self.evaluations,
            seconds=self.seconds,
            settings=self.bench.settings.model_dump(mode="json"),
        )


def nothing(row: Check, status: Status, where: str) -> Result:
    """Return the result of a check without a number."""
    fixed = (row.name, row.meaning, row.required)
    return Result(*fixed, status, math.nan, math.nan, "", row.reason, where)
