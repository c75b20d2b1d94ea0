"""Runs and results in a notebook: short, as tables, as data frames, as a figure."""

import sys
import types

import numpy as np
import pytest

from sfumato.protocols.errors.analysis import ModelErrors
from sfumato.protocols.notebook import plain_rows
from sfumato.protocols.run import run
from tests.made_runs import HOSTILE, failed, make_run, with_result
from tests.made_training import frame_set, molecules
from tests.protocols.test_seam import Counting, Toy


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    out = tmp_path_factory.mktemp("errors") / "run"
    settings = {"split": "all", "turned": 0}
    return run("errors", ["lj", "morse"], frame_set(molecules(8)), settings=settings, out=out)


@pytest.fixture
def pandas(monkeypatch):
    """A stand-in that keeps the rows it is given."""
    module = types.ModuleType("pandas")
    module.DataFrame = list
    monkeypatch.setitem(sys.modules, "pandas", module)


def test_runs_and_results_are_short_whatever_they_hold(errors):
    bsct = with_result(make_run(), "rough", "C-C/0", failed("frame 3: no"))
    assert repr(bsct.models["rough"]) == "<ModelResult rough: 8/9>"
    assert repr(errors.models["lj"]) == "<ModelErrors lj: 8/8>"
    assert isinstance(errors.models["lj"], ModelErrors)
    for each in (bsct, errors, *bsct.models.values(), *errors.models.values()):
        assert len(repr(each)) < 300


def test_a_run_shows_its_verdicts_and_tables(errors):
    html = make_run()._repr_html_()
    assert html.startswith("<pre")
    assert "rough: false barriers up to" in html
    assert "FSD" in html
    assert "Errors by subset" in errors._repr_html_()


def test_what_users_typed_is_no_markup_in_a_notebook():
    html = make_run({HOSTILE: (0.1, 2.1)})._repr_html_()
    assert "<img" not in html
    assert "</script>" not in html
    assert "[bold]" in html


def test_a_data_frame_has_a_row_for_each_number(errors, pandas):
    rows = make_run().to_dataframe()
    assert {row["model"] for row in rows} == {"smooth", "rough"}
    (found,) = (r for r in rows if (r["model"], r["type"], r["metric"]) == ("rough", "all", "fsd_full"))
    estimate = make_run().models["rough"].estimates["fsd_full"]
    assert found["mean"] == estimate.mean
    assert (found["low95"], found["high95"], found["scans"], found["of"]) == (
        estimate.low,
        estimate.high,
        9,
        9,
    )
    assert {row["type"] for row in rows} == {"all", "C-C", "C-O", "N-N"}
    rows = errors.models["lj"].to_dataframe()
    assert {row["metric"] for row in rows} >= {"energy_mae", "force_mae"}
    assert all({"subset", "mean", "low95", "high95", "frames", "of"} <= row.keys() for row in rows)


def test_a_protocol_of_ones_own_has_rows_without_doing_anything(tmp_path, pandas):
    done = run(Toy(), [Counting()], out=tmp_path / "toy")
    assert {"model": "counting", "metric": "largest", "value": max(done.models["counting"].values)} in (
        done.to_dataframe()
    )
    assert plain_rows({"a": {"b": 1, "c": "word", "d": [1]}, "e": None}) == [{"metric": "a.b", "value": 1}]
    with pytest.raises(ValueError, match="toy has no figure"):
        done.plot()


def test_without_pandas_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for each in (make_run(), make_run().models["rough"]):
        with pytest.raises(ValueError, match="not installed here: pip install pandas"):
            each.to_dataframe()


def test_a_plot_is_the_figure_that_says_most(errors):
    figure = make_run().plot()
    assert "Mean FSD of each model" in figure.layout.title.text
    assert np.isfinite(np.array(figure.data[0].x, dtype=float)).all()
    assert "Force components" in errors.plot().layout.title.text
