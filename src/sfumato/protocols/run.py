"""Run any protocol on models and data: one folder, record files of each model, resumable at any time."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from sfumato.config import read_settings
from sfumato.execution.copies import in_copies, possible_copies
from sfumato.execution.folder import RunFolder, RunFolderError, find_runs, place, provenance
from sfumato.execution.lookup import digest_of
from sfumato.execution.records import Record
from sfumato.execution.runner import Item, SameFailureError
from sfumato.jobs.job import Job, Task
from sfumato.jobs.models import Model, resolved
from sfumato.jobs.perform import Recorded, Way, by_job, perform, recorded
from sfumato.potentials.potential import Potential
from sfumato.potentials.specs import ModelSpec
from sfumato.protocols import charges, kept
from sfumato.protocols.protocol import Protocol, Result, Run
from sfumato.protocols.table import find_protocol

Models = Sequence[str | ModelSpec | Potential]
Asked = BaseModel | Mapping[str, Any] | None


def run(
    protocol: str | Protocol,
    models: Models,
    data: Any = None,
    *,
    settings: Asked = None,
    out: str | Path | None = None,
    way: Way = Way(),  # noqa: B008 (frozen)
    device: str = "",
    dtype: str = "",
) -> Run:
    """Run a protocol on models, continuing where an earlier run of the same folder stopped.

    Args:
        protocol: a name of `PROTOCOLS`, "file.py:factory", or a Protocol.
        models: specs ("gfn2-xtb", "file.py:factory", "NAME=SPEC"), ModelSpecs or Potentials; an object is
            evaluated in this process, a spec also in worker processes.
        data: a named data set, a path, or what the protocol reads of one; None: the protocol's default.
        settings: of the protocol, for these models; a mapping of those that differ from the defaults.
        out: the run folder; default "runs/<protocol>-<data set>". Where it holds a run of another protocol,
            this one goes into a folder of the protocol's name in it.
        way: workers, limits, what to repeat, progress.
        device: for all models given by a spec; several with commas between, or "cuda" for every GPU.
        dtype: likewise, "float32" or "float64".

    Returns:
        The results of these models, with the data they were measured on.

    Raises:
        ValueError: bad data, model or settings; a folder that holds something else.
        Stopped: on Ctrl-C or SIGTERM; call again to continue.
    """
    p = find_protocol(protocol)
    chosen = resolved(models, device, dtype)
    data, spec, asked = _data(p, data, settings)
    folder = place(Path(out) if out else default_folder(p, data), p.name)
    own = {model.name: p.settle_for(model, data, asked) for model in chosen}
    planned = {name: list(p.plan(data, settings)) for name, settings in own.items()}
    manifest = _manifest(p, data, spec, own, chosen)
    folder.begin(manifest, p.reads)
    results, stopped = {}, {}
    for model in chosen:
        identity, tasks = model.potential.identity, planned[model.name]
        abilities = model.potential.abilities
        records: dict[str, Record]
        try:
            records = perform([*tasks, *charges.probes(tasks, abilities)], model, folder, way)
        except SameFailureError as error:  # the other models may do better
            stopped[model.name] = str(error)
            records = recorded(tasks, model.name, identity, folder)
        if p.stated and (found := charges.ignored(tasks, abilities, records, identity)):
            manifest["models"][model.name][charges.IGNORED] = found
            folder.begin(manifest, p.reads)
        found = results[model.name] = p.analyse(data, records, model.name, identity, own[model.name])
        if isinstance(records, Recorded):
            _keep(p, data, found, own[model.name], identity, records.digests, folder)
    return Run(p, data, results, own, folder.manifest(), folder.path, stopped)


def load_run(folder: str | Path, protocol: Protocol | None = None) -> Run:
    """Return a run from its folder, analysed anew from its records; nothing is evaluated.

    Args:
        folder: of the run.
        protocol: that made it, if it is not one of `PROTOCOLS`.

    Raises:
        ValueError: the folder or its records are damaged, or the data set is not here or has changed.
    """
    run_folder = RunFolder(Path(folder))
    manifest = run_folder.manifest()
    p = protocol or find_protocol(manifest["protocol"])
    if manifest["protocol"] != p.name or manifest["version"] not in (p.version, *p.reads):
        raise RunFolderError(
            f"{folder}: a run of {manifest['protocol']!r} version {manifest['version']}, not {p.name!r} "
            f"version {p.version}; measure again with: {_command(p, manifest)}"
        )
    entries = {
        name: read_settings(p.settings, **entry.get("settings", {}))
        for name, entry in manifest["models"].items()
    }
    first = next(iter(entries.values()), p.settings())
    data = p.read(manifest["data"]["spec"], first)
    if data.identity != manifest["data"].get("identity"):
        raise RunFolderError(f"{folder}: the data set {manifest['data']['spec']} has changed since this run")
    entries = {name: p.settle(data, settings) for name, settings in entries.items()}
    results = _analysed(p, data, entries, manifest, run_folder)
    return Run(p, data, results, {name: entries[name] for name in results}, manifest, run_folder.path)


MUCH = 50_000_000
"""Bytes of records in a folder; more are read and analyzed on all cores."""


def _analysed(
    p: Protocol, data: Any, entries: Mapping[str, Any], manifest: Mapping[str, Any], folder: RunFolder
) -> dict[str, Any]:
    """Return the result of every model that has records; on all cores where there is much to read.

    An analysis that was kept is taken over where nothing it rests on has changed.
    """

    @cache
    def tasks(settings: str) -> dict[Job, list[Task]]:
        return by_job(p.plan(data, next(s for s in entries.values() if s.model_dump_json() == settings)))

    def packed(name: str) -> tuple[bool, Any]:
        """Whether the analysis is packed, and the analysis."""
        identity, settings = manifest["models"][name]["identity"], entries[name]
        rests_on = _basis(p, data, name, settings, identity, folder)
        place = kept.path_of(folder, name)
        if rests_on is not None and (analysis := kept.kept(place, rests_on)) is not None:
            return True, analysis
        records = recorded(tasks(settings.model_dump_json()), name, identity, folder)
        found = p.analyse(data, records, name, identity, settings) if records else None
        if isinstance(found, Result):
            found.prepare()
        if found is None or rests_on is None:
            return False, found
        analysis = p.pack(found, folder.record_path(name, p.packs))
        if rests_on == _basis(p, data, name, settings, identity, folder):  # nobody wrote meanwhile
            kept.keep(place, rests_on, analysis)
        return True, analysis

    def result(name: str, is_packed: bool, found: Any) -> Any:
        identity, records = manifest["models"][name]["identity"], folder.record_path(name, p.packs)
        return p.unpack(found, data, name, identity, entries[name], records) if is_packed else found

    much = sum(path.stat().st_size for path in (folder.path / "records").glob("*.jsonl")) > MUCH
    analyses = in_copies(packed, list(entries), possible_copies(len(entries)) if much else 1)
    results = {name: result(name, *found) for name, found in zip(entries, analyses)}
    return {name: found for name, found in results.items() if found is not None}


def _basis(
    p: Protocol, data: Any, name: str, settings: BaseModel, identity: str, folder: RunFolder, digest: str = ""
) -> kept.Basis | None:
    """Return what the analysis of a model rests on; None where it is not worth keeping, or cannot be kept.

    Args:
        p: the protocol, `data` and `settings` of the model called `name`, and `identity` its hash.
        folder: of the run.
        digest: of the records, where it is known.
    """
    path = folder.record_path(name, p.packs)
    if not p.packs or folder.plain_record_path(name).exists():  # records of version 0.1.0 count too
        return None
    try:
        if path.stat().st_size < kept.WORTH:
            return None
        return kept.basis(
            data.identity, digest or digest_of(path), name, identity, settings.model_dump(mode="json")
        )
    except OSError:
        return None


def _keep(
    p: Protocol,
    data: Any,
    result: Any,
    settings: BaseModel,
    identity: str,
    digests: Mapping[Path, str],
    folder: RunFolder,
) -> None:
    """Keep the analysis of a model that has just been run."""
    digest = digests.get(folder.record_path(result.name, p.packs)) if p.packs else None
    rests_on = _basis(p, data, result.name, settings, identity, folder, digest) if digest else None
    if rests_on is not None:
        result.prepare()
        packed = p.pack(result, folder.record_path(result.name, p.packs))
        kept.keep(kept.path_of(folder, result.name), rests_on, packed)


def load_others(path: str | Path, run: Run) -> tuple[list[Run], list[str]]:
    """Return the other runs at or below a path that have a model of this run, and why some cannot be read.

    Args:
        path: of a run folder, or of a folder that holds several.
        run: whose models are looked for.
    """
    others, reasons = [], []
    for folder in find_runs(Path(path)):
        if folder.path.resolve() == run.folder.resolve():
            continue
        try:
            if run.models.keys() & folder.manifest()["models"].keys():
                others.append(load_run(folder.path))
        except (ValueError, OSError) as error:
            reasons.append(str(error))
    return others, reasons


def default_folder(protocol: Protocol, data: Any) -> Path:
    """Return where a run goes when nothing is said: runs/<protocol>-<data set>."""
    return Path("runs") / re.sub(r"[^\w.+-]+", "_", f"{protocol.name}-{data.name}")


@dataclass(frozen=True)
class Cost:
    """What a run of one model would take.

    Args:
        model: its name.
        items: to compute, and `done` of them already in the run folder.
        seconds: single-worker time left, and the slowest and fastest timed item's seconds.
    """

    model: str
    items: int
    done: int
    seconds: float
    fastest: float
    slowest: float


def plan(
    protocol: str | Protocol,
    models: Models,
    data: Any = None,
    *,
    settings: Asked = None,
    out: str | Path | None = None,
    device: str = "",
    dtype: str = "",
    samples: int = 5,
) -> list[Cost]:
    """Time a few real items of each model and say what the whole run would take; nothing is written.

    Args:
        protocol, models, data, settings, out, device, dtype: as for `run`.
        samples: items timed per model and job, from the smallest to the largest structure.

    Raises:
        ValueError: as `run`, and where none of the sampled items can be computed.
    """
    p = find_protocol(protocol)
    chosen = resolved(models, device, dtype)
    data, _, asked = _data(p, data, settings)
    folder = place(Path(out) if out else default_folder(p, data), p.name)
    costs = []
    for model in chosen:
        tasks = list(p.plan(data, p.settle_for(model, data, asked)))
        costs.append(_cost(model, tasks, folder, samples))
    return costs


def _cost(model: Model, tasks: Sequence[Task], folder: RunFolder, samples: int) -> Cost:
    identity = model.potential.identity
    done, seconds, paces = 0, 0.0, []
    keys = {task.key(identity) for task in tasks}
    for job, some in by_job(tasks).items():
        records = recorded(some, model.name, identity, folder)
        todo = {task.key(identity): task for task in some if task.key(identity) not in records}
        done += len({task.key(identity) for task in some}) - len(todo)
        estimate = job.estimate(model.potential, [task.frame for task in todo.values()])
        if estimate is not None:
            seconds += estimate
            paces.append(estimate / max(len(todo), 1))
            continue
        sizes, times = _timed(job, some, model, samples)
        seconds += float(sum(np.interp(len(task.frame.numbers), sizes, times) for task in todo.values()))
        paces += times
    return Cost(model.name, len(keys), done, seconds, min(paces), max(paces))


def _timed(job: Job, tasks: Sequence[Task], model: Model, samples: int) -> tuple[list[int], list[float]]:
    """Seconds per item at a few sizes of structures, by real work after one item to warm up."""
    groups: dict[int, list[Task]] = {}
    for task in tasks:
        groups.setdefault(len(task.frame.numbers), []).append(task)
    sizes = sorted(groups)
    picked = sorted({sizes[round(i)] for i in np.linspace(0, len(sizes) - 1, samples)})
    job.work(model.potential, (Item("", groups[picked[0]][0].frame),))
    seconds, reasons = [], []
    for size in picked:
        frame = groups[size][len(groups[size]) // 2].frame
        start = time.perf_counter()
        (record,) = job.work(model.potential, (Item("", frame),))
        seconds.append(time.perf_counter() - start)
        reasons += [record["reason"]] if record["status"] != "ok" else []
    if len(reasons) == len(picked):
        raise ValueError(f"{model.name}: none of the sampled structures can be evaluated: {reasons[0]}")
    return picked, seconds


def _data(p: Protocol, data: Any, settings: Asked) -> tuple[Any, str, Any]:
    """Return the data, what to find it by again, and the settings, settled."""
    given = settings.model_dump() if isinstance(settings, BaseModel) else dict(settings or {})
    asked = read_settings(p.settings, **given)
    if data is None:
        data = p.data
    spec = str(data) if isinstance(data, str | Path) else data.name
    if isinstance(data, str | Path):
        data = p.read(data, asked)
    if Path(spec).exists():
        spec = str(Path(spec).resolve())
    return data, spec, p.settle(data, asked)


def _manifest(
    p: Protocol, data: Any, spec: str, settings: Mapping[str, Any], chosen: Sequence[Model]
) -> dict[str, Any]:
    return {
        "protocol": p.name,
        "version": p.version,
        "data": {"spec": spec, "name": data.name, "identity": data.identity, **p.describe(data)},
        "models": {
            model.name: {
                "spec": model.spec.spec if model.spec else None,
                "device": model.potential.abilities.device,
                "dtype": model.potential.abilities.dtype,
                "identity": model.potential.identity,
                "settings": settings[model.name].model_dump(mode="json"),
                **p.facts(model),
            }
            for model in chosen
        },
        "provenance": provenance(),
    }


def _command(p: Protocol, manifest: Mapping[str, Any]) -> str:
    specs = [entry.get("spec") or name for name, entry in manifest["models"].items()]
    models = " ".join(f"--model {spec}" for spec in specs)
    return f"sfumato run {p.name} {models} --data {manifest['data'].get('spec')} --out NEW_FOLDER"
