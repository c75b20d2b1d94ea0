"""Formation energies and barriers of point defects: a pure function of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.execution.records import Record, array, number
from sfumato.jobs.defects import Barrier, Formation
from sfumato.jobs.frames import Frame
from sfumato.jobs.job import Task
from sfumato.jobs.wander import Wander
from sfumato.metrics.diffusion import Arrhenius, arrhenius, mean_of_blocks
from sfumato.metrics.stats import Estimate
from sfumato.protocols.diffusion.data import Crystal
from sfumato.protocols.diffusion.settings import Settings
from sfumato.protocols.protocol import Result
from sfumato.reference.defects import hops_of, kinds_of
from sfumato.systems import Floats
from sfumato.words import plain


@dataclass(frozen=True)
class Defect:
    """A relaxed point defect.

    Args:
        kind: of it.
        formation: eV.
        edge: Å, the potential's own lattice constant.
    """

    kind: str
    formation: float
    edge: float


@dataclass(frozen=True, eq=False)
class Path:
    """A relaxed path of a hop.

    Args:
        kind: of the hop.
        barrier: eV, from the lowest to the highest energy of the path.
        uphill: eV, of its last image over the first.
        energies: (P,) eV of the images over the first.
        distance: (P,) Å, how far all atoms together have gone.
        positions: (P, N, 3) Å.
    """

    kind: str
    barrier: float
    uphill: float
    energies: Floats
    distance: Floats
    positions: Floats


@dataclass(frozen=True, eq=False)
class Wandering:
    """A vacancy at one temperature.

    Args:
        kelvin: of the bath.
        blocks: (B,) Å²/ps, the diffusivity of all atoms together in the blocks of all trajectories.
        hops: of all trajectories.
        picoseconds: likewise.
    """

    kelvin: float
    blocks: Floats
    hops: int
    picoseconds: float

    @property
    def diffusivity(self) -> Estimate:
        """Å²/ps, with Student's interval over blocks."""
        return mean_of_blocks(self.blocks)


@dataclass(frozen=True, eq=False)
class ModelDefects(Result):
    """One model and the defects of a crystal.

    Args:
        name: of the model.
        identity: its hash.
        defects: that came to rest.
        paths: likewise.
        wandering: of a vacancy, at each temperature with a trajectory.
        trajectories: that count.
        failed: (what, reason) of what has no result.
        missing: what was not computed yet.
    """

    name: str
    identity: str
    defects: tuple[Defect, ...]
    paths: tuple[Path, ...]
    wandering: tuple[Wandering, ...]
    trajectories: int
    failed: tuple[tuple[str, str], ...]
    missing: int

    @property
    def coverage(self) -> tuple[int, int]:
        """(defects, hops and trajectories that count, of the run)."""
        count = len(self.defects) + len(self.paths) + self.trajectories
        return count, count + len(self.failed) + self.missing

    @property
    def edge(self) -> float:
        """Å, the lattice constant; NaN where nothing came to rest."""
        return self.defects[0].edge if self.defects else float("nan")

    def defect(self, kind: str) -> Defect | None:
        """Return a defect; None where it has no result."""
        return next((one for one in self.defects if one.kind == kind), None)

    def path(self, kind: str) -> Path | None:
        """Return a path; None where it has no result."""
        return next((one for one in self.paths if one.kind == kind), None)

    @property
    def activation(self) -> Arrhenius | None:
        """From the diffusivities at all temperatures; None where fewer than two are positive."""
        return arrhenius({one.kelvin: one.blocks for one in self.wandering})

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each number."""
        formed = [{"metric": f"formation_{one.kind}", "value": one.formation} for one in self.defects]
        barriers = [{"metric": f"barrier_{one.kind}", "value": one.barrier} for one in self.paths]
        return [{"metric": "lattice_constant", "value": self.edge}, *formed, *barriers]

    __repr__ = Result.__repr__

    def as_json(self) -> dict[str, Any]:
        """Return the numbers in JSON types."""
        found: dict[str, Any] = plain(
            {
                "identity": self.identity,
                "coverage": list(self.coverage),
                "lattice_constant": self.edge,
                "formation": {one.kind: one.formation for one in self.defects},
                "barrier": {one.kind: one.barrier for one in self.paths},
                "paths": {
                    one.kind: {
                        "uphill": one.uphill,
                        "energies": one.energies.tolist(),
                        "distance": one.distance.tolist(),
                    }
                    for one in self.paths
                },
                "diffusivity": [
                    {"kelvin": one.kelvin, "hops": one.hops, "picoseconds": one.picoseconds}
                    | _estimate(one.diffusivity)
                    for one in self.wandering
                ],
                "activation": _estimate(activation.energy) if (activation := self.activation) else None,
                "failed": [{"what": what, "reason": reason} for what, reason in self.failed],
                "not computed": self.missing,
            }
        )
        return found


def _estimate(e: Estimate) -> dict[str, Any]:
    return {"value": e.mean, "interval95": [e.low, e.high], "coverage": [e.n, e.total]}


def tasks(data: Crystal, settings: Settings) -> Iterator[tuple[str, Task]]:
    """Yield what is computed, with its name for people."""
    frame = Frame.of(data.system)
    own: dict[str, Any] = {"repeat": settings.repeat, "force": settings.force, "steps": settings.steps}
    for kind in kinds_of(data.system):
        yield kind, Task(Formation(kind=kind, **own), frame)
    for kind in hops_of(data.system):
        yield f"{kind} hop", Task(Barrier(kind=kind, images=settings.images, **own), frame)
    moving: dict[str, Any] = {"picoseconds": settings.picoseconds, "timestep": settings.timestep}
    moving["blocks"] = settings.blocks
    for kelvin in settings.temperatures:
        for seed in range(settings.seed, settings.seed + settings.replicas):
            job = Wander(kind="vacancy", kelvin=kelvin, seed=seed, **own, **moving)
            yield f"vacancy at {kelvin:g} K, seed {seed}", Task(job, frame)


def analyse(
    data: Crystal, records: Mapping[str, Record], name: str, identity: str, settings: Settings
) -> ModelDefects:
    """Turn a model's records into its result.

    Args:
        data: of the run.
        records: by key.
        name: the model's name, and `identity` its hash.
        settings: see Settings.
    """
    defects, paths, failed, missing = [], [], [], 0
    trajectories: dict[float, list[Record]] = {}
    for what, task in tasks(data, settings):
        record = records.get(task.key(identity))
        if record is None:
            missing += 1
        elif record["status"] != "ok":
            failed.append((what, str(record["reason"])))
        elif isinstance(task.job, Barrier):
            paths.append(_path(task.job.kind, record))
        elif isinstance(task.job, Formation):
            defects.append(Defect(task.job.kind, number(record, "formation"), number(record, "edge")))
        elif isinstance(task.job, Wander):
            trajectories.setdefault(task.job.kelvin, []).append(record)
    wandering = tuple(_wandering(kelvin, some) for kelvin, some in trajectories.items())
    count = sum(map(len, trajectories.values()))
    return ModelDefects(
        name, identity, tuple(defects), tuple(paths), wandering, count, tuple(failed), missing
    )


def _wandering(kelvin: float, records: list[Record]) -> Wandering:
    blocks = np.concatenate([array(record, "diffusivities", (None,)) for record in records])
    hops = sum(int(number(record, "hops")) for record in records)
    return Wandering(kelvin, blocks, hops, sum(number(record, "picoseconds") for record in records))


def _path(kind: str, record: Record) -> Path:
    energies = array(record, "energies", (None,))
    positions = array(record, "positions", (len(energies), None, 3))
    steps = np.linalg.norm(np.diff(positions, axis=0).reshape(len(energies) - 1, -1), axis=1)
    distance = np.concatenate([[0.0], np.cumsum(steps)])
    return Path(kind, number(record, "barrier"), number(record, "uphill"), energies, distance, positions)
