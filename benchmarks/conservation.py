"""Energy in long dynamics: an error that falls with the square of the time step, unless ranks are hard.

    python benchmarks/conservation.py --picoseconds 10
    python benchmarks/conservation.py --picoseconds 1 --steps 1 0.5 0.25

A crystal of eight atoms and a molecule, with random weights, scaled until the forces are those of real
structures, and the repulsion of nuclei to keep atoms apart; velocity Verlet in double precision. Every row of
a system starts from the same positions and velocities. Reported, in meV per atom: the standard deviation of
the total energy, its drift (what is left at the end, the mean of the last tenth less that of the first), and
its largest change in one step.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from sfumato.io import from_ase
from sfumato.models.families import preset
from sfumato.models.mindscaip.network import MinDScAIP
from sfumato.models.network import predict
from sfumato.potentials.network import NetworkPotential
from sfumato.systems import Batch

K = 3
"""Neighbors, so few that in both structures some come and go all the time."""

STRONGER = 3.0
"""Times the maps that end a block are larger than at the start of training."""


def structures(kelvin: float) -> dict[str, Atoms]:
    """Return gallium arsenide and silicon tetrachloride, shaken, with velocities."""
    found = {"crystal": bulk("GaAs", "zincblende", a=5.65, cubic=True), "molecule": molecule("SiCl4")}
    for atoms in found.values():
        rng = np.random.default_rng(0)
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        thermalize_momenta(atoms, temperature_K=kelvin, rng=rng)
        Stationary(atoms)
    return found


def potential(rank: str, directional: str, layers: int, force: float) -> NetworkPotential:
    """Return random weights, the same for all ranks, with forces of a given size (eV/Å) in the molecule."""
    config = preset("nano", directional=directional, layers=layers, zbl=True, elements=(14, 17, 31, 33))
    made = []
    for each in ("compact", rank):
        graph = replace(config.graph, rank=each, k=K)  # type: ignore[arg-type]
        changed = config.model_copy(update={"graph": graph})
        model = MinDScAIP(changed, torch.Generator().manual_seed(0), torch.float64)
        for name, weight in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                weight.data.mul_(STRONGER)
        made.append(model)
    found = predict(made[0], Batch.of([from_ase(molecule("SiCl4"))])).forces
    assert found is not None
    made[1].scale.fill_(force / math.sqrt(float(found.square().mean())))
    return NetworkPotential(made[1], dtype="float64")


def totals(potential: NetworkPotential, starts: list[Atoms], step: float, picoseconds: float) -> np.ndarray:
    """Return (steps, systems) total energies in eV along velocity Verlet with a step in fs."""
    batch = Batch.of([from_ase(atoms) for atoms in starts])
    mass = np.concatenate([atoms.get_masses() for atoms in starts])[:, None]
    momenta = np.concatenate([atoms.get_momenta() for atoms in starts])
    dt, found, energies = step * units.fs, potential.predict(batch), []
    for _ in range(round(1000 * picoseconds / step)):
        momenta = momenta + 0.5 * dt * found.forces
        batch = replace(batch, positions=batch.positions + dt * momenta / mass)
        found = potential.predict(batch)
        momenta = momenta + 0.5 * dt * found.forces
        kinetic = np.bincount(batch.index, (0.5 * momenta**2 / mass).sum(1), minlength=len(batch))
        energies.append(found.energy + kinetic)
    return np.array(energies)


def row(energy: np.ndarray, atoms: int) -> tuple[float, float, float]:
    """Return deviation, drift and largest change in a step of one system, meV per atom."""
    per_atom = 1e3 * energy / atoms
    tenth = max(1, len(per_atom) // 10)
    drift = per_atom[-tenth:].mean() - per_atom[:tenth].mean()
    return float(per_atom.std()), float(drift), float(np.abs(np.diff(per_atom)).max())


def main() -> None:
    """Print one row for every system, rank and time step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picoseconds", type=float, default=10.0)
    parser.add_argument("--steps", type=float, nargs="+", default=[1.0, 0.5], help="fs, from the largest")
    parser.add_argument("--ranks", nargs="+", default=["compact", "hard"])
    parser.add_argument("--kelvin", type=float, default=300.0)
    parser.add_argument("--force", type=float, default=0.2, help="eV/Å, of a component in the molecule")
    parser.add_argument("--directional", default="angular_bias", choices=["angular_bias", "harmonics"])
    parser.add_argument("--layers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    starts = structures(args.kelvin)
    print("rank     system    step fs | deviation, over the one before |    drift | largest | s", flush=True)
    for rank in args.ranks:
        made = potential(rank, args.directional, args.layers, args.force)
        before: dict[str, float] = {}
        for step in args.steps:
            start = time.process_time()
            energy = totals(made, list(starts.values()), step, args.picoseconds)
            for k, (name, atoms) in enumerate(starts.items()):
                deviation, drift, change = row(energy[:, k], len(atoms))
                ratio = f"{before[name] / deviation:6.2f}" if name in before else "      "
                before[name] = deviation
                print(
                    f"{rank:8} {name:9} {step:7.3f} | {deviation:9.4f} {ratio:>20} | {drift:+8.4f} |"
                    f" {change:7.4f} | {time.process_time() - start:.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
