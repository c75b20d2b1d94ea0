"""Who is to blame, from made-up trajectories: each fault, and none."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sfumato.dynamics.observe import POINTS
from sfumato.protocols.nve.blame import CULPRITS, Blame, Track, blame, overall

HALF = POINTS // 2


def work(timestep, steps):
    """eV per step along a bond of period 20 fs, anharmonic."""
    t = timestep * np.arange(steps)
    return 0.05 * timestep * (np.sin(0.31 * t) + 0.3 * np.sin(0.63 * t + 1))


def track(timestep, steps, fault=None, error=1e-2, **facts):
    """A trajectory whose energy errs as velocity Verlet does, with what a fault adds to each interval."""
    w = work(timestep, steps)
    smooth = 1e-5 * (timestep / 1.0) ** 8 * np.sin(0.9 * np.arange(steps))
    r = smooth + (fault(timestep, w) if fault else 0.0)
    potential = np.concatenate([[0.0], np.cumsum(r - w)])
    unexplained = np.full(steps + 1, np.nan)
    sums = np.cumsum(r[HALF - 1 : steps - HALF + 1])
    unexplained[POINTS - 1 :] = sums
    kinetic = (
        1.0
        + np.concatenate([[0.0], np.cumsum(w)])
        + error * timestep**2 * np.cos(0.31 * timestep * np.arange(steps + 1))
    )
    shadow = potential + kinetic - error * timestep**2 * np.cos(0.31 * timestep * np.arange(steps + 1))
    total = potential + kinetic
    return Track(
        timestep=timestep,
        time=1e-3 * timestep * np.arange(steps + 1),
        potential=potential,
        kinetic=kinetic,
        shadow=np.concatenate([[np.nan, np.nan], shadow[2:]]),
        unexplained=unexplained,
        jumps=np.concatenate([[np.nan], np.abs(np.diff(total))]),
        atoms=9,
        **facts,
    )


def tracks(fault=None, double=False, kept=0.0, zoomed="spread", **base):
    """The runs of one structure; `zoomed` is what a closer look says of the worst interval."""
    runs = {
        "base": track(1.0, 1000, fault, **base),
        "half": track(0.5, 400, fault),
        "quarter": track(0.25, 400, fault, zoomed=zoomed),
        "kept": track(1.0, 100, fault, kept=kept),
    }
    if double:
        clean = double == "clean"
        runs["double"] = track(0.25, 200, None if clean else fault, zoomed="spread" if clean else zoomed)
    return runs


def rng():
    return np.random.default_rng(5)


def jumps(height, rate=0.05):
    """Steps of the energy: as many in a time, whatever the step."""

    def fault(timestep, w):
        places = rng().random(len(w)) < rate * timestep
        return height * places * rng().choice([-1.0, 1.0], size=len(w))

    return fault


def noise(size):
    return lambda timestep, w: np.diff(size * rng().normal(size=len(w) + 1))


def wrong(part):
    return lambda timestep, w: part * w


def test_a_smooth_surface_is_not_blamed():
    assert blame(tracks()).culprit == "none"
    assert blame(tracks(double="clean")).culprit == "none"


@pytest.mark.parametrize("height", [1e-5, 1e-3, 0.1, 3.0])
@pytest.mark.parametrize("double", [False, True])
def test_jumps_are_the_surface(height, double):
    found = blame(tracks(jumps(height), double=double, zoomed="jump"))
    assert found.culprit == "surface"
    assert "the energy jumps by up to" in found.reason


def test_jumps_so_many_that_they_grow_like_a_wrong_force_are_the_surface():
    both = jumps(0.02)
    runs = tracks(lambda timestep, w: both(timestep, w) + 3 * w, zoomed="jump")
    assert runs["quarter"].residuals.growth > 1.4
    assert blame(runs).culprit == "surface"


def test_a_force_that_is_off_by_a_hundredth():
    found = blame(tracks(wrong(0.01)))
    assert found.culprit == "forces"
    assert found.numbers["mismatch"] == pytest.approx(0.01, rel=0.1)


def test_noise_is_precision_where_it_is_large():
    assert blame(tracks(noise(1e-3), zoomed="noise")).culprit == "precision"
    found = blame(tracks(noise(1e-3), double="clean", zoomed="noise"))
    assert found.culprit == "precision"
    assert "gone in double precision" in found.reason


def test_the_noise_of_single_precision_is_not_blamed():
    assert blame(tracks(noise(2e-6), zoomed="noise")).culprit == "none"
    assert blame(tracks(noise(2e-6), double="clean", zoomed="noise")).culprit == "none"


def test_noise_that_stays_in_double_precision_is_not_the_precision():
    assert blame(tracks(noise(1e-3), double=True, zoomed="noise")).culprit == "surface"


def test_neighbors_come_first():
    found = blame(tracks(jumps(0.1), kept=1e-3, zoomed="jump"))
    assert found.culprit == "neighbors"
    assert blame(tracks(kept=1e-9)).culprit == "none"
    assert blame(tracks(kept=math.inf)).culprit == "neighbors"


def test_wrong_neighbors_are_not_excused_by_the_noise_that_they_make():
    runs = tracks(noise(3.0), zoomed="gone")
    runs["kept"] = track(1.0, 100, kept=98.0)  # fresh neighbors are quiet
    assert blame(runs).culprit == "neighbors"


def test_a_step_that_is_too_long_says_so():
    left = {"left": "the kinetic temperature ran away: 9,000 K", "kind": "exploded", "left_at": 0.05}
    found = blame(tracks(**left))
    assert found.culprit == "integrator"
    assert "the step of 1 fs is too long: the kinetic temperature ran away" in found.reason
    assert blame(tracks(error=0.3)).culprit == "integrator"


def trended(shape):
    """A smooth surface whose shadow energy follows a shape of the time, from 0 to 1, in eV."""
    runs = tracks()
    base = runs["base"]
    return runs | {"base": replace(base, shadow=base.shadow + shape(base.time / base.time[-1]))}


def test_a_drift_is_the_integrator_and_a_shift_at_the_beginning_is_none():
    assert blame(trended(lambda t: 1e-2 * t)).culprit == "integrator"
    shift = trended(lambda t: 1e-2 * np.minimum(t, 0.5) + 1e-5 * np.sin(40 * t))
    assert shift["base"].slopes.mean() > 0.05
    assert blame(shift).culprit == "none"


def test_who_explodes_at_every_step_is_not_saved_by_a_shorter_one():
    runs = tracks()
    late = {"left": "ran away", "kind": "exploded"}
    runs = {name: replace(one, **late, left_at=0.08) for name, one in runs.items()}
    assert blame(runs).culprit == "surface"


def test_an_explosion_that_a_shorter_step_delays_is_the_integrator():
    runs = tracks(jumps(1.0))
    for name, at in (("base", 0.01), ("half", 0.03)):
        runs[name] = replace(runs[name], left="ran away", kind="exploded", left_at=at)
    assert blame(runs).culprit == "integrator"


def test_the_most_frequent_culprit_is_that_of_the_model():
    none, surface, forces = (Blame(what, "") for what in ("none", "surface", "forces"))
    assert overall({"a": none, "b": none}) == ("none", [])
    assert overall({"a": none, "b": forces}) == ("forces", ["b"])
    assert overall({"a": surface, "b": forces}) == ("surface", ["a"])
    assert overall({"a": surface, "b": forces, "c": forces}) == ("forces", ["b", "c"])
    assert overall({}) == ("none", [])
    assert set(CULPRITS) == {"none", "surface", "forces", "integrator", "neighbors", "precision"}
