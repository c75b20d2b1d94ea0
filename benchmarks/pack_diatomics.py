"""Pack the PBE curves of diatomics of Matbench-Discovery for `sfumato run probes`.

    python benchmarks/pack_diatomics.py diatomics-dft.json.gz src/sfumato/data/diatomics-pbe.npz

Kept are distances, energies and the force that drives the two atoms apart, rounded to single precision.
"""

import gzip
import json
import sys

import numpy as np
from ase.data import atomic_numbers

SOURCE = "janosh/matbench-discovery, site/src/lib/diatomics-dft.json.gz: PBE, lowest of several spin states"


def main(source: str, packed: str) -> None:
    with gzip.open(source, "rt") as file:
        curves = json.load(file)["PBE"]
    rows = {atomic_numbers[name.split("-")[0]]: curve for name, curve in curves.items()}
    columns = [
        (z, r, e, force[1][0])
        for z, curve in sorted(rows.items())
        for r, e, force in zip(curve["distances"], curve["energies"], curve["forces"], strict=True)
    ]
    z, r, e, f = (np.array(column) for column in zip(*columns, strict=True))
    np.savez_compressed(
        packed,
        numbers=z.astype(np.int16),
        distances=r.astype(np.float32),
        energies=e.astype(np.float32),
        forces=f.astype(np.float32),
        level="PBE",
        licence="MIT",
        source=SOURCE,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
