"""What the probes say of a model: jumps, walls, forces, curves of diatomics. A pure function of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.execution.records import Record
from sfumato.protocols.probes.curves import Diatomic, diatomics_json, diatomics_of
from sfumato.protocols.probes.data import Structures
from sfumato.protocols.probes.forces import Forces, forces_of
from sfumato.protocols.probes.jumps import Jumps, jumps_of
from sfumato.protocols.probes.plan import Probe, probes
from sfumato.protocols.probes.settings import Settings
from sfumato.protocols.probes.walls import Walls, walls_of
from sfumato.protocols.protocol import Result

PARTS = ("jumps", "pairs", "places", "gradient", "diatomics")
"""Of a run, in order."""


@dataclass(frozen=True, eq=False)
class ModelProbes(Result):
    """One model under all probes.

    Args:
        name: of the model.
        identity: its hash.
        settings: that it was probed with.
        jumps: what the search for jumps found.
        pairs: compressions of pairs of elements.
        places: compressions in molecules.
        forces: energies against forces.
        diatomics: curves of two like atoms.
        failed: (part, name, reason) of the probes that do not count.
        missing: probes without a record yet.
        total: probes of the run.
        excluded: name of a structure → why it was left out from the start.
    """

    name: str
    identity: str
    settings: Settings
    jumps: Jumps
    pairs: Walls
    places: Walls
    forces: Forces
    diatomics: tuple[Diatomic, ...]
    failed: tuple[tuple[str, str, str], ...]
    missing: int
    total: int
    excluded: Mapping[str, str]

    @property
    def coverage(self) -> tuple[int, int]:
        """(probes that count, probes of the run)."""
        return self.total - self.missing - len(self.failed), self.total

    def as_json(self) -> dict[str, Any]:
        """See `Result`."""
        return {
            "identity": self.identity,
            "coverage": list(self.coverage),
            "elements": self.settings.elements.split(","),
            "jumps": self.jumps.as_json(),
            "compression": {"pairs": self.pairs.as_json(), "places": self.places.as_json()},
            "forces": self.forces.as_json(),
            "diatomics": diatomics_json(self.diatomics),
            "failed": [{"part": part, "name": name, "reason": reason} for part, name, reason in self.failed],
            "not evaluated": self.missing,
            "excluded": dict(self.excluded),
        }


def analyse(
    data: Structures, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelProbes:
    """Turn a model's records into its result.

    Args:
        data: of the run.
        records: by key; records of other structures are ignored.
        name: the model's name, and `identity` its hash.
        settings: of the model, its elements settled.
    """
    planned = probes(data, settings)
    each = [(probe, records.get(probe.task.key(identity))) for probe in planned]
    failed = [
        (probe.part, probe.name, str(record["reason"]))
        for probe, record in each
        if record is not None and record["status"] != "ok"
    ]
    fine = [(probe, record) for probe, record in each if record is not None and record["status"] == "ok"]
    pairs, lost_pairs = walls_of(*_part(each, "pairs"))
    places, lost_places = walls_of(*_part(each, "places"))
    curves, lost_curves = diatomics_of(*_part(each, "diatomics"))
    lost = (("pairs", lost_pairs), ("places", lost_places), ("diatomics", lost_curves))
    failed += [(part, one, reason) for part, some in lost for one, reason in some]
    gradient = [pair for pair in fine if pair[0].part == "gradient"]
    searched = [pair for pair in fine if pair[0].part == "jumps"]
    return ModelProbes(
        name,
        identity,
        settings,
        jumps_of([probe for probe, _ in searched], [record for _, record in searched]),
        pairs,
        places,
        forces_of([probe for probe, _ in gradient], [record for _, record in gradient], settings.seed),
        tuple(curves),
        tuple(failed),
        sum(record is None for _, record in each),
        len(planned),
        data.excluded(settings.numbers),
    )


def _part(each: Sequence[tuple[Probe, Record | None]], part: str) -> tuple[list[Probe], list[Record | None]]:
    """Return the probes of a part, with records only where these are sound."""
    some = [(probe, record) for probe, record in each if probe.part == part]
    sound = [record if record is not None and record["status"] == "ok" else None for _, record in some]
    return [probe for probe, _ in some], sound
