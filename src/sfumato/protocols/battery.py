"""The battery: every protocol that answers one of the users' questions, on one model, in one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.jobs.models import Model
from sfumato.jobs.perform import Way
from sfumato.potentials.potential import Potential
from sfumato.potentials.specs import ModelSpec
from sfumato.protocols.protocol import Protocol, Run, Size
from sfumato.protocols.run import Cost, plan, run
from sfumato.protocols.table import PROTOCOLS
from sfumato.protocols.verdict import QUESTIONS, Verdict

BATTERY = ("contract", "bsct", "probes", "nve", "heat")
"""In this order; the cheap ones that explain most come first."""


def battery() -> list[Protocol]:
    """Return the protocols of the battery."""
    return [PROTOCOLS[name] for name in BATTERY if name in PROTOCOLS]


@dataclass(frozen=True)
class Assessment:
    """What the battery says of one model.

    Args:
        name: of the model.
        size: of the battery.
        runs: of each protocol that could be run, in order.
        failed: protocol → why it could not be run.
        folder: that holds the runs.
    """

    name: str
    size: Size
    runs: Sequence[Run]
    folder: Path
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """From all runs."""
        said = [said for run in self.runs if self.name in run.models for said in run.said(self.name)]
        return Verdict(tuple(said), any(run.is_control(self.name) for run in self.runs))

    @property
    def complete(self) -> bool:
        """Whether every protocol was run, and every item of it came out well."""
        return not self.failed and all(run.complete for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return the result file; `verdicts` holds every question, also those that nobody answered."""
        verdict = self.verdict
        return {
            "model": self.name,
            "identity": self.runs[0].identity_of(self.name) if self.runs else None,
            "size": self.size,
            "sound": verdict.sound and self.complete,
            "broken": verdict.broken,
            "in_words": verdict.in_words(),
            "verdicts": {key: verdict.answer_json(key) for key in QUESTIONS},
            "failed": dict(self.failed),
            "protocols": {run.protocol.name: run.as_json() for run in self.runs},
        }


def assess(
    model: str | ModelSpec | Potential,
    size: Size = "fast",
    *,
    out: str | Path | None = None,
    way: Callable[[Protocol], Way] = lambda protocol: Way(),
    device: str = "",
    dtype: str = "",
) -> Assessment:
    """Run the battery on a model, continuing where an earlier call with the same folder stopped.

    Args:
        model: a spec, a ModelSpec or a Potential.
        size: "dev" (a look), "fast" or "standard".
        out: the folder of all runs; default "runs/assess-<model>".
        way: how each protocol is run.
        device: of a model given by a spec, and `dtype` its precision.

    Raises:
        ValueError: a model that cannot be resolved; a protocol that cannot be run is named in the result.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    name = Model.of(model, device, dtype).name
    folder = Path(out) if out else default_folder(name)
    runs, failed = [], {}
    for p in battery():
        data, settings = p.sized(size)
        where: dict[str, Any] = {
            "settings": settings,
            "out": folder / p.name,
            "device": device,
            "dtype": dtype,
        }
        try:
            runs.append(run(p, [model], data, way=way(p), **where))
        except ValueError as error:  # the others may still say something
            failed[p.name] = str(error)
    return Assessment(name, size, runs, folder, failed)


def plan_assessment(
    model: str | ModelSpec | Potential,
    size: Size = "fast",
    *,
    out: str | Path | None = None,
    device: str = "",
    dtype: str = "",
) -> dict[str, Cost | str]:
    """Return what each protocol of the battery would take, or why it cannot be run; nothing is written.

    Args:
        model, size, out, device, dtype: as for `assess`.

    Raises:
        ValueError: a model that cannot be resolved.
    """
    name = Model.of(model, device, dtype).name
    folder = Path(out) if out else default_folder(name)
    costs: dict[str, Cost | str] = {}
    for p in battery():
        data, settings = p.sized(size)
        where: dict[str, Any] = {
            "settings": settings,
            "out": folder / p.name,
            "device": device,
            "dtype": dtype,
        }
        try:
            (costs[p.name],) = plan(p, [model], data, **where)
        except ValueError as error:
            costs[p.name] = str(error)
    return costs


def default_folder(name: str) -> Path:
    """Return where the runs of a battery go when nothing is said."""
    return Path("runs") / f"assess-{name}"
