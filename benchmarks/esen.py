"""Energy and forces of diamond: time and memory of eSEN beside MinDScAIP, and beside MACE of equal size.

    OMP_NUM_THREADS=1 python benchmarks/esen.py --mace ~/venv-mace/bin/python

Every number comes from a process of its own, in turn within a round, as in `inference.py`, whose contestants
these are: random weights, single precision, one thread, processor time, neighbors searched every time. Where
memory is short, layers are computed twice ("recomputed").
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from typing import Any

from inference import measure, spread

MODELS = ("mindscaip:large", "esen:large", "mindscaip:small", "esen:small")

PEERS = {"mindscaip:large": "esen:large", "mindscaip:small": "esen:small"}
"""Whose time is divided by that of the first."""

EQUAL = "mace:3.2"
"""MACE with as many parameters as `esen:small`, in millions."""


def rows(given: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """Return what each contestant took, in every round, at every size."""
    fixed = {"device": "cpu", "threads": 1, "directional": None, "tf32": False, "bf16": False}
    args = argparse.Namespace(**fixed, **vars(given))
    found = []
    for turn in range(given.rounds):
        for atoms in given.atoms:
            for name in names:
                row = {"round": turn, "name": name, "atoms": atoms} | measure(name, atoms, args)
                print(json.dumps(row), file=sys.stderr, flush=True)
                found.append(row)
    return found


def seconds(found: list[dict[str, Any]], name: str, atoms: int) -> dict[int, float]:
    """Return the seconds per atom of a contestant, by round."""
    return {
        row["round"]: statistics.median(row["seconds"]) / row["atoms"]
        for row in found
        if (row["name"], row["atoms"]) == (name, atoms) and "seconds" in row
    }


def table(found: list[dict[str, Any]]) -> None:
    """Print lines of Markdown, and how many times as long the peers took."""
    print("| atoms | model | 10⁶ parameters | ms per atom | MB per atom |\n|---|---|---|---|---|")
    for atoms, name in dict.fromkeys((row["atoms"], row["name"]) for row in found):
        mine = [row for row in found if (row["atoms"], row["name"]) == (atoms, name)]
        if any("failed" in row for row in mine):
            print(f"| {atoms} | {name} | {mine[-1].get('failed')} | | |")
            continue
        grown = max(row["peak"] - row["before"] for row in mine) / mine[0]["atoms"]
        label = name + (" (recomputed)" if mine[0].get("recomputed") else "")
        took = spread([1e3 * each for each in seconds(found, name, atoms).values()])
        print(f"| {atoms} | {label} | {mine[0]['parameters'] / 1e6:.1f} | {took} | {grown:.1f} |")
    for atoms in dict.fromkeys(row["atoms"] for row in found):
        for fast, slow in (*PEERS.items(), ("esen:small", EQUAL)):
            one, other = (seconds(found, name, atoms) for name in (fast, slow))
            ratios = [other[turn] / one[turn] for turn in one.keys() & other.keys()]
            if ratios:
                print(f"{atoms} atoms: {slow} over {fast} {spread(ratios)}")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--atoms", nargs="+", type=int, default=[64, 216])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="evaluations in one process")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds of a process")
    parser.add_argument("--memory", type=float, help="GiB that a process may take")
    parser.add_argument("--mace", help="the Python of an environment that has mace-torch")
    parser.add_argument("models", nargs="*", default=MODELS)
    given = parser.parse_args()
    table(rows(given, [*given.models, *([EQUAL] if given.mace else [])]))


if __name__ == "__main__":
    main()
