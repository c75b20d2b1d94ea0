"""Small sets in the layout of the published silicon sets, and where the real ones are."""

import io
import json
import zipfile

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from sfumato.io.silicon import TESTING
from tests import SHARED

REAL = SHARED / "data" / "silicon-rare-events"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the published silicon sets are not in {REAL}")


def crystal(k):
    atoms = bulk("Si", "diamond", 5.43, cubic=True)
    atoms.positions[:, 0] += 0.1 * k
    del atoms[7]
    return atoms


def labels(sizes):
    """DATA.json of two structures: the first has a migrating atom."""
    rng = np.random.default_rng(0)

    def of():
        return [rng.normal(size=(n, 3)).tolist() for n in sizes]

    return {
        "Energies": {"DFT_K4": [-30.0, -31.0], "DFT_K2": [-30.1, -31.1]},
        "Forces": {"DFT_K4": of(), "DFT_K2": of(), "DFT_K1": of()},
        "r": [[0.0, 2.3] + [5.5] * (sizes[0] - 2), [5.5] * sizes[1]],
        "r_v": [[1.1] * sizes[0], [10.0] * sizes[1]],
    }


def lay_out(root, *, change=lambda data: None, structures=2, defect="vacancy"):
    """Write the published layout with two structures."""
    folder = root / TESTING[defect]
    folder.mkdir(parents=True)
    data = labels([7, 7])
    change(data)
    (folder / "DATA.json").write_text(json.dumps(data))
    with zipfile.ZipFile(folder / "structure_poscars.zip", "w") as archive:
        for k in range(structures):
            text = io.StringIO()
            ase.io.write(text, crystal(k), format="vasp")
            archive.writestr(f"{k}.POSCAR.vasp", text.getvalue())
    return root
