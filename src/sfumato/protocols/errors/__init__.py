"""Errors of energies and forces on labeled structures, by subset: `sfumato run errors`, or `sfumato eval`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.protocols.errors.settings import Settings
from sfumato.protocols.protocol import Protocol, Run

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

    from sfumato.execution.records import Record
    from sfumato.frames import FrameSet
    from sfumato.jobs.job import Task
    from sfumato.jobs.models import Model
    from sfumato.protocols.errors.analysis import ModelErrors
    from sfumato.report.html import Page


class Errors(Protocol):
    """Predict every frame, compare energies and forces with the labels."""

    name = "errors"
    version = 1
    summary = "Errors of energies and forces on labeled structures, by subset."
    settings = Settings
    data = "organic-mini"
    unit = "frames"

    def read(self, data: str | Path, settings: Settings) -> FrameSet:
        """See Protocol."""
        from sfumato.protocols.errors.data import read_frames

        return read_frames(data, settings.source)

    def settle(self, data: FrameSet, settings: Settings) -> Settings:
        """Name the split; a file that is not packed has none."""
        from sfumato.protocols.errors.analysis import ALL, chosen_split

        asked = settings.split or (ALL if settings.source else None)
        return settings.model_copy(update={"split": chosen_split(data, asked)})

    def plan(self, data: FrameSet, settings: Settings) -> Iterable[Task]:
        """See Protocol."""
        from sfumato.protocols.errors import analysis

        return analysis.plan(data, settings)

    def analyse(
        self, data: FrameSet, records: Mapping[str, Record], name: str, identity: str, settings: Settings
    ) -> ModelErrors:
        """See Protocol."""
        from sfumato.protocols.errors import analysis

        return analysis.analyse(data, records, name, identity, settings)

    def facts(self, model: Model) -> dict[str, Any]:
        """Keep on what a model was trained, None if unknown, and its level of theory, empty if unknown."""
        training = training_facts(model.spec.spec) if model.spec else None
        level = model.potential.abilities.level or (training or {}).get("level")
        return {"training": training, "level": level or ""}

    def describe(self, data: FrameSet) -> dict[str, Any]:
        """See Protocol."""
        return {"level": data.level, "frames": len(data)}

    def model_json(self, run: Run, name: str) -> dict[str, Any]:
        """See Protocol."""
        return super().model_json(run, name) | {"seen": seen(run).get(name)}

    def tables(self, run: Run) -> RenderableType:
        """See Protocol."""
        from sfumato.protocols.errors.tables import error_table

        return error_table(run)

    def figure(self, run: Run) -> Figure:
        """See Protocol."""
        from sfumato.protocols.errors.figures import force_parity

        return force_parity(run)

    def page(self, runs: Sequence[Run]) -> Page:
        """See Protocol."""
        from sfumato.protocols.errors.page import errors_page

        return errors_page(runs)


def training_facts(spec: str) -> dict[str, str | None] | None:
    """Return on what the model of a file was trained: data set, level of theory, splits; None if unknown."""
    from sfumato.files import expanded
    from sfumato.models.checkpoint import SUFFIX, load_model
    from sfumato.potentials.specs import BUNDLED, DATA, NAMED

    if spec in NAMED and spec not in BUNDLED:
        return None
    path = DATA / f"{spec}{SUFFIX}" if spec in BUNDLED else expanded(spec)
    path = path / f"model{SUFFIX}" if path.is_dir() else path
    if path.suffix != SUFFIX or not path.is_file():
        return None
    facts = load_model(path)[1]
    data = facts.notes.get("settings", {}).get("data", {})
    return {
        "dataset_sha256": facts.dataset_sha256,
        "level": facts.level,
        "train": data.get("train", "train"),
        "validation": data.get("validation", "val"),
    }


def seen(run: Run) -> dict[str, str]:
    """Return what each model had of its frames in its training; a model that saw none is left out."""
    from sfumato.protocols.errors.analysis import ALL

    known = {}
    for name, model in run.models.items():
        training = run.manifest["models"][name].get("training") or {}
        if training.get("dataset_sha256") == run.manifest["data"]["identity"]:
            said = {
                training["train"]: "was trained on these frames",
                training["validation"]: "was chosen by its errors on these frames",
                ALL: "was trained on some of these frames",
            }
            if model.split in said:
                known[name] = said[model.split]
    return known
