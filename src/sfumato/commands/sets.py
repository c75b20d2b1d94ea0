"""Commands about named data sets and their quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from sfumato.commands.events import data_hop_path, data_rare_events
from sfumato.commands.screen import DONE, PARTIAL, download, say

if TYPE_CHECKING:
    from sfumato.datasets.check import FrameReport
    from sfumato.datasets.sources import SourceSettings
    from sfumato.frames import FrameSet
    from sfumato.reference.quality import QualityReport

UNPACKED = (".xyz", ".extxyz", ".db", ".aselmdb", ".json", ".traj", ".yaml", ".yml")
"""Endings of files of structures, and of what is declared about them."""


def register(app: App) -> None:
    """Add the commands."""
    data = App(name="data", help="List, fetch, make and check data sets.")
    for name, command in (
        ("list", data_list),
        ("get", data_get),
        ("import", data_import),
        ("check", data_check),
        ("convert", data_convert),
        ("rare-events", data_rare_events),
        ("hop-path", data_hop_path),
    ):
        data.command(command, name=name)
    app.command(data)
    app.command(list_names, name="list")


def data_list() -> int:
    """Show the named data sets and whether they are here."""
    from sfumato.datasets import named as datasets
    from sfumato.report.tables import rows_table

    rows = [
        (name, datasets.status(name), entry.level, entry.licence, entry.description)
        for name, entry in datasets.DATASETS.items()
    ]
    say(rows_table(("data set", "status", "level of theory", "licence", "what"), rows, names=True))
    return DONE


def data_get(name: str) -> int:
    """Download a data set, verify it and pack it."""
    from sfumato.datasets import named as datasets

    with download(name) as progress:
        path = datasets.get(name, progress)
    say(f"{name}: {path}")
    return DONE


def data_import(name: str, path: Path) -> int:
    """Verify and pack a data set from a local archive or folder in the released layout."""
    from sfumato.datasets import named as datasets

    say(f"{name}: {datasets.import_(name, path)}")
    return DONE


def data_check(
    name: str,
    *,
    json: Annotated[Path | None, Parameter(help="Also write the result as JSON to this file.")] = None,
) -> int:
    """Measure the quality of labels: missing frames, grid, work against energy, net force."""
    from sfumato.commands.data_tables import frames_table, quality_table
    from sfumato.datasets import named as datasets
    from sfumato.files import write_json

    found: QualityReport | FrameReport
    if name not in datasets.DATASETS and Path(name).is_file() and Path(name).suffix in UNPACKED:
        from sfumato.datasets.check import check_frames

        found = check_frames(_labeled(name))
        say(frames_table(found))
    elif datasets.holds(name) == "frames":
        from sfumato.datasets.check import check_frames

        found = check_frames(datasets.frames_path(name))
        say(frames_table(found))
    elif datasets.holds(name) == "rare events":
        from sfumato.datasets.check import check_frames

        found = check_frames(datasets.load_rare_events(name).as_frames())
        say(frames_table(found))
    else:
        from sfumato.reference.quality import check_scans

        entry = datasets.DATASETS.get(name)
        found = check_scans(datasets.load(name), dict(entry.counts) if entry else None)
        say(quality_table(found))
    if json:
        write_json(json, found.as_json())
    return DONE if found.passed else PARTIAL


def _labeled(file: str) -> FrameSet:
    """Return the frames of a file that `sfumato label` wrote; of any other say what to do."""
    from sfumato.datasets.labeled import declaration, read_labeled

    own = declaration(file)
    if own is None:
        raise ValueError(
            f"{file}: is not a packed data set; pack labeled structures first: "
            f"sfumato data convert {file} --source SOURCE.yaml -o set.h5 (docs/training.md); "
            f"sfumato data convert {file} --template SOURCE.yaml writes a declaration to complete"
        )
    return read_labeled(file, own)


def data_convert(
    files: Annotated[list[str], Parameter(help="FILE, or train=FILE val=FILE test=FILE.", negative="")],
    *,
    source: Annotated[
        Path | None,
        Parameter(help="YAML: what the files are and mean (docs/training.md); sfumato label's need none."),
    ] = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help="The HDF5 file to write.")] = None,
    template: Annotated[
        Path | None, Parameter(help="Write a declaration of the file to complete, and convert nothing.")
    ] = None,
) -> int:
    """Convert labeled structures of others into a packed training set."""
    from sfumato.commands.data_tables import exclusion_table
    from sfumato.datasets.convert import convert, read_source
    from sfumato.datasets.labeled import pack
    from sfumato.io import Exclusion

    given = _files(files)
    if template is not None:
        return _write_template(given, template)
    if out is None:
        raise ValueError("-o: name the HDF5 file to write")
    if source is None:
        file = given if isinstance(given, str) else next(iter(given.values()))
        made = pack(file, out, _own(file)) if isinstance(given, str) else convert(given, out, _own(file))
    else:
        made = convert(given, out, read_source(source))
    for note in made.notes:
        say(note)
    if made.left_out:
        say(exclusion_table([Exclusion(*each) for each in made.left_out]))
    splits = ", ".join(f"{count} {name}" for name, count in made.splits.items())
    say(f"{out}: {made.frames} frames of {made.molecules} molecules ({splits})")
    return DONE


def _write_template(given: str | dict[str, str], path: Path) -> int:
    from sfumato.datasets.labeled import template
    from sfumato.files import write_text

    if path.exists():
        raise ValueError(f"{path}: is there already; name another file, or remove it")
    write_text(path, template(given if isinstance(given, str) else next(iter(given.values()))))
    say(f"{path}: replace every ???, then: sfumato data convert … --source {path} -o set.h5")
    return DONE


def _own(file: str) -> SourceSettings:
    """Return what a file that `sfumato label` wrote says of itself; of any other say what to do."""
    from sfumato.datasets.labeled import declaration

    own = declaration(file)
    if own is None:
        raise ValueError(
            f"{file}: say what it is and means, with --source SOURCE.yaml (docs/training.md); "
            f"sfumato data convert {file} --template SOURCE.yaml writes one to complete"
        )
    return own


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
    """Show the models, protocols and data sets that can be named."""
    from sfumato.models.mindscaip.native import build_name
    from sfumato.potentials.specs import describe
    from sfumato.protocols.table import PROTOCOLS
    from sfumato.report.tables import rows_table

    say(rows_table(("model", "what", "needs"), describe()))
    say(rows_table(("protocol", "what"), [(p.name, p.summary) for p in PROTOCOLS.values()]))
    built = build_name() or "not built: there was no compiler when sfumato was installed; torch does its work"
    say(f"compiled core of MinDScAIP: {built}")
    return data_list()
