"""The table and the curves of training runs, from logs made by hand."""

import json

from sfumato.training.page import curve_figure, curve_page, curve_table, find_logs
from tests.made_runs import HOSTILE, row_of, shown


def validation(step, seconds, loss, energy, forces):
    facts = {"loss": loss, "energy": energy, "forces": forces, "frames": 50}
    return {"event": "validation", "step": step, "seconds": seconds, **facts}


DONE = [
    {"event": "start", "step": 0},
    validation(10, 60.0, 0.1, 1e-4, 1e-2),  # of an earlier stage: its model is not the one that is kept
    {"event": "stage", "step": 10},
    validation(20, 120.0, 0.4, 2e-3, 4e-2),
    validation(30, 180.0, 0.2, 1e-3, 3e-2),
    validation(40, 240.0, 0.3, 9e-4, 5e-2),
    {"event": "end", "step": 40, "seconds": 250.0},
]
LOGS = {"nano": DONE, HOSTILE: DONE[:1], "energies": [{**DONE[1]}]}
del LOGS["energies"][0]["forces"]


def test_the_table_shows_the_model_that_is_kept():
    text = shown(curve_table(LOGS))
    assert max(map(len, text.splitlines())) <= 80
    assert row_of(text, "nano").split() == [
        "nano",
        "40",
        "4",
        "min",
        "10",
        "s",
        "1.00",
        "30.0",
        "50",
        "finished",
    ]
    assert row_of(text, "energies").split()[-4:] == ["0.100", "n/a", "50", "unfinished"]


def test_a_log_without_a_whole_line_has_no_line_yet(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "settings.json").write_text("{}")
    (folder / "log.jsonl").write_text('{"event": "sta')
    logs = find_logs(tmp_path) | {"nano": DONE}
    assert logs["new"] == []
    text = shown(curve_table(logs))
    assert row_of(text, "new").split() == ["new", "no", "line", "yet"]
    assert "finished" in row_of(text, "nano")
    assert "Training" in str(curve_page(logs))


def test_curves_are_in_minutes_and_milli():
    figure = curve_figure(LOGS, "forces", "force MAE, meV/Å")
    nano, empty, energies = figure.data
    assert list(nano.x) == [1, 2, 3, 4]
    assert [round(y, 9) for y in nano.y] == [10, 40, 30, 50]
    assert len(empty.x) == len(energies.x) == 0
    page = str(curve_page(LOGS))
    assert HOSTILE not in page
    assert "<img" not in page[page.index("<body>") :]


def test_runs_are_found_below_a_folder_and_at_it(tmp_path):
    for name in ("a", "b/c"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text("{}")
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in DONE))
    (tmp_path / "runs" / "log.jsonl").write_text("of something else\n")
    assert find_logs(tmp_path / "runs") == {"a": DONE, "b/c": DONE}
    assert find_logs(tmp_path / "runs" / "a") == {"a": DONE}
