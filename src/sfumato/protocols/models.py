"""What every protocol does with the models of a run: find them, evaluate them, read what is recorded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sfumato.execution.folder import RunFolder, RunFolderError
from sfumato.execution.pool import PoolSettings
from sfumato.execution.records import Header, Record, read_records
from sfumato.execution.runner import Item, Watch, run
from sfumato.jobs.evaluate import Evaluate
from sfumato.potentials.adopted import adopted
from sfumato.potentials.potential import Potential
from sfumato.potentials.specs import resolve

Watcher = Callable[[str], AbstractContextManager[Watch]]
Records = Mapping[str, Record]


@dataclass(frozen=True, eq=False)
class Model:
    """A model as the user named it."""

    name: str
    spec: str | None
    potential: Potential

    @classmethod
    def of(cls, model: str | Potential) -> Model:
        """Read `SPEC`, `NAME=SPEC`, or a Potential."""
        if not isinstance(model, str):
            potential = adopted(model)
            return cls(potential.name, None, potential)
        named = re.fullmatch(r"([\w.+-]+)=(.+)", model)
        spec = named[2] if named else model
        potential = resolve(spec)
        return cls(named[1] if named else potential.name, spec, potential)


def resolved(models: Sequence[str | Potential]) -> list[Model]:
    """Resolve the models of a run.

    Raises:
        ValueError: a spec that cannot be resolved, or two models of one name.
    """
    found = [Model.of(model) for model in models]
    for name, count in Counter(model.name for model in found).items():
        if count > 1:
            raise ValueError(f"{count} models are called {name!r}; tell them apart with --model NAME=SPEC")
    return found


@dataclass(frozen=True)
class Way:
    """How models are evaluated.

    Args:
        pool: workers (0: this process), threads, limits; a Potential object stays in this process.
        retry_failed: evaluate again what failed before.
        watch: given a model's name, a context manager that yields a callback for its progress.
    """

    pool: PoolSettings
    retry_failed: bool
    watch: Watcher


def evaluated(
    folder: RunFolder, manifest: Mapping[str, Any], model: Model, items: Sequence[Item], way: Way
) -> Records:
    """Evaluate what a folder has no record of, and return the records of all.

    Args:
        folder: begun with the manifest.
        manifest: of the run.
        model: to evaluate.
        items: structures, by key.
        way: how.

    Raises:
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    identity = model.potential.identity
    asked = (manifest["protocol"], manifest["version"])
    with folder.open(Header(*asked, model.name, identity, manifest["provenance"])) as file:
        with way.watch(model.name) as callback:
            run(
                Evaluate(model.spec or model.potential, identity),
                items,
                file,
                chunk=model.potential.abilities.batch,
                pool=way.pool if model.spec else PoolSettings(workers=0),
                retry_failed=way.retry_failed,
                watch=callback,
            )
        return file.records


def manifest_of(folder: RunFolder, protocol: str, version: int) -> dict[str, Any]:
    """Return what was asked for in a run of a protocol.

    Raises:
        RunFolderError: the folder holds no run, or one of another protocol or version.
    """
    manifest = folder.manifest()
    found = (manifest.get("protocol"), manifest.get("version"))
    if found != (protocol, version):
        raise RunFolderError(
            f"{folder.path}: a run of {found[0]!r} version {found[1]}, not {protocol!r} version {version}"
        )
    return manifest


def recorded(folder: RunFolder, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, Records]]:
    """Yield name, identity and records of the models of a run that have any.

    Raises:
        RecordError: a record file is damaged.
    """
    for name in manifest["models"]:
        path = folder.record_path(name)
        if path.exists():
            header, records = read_records(path)
            yield name, header.identity, records
