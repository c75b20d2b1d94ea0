"""A model's result as JSON, and back, with the predictions left in the records they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sfumato.execution.lookup import Index, look_up
from sfumato.jobs.frames import energies_and_forces
from sfumato.metrics.stats import Estimate
from sfumato.protocols.bsct.analysis import EVALUATE, ModelResult, ScanResult, path_positions
from sfumato.protocols.bsct.settings import Settings
from sfumato.systems import Floats, Scan, ScanSet

Packed = dict[str, Any]


def pack(result: ModelResult, records: Path) -> Packed:
    """Return a result in JSON types, with the estimates that are known by now; nan stays nan.

    Args:
        result: of the analysis.
        records: the file that it was made from.
    """
    return {
        "index": Index.of(records).text(),
        "scans": [
            [name, scan.status, scan.reason, *map(dict, (scan.values, scan.limits))]
            for name, scan in result.scans.items()
        ],
        "estimates": {metric: astuple(estimate) for metric, estimate in result.estimates.items()},
        "by_bond": {
            metric: {bond: astuple(estimate) for bond, estimate in bonds.items()}
            for metric, bonds in result.by_bond.known.items()
        },
    }


def unpack(
    packed: Packed, data: ScanSet, name: str, identity: str, settings: Settings, records: Path
) -> ModelResult:
    """Return what was packed.

    Args:
        packed: from `pack`.
        data: of the run.
        name: of the model, and `identity` its hash.
        settings: it was measured with.
        records: the file of its predictions, read where one is asked for.
    """
    scans = {scan.name: scan for scan in data}
    path, index = records.resolve(), Places(packed["index"])
    results: dict[str, ScanResult] = {
        which: RecordedScan(
            status, reason, values, limits, Predictions(path, index, scans[which], identity, settings.refine)
        )
        if status == "ok"
        else ScanResult(status, reason, values, limits=limits)
        for which, status, reason, values, limits in packed["scans"]
    }
    result = ModelResult(name, identity, results, settings.seed)
    result.remember(
        _estimates(packed["estimates"]),
        {metric: _estimates(bonds) for metric, bonds in packed["by_bond"].items()},
    )
    return result


def _estimates(packed: Mapping[str, Any]) -> dict[str, Estimate]:
    return {key: Estimate(*values) for key, values in packed.items()}


@dataclass(frozen=True, eq=False)
class Places:
    """The index of a record file, read when it is first asked for."""

    text: Sequence[str]

    @cached_property
    def index(self) -> Index:
        return Index.from_text(self.text)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicted of a scan, in a record file.

    Args:
        path: of the file.
        places: of its lines.
        scan: the reference.
        identity: of the model.
        refine: see Settings.
    """

    path: Path
    places: Places
    scan: Scan
    identity: str
    refine: int

    @cached_property
    def arrays(self) -> tuple[Floats, Floats]:
        """Energies (P,) eV and forces (P, N, 3) eV/Å.

        Raises:
            RecordError: the records have changed since they were analyzed.
            OSError: they cannot be read.
        """
        keys = EVALUATE.subject(self.identity).keys(self.scan, path_positions(self.scan, self.refine))
        return energies_and_forces(look_up(self.path, keys, self.places.index), len(self.scan.numbers))


class RecordedScan(ScanResult):
    """A finished scan whose predictions are read from the records when they are asked for."""

    predictions: Predictions

    def __init__(
        self,
        status: str,
        reason: str,
        values: Mapping[str, float],
        limits: Mapping[str, float],
        predictions: Predictions,
    ) -> None:
        vars(self).update(status=status, reason=reason, values=values, limits=limits, predictions=predictions)

    @property
    def energy(self) -> Floats:
        """(P,) eV along the refined path."""
        return self.predictions.arrays[0]

    @property
    def forces(self) -> Floats:
        """(P, N, 3) eV/Å."""
        return self.predictions.arrays[1]
