"""Jobs: units of work on structures, each with a key and a record, whichever protocol asks for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.execution.records import Record
from sfumato.execution.runner import Chunk
from sfumato.jobs.frames import Frame, Subject
from sfumato.potentials.potential import Potential
from sfumato.potentials.specs import ModelSpec
from sfumato.systems import digest


@dataclass(frozen=True)
class Job(ABC):
    """One kind of work: structures in, one record each out.

    A job is a small frozen dataclass with a `name` and a `version` in its class; its fields are its settings.
    The key of a record hashes name, version, settings, structure and potential, and not the protocol that
    asked: what one protocol has computed, another finds.
    """

    if TYPE_CHECKING:  # read-only, so that class attributes provide them

        @property
        def name(self) -> str: ...

        @property
        def version(self) -> int: ...

    @abstractmethod
    def work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """Return one record per item; the payload of an item is a `Frame`."""

    def work_in(self, potential: Potential, chunk: Chunk, folder: Path) -> list[Record]:
        """Return one record per item, going on with what a folder has; by default nothing is kept in it.

        Args:
            potential: by which.
            chunk: items.
            folder: of the run and the model, for what takes long and must survive a kill.
        """
        return self.work(potential, chunk)

    def before(self, frame: Frame) -> Task | None:
        """Return what must be done to a structure first; by default nothing."""
        return None

    def prepared(self, frame: Frame, record: Record) -> Frame:
        """Return the structure as the record of what was done first leaves it."""
        return frame

    def together(self, potential: Potential) -> int:
        """Return how many items a worker gets at once, at least: as many as the potential likes in a batch.

        A job that fills batches by itself returns 1, so that a kill costs one item and workers share fairly.
        """
        return potential.abilities.batch

    def estimate(self, potential: Potential, frames: Sequence[Frame]) -> float | None:
        """Return the seconds that items take together, from a small part of the work.

        By default None: a few items are timed by doing them.
        """
        return None

    def subject(self, identity: str) -> Subject:
        """Return whose records these are, for a potential's identity."""
        settings = sorted(asdict(self).items())
        name = f"{self.name}:{digest([repr(settings)])}" if settings else self.name
        return Subject(name, self.version, identity)


@dataclass(frozen=True)
class Task:
    """What a protocol asks for: a job on a structure."""

    job: Job
    frame: Frame

    def key(self, identity: str) -> str:
        """Return the key of its record, for a potential's identity."""
        return self.job.subject(identity).key(self.frame)


@dataclass(frozen=True)
class Work:
    """Jobs by one potential, as workers take them.

    Args:
        jobs: by `kind_of`, as items name them.
        model: resolved anew in each worker, on the worker's device; or a Potential for use in this process.
        identity: what the potential must be; a file that changed since the run began is an error.
        folder: see `Job.work_in`.
    """

    jobs: Mapping[str, Job]
    model: ModelSpec | Potential
    identity: str
    folder: Path

    def build(self, device: str) -> Callable[[Chunk], list[Record]]:
        """Load the potential.

        Args:
            device: of the worker; empty: as the model says.

        Raises:
            ValueError: the model is not what it was when the run began.
        """
        potential = self.model
        if isinstance(potential, ModelSpec):
            potential = replace(potential, device=device or potential.device).resolve()
        if potential.identity != self.identity:
            raise ValueError(f"{potential.name}: the model changed while the run was going; start it again")
        return partial(self._work, potential)

    def _work(self, potential: Potential, chunk: Chunk) -> list[Record]:
        """Work on a chunk, whose items are of one kind."""
        return self.jobs[chunk[0].kind].work_in(potential, chunk, self.folder)


def kind_of(job: Job) -> str:
    """Return what tells jobs of one name apart."""
    return job.subject("").job
