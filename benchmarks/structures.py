"""Build the molecules that dynamics starts from, relaxed with GFN2-xTB: src/sfumato/data/molecules.extxyz.

    python benchmarks/structures.py --shared ../shared/data --out molecules.extxyz

Small ones are made by RDKit from SMILES. Of the seven systems of MD22, four are taken from published files (a
folder with them is needed), and three are built: stachyose from SMILES, the bases of DNA in their standard
frames, stacked, and a double-walled nanotube closed by hydrogen. What is there in OUT already is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read

from sfumato.dynamics.relax import relax
from sfumato.io import from_ase, read_systems, write_systems
from sfumato.io.ase_objects import read_atoms
from sfumato.potentials.specs import load
from sfumato.systems import Batch, System

SMILES = {
    "ethanol": ("CCO", 500),
    "malonaldehyde": (r"O=C/C=C\O", 500),
    "aspirin": ("CC(=O)Oc1ccccc1C(=O)O", 500),
    "alanine-dipeptide": ("CC(=O)N[C@@H](C)C(=O)NC", 500),
    "stachyose": (
        "OC[C@@]1(O[C@H]2O[C@H](CO[C@H]3O[C@H](CO[C@H]4O[C@H](CO)[C@H](O)[C@H](O)[C@H]4O)[C@H](O)[C@H](O)"
        "[C@H]3O)[C@@H](O)[C@H](O)[C@H]2O)O[C@H](CO)[C@@H](O)[C@@H]1O",
        500,
    ),
}
"""Name → SMILES and the temperature in K at which it is simulated."""

PUBLISHED = {
    "Ac-Ala3-NHMe": ("md22-ac-ala3/md22_Ac-Ala3-NHMe_5frames.xyz", 500, "IBM/trajcast@5c88b0f, Apache-2.0"),
    "DHA": ("so3lr-md22-structures/dha.xyz", 500, "general-molecular-simulations/so3lr@5ec39b9, MIT"),
    "AT-AT": ("so3lr-md22-structures/atat.xyz", 500, "general-molecular-simulations/so3lr@5ec39b9, MIT"),
    "buckyball-catcher": (
        "so3lr-md22-structures/bb.xyz",
        400,
        "general-molecular-simulations/so3lr@5ec39b9, MIT",
    ),
}

# Heavy atoms in the order of the SMILES, in the standard frames of Olson et al. 2001, J. Mol. Biol. 313, 229.
BASES = {
    "A": (
        "n1c2c(nc1)c(N)ncn2",
        [
            (-1.291, 4.498),
            (-1.267, 3.124),
            (0.071, 2.771),
            (0.877, 3.902),
            (0.024, 4.897),
            (0.369, 1.398),
            (1.611, 0.909),
            (-0.668, 0.532),
            (-1.912, 1.023),
            (-2.320, 2.290),
        ],
    ),
    "T": (
        "N1C(=O)NC(=O)C(C)=C1",
        [
            (-1.284, 4.500),
            (-1.462, 3.135),
            (-2.562, 2.608),
            (-0.298, 2.407),
            (0.994, 2.897),
            (1.944, 2.119),
            (1.106, 4.338),
            (2.466, 4.961),
            (-0.024, 5.057),
        ],
    ),
    "G": (
        "n1c2c(nc1)C(=O)NC(N)=N2",
        [
            (-1.289, 4.551),
            (-1.265, 3.177),
            (0.071, 2.833),
            (0.870, 3.969),
            (0.023, 4.962),
            (0.424, 1.460),
            (1.554, 0.955),
            (-0.700, 0.641),
            (-1.999, 1.087),
            (-2.949, 0.139),
            (-2.342, 2.364),
        ],
    ),
    "C": (
        "N1C(=O)N=C(N)C=C1",
        [
            (-1.285, 4.542),
            (-1.472, 3.158),
            (-2.628, 2.709),
            (-0.391, 2.344),
            (0.837, 2.868),
            (1.875, 2.027),
            (1.056, 4.275),
            (-0.023, 5.068),
        ],
    ),
}


def from_smiles(smiles: str) -> Atoms:
    """Return a conformer of a molecule."""
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(molecule, randomSeed=7) == 0
    AllChem.MMFFOptimizeMolecule(molecule, maxIters=2000)
    return Atoms([atom.GetSymbol() for atom in molecule.GetAtoms()], molecule.GetConformer().GetPositions())


def base(letter: str) -> Atoms:
    """Return a base of DNA in its standard frame, with hydrogen in the place of the sugar."""
    smiles, flat = BASES[letter]
    first = smiles[0]
    atoms = from_smiles(smiles.replace("n1", "[nH]1", 1) if first == "n" else smiles)
    place = np.column_stack([np.array(flat), np.zeros(len(flat))])
    heavy = atoms.positions[: len(flat)]
    a, b = heavy - heavy.mean(axis=0), place - place.mean(axis=0)
    u, _, vt = np.linalg.svd(a.T @ b)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    off = np.abs(a @ turn - b).max()
    assert off < 0.2, (letter, off)
    atoms.positions = (atoms.positions - heavy.mean(axis=0)) @ turn + place.mean(axis=0)
    return atoms


def stacked(pairs: str) -> Atoms:
    """Return base pairs on top of each other as in B-DNA: 3.38 Å apart, turned by 36°."""
    found = Atoms()
    for level, letter in enumerate(pairs):
        other = base({"A": "T", "T": "A", "C": "G", "G": "C"}[letter])
        other.positions *= [1, -1, -1]
        pair = base(letter) + other
        pair.rotate(36 * level, "z", center=(0, 0, 0))
        pair.positions[:, 2] += 3.38 * level
        found += pair
    return found


def tube(n: int, cells: int) -> Atoms:
    """Return an armchair tube (n, n), its ends closed by hydrogen."""
    from ase.build import nanotube

    atoms = nanotube(n, n, length=cells, bond=1.42)
    atoms.pbc = False
    atoms.positions[:, 2] = (atoms.positions[:, 2] + 0.1) % atoms.cell[2, 2]  # rows cut by rounding
    distances = atoms.get_all_distances()
    for k in np.flatnonzero(((distances < 1.6) & (distances > 0)).sum(axis=1) == 2):
        near = np.flatnonzero((distances[k] < 1.6) & (distances[k] > 0))
        out = 2 * atoms.positions[k] - atoms.positions[near].sum(axis=0)
        atoms += Atoms("H", [atoms.positions[k] + 1.09 * out / np.linalg.norm(out)])
    atoms.positions -= atoms.positions.mean(axis=0)
    return atoms


def candidates(shared: Path) -> dict[str, tuple[Atoms, int, str]]:
    """Return every molecule before it is relaxed, with temperature and source, the smallest first."""
    found = {name: (from_smiles(s), kelvin, f"RDKit from {s}") for name, (s, kelvin) in SMILES.items()}
    for name, (path, kelvin, source) in PUBLISHED.items():
        if (shared / path).exists():
            atoms = read(shared / path, index=0, format="extxyz")
            found[name] = (Atoms(atoms.numbers, atoms.positions), kelvin, source)
    dna = "standard frames of Olson et al. 2001"
    found["AT-AT-CG-CG"] = (stacked("AACC"), 500, f"bases in {dna}, hydrogen for the sugar, stacked")
    tubes = tube(5, 5) + tube(10, 5)
    found["double-walled-nanotube"] = (
        tubes,
        400,
        "armchair (5,5) in (10,10), ends closed by hydrogen",
    )
    return dict(sorted(found.items(), key=lambda item: len(item[1][0])))


def main() -> None:
    """Relax what is not there yet, and write after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", type=float, default=0.02, help="eV/Å")
    args = parser.parse_args()
    potential = load("gfn2-xtb")
    systems: list[System] = []
    words: list[dict[str, str]] = []
    if args.out.exists():
        systems = read_systems(args.out)
        words = [
            {key: str(atoms.info[key]) for key in ("name", "kelvin", "source")}
            for atoms in read_atoms(args.out)
        ]
    for name, (atoms, kelvin, source) in candidates(args.shared).items():
        if name in [word["name"] for word in words]:
            continue
        atoms.positions -= atoms.get_center_of_mass()
        found = relax(potential, Batch.of([from_ase(atoms)]), args.force, 2000)
        (system,) = found.batch
        print(name, len(system), f"{found.steps[0]} steps, {found.force[0]:.3f} eV/Å", flush=True)
        rounded = System(system.numbers, system.positions.round(4))
        systems.append(rounded)
        words.append({"name": name, "kelvin": str(kelvin), "source": source})
        write_systems(args.out, systems, None, words)


if __name__ == "__main__":
    main()
