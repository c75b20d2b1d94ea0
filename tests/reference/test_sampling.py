"""Sampling: vibrations of known springs, equipartition, rigid motions, and what is dropped or split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from ase.data import atomic_masses
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfumato.potentials.engines import Label
from sfumato.reference import sampling as s
from sfumato.systems import Floats, System
from sfumato.units import AMU_A2_PER_FS2, KELVIN

STIFFNESS = 30.0


@dataclass(frozen=True, eq=False)
class Springs:
    """Pair springs of one stiffness: E = Σ k (r − r₀)² / 2 over the pairs of a reference structure."""

    rest: System
    stiffness: float = STIFFNESS
    works: bool = True
    level: str = "springs"
    identity: str = "springs"

    def label(self, system: System, guess: Any = None) -> Label:
        i, j = np.triu_indices(len(system), 1)
        vectors = system.positions[j] - system.positions[i]
        length = np.linalg.norm(vectors, axis=1)
        stretch = length - np.linalg.norm(self.rest.positions[j] - self.rest.positions[i], axis=1)
        pull = (self.stiffness * stretch / length)[:, None] * vectors
        forces = np.zeros_like(system.positions)
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        energy = float(self.stiffness * (stretch**2).sum() / 2)
        return Label(energy, forces, self.works, None, 0.0, "springs", "" if self.works else "it broke")

    def self_test(self) -> bool:
        return False


@dataclass(frozen=True, eq=False)
class Quadratic:
    """E = xᵀ K x / 2 about a reference structure: its Hessian is K."""

    rest: System
    K: Floats
    level: str = "quadratic"
    identity: str = "quadratic"

    def label(self, system: System, guess: Any = None) -> Label:
        x = (system.positions - self.rest.positions).ravel()
        return Label(float(x @ self.K @ x / 2), -(self.K @ x).reshape(-1, 3), True, None, 0.0, "quadratic")

    def self_test(self) -> bool:
        return False


def tetrahedron() -> System:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    return System([6, 8, 1, 7], 0.6 * corners + np.array([0, 0.1, 0.3]))


def diatomic(length: float = 1.2) -> System:
    return System([6, 8], [[0, 0, 0], [0.6 * length, 0, 0.8 * length]])


def crystal(n: int = 2) -> System:
    cell = 3.0 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return s.supercell(System([11, 17], [[0, 0, 0], [3.0, 3, 3]], cell, [True] * 3), (n, n, n))


def random_symmetric(n: int, rng: np.random.Generator) -> Floats:
    a = rng.normal(size=(n, n))
    return a + a.T


# --- minima and second derivatives ---------------------------------------------------------------


def test_a_stretched_spring_relaxes_to_its_length() -> None:
    found = s.relax(diatomic(1.5), Springs(diatomic(1.2)), force=1e-6)
    assert s.pair_distances(found) == pytest.approx(1.2, abs=1e-6)
    assert found.charge == 0


def test_a_relaxation_that_does_not_end_or_cannot_be_labeled_says_so() -> None:
    with pytest.raises(s.SamplingError, match=r"not relaxed after 1 steps: a force of .* eV/Å is left"):
        s.relax(diatomic(1.5), Springs(diatomic()), steps=1)
    with pytest.raises(s.SamplingError, match="springs did not converge: it broke"):
        s.relax(diatomic(1.5), Springs(diatomic(), works=False))
    with pytest.raises(s.SamplingError, match="it broke"):
        s.hessian(diatomic(), Springs(diatomic(), works=False))


def test_the_hessian_of_a_quadratic_form_is_its_matrix() -> None:
    rest = tetrahedron()
    K = random_symmetric(12, np.random.default_rng(0))
    np.testing.assert_allclose(s.hessian(rest, Quadratic(rest, K)), K, atol=1e-10)


def test_the_hessian_of_springs_at_rest_is_that_of_their_directions() -> None:
    rest = tetrahedron()
    expected = np.zeros((4, 3, 4, 3))
    for i in range(4):
        for j in range(i):
            r = rest.positions[i] - rest.positions[j]
            block = STIFFNESS * np.outer(r, r) / (r @ r)
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                expected[a, :, b] += sign * block
    found = s.hessian(rest, Springs(rest), step=1e-3)
    np.testing.assert_allclose(found, expected.reshape(12, 12), atol=1e-4)  # anharmonic: falls as step²


# --- vibrations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "rigid"),
    [
        (System([6], [[1, 2, 3]]), 3),
        (diatomic(), 5),
        (System([8, 6, 8], [[-1.16, 0, 0.001], [0, 0, 0], [1.16, 0, 0.001]]), 5),
        (System([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]]), 6),
        (System([1, 7, 7, 7], [[-0.5, 0.85, 0], [0, 0, 0], [1.24, 0, 0], [2.37, 0.2, 0]]), 6),
        (tetrahedron(), 6),
        (crystal(1), 3),
    ],
)
def test_rigid_motions_cost_nothing_and_are_taken_out_exactly(system: System, rigid: int) -> None:
    motions = s.rigid_motions(system)
    assert len(motions) == rigid
    np.testing.assert_allclose(motions @ motions.T, np.eye(rigid), atol=1e-12)
    rng = np.random.default_rng(1)
    found = s.modes(system, random_symmetric(3 * len(system), rng))
    assert len(found.omega2) == 3 * len(system) - rigid
    flat = found.vectors.reshape(len(found.omega2), 3 * len(system))
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-12)
    np.testing.assert_allclose(flat @ motions.T, 0, atol=1e-12)
    assert (np.diff(found.omega2) >= 0).all()


def test_a_turn_is_a_rigid_motion_of_a_molecule() -> None:
    system = tetrahedron()
    turned = system.positions @ Rotation.from_rotvec([1e-4, -2e-4, 1e-4]).as_matrix()
    shift = (np.sqrt(atomic_masses[system.numbers])[:, None] * (turned - system.positions)).ravel()
    motions = s.rigid_motions(system)
    np.testing.assert_allclose(motions.T @ (motions @ shift), shift, atol=1e-6)


def test_a_diatomic_vibrates_with_k_over_the_reduced_mass() -> None:
    system = diatomic()
    m1, m2 = atomic_masses[system.numbers]
    found = s.modes(system, s.hessian(system, Springs(system), step=1e-4))
    assert found.omega2 == pytest.approx([STIFFNESS * (m1 + m2) / (m1 * m2)], rel=1e-6)
    period = 2 * np.pi * np.sqrt(m1 * m2 / (m1 + m2) * AMU_A2_PER_FS2 / STIFFNESS)
    assert 1 / found.wavenumbers == pytest.approx([2.99792458e-5 * period], rel=1e-6)


def test_water_vibrates_as_published() -> None:
    pytest.importorskip("tblite")
    from sfumato.potentials.engines import WATER, TBLite

    engine = TBLite("GFN2-xTB")
    minimum = s.relax(WATER, engine)
    found = s.modes(minimum, s.hessian(minimum, engine)).wavenumbers
    # xtb's documentation prints 1539.30, 3643.51 and 3651.90 cm⁻¹ for GFN2-xTB.
    np.testing.assert_allclose(found, [1539.30, 3643.51, 3651.90], atol=2.0)


# --- thermal displacements -----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [100.0, 1000.0])
def test_every_mode_holds_half_kt(temperature: float) -> None:
    rest = tetrahedron()
    rng = np.random.default_rng(2)
    K = s.hessian(rest, Springs(rest), step=1e-4)
    found = s.modes(rest, K)
    samples = 4000
    shifts = np.stack(
        [
            (s.thermal(rest, found, temperature, rng).positions - rest.positions).ravel()
            for _ in range(samples)
        ]
    )
    energy = np.einsum("si,ij,sj->s", shifts, K, shifts) / 2
    expected = 0.5 * KELVIN * temperature * len(found.omega2)
    error = KELVIN * temperature * np.sqrt(len(found.omega2) / 2 / samples)  # of the mean of a χ² variable
    assert energy.mean() == pytest.approx(expected, abs=5 * error)
    mass = atomic_masses[rest.numbers]
    np.testing.assert_allclose(shifts.reshape(-1, 4, 3).transpose(0, 2, 1) @ mass, 0, atol=1e-10)


def test_the_stretch_of_a_diatomic_scatters_by_kt_over_k() -> None:
    system = diatomic()
    found = s.modes(system, s.hessian(system, Springs(system), step=1e-4))
    rng = np.random.default_rng(3)
    lengths = np.array([s.pair_distances(s.thermal(system, found, 300.0, rng))[0] for _ in range(4000)])
    variance = KELVIN * 300 / STIFFNESS
    assert lengths.mean() == pytest.approx(1.2, abs=5 * np.sqrt(variance / 4000))
    assert lengths.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / 4000))


@pytest.mark.parametrize("omega2", [-3.0, 0.0, 1e-6])
def test_soft_and_unstable_modes_are_displaced_as_if_stiff(omega2: float) -> None:
    system = diatomic()
    vectors = s.modes(system, np.eye(6)).vectors
    soft = s.Modes(np.array([omega2]), vectors)
    stiff = s.Modes((s.SOFTEST / soft_wavenumber()) ** 2 * np.ones(1), vectors)
    one = s.thermal(system, soft, 300.0, np.random.default_rng(4))
    other = s.thermal(system, stiff, 300.0, np.random.default_rng(4))
    np.testing.assert_allclose(one.positions, other.positions, rtol=1e-12)


def soft_wavenumber() -> float:
    """The wavenumber of 1 eV/(amu Å²)."""
    return float(s.Modes(np.ones(1), np.zeros((1, 1, 3))).wavenumbers[0])


def test_one_ev_per_amu_and_square_angstrom_is_521_wavenumbers() -> None:
    assert soft_wavenumber() == pytest.approx(521.4709, abs=1e-3)  # ASE: units.invcm, units._hbar


# --- dynamics ------------------------------------------------------------------------------------


def test_without_heat_and_friction_a_stretched_spring_swings_through() -> None:
    rest, start = diatomic(1.2), diatomic(1.25)
    m1, m2 = atomic_masses[rest.numbers]
    half = np.pi * np.sqrt(m1 * m2 / (m1 + m2) * AMU_A2_PER_FS2 / STIFFNESS)
    steps = s.Dynamics(timestep=half / 200, friction=0.0, interval=200)
    found = s.dynamics(start, Springs(rest), 0.0, 2, np.random.default_rng(0), steps)
    assert [float(s.pair_distances(x)[0]) for x in found] == pytest.approx([1.15, 1.25], abs=1e-4)
    np.testing.assert_allclose(found[1].positions.mean(axis=0), start.positions.mean(axis=0), atol=1e-12)


def test_the_thermostat_heats_a_cold_cluster_to_its_temperature() -> None:
    rest = tetrahedron()
    rng = np.random.default_rng(5)
    steps = s.Dynamics(timestep=0.5, friction=0.1, interval=15)
    found = s.dynamics(rest, Springs(rest), 300.0, 110, rng, steps)
    energy = np.mean([Springs(rest).label(x).energy for x in found[10:]])
    expected = 0.5 * KELVIN * 300 * 6  # 100 snapshots of 6 modes, 7.5 fs apart, count as about 40
    assert energy == pytest.approx(expected, rel=5 * np.sqrt(2 / 6 / 40))


def test_the_generator_decides_the_dynamics() -> None:
    rest = tetrahedron()
    steps = s.Dynamics(interval=3)
    one, again, other = (
        s.dynamics(rest, Springs(rest), 300.0, 1, np.random.default_rng(seed), steps)[0].positions
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


# --- stretched bonds and crystals ----------------------------------------------------------------


def test_a_drawn_bond_length_lies_in_the_span_and_the_fragments_stay_rigid() -> None:
    ethane = System(
        [6, 6, 1, 1, 1, 1, 1, 1],
        [[0, 0, 0], [0, 0, 1.53]]
        + [[1.02 * np.cos(a), 1.02 * np.sin(a), -0.39] for a in (0, 2.1, 4.2)]
        + [[1.02 * np.cos(a), 1.02 * np.sin(a), 1.92] for a in (1, 3.1, 5.2)],
    )
    bonds = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 5], [1, 6], [1, 7]])
    rng = np.random.default_rng(6)
    lengths = []
    for _ in range(50):
        found = s.stretched(ethane, bonds, (0.7, 2.0), rng)
        assert found is not None
        lengths.append(np.linalg.norm(found.positions[1] - found.positions[0]))
        for part in ([0, 2, 3, 4], [1, 5, 6, 7]):
            before = System(ethane.numbers[part], ethane.positions[part])
            after = System(found.numbers[part], found.positions[part])
            np.testing.assert_allclose(s.pair_distances(after), s.pair_distances(before), atol=1e-12)
    assert 0.7 * 1.52 <= min(lengths) < 1.2
    assert 2.7 < max(lengths) <= 2.0 * 1.52
    assert s.stretched(diatomic(), np.array([[0, 1]]), (0.7, 2.0), rng) is None


def test_a_supercell_is_the_same_crystal() -> None:
    one, eight = crystal(1), crystal(2)
    assert len(eight) == 16
    assert abs(np.linalg.det(eight.cell)) == pytest.approx(8 * abs(np.linalg.det(one.cell)))
    assert s.pair_distances(eight).min() == pytest.approx(s.pair_distances(one).min())
    with pytest.raises(ValueError, match="repeats do not fit"):
        s.supercell(tetrahedron(), (2, 1, 1))
    with pytest.raises(ValueError, match="repeats do not fit"):
        s.supercell(one, (0, 1, 1))


def test_a_strain_moves_atoms_with_the_cell_and_turns_nothing() -> None:
    before = crystal(1)
    after = s.strained(before, 0.05, np.random.default_rng(7))
    np.testing.assert_allclose(
        np.linalg.solve(after.cell.T, after.positions.T),
        np.linalg.solve(before.cell.T, before.positions.T),
        atol=1e-12,
    )
    deformation = np.linalg.solve(before.cell, after.cell)
    np.testing.assert_allclose(deformation, deformation.T, atol=1e-12)
    assert 0.001 < np.abs(deformation - np.eye(3)).max() < 0.25
    assert s.distinct([before, after]).tolist() == [True, True]


def test_a_one_atom_cell_under_strain_is_another_structure() -> None:
    before = System([29], [[0, 0, 0]], 2.5 * np.eye(3), [True] * 3)
    after = s.strained(before, 0.05, np.random.default_rng(7))
    assert s.distinct([before, after, before]).tolist() == [True, True, False]


# --- what is dropped -----------------------------------------------------------------------------


def test_atoms_closer_than_the_factor_clash_also_across_a_cell_wall() -> None:
    carbons = System([6, 6], [[0, 0, 0], [0, 0, 1.0]])  # radii sum 1.52 Å
    assert not s.clashing(carbons, 0.65)
    assert s.clashing(carbons, 0.66)
    wall = System([6, 6], [[0, 0, 0.1], [0, 0, 8.0]], 8.5 * np.eye(3), [False, False, True])
    assert s.clashing(wall)
    assert not s.clashing(replace(wall, pbc=[False] * 3))
    assert not s.clashing(System([6], [[0, 0, 0]]))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_a_turned_shifted_or_mirrored_copy_is_no_new_structure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    system = System([6, 7, 8, 1, 1], rng.normal(scale=2.0, size=(5, 3)))
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix() * rng.choice([-1, 1])
    copy = replace(system, positions=system.positions @ turn.T + rng.normal(size=3))
    far = replace(system, positions=system.positions + np.eye(5)[0][:, None] * [0.3, 0.3, 0.3])
    near = replace(system, positions=system.positions + 1e-3 * rng.normal(size=(5, 3)))
    assert s.distinct([system, copy, far, near]).tolist() == [True, False, True, False]


def test_the_threshold_is_the_root_mean_square_of_distances() -> None:
    two = [System([6, 6], [[0, 0, 0], [0, 0, z]]) for z in (1.5, 1.5 + 0.0101, 1.5 + 0.0099)]
    assert s.distinct(two).tolist() == [True, True, False]
    assert s.distinct(two, threshold=0.02).tolist() == [True, False, False]


# --- split ---------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.text(), st.integers(0, 99))
def test_the_split_depends_on_molecule_and_seed_alone(name: str, seed: int) -> None:
    fractions = (0.8, 0.1, 0.1)
    assert s.split_of(name, fractions, seed) == s.split_of(name, fractions, seed)
    for k, only in enumerate(("train", "val", "test")):
        assert s.split_of(name, tuple(np.eye(3)[k]), seed) == only
    if s.split_of(name, fractions, seed) == "train":  # a larger share keeps what it had
        assert s.split_of(name, (0.9, 0.05, 0.05), seed) == "train"


def test_the_shares_are_those_asked_for_and_another_seed_divides_anew() -> None:
    names = [f"molecule {k}" for k in range(5000)]
    one, other = ([s.split_of(name, (0.8, 0.1, 0.1), seed) for name in names] for seed in (0, 1))
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert one.count(split) / 5000 == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 5000))
    assert np.mean([a != b for a, b in zip(one, other, strict=True)]) == pytest.approx(0.34, abs=0.04)


@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.2), (1.1, -0.1, 0.0)])
def test_fractions_that_are_none_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="fractions must be positive and sum to 1"):
        s.split_of("x", fractions)
