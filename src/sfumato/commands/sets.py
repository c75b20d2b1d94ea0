"""Commands about named data sets and their quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sfumato.commands.screen import DONE, PARTIAL, download, say

if TYPE_CHECKING:
    from sfumato.datasets.check import FrameReport
    from sfumato.reference.quality import QualityReport

UNPACKED = (".xyz", ".extxyz", ".db", ".aselmdb", ".json", ".traj", ".yaml", ".yml")
"""Endings of files of structures, and of what is declared about them."""


def data_list() -> int:
    """Print the named data sets."""
    from sfumato.datasets import named as datasets
    from sfumato.report.tables import rows_table

    rows = [
        (name, datasets.status(name), entry.level, entry.licence, entry.description)
        for name, entry in datasets.DATASETS.items()
    ]
    say(rows_table(("data set", "status", "level of theory", "licence", "what"), rows))
    return DONE


def data_get(name: str) -> int:
    """Download, verify and pack a data set."""
    from sfumato.datasets import named as datasets

    with download(name) as progress:
        path = datasets.get(name, progress)
    say(f"{name}: {path}")
    return DONE


def data_import(name: str, path: Path) -> int:
    """Verify and pack a data set from a local archive or folder."""
    from sfumato.datasets import named as datasets

    say(f"{name}: {datasets.import_(name, path)}")
    return DONE


def data_check(name: str, json: Path | None) -> int:
    """Print the quality statements of a data set."""
    from sfumato.commands.data_tables import frames_table, quality_table
    from sfumato.datasets import named as datasets
    from sfumato.files import write_json

    if name not in datasets.DATASETS and Path(name).is_file() and Path(name).suffix in UNPACKED:
        raise ValueError(
            f"{name}: is no packed data set; pack labeled structures first: "
            "sfumato data convert FILE --source SOURCE.yaml -o set.h5 (docs/training.md)"
        )
    found: QualityReport | FrameReport
    if datasets.holds(name) == "frames":
        from sfumato.datasets.check import check_frames

        found = check_frames(datasets.frames_path(name))
        say(frames_table(found))
    else:
        from sfumato.reference.quality import check_scans

        entry = datasets.DATASETS.get(name)
        found = check_scans(datasets.load(name), dict(entry.counts) if entry else None)
        say(quality_table(found))
    if json:
        write_json(json, found.as_json())
    return DONE if found.passed else PARTIAL


def data_convert(files: list[str], source: Path, out: Path) -> int:
    """Convert files of labeled structures; print what was made and decided."""
    from sfumato.commands.data_tables import exclusion_table
    from sfumato.datasets.convert import convert, read_source
    from sfumato.io import Exclusion

    made = convert(_files(files), out, read_source(source))
    for note in made.notes:
        say(note)
    if made.left_out:
        say(exclusion_table([Exclusion(*each) for each in made.left_out]))
    splits = ", ".join(f"{count} {name}" for name, count in made.splits.items())
    say(f"{out}: {made.frames} frames of {made.molecules} molecules ({splits})")
    return DONE


def _files(given: list[str]) -> str | dict[str, str]:
    """Return the one file, or that of each split."""
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).exists()):
        return given[0]
    found: dict[str, str] = {}
    for word in given:
        split, _, file = word.partition("=")
        if not file:
            raise ValueError(f"{word}: several files are given as train=FILE val=FILE test=FILE")
        if split in found:
            raise ValueError(
                f"{split}={found[split]} and {split}={file}: a split takes one file; join them first"
            )
        found[split] = file
    return found


def list_names() -> int:
    """Print the names that can be used."""
    from sfumato.potentials.specs import describe
    from sfumato.report.tables import rows_table

    say(rows_table(("model", "what", "needs"), describe()))
    return data_list()
