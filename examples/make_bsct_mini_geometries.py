"""Make the nine molecules of bsct-mini: one bond scan for each bond type of the published data set.

Each molecule is relaxed with GFN2-xTB from an RDKit conformer and then distorted along its harmonic modes
by a random classical displacement of 300 K, much as the conformers of SPICE are; then it must give exactly
one scan under the published rules. The bundled file is the definition: another LAPACK or RDKit may choose
other modes or conformers. Run: python examples/make_bsct_mini_geometries.py [OUT.extxyz]
"""

import sys
from pathlib import Path

import ase
import numpy as np
import rdkit
import scipy
from ase.data import atomic_masses
from ase.io import write
from rdkit import Chem
from rdkit.Chem import AllChem
from scipy.optimize import minimize

from sfumato.potentials.engines import TBLite
from sfumato.reference.scans import candidate_scans
from sfumato.systems import System
from sfumato.units import KELVIN

SEED = 20260204
TEMPERATURE = 300.0
MOLECULES = {
    "C-C/ethane": "CC",
    "C-N/methylamine": "CN",
    "C-O/methanol": "CO",
    "C-P/methylphosphine": "CP",
    "C-S/methanethiol": "CS",
    "N-N/hydrazine": "NN",
    "N-O/hydroxylamine": "NO",
    "N-P/aminophosphine": "NP",
    "O-P/phosphinous-acid": "OP",
}
OUT = Path(__file__).parents[1] / "src" / "sfumato" / "data" / "bsct-mini.extxyz"


def start(smiles):
    """Return numbers, MMFF (or, without parameters, UFF) positions in Å and the atom-mapped SMILES."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if AllChem.EmbedMolecule(molecule, randomSeed=SEED) != 0:
        raise ValueError(f"RDKit found no conformer of {smiles}")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule)
    else:
        AllChem.UFFOptimizeMolecule(molecule)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()])
    positions = molecule.GetConformer().GetPositions()
    for atom in molecule.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    return numbers, positions, Chem.MolToSmiles(molecule)


def relaxed(engine, numbers, positions):
    """Return the positions of the nearest minimum in Å."""

    def energy_and_gradient(x):
        label = engine.label(System(numbers, x.reshape(-1, 3)))
        return label.energy, -label.forces.ravel()

    found = minimize(energy_and_gradient, positions.ravel(), jac=True, method="BFGS", options={"gtol": 1e-4})
    return found.x.reshape(-1, 3)


def distorted(engine, numbers, positions, rng, step=0.005):
    """Displace a minimum along its vibrations by a classical harmonic sample (kT/2 of energy in each)."""
    size = positions.size
    hessian = np.empty((size, size))
    for k in range(size):
        dx = np.zeros(size)
        dx[k] = step
        plus, minus = (
            engine.label(System(numbers, positions + s * dx.reshape(-1, 3))).forces.ravel() for s in (1, -1)
        )
        hessian[k] = (minus - plus) / (2 * step)
    root_mass = np.sqrt(np.repeat(atomic_masses[numbers], 3))
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2 / np.outer(root_mass, root_mass))
    values, vectors = values[6:], vectors[:, 6:]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))]
    vectors = vectors * np.sign(largest)  # an eigenvector's sign is arbitrary: fix it
    if values[0] <= 1e-3:
        raise ValueError("the relaxed structure is not a minimum")
    amplitude = np.sqrt(KELVIN * TEMPERATURE / values) * rng.standard_normal(len(values))
    return positions + ((vectors @ amplitude) / root_mass).reshape(-1, 3)


def main(out):
    engine = TBLite("GFN2-xTB", accuracy=0.01)
    versions = {
        "rdkit": rdkit.__version__,
        "ase": ase.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "engine": engine.label(System([1, 1], [[0, 0, 0], [0, 0, 0.75]])).engine,
    }
    frames = []
    for k, (name, smiles) in enumerate(MOLECULES.items()):
        numbers, positions, mapped = start(smiles)
        minimum = relaxed(engine, numbers, positions)
        minimum -= minimum.mean(axis=0)
        rng = np.random.default_rng([SEED, k])
        final = distorted(engine, numbers, minimum, rng).round(6)
        scans = candidate_scans(System(numbers, final))
        accepted = [c for c in scans if c.exclusion is None]
        if len(accepted) != 1 or accepted[0].bond_type != name.split("/")[0]:
            raise ValueError(f"{name}: expected one scan, got {[(c.bond_type, c.exclusion) for c in scans]}")
        moved = np.sqrt(((final - minimum) ** 2).sum(axis=1).mean())
        above = engine.label(System(numbers, final)).energy - engine.label(System(numbers, minimum)).energy
        print(
            f"{name:22s} {len(numbers)} atoms, moved {moved:.3f} Å, {1000 * above:5.1f} meV above the minimum"
        )
        info = {"name": name, "smiles": mapped, "charge": 0, "multiplicity": 1, "seed": SEED}
        info |= {"temperature": TEMPERATURE} | {f"made_with_{p}": v for p, v in versions.items()}
        frames.append(ase.Atoms(numbers=numbers, positions=final, info=info))
    write(out, frames, format="extxyz")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
