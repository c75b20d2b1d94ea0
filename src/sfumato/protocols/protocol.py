"""What every protocol is: a question to any potential, with settings, data, jobs, tables and a page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from sfumato.potentials.specs import CONTROLS, RENAMED
from sfumato.protocols import charges, notebook
from sfumato.protocols.verdict import Answer, Said, Verdict

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

    from sfumato.execution.records import Record
    from sfumato.jobs.job import Task
    from sfumato.jobs.models import Model
    from sfumato.report.html import Page


Size = Literal["dev", "fast", "standard"]
"""How much is measured: a look in a minute or two, enough to compare, the published amount."""


class Result(ABC):
    """What a protocol says of one model."""

    @property
    @abstractmethod
    def coverage(self) -> tuple[int, int]:
        """(items that count, items of the run)."""

    @abstractmethod
    def as_json(self) -> dict[str, Any]:
        """Return every number in JSON types; what does not exist is null."""

    def prepare(self) -> None:
        """Compute now what tables need; by default nothing."""
        return None

    def rows(self) -> list[dict[str, Any]]:
        """Return the numbers as rows of a data frame; by default "metric" and "value" of `as_json`."""
        return notebook.plain_rows(self.as_json())

    def to_dataframe(self) -> Any:
        """Return `rows` as a pandas data frame.

        Raises:
            ValueError: pandas is not installed.
        """
        return notebook.data_frame(self.rows())

    def __repr__(self) -> str:
        n, total = self.coverage
        name = getattr(self, "name", "")
        return f"<{type(self).__name__} {name}: {n}/{total}>".replace(" :", ":")


class Protocol(ABC):
    """A question that is asked of potentials in the same way.

    A protocol of one's own states the attributes below and has the abstract methods; `run`, `plan`, `report`
    and the command line serve it as they serve those of `PROTOCOLS`.

    Attributes:
        name: as typed after `sfumato run`.
        version: a published version is never edited; a changed number is a new version.
        summary: one line for the help.
        settings: a frozen pydantic model of everything that decides a number besides data and model; its
            fields are options of the command line, explained by its docstring.
        data: the default data set.
        unit: what the progress counts.
        reads: earlier versions whose run folders this one can analyze, because they computed the same.
        packs: the job on whose records alone an analysis rests, where `pack` and `unpack` are there;
            otherwise empty, and a run is analyzed anew whenever it is read.
        stated: whether charge and spin are stated by the data, so that a model that ignores them is named.
    """

    name: str
    version: int
    summary: str
    settings: type[BaseModel]
    data: str
    unit: str = "structures"
    reads: tuple[int, ...] = ()
    packs: str = ""
    stated: bool = True

    @abstractmethod
    def read(self, data: str | Path, settings: Any) -> Any:
        """Return the data of a run; it has a `name` and an `identity`.

        Args:
            data: a named data set or a path.
            settings: of the run.

        Raises:
            ValueError: an unknown name or path, or contents that cannot be read.
        """

    def sized(self, size: Size) -> tuple[str, dict[str, Any]]:
        """Return the data and the settings of a size, for `sfumato assess`.

        By default the default data, and the size itself where there is a setting of this name.
        """
        return self.data, {"size": size} if "size" in self.settings.model_fields else {}

    def settle(self, data: Any, settings: Any) -> Any:
        """Return the settings where what depends on the data is decided; by default as they are."""
        return settings

    def settle_for(self, model: Model, data: Any, settings: Any) -> Any:
        """Return the settings where what depends on the model is decided; by default as they are.

        The run folder keeps them in the model's entry, so that its records are understood without the model.

        Raises:
            ValueError: settings that make no sense for the model.
        """
        return settings

    @abstractmethod
    def plan(self, data: Any, settings: Any) -> Iterable[Task]:
        """Yield what is to be computed.

        Raises:
            ValueError: settings that make no sense for the data.
        """

    @abstractmethod
    def analyse(
        self, data: Any, records: Mapping[str, Record], name: str, identity: str, settings: Any
    ) -> Any:
        """Turn a model's records into its `Result`: a pure function, the model itself is not needed.

        Args:
            data: of the run.
            records: by key (`Task.key`); records of other structures are ignored.
            name: the model's name, and `identity` its hash.
            settings: of the model.
        """

    def pack(self, result: Any, records: Path) -> Any:
        """Return a `Result` in JSON types, to be kept beside the file of its records."""
        raise NotImplementedError

    def unpack(self, packed: Any, data: Any, name: str, identity: str, settings: Any, records: Path) -> Any:
        """Return the `Result` that `pack` was given.

        Args:
            packed: from `pack`.
            data: of the run.
            name: the model's name, and `identity` its hash.
            settings: of the model.
            records: the file of its records.
        """
        raise NotImplementedError

    @abstractmethod
    def tables(self, run: Run) -> RenderableType:
        """Return what the terminal shows of a run."""

    @abstractmethod
    def page(self, runs: Sequence[Run]) -> Page:
        """Return the page about some runs of this protocol."""

    def figure(self, run: Run) -> Figure:
        """Return the figure that says most of a run; by default the first one of its page.

        Raises:
            ValueError: there is none.
        """
        for _, figure in self.page([run]).figures:
            return figure
        raise ValueError(f"{run.folder}: the protocol {self.name} has no figure for this run")

    def answers(self, run: Run, name: str) -> Sequence[Answer]:
        """Return what a run answers to `verdict.QUESTIONS` about a model; by default nothing.

        The id of the page's section about the k-th run, from 0, is the protocol's name and k: there the
        evidence leads.
        """
        return ()

    def facts(self, model: Model) -> dict[str, Any]:
        """Return what the run folder should keep of a model besides its settings; by default nothing."""
        return {}

    def describe(self, data: Any) -> dict[str, Any]:
        """Return facts about the data that the run folder and the result file keep."""
        return {"level": data.level}

    def settings_json(self, settings: Any) -> dict[str, Any]:
        """Return settings as the result file shows them."""
        return dict(settings.model_dump(mode="json"))

    def model_json(self, run: Run, name: str) -> dict[str, Any]:
        """Return a model's part of the result file."""
        return dict(run.models[name].as_json())

    def compare(self, run: Run, metric: str | None) -> RenderableType:
        """Return the paired differences between the models of a run.

        Raises:
            ValueError: this protocol has none, or no model has this metric.
        """
        raise ValueError(f"{run.folder}: the protocol {self.name} has no paired comparison")

    def write_table(self, run: Run, path: Path) -> None:
        """Write the headline table of a run to a file: .csv, .md or .tex.

        Raises:
            ValueError: this protocol has none, or another ending.
        """
        raise ValueError(f"{run.folder}: the protocol {self.name} has no table for a file")


@dataclass(frozen=True, eq=False)
class Run:
    """Everything a reader of a run needs.

    Args:
        protocol: what was asked.
        data: what it was measured on.
        models: each model's `Result`.
        settings: each model's own.
        manifest: what was asked for, as the run folder has it.
        folder: of the run.
        stopped: model → why it was not tried on everything, where all failed for one reason.
    """

    protocol: Protocol
    data: Any
    models: dict[str, Any]
    settings: dict[str, Any]
    manifest: dict[str, Any]
    folder: Path
    stopped: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every item of every model came out well."""
        return all(n == total for n, total in (model.coverage for model in self.models.values()))

    @property
    def remarks(self) -> list[str]:
        """What a reader of the numbers must know besides them; sentences without their full stops."""
        models = self.manifest["models"]
        return charges.remarks({name: models.get(name, {}) for name in self.models})

    def identity_of(self, name: str) -> str:
        """Return the hash of the potential of this name."""
        return str(self.manifest["models"].get(name, {}).get("identity", ""))

    def is_control(self, name: str) -> bool:
        """Return whether a model is one of those that are broken on purpose."""
        spec = self.manifest["models"].get(name, {}).get("spec")
        return RENAMED.get(spec, spec) in CONTROLS

    def said(self, name: str, section: str = "") -> list[Said]:
        """Return what this run answers about a model.

        Args:
            name: of the model.
            section: the id of the section of a page that shows this run, if there is one.
        """
        source = f"{self.protocol.name} on {self.data.name}"
        return [Said(source, answer, section) for answer in self.protocol.answers(self, name)]

    def verdict(self, name: str, others: Iterable[Run] = ()) -> Verdict:
        """Return the verdict on a model.

        Args:
            name: of the model.
            others: runs whose answers count too, where they have a model of this name and hash.
        """
        same = [
            run for run in others if name in run.models and run.identity_of(name) == self.identity_of(name)
        ]
        said = [said for run in (self, *same) for said in run.said(name)]
        return Verdict(tuple(said), self.is_control(name))

    def common_settings(self) -> dict[str, Any]:
        """Return the settings that all models of the run share."""
        shown = [self.protocol.settings_json(settings) for settings in self.settings.values()]
        first = shown[0] if shown else {}
        return {key: value for key, value in first.items() if all(s.get(key) == value for s in shown)}

    def as_json(self, others: Sequence[Run] = ()) -> dict[str, Any]:
        """Return the result file.

        Args:
            others: runs that the verdicts rest on besides this one.
        """
        return {
            "models": {name: self._model_json(name, others) for name in self.models},
            "settings": self.common_settings()
            | {"protocol": self.protocol.name, "version": self.protocol.version},
            "provenance": self.manifest["provenance"] | {"data": self.manifest["data"]},
        }

    def _model_json(self, name: str, others: Sequence[Run]) -> dict[str, Any]:
        p, verdict = self.protocol, self.verdict(name, others)
        judged = {"verdict": verdict.as_json()} if verdict.said else {}
        entry = self.manifest["models"].get(name, {})
        judged |= {key: entry[key] for key in (charges.IGNORED,) if key in entry}
        return p.model_json(self, name) | judged | {"settings": p.settings_json(self.settings[name])}

    def to_dataframe(self) -> Any:
        """Return every model's numbers as a pandas data frame with a column "model".

        Raises:
            ValueError: pandas is not installed.
        """
        rows = [{"model": name, **row} for name, result in self.models.items() for row in result.rows()]
        return notebook.data_frame(rows)

    def plot(self) -> Figure:
        """Return the figure that says most, a plotly Figure, which a notebook shows.

        Raises:
            ValueError: there is none, for example because no model has a result.
        """
        return self.protocol.figure(self)

    def _repr_html_(self) -> str:
        """Return verdicts and tables for a notebook."""
        lines = [
            f"{name}: {verdict.in_words()}" for name in self.models if (verdict := self.verdict(name)).said
        ]
        return notebook.html_of([*lines, self.protocol.tables(self), *self.remarks])

    def __repr__(self) -> str:
        covered = ", ".join(f"{name} {n}/{total}" for name, (n, total) in self._coverage().items())
        return f"<{self.protocol.name} on {self.data.name}: {covered}; {self.folder}>"

    def _coverage(self) -> dict[str, tuple[int, int]]:
        return {name: model.coverage for name, model in self.models.items()}
