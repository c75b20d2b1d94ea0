"""Take the bundled set `bsct-medium` from `bsct-spice`: three scans of each bond type, by rule.

The rule: molecules of 15 to 35 atoms, all frames labeled; within a bond type the candidates are ordered by
size, cut into three equal parts, and one is drawn from each with a fixed seed. The scans are unchanged.

    python examples/make_bsct_medium.py src/sfumato/data/bsct-medium.h5
"""

import sys
from pathlib import Path

import numpy as np

from sfumato.datasets import named
from sfumato.io import write_scan_set
from sfumato.systems import Scan, ScanSet

SMALLEST, LARGEST, PER_TYPE, SEED = 15, 35, 3, 0


def chosen(scans: list[Scan], rng: np.random.Generator) -> list[Scan]:
    """Return `PER_TYPE` scans of different sizes."""
    fitting = [s for s in scans if SMALLEST <= len(s.numbers) <= LARGEST and s.labeled.all()]
    by_size = sorted(fitting, key=lambda scan: (len(scan.numbers), scan.name))
    return [part[rng.integers(len(part))] for part in np.array_split(np.array(by_size, object), PER_TYPE)]


def main(path: Path) -> None:
    """Write the set."""
    whole = named.load("bsct-spice")
    rng = np.random.default_rng(SEED)
    types = sorted({scan.stratum for scan in whole})
    scans = [s for kind in types for s in chosen([s for s in whole if s.stratum == kind], rng)]
    rule = f"{PER_TYPE} scans of each bond type, {SMALLEST} to {LARGEST} atoms, one of each third by size"
    medium = ScanSet(
        "bsct-medium",
        whole.level,
        whole.licence,
        whole.source,
        tuple(scans),
        {"taken from": {"name": whole.name, "identity": whole.identity}, "rule": rule, "seed": SEED},
    )
    write_scan_set(path, medium)
    print(f"{path}: {len(medium)} scans, {path.stat().st_size / 1e6:.2f} MB, identity {medium.identity}")
    print({scan.name: len(scan.numbers) for scan in medium})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
