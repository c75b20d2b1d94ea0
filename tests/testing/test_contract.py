"""The contract: what is sound passes, and every defect fails the check that is there for it, and no other."""

import functools

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones as AseLennardJones

from sfumato.models.pair import PAIRS, LennardJones, Morse, PairPotential
from sfumato.potentials.ase import from_ase
from sfumato.potentials.specs import load
from sfumato.systems import Prediction
from sfumato.testing import CHECKS, ContractReport, Settings, check
from sfumato.testing.bench import Bench
from sfumato.testing.contract import QUICK as QUICKLY_LEFT_OUT
from sfumato.testing.contract import Contract
from sfumato.testing.robustness import precisions
from sfumato.testing.smoothness import cutoff
from tests import broken_potentials as broken
from tests.broken_potentials import Changed, add_energy

QUICK, COARSE = Settings(quick=True), Settings(points=21)

CAPPED = {"neighbor swap", "third atom", "all pairs", "coordination", "random paths", "angle"}
"""What a cap of neighbors may break: wherever the order of neighbors changes."""


def failed(report, required=True):
    return {r.name for r in report.results if r.status == "failed" and r.required == required}


@functools.cache
def checked(name):
    return check(PAIRS[name])


# --- what is sound


@pytest.mark.parametrize("name", ["lj", "morse"])
def test_smooth_pair_potentials_pass_everything_that_applies(name):
    report = checked(name)
    assert report.passed, report
    assert {r.name for r in report.results if r.status != "passed"} == {"precisions", "charge felt"}
    assert report["noise"].measured < 1e-9
    assert "double precision" in report["noise"].where
    assert report["force"].measured < 1e-9


def test_the_seed_does_not_decide():
    assert check(PAIRS["lj"], settings=Settings(seed=1, points=31)).passed
    assert failed(check(PAIRS["lj-hard-cutoff"], settings=Settings(seed=1, quick=True))) == {"cutoff"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("model", ["lj", "morse", "stiff", "mindscaip-nano", "gfn2-xtb"])
def test_what_is_smooth_keeps_the_contract_whatever_the_seed(model, seed):
    if model == "gfn2-xtb":
        pytest.importorskip("tblite")
    stiff = PairPotential("stiff", Morse(depth=20.0, steepness=6.0))
    potential = stiff if model == "stiff" else load(model)
    report = check(potential, settings=Settings(seed=seed, periodic=False if model == "gfn2-xtb" else None))
    assert report.passed, report


def test_single_precision_is_told_from_its_noise_and_passes():
    report = check(Changed(broken.single), settings=COARSE)
    assert report.passed, report
    assert "single precision" in report["noise"].where
    assert report["translation"].tolerance >= 1e-4


def test_forces_inexact_as_from_a_self_consistent_field_pass_within_what_their_energy_shows():
    report = check(broken.Iterative(), settings=COARSE)
    assert report.passed, report
    assert report["force"].measured > 1e-9  # a sound one is below 1e-11
    assert report["cutoff"].tolerance > 1e-9


@pytest.mark.slow
def test_an_ase_calculator_passes():
    assert check(from_ase(EMT(), "emt"), settings=QUICK).passed


@pytest.mark.slow
def test_tight_binding_passes():
    pytest.importorskip("tblite")
    from sfumato.potentials.engines import TBLite

    report = check(TBLite(), settings=Settings(periodic=False))
    assert report.passed, report
    assert not failed(report, required=False)
    assert 1e-9 < report["force"].measured < 1e-6


# --- the named controls


def test_a_hard_cutoff_fails_the_cutoff_and_nothing_else():
    report = checked("lj-hard-cutoff")
    assert failed(report) == {"cutoff"}
    assert "2.5 Å: jump of the energy" in report["cutoff"].where
    r0 = 2 * 0.76  # two carbon atoms
    assert report["cutoff"].measured == pytest.approx(2 * (r0 / 2.5) ** 6 - (r0 / 2.5) ** 12, rel=1e-6)


def test_a_neighbor_cap_fails_the_swap_and_the_third_atom_and_names_the_neighbors():
    report = checked("lj-neighbor-cap")
    assert {"neighbor swap", "third atom"} <= failed(report) <= CAPPED
    assert report["neighbor swap"].where.startswith("neighbors 3 and 4 of ")


def test_a_force_that_is_no_gradient_fails_where_forces_are_judged():
    report = checked("lj-direct-noise")
    assert failed(report) == {"net force", "force", "closed loop", "jacobian"}
    assert failed(report, required=False) == {"torque"}


@pytest.mark.parametrize("at", [2.0, 3.3, 4.6, 7.7])
def test_a_hard_cutoff_is_found_wherever_it_is(at):
    hard = PairPotential("hard", LennardJones(), cutoff=at, switch_from=None)
    report = check(hard, settings=QUICK)
    assert failed(report) == {"cutoff"}
    assert f"at {at:g} Å" in report["cutoff"].where


@pytest.mark.parametrize("count", [2, 8, 20])
def test_a_cap_of_any_number_of_neighbors_is_found(count):
    cap = PairPotential("cap", LennardJones(), cutoff=8.0, switch_from=6.0, neighbors=count)
    report = check(cap, settings=Settings(periodic=False, quick=True))
    assert "neighbor swap" in failed(report)
    assert f"neighbors {count} and {count + 1} of" in report["neighbor swap"].where
    assert failed(report) <= CAPPED


def test_a_kink_in_the_force_is_a_jump_of_its_slope():
    report = check(broken.TruncatedForce("kink", LennardJones()))
    assert failed(report) == {"cutoff"}
    assert report["cutoff"].unit == "eV/Å²"
    phi, width = LennardJones()(np.array([4.0]), np.array([6]), np.array([6]))[0][0], 2.0
    assert "C–C at 4 Å: jump of the slope" in report["cutoff"].where
    assert report["cutoff"].measured == pytest.approx(abs(6 * phi / width**2), rel=1e-3)


def test_a_cut_force_of_another_package_is_found():
    bench = Bench(from_ase(AseLennardJones(sigma=1.3, rc=5.0), "ase-lj"), Settings(periodic=False))
    assert any("at 5 Å: jump of the force" in m.where for m in cutoff(bench) if not m.passed)


class Wraps(AseLennardJones):
    """Puts the atoms it was lent back into their cell."""

    def calculate(self, atoms=None, *args, **more):
        atoms.wrap()
        super().calculate(atoms, *args, **more)


def test_a_calculator_that_moves_the_atoms_it_was_lent_is_found():
    settings = QUICK.model_copy(update={"elements": ("C",)})
    how = {"sigma": 1.3, "rc": 6, "smooth": True}
    assert failed(check(from_ase(Wraps(**how), "wraps"), settings=settings)) == {"input untouched"}
    assert not failed(check(from_ase(AseLennardJones(**how), "lj"), settings=settings))


# --- one defect, one failure


DEFECTS = {
    "order of atoms": (Changed(add_energy(broken.adjacent)), {"permutation"}),
    "place": (Changed(add_energy(broken.place)), {"translation"}),
    "unwrapped atoms": (Changed(add_energy(broken.unwrapped)), {"wrap"}),
    "crystals not extensive": (Changed(broken.square(periodic=True)), {"supercell"}),
    "molecules not additive": (Changed(broken.square(periodic=False)), {"isolated"}),
    "NaN for lone atoms": (Changed(broken.not_a_number), {"isolated"}),
    "mixes a batch": (broken.MixesBatches(), {"batching"}),
    "never the same twice": (Changed(broken.Restless()), {"repeatable"}),
    "changes its input": (Changed(broken.mutates), {"input untouched"}),
    "force too large": (Changed(broken.wrong_factor), {"force"}),
    "a constant pull": (Changed(broken.pulled), {"net force", "force"}),
    "a swirl": (Changed(broken.swirl), {"force", "closed loop", "jacobian"}),
    "says that charge is nothing to it": (Changed(broken.feels_charge), {"charge"}),
    "a step at an angle": (broken.angle_step(150, 0.01), {"angle", "all pairs"}),
    "periodic in three directions": (broken.AlwaysPeriodic(), {"vacuum"}),
    "nothing in line": (Changed(broken.straight_nan), {"in line"}),
    "stress of the wrong sign": (Changed(broken.flipped_stress), {"stress"}),
    "stress not symmetric": (Changed(broken.asymmetric_stress), {"stress"}),
    "no stress though it says so": (Changed(broken.no_stress), {"stress given"}),
    "always the same": (broken.Silent(), {"responds"}),
    "noisier than claimed": (Changed(broken.single, dtype="float64"), {"noise"}),
    "noisy": (Changed(broken.loud), {"noise"}),
    "a capped one refuses clusters": (broken.RefusesClusters(PAIRS["lj-neighbor-cap"]), {"accepted"}),
    "refuses what it says it has": (broken.RefusesPeriodic(periodic=True), {"accepted"}),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_fails_the_check_that_is_there_for_it(defect):
    potential, names = DEFECTS[defect]
    report = check(potential, settings=QUICK if not names & QUICKLY_LEFT_OUT.keys() else COARSE)
    assert failed(report) == names, report
    assert not report.passed


def test_a_result_that_depends_on_what_was_computed_before_is_not_repeatable():
    assert "repeatable" in failed(check(Changed(broken.Remembers()), settings=QUICK))


REPORTED = {
    "sees directions": (broken.Stretched(stress=False), {"rotation", "torque"}),
    "forgives nonsense": (broken.ForgivesNonsense(), {"bad input"}),
    "a hole in the wall": (broken.Hollow(), {"short range"}),
    "ignores charge": (Changed(charge=True), {"charge felt"}),
}


@pytest.mark.parametrize("defect", REPORTED)
def test_what_is_only_reported_does_not_break_the_contract(defect):
    potential, names = REPORTED[defect]
    report = check(potential, settings=QUICK if not names & QUICKLY_LEFT_OUT.keys() else COARSE)
    assert report.passed, report
    assert failed(report, required=False) == names


def test_every_check_of_the_contract_is_broken_by_something_here():
    controls = {"cutoff", "neighbor swap", "third atom", "precisions"}
    controls |= {"all pairs", "coordination", "random paths"}  # tests/testing/test_searches.py
    bitten = controls.union(*(names for _, names in (DEFECTS | REPORTED).values()))
    assert bitten == {row.name for row in CHECKS}


# --- two precisions


def test_rounding_shrinks_in_double_precision():
    coarse = Changed(broken.single)
    sound = Changed(precisions={"float32": coarse, "float64": Changed()})
    assert all(measured.passed for measured in precisions(Bench(sound, COARSE)))


def test_jumps_are_looked_for_in_double_precision_where_it_is_offered():
    """At 7.7 Å truncated Lennard-Jones jumps by 1e-4 eV, less than single precision shows here."""
    cut = PairPotential("hard", LennardJones(), cutoff=7.7, switch_from=None)
    single = Changed(lambda batch, found: broken.loud(batch, cut.compute(batch), 3e-4))
    assert check(single, settings=QUICK)["cutoff"].status == "passed"
    both = Changed(single.change, precisions={"float32": single, "float64": cut})
    report = check(both, settings=QUICK)
    assert "7.7 Å: jump of the energy" in report["cutoff"].where


def test_noise_that_does_not_shrink_is_no_rounding():
    coarse = Changed(broken.single)
    report = check(Changed(precisions={"float32": coarse, "float64": coarse}), settings=COARSE)
    assert failed(report) == {"precisions"}
    assert "noise in float64" in report["precisions"].where


def test_two_precisions_must_agree():
    wrong = Changed(add_energy(lambda batch: 0.01))
    bench = Bench(Changed(precisions={"float32": wrong, "float64": Changed()}), COARSE)
    assert {m.where for m in precisions(bench) if not m.passed} == {"float32 against float64"}


# --- what a potential cannot do


class Refuses(Changed):
    """Knows only some elements, and only molecules, and says so when asked."""

    known = frozenset({1, 6, 7, 8})

    def compute(self, batch):
        if batch.pbc.any():
            raise ValueError("this model has no periodic structures")
        if not set(batch.numbers.tolist()) <= self.known:
            raise KeyError("no such element")
        return super().compute(batch)


PERIODIC = {"wrap", "vacuum", "supercell", "stress", "stress given"}


def not_applicable(report):
    return {r.name: r.where for r in report.results if r.status == "not applicable"}


def test_periodic_checks_do_not_apply_to_a_potential_that_refuses_them():
    found = not_applicable(check(Refuses(), settings=QUICK))
    assert found.keys() == PERIODIC | {"charge felt"}
    assert "this model has no periodic structures" in found["stress"]


def test_a_potential_may_say_that_it_has_no_periodic_structures():
    found = not_applicable(check(Changed(periodic=False), settings=QUICK))
    assert found["wrap"] == "changed says it has no periodic structures"
    asked = not_applicable(check(Changed(), settings=QUICK.model_copy(update={"periodic": False})))
    assert asked["wrap"] == "periodic structures were not asked for"


def test_periodic_structures_that_were_asked_for_may_not_be_refused():
    report = check(Refuses(), settings=QUICK.model_copy(update={"periodic": True}))
    assert failed(report) == {"accepted"}
    assert report["accepted"].where == "crystal: this model has no periodic structures"


class OnlyCrystals(Changed):
    """Takes nothing but crystals."""

    def compute(self, batch):
        if not batch.pbc.all(axis=1).all():
            raise ValueError("this model needs three periodic directions")
        return super().compute(batch)


def test_crystals_alone_are_enough_unless_a_potential_says_that_it_has_none():
    report = check(OnlyCrystals(), settings=QUICK)
    assert report.passed, report
    aside = {"neighbor swap", "cutoff", "all pairs", "angle", "in line", "isolated", "charge"}
    assert aside <= not_applicable(report).keys()
    assert "three periodic directions" in not_applicable(report)["angle"]
    assert "accepted" in failed(check(OnlyCrystals(periodic=False), settings=QUICK))


def test_no_stress_is_not_a_failure():
    report = check(Changed(broken.no_stress, stress=False), settings=QUICK)
    assert report.passed
    assert not_applicable(report)["stress"] == "changed gives no stress"


@pytest.mark.parametrize("known", [{1, 8}, {13}, {29, 47}])
def test_structures_are_made_of_elements_the_potential_knows(known):
    potential = Refuses(elements=frozenset(known))
    potential.known = frozenset(known)
    assert check(potential, settings=QUICK).passed


def test_elements_are_tried_where_the_potential_does_not_say():
    potential = Refuses()
    potential.known = frozenset({29})
    report = check(potential, settings=QUICK)
    assert report.passed
    assert "Cu alone" in report["isolated"].where or report["isolated"].status == "passed"


def test_elements_asked_for_are_used():
    report = check(PAIRS["lj-hard-cutoff"], settings=Settings(elements=("Cl",), quick=True))
    assert "Cl–Cl at 2.5 Å" in report["cutoff"].where or "Cl₂–Cl" in report["cutoff"].where
    with pytest.raises(ValueError, match="did you mean"):
        Settings(elements=("Xy",))


def test_a_potential_that_can_do_nothing_is_an_error():
    potential = Refuses()
    potential.known = frozenset({103})
    with pytest.raises(ValueError, match=r"none of the test structures.*no such element"):
        check(potential)
    with pytest.raises(ValueError, match="none of the test structures"):
        check(PAIRS["lj"], settings=Settings(elements=("Og",)))


def test_what_a_potential_raises_later_is_a_finding():
    class Fragile(Changed):
        def compute(self, batch):
            if len(batch.numbers) == 24:
                raise MemoryError("too large")
            return super().compute(batch)

    report = check(Fragile(), settings=QUICK)
    assert failed(report) == {"supercell"}
    assert report["supercell"].where == "raised MemoryError: too large"


def test_predictions_of_another_size_are_an_error():
    class Short(Changed):
        def compute(self, batch):
            found = super().compute(batch)
            return Prediction(found.energy, found.forces[1:])

    with pytest.raises(ValueError, match="forces for 5 atoms were returned, expected 6"):
        check(Short(periodic=False), settings=Settings(elements=("H", "C", "N", "O")))


# --- the report


def test_the_number_of_evaluations_is_told_and_stays_small():
    calls = []

    class Counts(Changed):
        def compute(self, batch):
            calls.append(len(batch))
            return super().compute(batch)

    progress = []
    report = check(Counts(), settings=QUICK, watch=progress.append)
    assert report.evaluations == sum(calls) <= 330
    assert [p.check for p in progress] == [*(row.name for row in CHECKS), ""]
    assert progress[-1].done == progress[-1].total == len(CHECKS)
    assert progress[-1].evaluations == report.evaluations
    assert progress[0].expected > 100
    assert progress[10].seconds_left > 0
    assert checked("morse").evaluations <= 1900


@pytest.mark.parametrize("name", ["lj-hard-cutoff", "morse"])
def test_every_check_finds_alone_what_it_finds_in_company(name):
    alone = [
        Contract(PAIRS[name], QUICK).result(row) for row in CHECKS if row.name not in ("input untouched",)
    ]
    together = check(PAIRS[name], settings=QUICK).results
    assert str(alone) == str([result for result in together if result.name != "input untouched"])


def test_the_same_potential_gets_the_same_results():
    first, second = (check(PAIRS["lj"], settings=QUICK) for _ in range(2))
    assert isinstance(first, ContractReport)
    assert str(first.results) == str(second.results)
