"""A run folder: `run.json` says what was asked for, `records/` holds one record file per model."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sfumato.execution.records import Header, RecordFile

MANIFEST = "run.json"
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


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is either the old one or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)


class RunFolderError(ValueError):
    """A folder is no run folder, or holds a run of other data."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one protocol on one data set; any number of models."""

    path: Path

    def manifest(self) -> dict[str, Any]:
        """Return what was asked for.

        Raises:
            RunFolderError: there is no readable manifest.
        """
        try:
            manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_text())
        except FileNotFoundError:
            raise RunFolderError(f"{self.path}: no {MANIFEST}, so this is not a run folder") from None
        except ValueError as error:
            raise RunFolderError(f"{self.path / MANIFEST}: not readable as JSON ({error})") from None
        return manifest

    def begin(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, keeping the models of earlier calls.

        Raises:
            RunFolderError: the folder holds another protocol or other data.
        """
        if (self.path / MANIFEST).exists():
            found = self.manifest()
            for what in ("protocol", "version", "data"):
                if _identity(found.get(what)) != _identity(manifest[what]):
                    raise RunFolderError(
                        f"{self.path} holds a run of another {what} ({_word(found.get(what))}, not "
                        f"{_word(manifest[what])}). Choose another --out."
                    )
            manifest = manifest | {"models": found["models"] | manifest["models"]}
        write_json(self.path / MANIFEST, manifest)

    def record_path(self, model: str) -> Path:
        """Return where a model's records are."""
        return self.path / "records" / (re.sub(r"[^\w.+-]+", "_", model) + ".jsonl")

    def open(self, header: Header) -> RecordFile:
        """Open a model's record file for appending."""
        return RecordFile(self.record_path(header.subject), header)


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
