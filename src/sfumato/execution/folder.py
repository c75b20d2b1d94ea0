"""A run folder: `run.json` says what was asked for, `records/` holds one record file per model and job."""

from __future__ import annotations

import fcntl
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import NoneType
from typing import Any

from sfumato.execution.records import Header, RecordFile
from sfumato.files import open_to_lock, write_json

MANIFEST = "run.json"
SCHEMA = 2
"""Of manifests. In the first, which had no number, settings belonged to the folder, not to each model."""

PACKAGES = ("sfumato", "numpy", "scipy", "ase", "torch", "tblite", "pyscf", "rdkit")


def provenance() -> dict[str, Any]:
    """Return the versions and the machine facts that a result depends on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "packages": versions,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }


class RunFolderError(ValueError):
    """A folder is not a run folder, or holds a run of other data."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one protocol on one data set; any number of models, each with its own settings."""

    path: Path

    def manifest(self) -> dict[str, Any]:
        """Return what was asked for, in today's schema.

        Raises:
            RunFolderError: there is no readable manifest, or one of a newer version, or it is damaged.
        """
        manifest = self._read()
        _require_complete(manifest, self.path / MANIFEST)
        return manifest

    def _read(self) -> dict[str, Any]:
        path = self.path / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunFolderError(f"{self.path}: no {MANIFEST}, so this is not a run folder") from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(f"{path}: not readable as JSON ({error})") from None
        _require_form(manifest, path)
        return upgraded(manifest)

    def begin(self, manifest: Mapping[str, Any], reads: Sequence[int] = ()) -> None:
        """Write the manifest, keeping the models of earlier calls.

        Processes that begin at once do so one after the other, and none loses another's models.

        Args:
            manifest: what is asked for now.
            reads: earlier versions of the protocol whose folders may go on as one of this version.

        Raises:
            RunFolderError: the folder holds another protocol or other data.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if (self.path / MANIFEST).exists():
                before = self._read()
                if before["version"] in reads:
                    before["version"] = manifest["version"]
                for what in ("protocol", "version", "data"):
                    if _identity(before[what]) != _identity(manifest[what]):
                        raise RunFolderError(
                            f"{self.path} holds a run of another {what} ({_word(before[what])}, not "
                            f"{_word(manifest[what])}). Choose another --out."
                        )
                manifest = dict(manifest) | {"models": before["models"] | manifest["models"]}
            write_json(self.path / MANIFEST, {"schema": SCHEMA, **manifest})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with open_to_lock(self.path / f".{MANIFEST}.lock") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def record_path(self, model: str, job: str) -> Path:
        """Return where a model's records of a job are."""
        return self.path / "records" / f"{_safe(model)}.{job}.jsonl"

    def work_path(self, model: str) -> Path:
        """Return where long jobs of a model keep what they have, and leave what is too much for a record."""
        return self.path / "dynamics" / _safe(model)

    def plain_record_path(self, subject: str) -> Path:
        """Return where a store keeps the labels of a level, and version 0.1.0 kept a model's records."""
        return self.path / "records" / f"{_safe(subject)}.jsonl"

    def siblings(self, job: str) -> list[Path]:
        """Return the record files of a job in the run folders beside, above and below this one."""
        own = self.path.resolve()
        near = ((own.parent, "*/records"), (own.parent, "records"), (own, "*/records"))
        beside = [path for base, records in near for path in sorted(base.glob(f"{records}/*.{job}.jsonl"))]
        folders = {path: path.parent.parent for path in beside}
        return [path for path, run in folders.items() if run != own and (run / MANIFEST).is_file()]

    def open(self, header: Header, fresh: bool = False) -> RecordFile:
        """Open the record file of a model and job for appending; `fresh` sets an earlier one aside."""
        return RecordFile(self.record_path(header.subject, header.job), header, fresh=fresh)


def place(path: Path, protocol: str) -> RunFolder:
    """Return where a run of a protocol goes: to a path, or below it where that holds another protocol's run.

    Raises:
        RunFolderError: the manifest at the path is damaged or of a newer version.
    """
    folder = RunFolder(path)
    if not (path / MANIFEST).exists() or folder.manifest()["protocol"] == protocol:
        return folder
    return RunFolder(path / _safe(protocol))


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)


def _require_form(manifest: Any, path: Path) -> None:
    """Raise unless a manifest has the parts that everything relies on."""
    kinds = {"protocol": str, "version": int, "data": dict, "models": dict}
    sound = isinstance(manifest, dict) and all(type(manifest.get(k)) is t for k, t in kinds.items())
    if not sound or not all(isinstance(entry, dict) for entry in manifest["models"].values()):
        raise RunFolderError(f"{path}: damaged: it lacks protocol, version, data or models")
    if not isinstance(manifest.setdefault("provenance", {}), dict):
        raise RunFolderError(f"{path}: damaged: its provenance is not a group")
    if not isinstance(manifest.get("settings", {}), dict):
        raise RunFolderError(f"{path}: damaged: its settings are not a group")
    schema = manifest.get("schema", 1)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise RunFolderError(
            f"{path}: was written by a newer Sfumato (schema {schema}; this one reads up to {SCHEMA}); "
            "update with: pip install --upgrade sfumato"
        )


def _require_complete(manifest: Mapping[str, Any], path: Path) -> None:
    """Raise unless a manifest says of data and models what is needed to find and understand the records."""
    groups: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("data", manifest["data"], {"spec": str, "identity": str}),
        *(
            (f"models.{name}", entry, {"identity": str, "settings": dict})
            for name, entry in manifest["models"].items()
        ),
    ]
    for what, group, words in groups:
        for word, kind in words.items():
            if not isinstance(group.get(word), kind):
                raise RunFolderError(f"{path}: damaged: {what}.{word} is missing or not a {NAMES[kind]}")
        for word, kinds in (("spec", (str, NoneType)), ("training", (dict, NoneType))):
            if not isinstance(group.get(word), kinds):
                raise RunFolderError(f"{path}: damaged: {what}.{word} is not what it should be")


NAMES = {str: "word", dict: "group"}
"""What kinds of values are called."""

RENAMED = {"eval": "errors"}
"""Protocols that had another name in version 0.1.0."""

OF_THE_FOLDER = ("limit_per_bond", "limit_per_subset", "split", "source")
"""Settings that version 0.1.0 kept beside its settings."""


def upgraded(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of version 0.1.0 in today's schema, where settings belong to each model."""
    if "schema" in manifest:
        return manifest
    kept = {key: value for key, value in manifest.items() if key not in ("settings", *OF_THE_FOLDER)}
    settings = manifest.get("settings", {}) | {key: manifest[key] for key in OF_THE_FOLDER if key in manifest}
    models = {name: {"settings": settings, "old": True} | entry for name, entry in manifest["models"].items()}
    name = RENAMED.get(manifest["protocol"], manifest["protocol"])
    return {**kept, "schema": SCHEMA, "protocol": name, "models": models}


def _identity(value: Any) -> Any:
    return value.get("identity") if isinstance(value, dict) else value


def _word(value: Any) -> str:
    return str(value.get("name")) if isinstance(value, dict) else str(value)


def find_runs(path: Path) -> list[RunFolder]:
    """Return the run folders at or below a path, in order.

    Raises:
        RunFolderError: there are none.
    """
    runs = [RunFolder(manifest.parent) for manifest in sorted(path.rglob(MANIFEST))]
    if not runs:
        raise RunFolderError(f"{path}: no run folders here (looked for {MANIFEST})")
    return runs
