"""Tables for a terminal 80 columns wide. Functions return rich renderables; nothing is printed here.

No mean appears without its 95 % interval and the number of items it rests on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich import box
from rich.containers import Lines
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from sfumato.report.numbers import interval, mean
from sfumato.words import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from sfumato.metrics.stats import Estimate, PairedDifference

NAMES_SHOWN = 3
"""Items named in a group of failures before the rest is only counted; HTML names more."""

LONGEST_REASON, LONGEST_NAME = 400, 80
"""Characters of a reason, and of a name, that a table shows."""


def plain_table(title: str | None) -> Table:
    """Return an empty table with the common look."""
    return Table(
        title=None if title is None else Text(title, style="bold"),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def rows_table(columns: Sequence[str], rows: Iterable[Sequence[str]], names: bool = False) -> RenderableType:
    """Return plain rows of words.

    Args:
        columns: headings.
        rows: a word for every column.
        names: whether the first column holds names to be typed, which stay on one line.

    Raises:
        ValueError: a row of another length.
    """
    table = plain_table(None)
    for k, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=names and k == 0)
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"row {list(row)}: expected {len(columns)} words, got {len(row)}")
        table.add_row(*map(Text, row))
    return table


class Parts(Text):
    """A text of parts with blanks between them, which in a narrow column stand below each other, each whole.

    An interval has a blank of its own, at which no line should end.
    """

    parts: tuple[Text, ...] = ()

    @classmethod
    def of(cls, *parts: Text) -> Parts:
        """Return a text of parts."""
        found = cls()
        for k, part in enumerate(parts):
            found.append(" " if k else "").append_text(part)
        found.parts = parts
        return found

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """See rich: at least the longest part, at most all in one line."""
        return Measurement(max((part.cell_len for part in self.parts), default=0), self.cell_len)

    def wrap(self, console: Console, width: int, *args: Any, **kwargs: Any) -> Lines:
        """See rich: one line, or else lines of as many whole parts as fit."""
        lines: list[Text] = []
        for part in self.parts:
            if lines and lines[-1].cell_len + 1 + part.cell_len <= width:
                lines[-1].append(" ").append_text(part)
            else:
                lines.append(part.copy())
        return Lines(one for line in lines for one in line.wrap(console, width, *args, **kwargs))


def coverage_cell(n: int, total: int) -> Text:
    """Return "n/total", conspicuous where something is missing."""
    return Text(f"{n}/{total}", style="" if n == total else "bold red")


def estimate_cell(estimate: Estimate | PairedDifference | None, expected: int | None = None) -> Text:
    """Return a mean and its interval, and on how many items they rest where these are not all.

    Args:
        estimate: None is n/a.
        expected: items that the reader assumes; by default those that the estimate should rest on.
    """
    if estimate is None or not estimate.n:
        return Text("n/a", style="dim")
    if expected is None:
        expected = getattr(estimate, "total", estimate.n)
    count = [] if estimate.n == expected else [Text(f"n={estimate.n}", "bold")]
    return Parts.of(Text(mean(estimate)), Text(interval(estimate), "dim"), *count)


def shorten(names: Sequence[str]) -> Text:
    """Return the first few names, and how many more there are."""
    rest = len(names) - NAMES_SHOWN
    shown = ", ".join(printable(name, LONGEST_NAME) for name in names[:NAMES_SHOWN])
    return Text(shown + (f" and {rest} more" if rest > 0 else ""))


def reason_cell(reason: str) -> Text:
    """Return why something does not count, which may repeat whatever a file held, in a readable length."""
    return Text(printable(reason, LONGEST_REASON))


@dataclass(frozen=True)
class Failures:
    """Items of one model that do not count for one kind of reason.

    Args:
        model: its name.
        reason: of the first; where reasons differ in their numbers, as an example.
        items: their names.
        unnamed: how many there are besides.
    """

    model: str
    reason: str
    items: list[str] = field(default_factory=list)
    unnamed: int = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.items) + self.unnamed


def group_failures(failures: Iterable[tuple[str, str, str]]) -> list[Failures]:
    """Return failures by model and kind of reason, the most frequent first.

    Args:
        failures: (model, reason, item); reasons that differ only in their numbers are of one kind.
    """
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for model, reason, item in failures:
        kind = re.sub(r"\d+(\.\d+)?", "…", reason)
        groups.setdefault((model, kind), []).append((reason, item))
    rows = []
    for (model, _), alike in groups.items():
        first = alike[0][0]
        same = all(reason == first for reason, _ in alike)
        rows.append(Failures(model, first if same else f"for example {first}", [item for _, item in alike]))
    return sorted(rows, key=lambda row: -len(row.items))


def failure_table(
    groups: Sequence[Failures], unit: str, totals: Mapping[str, int], most: int = 12
) -> RenderableType:
    """Return what does not count and why, by model and reason.

    Args:
        groups: from `group_failures`.
        unit: what is counted, in the plural.
        totals: how many of them each model was asked for.
        most: rows shown; the rest is counted.
    """
    table = plain_table(f"{unit.capitalize()} that do not count")
    table.add_column("model", overflow="fold")
    table.add_column(unit, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("which", overflow="fold")
    for group in groups[:most]:
        share = f"{group.count}/{totals[group.model]}"
        table.add_row(Text(group.model), share, reason_cell(group.reason), shorten(group.items))
    if len(groups) > most:
        table.caption = f"and {len(groups) - most} more reasons; the HTML report lists all"
    return table


def settings_note(settings: Mapping[str, BaseModel], hidden: Sequence[str] = ()) -> str:
    """Return which model was measured with which settings other than the defaults; empty if none was.

    Args:
        settings: of each model.
        hidden: fields that are shown elsewhere.
    """
    groups: dict[str, list[str]] = {}
    for name, own in settings.items():
        changed = own.model_dump(exclude_defaults=True)
        words = ", ".join(f"{key}={value}" for key, value in changed.items() if key not in hidden)
        groups.setdefault(words, []).append(name)
    if not any(groups):
        return ""
    if len(groups) == 1:
        return f"Settings other than the defaults: {next(iter(groups))}."
    parts = [f"{', '.join(names)}: {words or 'the defaults'}" for words, names in groups.items()]
    return f"Settings differ. {'; '.join(parts)}."


def settings_by_model(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that all models share, and each model's own under "of each model".

    Args:
        settings: of each model, in JSON types.
    """
    first: Mapping[str, Any] = next(iter(settings.values()), {})
    common = {
        key: value for key, value in first.items() if all(s.get(key) == value for s in settings.values())
    }
    own = {name: {k: v for k, v in s.items() if k not in common} for name, s in settings.items()}
    return common | ({"of each model": own} if any(own.values()) else {})
