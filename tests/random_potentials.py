"""Broken and smooth potentials that nobody thought of one by one: drawn at random from many kinds."""

import numpy as np
import torch

from sfumato.models.pair import LennardJones, Morse, PairPotential
from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, Prediction
from tests import broken_potentials as broken
from tests.broken_potentials import Changed, add_energy

ELEMENTS = (1, 6, 7, 8)


def _log(rng, low, high):
    """A number between powers of ten, of either sign."""
    return float(rng.choice([-1, 1]) * 10 ** rng.uniform(low, high))


def _distances(batch):
    vectors = batch.positions[:, None] - batch.positions[None]
    return vectors, np.linalg.norm(vectors, axis=-1) + 1e9 * np.eye(len(vectors))


def _molecules(change):
    """A change that leaves periodic structures as they are."""
    return lambda batch, found: found if batch.pbc.any() else change(batch, found)


# --- steps of the energy that no force shows


def pair_step(rng):
    at, height = rng.uniform(1.7, 7.5), _log(rng, -4, 0)
    elements = None if rng.random() < 0.3 else tuple(int(z) for z in rng.choice(ELEMENTS, 2))
    return broken.pair_step(at, height, elements), f"pair {elements} at {at:.2f} Å by {height:.1e} eV"


def angle_step(rng):
    degrees, height = rng.uniform(65, 172), _log(rng, -4, 0)
    return broken.angle_step(degrees, height), f"angle {degrees:.0f}° by {height:.1e} eV"


def torsion_step(rng):
    """A torsion about a bond of a chain passes a value."""
    degrees, height = rng.uniform(10, 350), _log(rng, -4, 0)

    def amount(batch):
        if batch.pbc.any() or len(batch.numbers) != 4:
            return 0.0
        a, b, c = np.diff(batch.positions, axis=0)
        n1, n2 = np.cross(a, b), np.cross(b, c)
        angle = np.degrees(np.arctan2(np.linalg.norm(b) * (a @ n2), n1 @ n2)) % 360
        return height * (angle > degrees)

    return Changed(add_energy(amount)), f"torsion {degrees:.0f}° by {height:.1e} eV"


def coordination_step(rng):
    count, at, height = int(rng.integers(3, 7)), rng.uniform(1.7, 3.5), _log(rng, -4, 0)
    what = f"{count} neighbors within {at:.2f} Å by {height:.1e} eV"
    return broken.coordination_step(count, at, height), what


def triple_step(rng):
    """Three atoms that are all within a distance of each other."""
    at, height = rng.uniform(1.8, 4.0), _log(rng, -4, 0)

    def amount(batch):
        near = (_distances(batch)[1] < at).astype(float)
        return 0.0 if batch.pbc.any() else height * round(np.trace(near @ near @ near) / 6)

    return Changed(add_energy(amount)), f"triples within {at:.2f} Å by {height:.1e} eV"


def density_step(rng):
    """The density around an atom is clamped: a step where it passes a limit."""
    limit, height = rng.uniform(0.3, 2.5), _log(rng, -4, 0)

    def amount(batch):
        density = np.exp(-_distances(batch)[1] / 0.8).sum(axis=1) * 3
        return 0.0 if batch.pbc.any() else height * (density > limit).sum()

    return Changed(add_energy(amount)), f"density above {limit:.2f} by {height:.1e} eV"


# --- forces and slopes that jump


def _ramp(at, size, power):
    """Every pair closer than a distance adds size · (at − r)^power, with its force."""

    def change(batch, found):
        vectors, r = _distances(batch)
        depth = np.clip(at - r, 0, None)
        pull = power * size * depth ** (power - 1) * (r < at)
        forces = ((pull / r)[:, :, None] * vectors).sum(axis=1)
        energy = size * (depth**power).sum() / 2
        return broken.replace(found, energy=found.energy + energy, forces=found.forces + forces)

    return Changed(_molecules(change))


def force_step(rng):
    at, size = rng.uniform(1.7, 7.5), _log(rng, -3, 0)
    return _ramp(at, size, 1), f"force of pairs at {at:.2f} Å by {size:.1e} eV/Å"


def slope_step(rng):
    at, size = rng.uniform(1.7, 7.5), _log(rng, -1, 1)
    return _ramp(at, size, 2), f"slope of the force of pairs at {at:.2f} Å by {2 * size:.1e} eV/Å²"


def neighbor_dropped(rng):
    """Neighbors of like elements are not felt, beyond a distance."""
    at, element = rng.uniform(1.8, 5.5), int(rng.choice(ELEMENTS))

    def change(batch, found):
        vectors, r = _distances(batch)
        lost = (r > at) & (batch.numbers[:, None] == element) & (batch.numbers[None] == element)
        energy, slope = LennardJones()(np.where(lost, r, 1e6).ravel(), *(2 * [np.full(r.size, element)]))
        pull = (slope.reshape(r.shape) * lost / r)[:, :, None] * vectors
        return broken.replace(
            found,
            energy=found.energy - 0.1 * energy[lost.ravel()].sum() / 2,
            forces=found.forces + 0.1 * pull.sum(axis=1),
        )

    return Changed(_molecules(change)), f"neighbors of {element} dropped beyond {at:.2f} Å"


def capped(rng):
    count, cutoff = int(rng.integers(1, 25)), rng.uniform(4.5, 8.0)
    cap = PairPotential("cap", LennardJones(), cutoff=cutoff, switch_from=0.6 * cutoff, neighbors=count)
    return cap, f"{count} neighbors within {cutoff:.1f} Å"


def cut(rng):
    cutoff = rng.uniform(2.0, 7.8)
    form = LennardJones(10 ** rng.uniform(-1, 1)) if rng.random() < 0.5 else Morse(1.0, rng.uniform(1, 2))
    return PairPotential("cut", form, cutoff=cutoff, switch_from=None), f"{form} cut at {cutoff:.2f} Å"


# --- forces and stresses that are not derivatives


def wrong_sign(rng):
    axis, element = int(rng.integers(3)), int(rng.choice(ELEMENTS))

    def change(batch, found):
        forces = found.forces.copy()
        forces[batch.numbers == element, axis] *= -1
        return broken.replace(found, forces=forces)

    return Changed(change), f"sign of component {axis} of {element}"


def wrong_size(rng):
    element, factor = int(rng.choice(ELEMENTS)), 1 + _log(rng, -4.5, -1)

    def change(batch, found):
        forces = found.forces.copy()
        forces[batch.numbers == element] *= factor
        return broken.replace(found, forces=forces)

    return Changed(change), f"forces on {element} times {factor:.6f}"


def rough_force(rng):
    """A force with a smooth part that is not a gradient: a swirl in every plane of two coordinates."""
    size, a, b = _log(rng, -4, -1), *rng.permutation(3)[:2]

    def change(batch, found):
        forces = found.forces.copy()
        middle = batch.positions.mean(axis=0)
        forces[:, a] += size * np.sin(batch.positions[:, b] - middle[b])
        return broken.replace(found, forces=forces)

    return Changed(_molecules(change)), f"swirl of {size:.1e} eV/Å in {a}{b}"


def wrong_stress(rng):
    a, b = rng.integers(3, size=2)
    what = rng.choice(["sign", "factor", "transposed rows", "left-handed"])
    size = 1 + _log(rng, -4, -1)

    def change(batch, found):
        if found.stress is None:
            return found
        stress = found.stress.copy()
        if what == "sign":
            stress[:, a, b] *= -1
            stress[:, b, a] = stress[:, a, b]
        elif what == "factor":
            stress *= size
        elif what == "left-handed":
            stress *= np.sign(np.linalg.det(batch.cell))[:, None, None]
        else:
            stress = stress[:, [1, 0, 2]]
        return broken.replace(found, stress=stress)

    return Changed(change), f"stress: {what} {a}{b} {size:.5f}"


# --- what should not matter


def feels_place(rng):
    size, axis = _log(rng, -7, -1), int(rng.integers(3))

    def change(batch, found):
        x = batch.positions[:, axis]
        forces = found.forces.copy()
        forces[:, axis] -= size * np.cos(x)
        return broken.replace(found, energy=found.energy + size * np.sin(x).sum(), forces=forces)

    return Changed(_molecules(change)), f"a field of {size:.1e} eV along {axis}"


def feels_order(rng):
    size, step = _log(rng, -7, -1), int(rng.integers(2, 4))

    def amount(batch):
        numbers = batch.numbers
        return size * (numbers[step - 1 :: step].sum() - numbers[::step].sum())

    return Changed(add_energy(amount)), f"every {step}. atom counts {size:.1e} eV more"


def feels_company(rng):
    size = _log(rng, -7, -1)

    class Mixes(Changed):
        def compute(self, batch):
            found = super().compute(batch)
            return broken.replace(found, energy=found.energy + size * (len(batch) - 1))

    return Mixes(), f"{size:.1e} eV for every structure beside it"


def feels_size(rng):
    size, atoms = _log(rng, -5, -1), int(rng.integers(1, 12))
    return (
        Changed(add_energy(lambda batch: size * (len(batch.numbers) > atoms))),
        f"{size:.1e} eV for more than {atoms} atoms",
    )


def feels_past(rng):
    size = _log(rng, -7, -1)

    class Past:
        last = b""

        def __call__(self, batch, found):
            now = batch.positions.tobytes()
            changed, self.last = now != self.last, now
            return broken.replace(found, energy=found.energy + size * changed)

    return Changed(Past()), f"{size:.1e} eV after another structure"


def one_image(rng):
    """Of every pair of atoms in a cell only the nearest image counts, none of an atom's own."""
    inner = PairPotential("inner", Morse(), cutoff=5.0, switch_from=3.0)

    def change(batch, found):
        shifts = np.array(list(np.ndindex(3, 3, 3))) - 1
        images = (shifts * batch.pbc[0]) @ batch.cell[0]
        positions = batch.positions.copy()
        for k in range(1, len(positions)):
            gaps = positions[k] + images - positions[0]
            positions[k] += images[np.argmin(np.linalg.norm(gaps, axis=1))]
        arrays = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
        arrays |= {"positions": positions, "pbc": np.zeros_like(batch.pbc)}
        alone = inner.compute(Batch(**arrays))
        return broken.replace(found, energy=alone.energy, forces=alone.forces)

    return Changed(lambda b, f: change(b, f) if b.pbc.any() else inner.compute(b)), "one image of each pair"


def coarse(rng):
    """Single precision that claims to be double."""
    return Changed(broken.single, dtype="float64"), "single precision called double"


def noisy(rng):
    size = 10 ** rng.uniform(-2.5, 0)
    return Changed(lambda b, f: broken.loud(b, f, size)), f"noise of {size:.1e} eV/Å"


BROKEN = (
    pair_step,
    angle_step,
    torsion_step,
    coordination_step,
    triple_step,
    density_step,
    force_step,
    slope_step,
    neighbor_dropped,
    capped,
    cut,
    wrong_sign,
    wrong_size,
    rough_force,
    wrong_stress,
    feels_place,
    feels_order,
    feels_company,
    feels_size,
    feels_past,
    one_image,
    coarse,
    noisy,
)


# --- smooth ones


def pairs(rng):
    """A pair potential of random depth, steepness and cutoff."""
    if rng.random() < 0.5:
        form = LennardJones(10 ** rng.uniform(-1, 1.5))
    else:
        form = Morse(10 ** rng.uniform(-1, 1), rng.uniform(1, 5))
    cutoff = rng.uniform(3.5, 8.0)
    start = rng.uniform(0.3, 0.75) * cutoff
    return PairPotential("smooth", form, cutoff=cutoff, switch_from=start), f"{form} to {cutoff:.1f} Å"


def stiff(rng):
    form = Morse(10 ** rng.uniform(0.5, 1.5), rng.uniform(4, 8))
    return PairPotential("stiff", form, cutoff=6.0, switch_from=3.0), f"{form}"


class Bonded(Potential):
    """Pairs, angles and a density, all of smooth functions with four derivatives at the cutoff.

    Args:
        cutoff: Å.
        bump: (place, width) in Å and height in eV of a Gaussian in the pair energy.
        angular, embedded: eV, sizes of the other two.
    """

    name, identity = "bonded", "bonded"
    abilities = Abilities(dtype="float64", periodic=False)

    def __init__(self, cutoff, bump, angular, embedded):
        self.cutoff, self.bump, self.angular, self.embedded = cutoff, bump, angular, embedded

    def compute(self, batch):
        found = [self._one(Batch.of([system])) for system in batch]
        return Prediction(np.array([e for e, _ in found]), np.concatenate([f for _, f in found]))

    def _one(self, batch):
        if batch.pbc.any():
            raise ValueError("molecules only")
        x = torch.tensor(batch.positions, requires_grad=True)
        if len(x) < 2:
            return 0.0, np.zeros((len(x), 3))
        i, j = torch.triu_indices(len(x), len(x), 1)
        r = (x[i] - x[j]).norm(dim=1)
        z = torch.tensor(batch.numbers, dtype=torch.float64)
        fade = (1 - (r / self.cutoff).clamp(max=1) ** 2) ** 5
        place, width, height = self.bump
        pair = 30 * torch.exp(-3 * r) * (z[i] * z[j]) ** 0.25 + height * torch.exp(
            -(((r - place) / width) ** 2)
        )
        energy = (fade * pair).sum()
        weights = torch.zeros(len(x), len(x), dtype=torch.float64).index_put((i, j), fade * torch.exp(-r))
        weights = weights + weights.T
        energy = energy - self.embedded * (weights.sum(dim=1) ** 2 / (1 + weights.sum(dim=1) ** 2)).sum()
        near = (weights.unsqueeze(2) * weights.unsqueeze(1)).triu(1)
        arms = x.unsqueeze(0) - x.unsqueeze(1)
        length = arms.norm(dim=2) + torch.eye(len(x))
        unit = arms / length.unsqueeze(2)
        cosine = torch.einsum("ijk,ilk->ijl", unit, unit)
        energy = energy + self.angular * (near * (cosine + 1 / 3) ** 2).sum()
        (gradient,) = torch.autograd.grad(energy, x)
        return float(energy), -gradient.numpy()


def many_body(rng):
    bump = (rng.uniform(1.5, 4.0), rng.uniform(0.05, 0.3), _log(rng, -2, 0))
    args = (rng.uniform(4, 7), bump, rng.uniform(0, 5), rng.uniform(0, 5))
    return Bonded(*args), f"bonded to {args[0]:.1f} Å, bump {bump}, {args[2]:.1f}, {args[3]:.1f}"


def rounded(rng):
    """A smooth one in single precision."""
    inner, what = pairs(rng)

    class Rounded(Changed):
        def compute(self, batch):
            found = inner.compute(batch)
            stress = None if found.stress is None else found.stress.astype(np.float32)
            return Prediction(found.energy.astype(np.float32), found.forces.astype(np.float32), stress)

    return Rounded(), f"{what} in single precision"


SMOOTH = (pairs, stiff, many_body, rounded)
