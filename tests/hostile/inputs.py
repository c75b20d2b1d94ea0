"""Every kind of input that Sfumato reads, small and sound, and the commands that read it."""

from __future__ import annotations

import json
import sqlite3  # noqa: F401 (loaded before the first fork)
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from sfumato.cli import _complain, _exit_code
from sfumato.commands.volume import Volume
from sfumato.io import read_scan_set, write_scan_set
from tests import ROOT, released_layout
from tests import made_training as made
from tests.hostile import mutations as m

DATA = ROOT / "src" / "sfumato" / "data"

CALCULATOR = """
from ase.calculators.calculator import Calculator, all_changes

class Springs(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        self.results = {"energy": float((x**2).sum()), "forces": -2 * x}

def springs():
    return Springs()
"""

WATER = """3
Properties=species:S:1:pos:R:3 charge=0 multiplicity=1 pbc="F F F"
O 0.0 0.0 0.0
H 0.0 0.76 0.59
H 0.0 -0.76 0.59
"""

ETHANE = """8
Properties=species:S:1:pos:R:3 name=C-C/7 pbc="F F F"
C 0.0 0.0 0.77
C 0.0 0.0 -0.77
H 1.02 0.0 1.16
H -0.51 0.88 1.16
H -0.51 -0.88 1.16
H -1.02 0.0 -1.16
H 0.51 -0.88 -1.16
H 0.51 0.88 -1.16
"""

SOURCE = {
    "layout": "extxyz",
    "name": "set",
    "level": "morse",
    "licence": "MIT",
    "keys": {"energy": "energy", "forces": "forces"},
    "units": {"energy": "eV", "length": "Å", "forces": "eV/Å"},
    "absent": ["stress"],
    "molecule": "frame",
    "fractions": [0.5, 0.5, 0.0],
}

SETTINGS = {"limit_per_bond": 2, "floor": 1.0, "stride": 1, "coordinate": "length", "refine": 1, "seed": 0}

NETWORK = {
    "model": made.MODEL,
    "data": {
        "path": "f.h5",
        "allow": ["large forces", "shared molecules", "duplicates", "shared structures"],
    },
    "stages": [{"name": "only", "steps": 2, "batch": 4, "lr": 1e-3}],
    "evaluate_steps": 1,
    "log_steps": 1,
    "checkpoint_minutes": 0,
    "accelerator": "cpu",
    "threads": 1,
}


@dataclass(frozen=True)
class Case:
    """One kind of input, read by one command.

    Args:
        name: of the case.
        file: that is damaged.
        ways: to damage it.
        words: of the command; or a function that returns an exit code.
        needs: what else of the sound inputs the command reads.
        results: files that it writes, which are compared.
        sealed: a flipped bit must be refused, or change nothing.
    """

    name: str
    file: str
    ways: tuple[m.Mutation, ...]
    words: tuple[str, ...] | Callable[[], int]
    needs: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    sealed: bool = False

    def use(self) -> int:
        """Run the command in the current folder and in this process; return its exit code."""
        if callable(self.words):
            return self.words()
        return _exit_code(list(self.words))


def work_in_this_process() -> None:
    """Let commands start no workers."""
    from sfumato.campaigns import campaign
    from sfumato.commands.campaigns import LabelOptions
    from sfumato.commands.options import RunOptions
    from sfumato.execution.pool import PoolSettings

    here = PoolSettings(workers=0)
    RunOptions.pool = lambda self: here  # type: ignore[method-assign]
    LabelOptions.campaign = lambda self: campaign.CampaignOptions(  # type: ignore[method-assign]
        here, self.retry_failed, self.fresh, self.keep_going
    )


def make(folder: Path) -> None:
    """Write all inputs, sound, into the current folder, which is `folder`."""
    (folder / "m.py").write_text(CALCULATOR)
    (folder / "w.xyz").write_text(WATER * 2 + WATER.replace("0.76", "0.8"))
    (folder / "e.xyz").write_text(ETHANE)
    (folder / "s.yaml").write_text(yaml.safe_dump(SOURCE, allow_unicode=True))
    (folder / "b.yaml").write_text(yaml.safe_dump(SETTINGS))
    (folder / "t.yaml").write_text(yaml.safe_dump(NETWORK, sort_keys=False))
    scans = read_scan_set(DATA / "bsct-mini-gfn2.h5")
    some = [
        replace(
            scan, **{key: getattr(scan, key)[::12] for key in ("positions", "coordinate", "energy", "forces")}
        )
        for scan in scans.scans[:2]
    ]
    write_scan_set(folder / "s.h5", replace(scans, name="s", scans=tuple(some)))
    made.written(folder / "f.h5", made.molecules(10), validation=3)
    _write_structures(folder)
    _write_layouts(folder)
    for words in (
        ("run", "bsct", "--model", "morse", "--model", "lj", "--data", "s.h5", "--out", "r"),
        ("eval", "--model", "morse", "--data", "f.h5", "--split", "all", "--out", "ev"),
        ("label", "w.xyz", "--engine", "ase", "--level", "m.py:springs", "-o", "l.xyz"),
        ("scan", "build", "e.xyz", "-o", "sb.h5", "--frames", "5", "--hysteresis"),
        ("data", "sample", "o.smi", "-o", "ds.h5", "--thermal", "0", "--snapshots", "0", "--scans", "1"),
        ("train", "t.yaml", "--out", "tr"),
    ):
        if (code := _exit_code(list(words))) != 0:
            raise RuntimeError(f"{' '.join(words)} ended with {code}")


def _write_structures(folder: Path) -> None:
    import ase.io
    from ase.build import bulk, molecule

    crystal, water = bulk("Si", cubic=True), molecule("H2O")
    for name in ("c.cif", "c.vasp", "c.json", "c.traj", "c.xsf"):
        ase.io.write(folder / name, crystal)
    for name in ("w.pdb", "w.gjf", "w.db", "w.gen"):
        ase.io.write(folder / name, water)
    (folder / "w.smi").write_text("O water\nCO methanol\n")
    (folder / "o.smi").write_text("O water\n")
    (folder / "w.sdf").write_text(_sdf())


def _sdf() -> str:
    from rdkit import Chem
    from rdkit.Chem import AllChem

    graph = Chem.AddHs(Chem.MolFromSmiles("CO"))
    AllChem.EmbedMolecule(graph, randomSeed=1)
    return f"{Chem.MolToMolBlock(graph)}$$$$\n"


def _write_layouts(folder: Path) -> None:
    """Write labeled structures and scans as others publish them."""
    files = released_layout.released_files(*released_layout.SCANS[:2])
    released_layout.lay_out(folder / "folder", files)
    for packing, name in (("", "a.tar"), ("gz", "a.tar.gz"), ("zst", "a.tar.zst")):
        released_layout.archive_at(folder / name, files, packing)
    from sfumato.datasets.named import load_frames
    from sfumato.io import write_systems

    frames = load_frames(folder / "f.h5")
    write_systems(folder / "lab.xyz", list(frames.batch), frames.labels)
    text = h5py.string_dtype()
    with h5py.File(folder / "spice.h5", "w") as file:
        for k, name in enumerate(("water", "acid")):
            group = file.create_group(name)
            group["atomic_numbers"] = np.array([8, 1, 1], dtype="i2")
            group.create_dataset("smiles", data=["[H:2][O:1][H:3]"], dtype=text)
            group.create_dataset("subset", data=["test"], dtype=text)
            group["conformations"] = np.random.default_rng(k).normal(0, 2.5, (3, 3, 3)).astype("f4")
            group["dft_total_energy"] = np.full(3, -76.4)
            group["dft_total_gradient"] = np.zeros((3, 3, 3), "f4")
    lattice = {"matrix": (4 * np.eye(3)).tolist(), "pbc": [True] * 3}
    site = {"species": [{"element": "Fe", "occu": 1}], "abc": [0, 0, 0], "xyz": [0, 0, 0], "label": "Fe"}
    structure = {"lattice": lattice, "sites": [site], "charge": 0}
    here = {"structure": structure, "energy": -1.0, "forces": [[0, 0, 0]]}
    (folder / "pm.json").write_text(json.dumps([here, here]))
    entry = {
        "structure": structure,
        "uncorrected_total_energy": -1.0,
        "force": [[0, 0, 0]],
        "stress": [[0] * 3] * 3,
    }
    (folder / "mp.json").write_text(json.dumps({"mp-1": {"a": entry, "b": entry}, "mp-2": {"a": entry}}))
    base: dict[str, Any] = {"name": "x", "level": "x", "licence": "MIT", "fractions": [1, 0, 0]}
    (folder / "spice.yaml").write_text(yaml.safe_dump(base | {"layout": "spice"}))
    (folder / "mp.yaml").write_text(yaml.safe_dump(base | {"layout": "mptrj"}))
    pymatgen = SOURCE | {"layout": "pymatgen", "fractions": [1, 0, 0]}
    (folder / "pm.yaml").write_text(yaml.safe_dump(pymatgen, allow_unicode=True))


def _read_run() -> int:
    from sfumato.commands.ending import exit_code
    from sfumato.training.settings import read_run

    def work() -> int:
        try:
            read_run("t.yaml")
        except ValueError as error:
            return _complain(str(error), Volume())
        return 0

    return exit_code(work)


def _structures(name: str) -> Callable[[], int]:
    """Return what `check --structures` and `plan scan` do with a file before they compute."""

    def work() -> int:
        from sfumato.campaigns.scans import Recipe, lay_out
        from sfumato.io import read_molecules, read_systems

        code = 2
        for read in (read_systems, lambda path: lay_out(read_molecules(path), Recipe("MIT", frames=5))):
            try:
                read(Path(name))
                code = 0
            except (ValueError, OSError) as error:
                _complain(str(error), Volume())
        return code

    return work


RUN = ("run", "bsct", "--model", "morse", "--data", "s.h5", "--out", "r", "--json", "j.json")
EVAL = ("eval", "--model", "morse", "--data", "f.h5", "--split", "all", "--out", "ev", "--json", "j.json")
LABEL = ("--engine", "ase", "--level", "m.py:springs")
BUILD = ("scan", "build", "e.xyz", "-o", "sb.h5", "--frames", "5", "--hysteresis")
SAMPLE = ("data", "sample", "o.smi", "-o", "ds.h5", "--thermal", "0", "--snapshots", "0", "--scans", "1")
TRAIN = ("train", "t.yaml", "--out", "tr")
MORSE, STORE, BUILT, SAMPLED = (
    "r/records/morse.evaluate.jsonl",
    "l.xyz.campaign/records/m.py_springs.jsonl",
    "sb.h5.campaign/records/GFN2-xTB.jsonl",
    "ds.h5.campaign/records/GFN2-xTB_geometries.sample.jsonl",
)

CASES = (
    Case("records, report", MORSE, m.RECORDS, ("report", "r"), ("s.h5", "r"), sealed=True),
    Case("records, run", MORSE, m.RECORDS, RUN, ("s.h5", "r"), ("j.json",), sealed=True),
    Case(
        "records, eval",
        "ev/records/morse.evaluate.jsonl",
        m.RECORDS,
        EVAL,
        ("f.h5", "ev"),
        ("j.json",),
        sealed=True,
    ),
    Case("run.json, report", "r/run.json", m.JSON, ("report", "r"), ("s.h5", "r")),
    Case("run.json, compare", "r/run.json", m.JSON, ("compare", "r"), ("s.h5", "r")),
    Case("run.json, run", "r/run.json", m.JSON, RUN, ("s.h5", "r")),
    Case("run.json, eval", "ev/run.json", m.JSON, ("report", "ev"), ("f.h5", "ev")),
    Case(
        "store, label",
        STORE,
        m.RECORDS,
        ("label", "w.xyz", *LABEL, "-o", "l.xyz"),
        ("w.xyz", "m.py", "l.xyz.campaign"),
        ("l.xyz",),
        sealed=True,
    ),
    Case("store, scan build", BUILT, m.RECORDS, BUILD, ("e.xyz", "sb.h5.campaign"), ("sb.h5",), sealed=True),
    Case(
        "sweep, scan build",
        BUILT.replace(".jsonl", "_sweep.jsonl"),
        m.RECORDS,
        BUILD,
        ("e.xyz", "sb.h5.campaign"),
        ("sb.h5",),
        sealed=True,
    ),
    Case("geometries", SAMPLED, m.RECORDS, SAMPLE, ("o.smi", "ds.h5.campaign"), ("ds.h5",), sealed=True),
    Case(
        "state",
        "tr/state.pt",
        m.SEALED,
        TRAIN,
        ("t.yaml", "f.h5", "tr"),
        ("tr/model.safetensors",),
        sealed=True,
    ),
    Case("log, train", "tr/log.jsonl", m.LOG, TRAIN, ("t.yaml", "f.h5", "tr")),
    Case("log, report", "tr/log.jsonl", m.LOG, ("report", "tr"), ("tr",)),
    Case("settings.json", "tr/settings.json", m.JSON, TRAIN, ("t.yaml", "f.h5", "tr")),
    Case(
        "model",
        "tr/model.safetensors",
        m.SAFETENSORS,
        ("eval", "--model", "tr/model.safetensors", "--data", "f.h5", "--out", "e2", "--json", "j.json"),
        ("f.h5", "tr"),
        ("j.json",),
        sealed=True,
    ),
    Case("frames, check", "f.h5", m.HDF5, ("data", "check", "f.h5"), sealed=True),
    Case("frames, eval", "f.h5", m.HDF5, EVAL, (), ("j.json",), sealed=True),
    Case("frames, train", "f.h5", m.HDF5, TRAIN, ("t.yaml",), ("tr/model.safetensors",), sealed=True),
    Case("scans, check", "s.h5", m.HDF5, ("data", "check", "s.h5"), sealed=True),
    Case("scans, run", "s.h5", m.HDF5, RUN, (), ("j.json",), sealed=True),
    Case("xyz, label", "w.xyz", m.TEXT, ("label", "w.xyz", *LABEL, "-o", "l.xyz"), ("m.py",)),
    Case(
        "xyz, convert",
        "lab.xyz",
        m.TEXT,
        ("data", "convert", "lab.xyz", "--source", "s.yaml", "-o", "o.h5"),
        ("s.yaml",),
    ),
    Case(
        "xyz, eval",
        "lab.xyz",
        m.TEXT,
        ("eval", "--model", "morse", "--data", "lab.xyz", "--source", "s.yaml"),
        ("s.yaml",),
    ),
    Case("e.xyz, scan build", "e.xyz", m.TEXT, (*BUILD[:5], "--frames", "3", *LABEL), ("m.py",)),
    *(
        Case(name, name, m.TEXT, _structures(name))
        for name in ("c.cif", "c.vasp", "c.xsf", "w.pdb", "w.gjf", "w.gen")
    ),
    *(Case(name, name, m.TEXT, _structures(name)) for name in ("w.smi", "w.sdf")),
    *(Case(name, name, m.BYTES, _structures(name)) for name in ("c.traj", "w.db")),
    Case("c.json", "c.json", m.JSON, _structures("c.json")),
    Case("YAML, train", "t.yaml", m.TEXT, _read_run, ("f.h5",)),
    Case(
        "YAML, source",
        "s.yaml",
        m.TEXT,
        ("data", "convert", "lab.xyz", "--source", "s.yaml", "-o", "o.h5"),
        ("lab.xyz",),
    ),
    Case("YAML, settings", "b.yaml", m.TEXT, (*RUN, "--config", "b.yaml"), ("s.h5",)),
    *(Case(name, name, m.TAR, ("data", "check", name)) for name in ("a.tar", "a.tar.zst")),
    Case("a.tar.gz", "a.tar.gz", m.BYTES, ("data", "check", "a.tar.gz")),
    Case("npz", "folder/bsct_spice/C-O/7/partition.npz", m.NPZ, ("data", "check", "folder"), ("folder",)),
    Case(
        "released frame",
        "folder/bsct_spice/C-O/7/atoms_2.xyz",
        m.TEXT,
        ("data", "check", "folder"),
        ("folder",),
    ),
    *(
        Case(name, name, ways, ("data", "convert", name, "--source", source, "-o", "o.h5"), (source,))
        for name, source, ways in (
            ("spice.h5", "spice.yaml", m.HDF5),
            ("pm.json", "pm.yaml", m.JSON),
            ("mp.json", "mp.yaml", m.JSON),
        )
    ),
)
