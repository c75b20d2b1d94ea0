"""Label any structures at a level of theory: structures in, extended XYZ out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.campaigns import campaign
from sfumato.campaigns.campaign import DEFAULTS, CampaignOptions
from sfumato.campaigns.place import require_place
from sfumato.datasets.labeled import require_format, write_labeled
from sfumato.execution.runner import Watch
from sfumato.files import remove_leftovers
from sfumato.io import Exclusion, Molecule
from sfumato.potentials.engines import Engine
from sfumato.systems import Prediction


@dataclass(frozen=True)
class Labeled:
    """What came of a list of structures.

    Args:
        count: how many were labeled and written.
        failed: the others, with the reason.
    """

    count: int
    failed: tuple[Exclusion, ...]


def label_structures(
    molecules: Sequence[Molecule],
    engine: Engine,
    path: Path,
    *,
    store: Path,
    options: CampaignOptions = DEFAULTS,
    watch: AbstractContextManager[Watch] | None = None,
) -> Labeled:
    """Label structures and write those that could be labeled, continuing an interrupted campaign.

    Args:
        molecules: structures with names, molecules or crystals.
        engine: the level of theory; it must pass its self-test.
        path: the file to write: energy (eV), forces (eV/Å), name, SMILES and level; extended XYZ, or a packed
            set of frames where the ending is .h5.
        store: folder of the labels, which several campaigns may share.
        options: who works, what to repeat, when to stop.
        watch: context manager that yields a callback for progress.

    Returns:
        How many structures are in the file, and why the others are not. Nothing is written where none is.

    Raises:
        ValueError: the engine fails its self-test, everything fails for one reason, or the store is of
            another engine or damaged; or `path` is a file with other contents and the start is not fresh.
        OSError: the disk is full; every finished label is kept.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    require_format(path)
    remove_leftovers(path.parent, path.name)
    require_place(path, engine.level, options.fresh)
    with watch or nullcontext(lambda tally: None) as callback:
        records = campaign.label(
            [molecule.system for molecule in molecules],
            engine,
            store,
            options=options,
            watch=callback,
        )
    pairs = list(zip(molecules, records, strict=True))
    good = [(molecule, record) for molecule, record in pairs if record["status"] == "ok"]
    rejected = getattr(molecules, "rejected", ())
    failed = [Exclusion(m.name, record["reason"]) for m, record in pairs if record["status"] != "ok"]
    if good:
        labels = [campaign.label_of(record, len(molecule.system)) for molecule, record in good]
        energies, forces = zip(*labels, strict=True)
        prediction = Prediction(energy=np.array(energies), forces=np.concatenate(forces))
        words = [{"name": m.name, "smiles": m.smiles, "level": engine.level} for m, _ in good]
        write_labeled(path, [molecule.system for molecule, _ in good], prediction, words)
    return Labeled(len(good), (*rejected, *failed))
