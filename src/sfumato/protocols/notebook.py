"""Results in a notebook: tables as HTML, and rows for a data frame."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 100
"""Columns of a table in a notebook."""

STYLE = "font-family: ui-monospace, Menlo, Consolas, monospace; line-height: 1.35; overflow-x: auto"


def html_of(parts: Iterable[RenderableType]) -> str:
    """Return what a terminal would show as HTML in which nothing that users typed is markup."""
    from rich.console import Console

    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), markup=False, emoji=False, highlight=False
    )
    for part in parts:
        console.print(part)
    return console.export_html(inline_styles=True, code_format=f'<pre style="{STYLE}">{{code}}</pre>')


def data_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as a pandas data frame.

    Raises:
        ValueError: pandas is not installed; names the command that installs it.
    """
    try:
        pandas = import_module("pandas")
    except ModuleNotFoundError:
        raise ValueError(
            "to_dataframe needs pandas, which is not installed here: pip install pandas"
        ) from None
    return pandas.DataFrame([dict(row) for row in rows])


def plain_rows(numbers: Mapping[str, Any], above: str = "") -> list[dict[str, Any]]:
    """Return the numbers of a result in JSON types as rows {"metric", "value"}; dots join nested names.

    Lists and words are left out: they are no numbers to compare.
    """
    rows: list[dict[str, Any]] = []
    for key, value in numbers.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            rows += plain_rows(value, name)
        elif isinstance(value, int | float):
            rows.append({"metric": name, "value": value})
    return rows
