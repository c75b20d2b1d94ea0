"""The data of a run: what has to be known of it before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.datasets.energies import AtomEnergies, Compositions, compositions, fit_atom_energies
from sfumato.datasets.loader import Rows, rows_of
from sfumato.datasets.named import frames_path
from sfumato.models.config import ELEMENTS
from sfumato.systems import Floats
from sfumato.training.settings import TrainSettings
from sfumato.words import nearest


@dataclass(frozen=True, eq=False)
class RunData:
    """Settings and data that belong together.

    Args:
        settings: effective: the model knows the elements of the data and nothing else.
        path: the packed file.
        rows: its frames.
        scale: eV and eV/Å, root mean square of the force components to learn from.
        reference: (101,) eV of a lone atom by atomic number.
        atom_energies: the same, and where they are from.
    """

    settings: TrainSettings
    path: Path
    rows: Rows
    scale: float
    reference: Floats
    atom_energies: AtomEnergies

    def facts(self) -> dict[str, Any]:
        """Return what the log should say of the data."""
        data = self.settings.data
        return {
            "dataset": self.rows.name,
            "level": self.rows.level,
            "frames": {split: len(self.rows.split.where(split)) for split in splits(self.settings)},
            "force_scale": self.scale,
            "atom_energies": self.atom_energies.as_json(),
            "train": data.train,
        }


def splits(settings: TrainSettings) -> list[str]:
    """Return the names of the splits that a run uses."""
    return [split for split in (settings.data.train, settings.data.validation) if split is not None]


def open_data(settings: TrainSettings) -> RunData:
    """Open the data of a run and check that it has what the run asks for.

    Args:
        settings: of the run.

    Raises:
        ValueError: no such data or split, labels that a loss asks for and that no frame has, an element
            without an energy or unknown to the model.
    """
    from ase.data import atomic_numbers, chemical_symbols

    path = frames_path(settings.data.path)
    rows = rows_of(path)
    for split in splits(settings):
        rows.split.where(split)
    found = compositions(rows, settings.data.train)
    if settings.data.validation is not None:
        unseen = set(compositions(rows, settings.data.validation).elements) - set(found.elements)
        if unseen:
            raise ValueError(
                f"{rows.name}: the split {settings.data.validation!r} has "
                f"{', '.join(chemical_symbols[z] for z in sorted(unseen))}, of which no frame of "
                f"{settings.data.train!r} tells anything; divide the data otherwise"
            )
    energies = fit_atom_energies(found)
    if settings.data.atom_energies != "fit":
        for symbol in settings.data.atom_energies:
            if symbol not in atomic_numbers:
                raise ValueError(
                    f"atom_energies: {symbol!r} is not an element; {nearest(symbol, atomic_numbers)}"
                )
        given = {atomic_numbers[symbol]: e for symbol, e in settings.data.atom_energies.items()}
        lacking = [chemical_symbols[z] for z in found.elements if z not in given]
        if lacking:
            raise ValueError(f"atom_energies: none for {', '.join(lacking)}, which {path.name} contains")
        energies = AtomEnergies({z: given[z] for z in found.elements}, "the settings of the run")
    _check_labels(settings, rows, found)
    known = settings.model.elements
    lacking = [chemical_symbols[z] for z in found.elements if known is not None and z not in known]
    if lacking:
        raise ValueError(f"model.elements: without {', '.join(lacking)}, which {path.name} contains")
    model = (
        settings.model
        if known is not None
        else settings.model.model_copy(update={"elements": found.elements})
    )
    reference = np.zeros(ELEMENTS + 1)
    for z, energy in energies.energy.items():
        reference[z] = energy
    settings = settings.model_copy(update={"model": model})
    scale = found.force_scale if found.force_scale > 0 else 1.0
    return RunData(settings, path, rows, scale, reference, energies)


def _check_labels(settings: TrainSettings, rows: Rows, found: Compositions) -> None:
    if not (found.force_scale > 0) and any(stage.loss.forces > 0 for stage in settings.stages):
        raise ValueError(
            f"{rows.name}: no frame of the training split has forces other than zero; set loss.forces: 0 to "
            "train on energies alone"
        )
    stressed = [stage.name for stage in settings.stages if stage.loss.stress > 0]
    if stressed and not found.stressed:
        raise ValueError(
            f"stage {stressed[0]!r}: loss.stress: no frame of the split {settings.data.train!r} of "
            f"{rows.name} has a stress; set it to 0"
        )
