"""The table of planted faults: each is caught and blamed rightly with every seed, and nothing smooth is."""

import pytest

from tests.faults import TABLE, verdicts


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_the_verdict_names_the_fault_and_nothing_else(name):
    if name == "gfn2-xtb":
        pytest.importorskip("tblite")
    for seed, verdict, why in verdicts(name, range(5)):
        assert verdict == TABLE[name].blamed, f"seed {seed}: {why}"


def test_the_table_holds_twelve_faults_and_more():
    assert sum(row.blamed != "none" for row in TABLE.values()) >= 12


def test_stale_neighbors_are_caught_though_no_neighbor_comes_or_goes_at_the_temperature_of_the_run():
    ((_, verdict, why),) = verdicts("stale neighbor list", [0])
    assert verdict == "neighbors", why
