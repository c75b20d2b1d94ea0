"""Broken and smooth potentials that nobody thought of: drawn at random, to see how many are caught."""

from collections import Counter

import numpy as np
import pytest

from sfumato.potentials.adopted import adopted
from sfumato.testing import CHECKS, Settings
from sfumato.testing.contract import Contract
from tests.random_potentials import BROKEN, SMOOTH

EACH_BROKEN, EACH_SMOOTH = 13, 40
"""Of every kind: 299 broken and 160 smooth potentials."""

MISSED = 0.02
"""Of the broken ones, the part that may slip through."""

SEARCHES = ("cutoff", "all pairs", "angle", "coordination", "random paths", "third atom", "neighbor swap")
"""Checks that find most of what is drawn here, made first to save time."""


def first_broken(potential, seed):
    """Return the first required check that fails, or nothing."""
    contract = Contract(adopted(potential), Settings(seed=seed))
    rows = sorted(CHECKS, key=lambda row: row.name not in SEARCHES)
    return next((row.name for row in rows if contract.result(row).breaks), "")


def rates(kinds, count):
    """Draw potentials of all kinds; return by kind how many break the contract, and each one's outcome."""
    broken, outcomes = Counter(), []
    for number, make in enumerate(kinds):
        for k in range(count):
            potential, what = make(np.random.default_rng([number, k]))
            check = first_broken(potential, seed=k)
            broken[make.__name__] += bool(check)
            outcomes.append((make.__name__, what, check))
    return broken, outcomes


def printed(title, broken, count, kinds):
    total = count * len(kinds)
    print(f"\n{title}: {sum(broken.values())} of {total}")
    print("  " + ", ".join(f"{kind.__name__} {broken[kind.__name__]}/{count}" for kind in kinds))


@pytest.mark.slow
def test_what_is_broken_at_random_is_caught(capsys):
    broken, outcomes = rates(BROKEN, EACH_BROKEN)
    with capsys.disabled():
        printed("broken potentials caught", broken, EACH_BROKEN, BROKEN)
    missed = [(kind, what) for kind, what, check in outcomes if not check]
    assert len(missed) <= MISSED * len(outcomes), missed


@pytest.mark.slow
def test_nothing_smooth_is_called_broken(capsys):
    broken, outcomes = rates(SMOOTH, EACH_SMOOTH)
    with capsys.disabled():
        printed("false alarms on smooth potentials", broken, EACH_SMOOTH, SMOOTH)
    assert [outcome for outcome in outcomes if outcome[2]] == []


def test_what_is_drawn_does_not_repeat():
    for kinds in (BROKEN, SMOOTH):
        names = [make(np.random.default_rng([0, k]))[1] for make in kinds for k in range(3)]
        assert len(set(names)) > 0.9 * len(kinds)
