"""What a user sees: tables in 80 columns, figures, one offline HTML file; on analytic scans."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct import figures as plots
from sfumato.protocols.bsct import tables
from sfumato.protocols.bsct.settings import Settings
from sfumato.report.numbers import interval, number, p_value
from sfumato.report.tables import Failures
from tests.made_runs import failed, make_run, row_of, shown, with_result


def test_the_model_table_gives_mean_interval_and_coverage_smoothest_first():
    run = make_run({"rough": (0.15, 2.1), "smooth": (0.0, 2.1)})
    text = shown(tables.model_table(run))
    fsd = run.models["rough"].estimates["fsd_full"]
    assert f"{number(fsd.mean)} {interval(fsd)}" in row_of(text, "rough")
    assert "9/9" in row_of(text, "rough")
    assert text.index("smooth") < text.index("rough")
    assert "morse-set" in text
    assert "Morse/exact" in text


def test_seven_models_of_long_names_fit_80_columns_on_one_line_each():
    run = make_run({f"lj-neighbor-c{k:02}": (0.02 * k, 2.0 + 0.03 * k) for k in range(7)})
    text = shown(tables.model_table(run))
    assert max(map(len, text.splitlines())) <= 80
    rows = [line for line in text.splitlines() if line.startswith("lj-neighbor-c")]
    assert len(rows) == 14
    assert all(line.count("[") == line.count("]") == 3 for line in rows)


def test_a_mean_over_fewer_scans_says_so():
    run = make_run(per_bond=1)
    lost = with_result(run, "rough", "C-O/0", failed("frame 3: SCF not converged"))
    assert "2/3" in row_of(shown(tables.model_table(lost)), "rough")
    old = run.models["smooth"].scans["C-O/0"]
    side = replace(old, values={**old.values, "fsd_compress": np.nan})
    line = row_of(shown(tables.model_table(with_result(run, "smooth", "C-O/0", side))), "smooth")
    assert "n=2" in line
    assert "3/3" in line


def test_a_model_without_a_finished_scan_has_no_number_and_comes_last():
    run = make_run({"none": ("failed", "no such element"), "smooth": (0.0, 2.1)})
    text = shown(tables.model_table(run))
    line = row_of(text, "none")
    assert "0/9" in line
    assert line.count("n/a") == 3
    assert text.index("smooth") < text.index("none")


def test_settings_other_than_the_defaults_show_in_the_titles():
    run = make_run(settings=Settings(floor=0.5, refine=2))
    text = shown(tables.model_table(run))
    assert "FSD[floor=0.5], 1/Å" in text
    assert not re.search(r"n/a", row_of(text, "smooth"))


def test_bond_types_have_a_row_each_and_a_lone_scan_no_interval():
    text = shown(tables.bond_table(make_run(per_bond=1)))
    assert [line.split()[0] for line in text.splitlines() if re.match(r"\w-\w ", line)] == [
        "C-C",
        "C-O",
        "N-N",
    ]
    assert row_of(text, "C-C").count("[n/a]") == 2
    many = {f"m{k}": (0.0, 2.1) for k in range(7)}
    assert shown(tables.bond_table(make_run(many))).count("by bond type") == 3


def test_pairs_show_difference_interval_p_and_n():
    run = make_run()
    text = shown(tables.comparison_table(run))
    d = bsct.compare(run.models["smooth"], run.models["rough"], "fsd_full")
    line = row_of(text, "smooth")
    assert d.mean < 0
    for word in (number(d.mean), interval(d), "100%", p_value(d.p_value), "9/9"):
        assert word in line


def test_pairs_that_share_no_scan_are_not_applicable():
    run = make_run({"smooth": (0.0, 2.1), "none": ("failed", "no")})
    line = row_of(shown(tables.comparison_table(run)), "smooth")
    assert line.count("n/a") == 3
    assert "0/9" in line


def test_a_comparison_needs_two_models_and_a_known_metric():
    with pytest.raises(ValueError, match="at least two models"):
        tables.comparison_table(make_run({"smooth": (0.0, 2.1)}))
    with pytest.raises(ValueError, match=r"unknown metric 'fsd_ful'; did you mean 'fsd_full'"):
        tables.comparison_table(make_run(), "fsd_ful")


def test_failures_group_by_reason_without_the_frame_and_are_counted():
    run = make_run()
    for k, name in enumerate(("C-C/0", "C-C/1", "C-O/0", "N-N/2")):
        run = with_result(run, "rough", name, failed(f"frame {k}.5: SCF not converged"))
    run = with_result(run, "smooth", "C-C/0", bsct.ScanResult("incomplete", "39 of 60 frames evaluated", {}))
    assert tables.failures(run) == [
        Failures("rough", "SCF not converged", ["C-C/0", "C-C/1", "C-O/0", "N-N/2"]),
        Failures("smooth", "not all frames evaluated yet", ["C-C/0"]),
    ]
    text = shown(tables.failure_table(run))
    assert "4/9" in row_of(text, "rough")
    assert "and 1 more" in " ".join(text.split())
    assert "1 more reasons" in shown(tables.failure_table(run, most=1))
    assert "every model finished" in shown(tables.failure_table(make_run()))


def test_names_and_reasons_are_never_markup():
    run = make_run({"[red]a[/red]": (0.0, 2.1), "b": ("failed", "[bold] at [/x]")})
    text = shown(tables.model_table(run)) + shown(tables.failure_table(run))
    assert "[red]a[/red]" in text
    assert "[bold] at [/x]" in " ".join(text.split())


# figures


def test_the_mean_figure_draws_the_means_and_intervals_of_three_sides():
    run = make_run()
    figure = plots.fsd_figure(run)
    assert [trace.name for trace in figure.data] == ["whole scan", "compressed", "stretched"]
    estimate = run.models["rough"].estimates["fsd_full"]
    assert figure.data[0].x[1] == estimate.mean
    assert figure.data[0].x[1] + figure.data[0].error_x.array[1] == pytest.approx(estimate.high)
    assert figure.data[0].x[1] - figure.data[0].error_x.arrayminus[1] == pytest.approx(estimate.low)
    assert list(figure.layout.yaxis.ticktext) == ["smooth (9/9)", "rough (9/9)"]
    assert "1/Å" in figure.layout.xaxis.title.text


def test_the_distribution_has_a_point_per_finished_scan_and_a_floor_for_its_log_axis():
    run = with_result(make_run({"exact": (0.0, 2.0), "rough": (0.15, 2.1)}), "rough", "C-C/0", failed("x"))
    figure = plots.distribution_figure(run)
    assert [len(trace.x) for trace in figure.data] == [9, 8]
    assert set(figure.data[0].x) == {plots.SMALLEST}
    assert figure.layout.xaxis.type == "log"


def test_the_bond_figure_has_every_bond_type_of_every_model():
    run = with_result(make_run({"exact": (0.0, 2.0), "rough": (0.15, 2.1)}), "rough", "C-O/1", failed("x"))
    *points, exact, rough = plots.bond_figure(run).data
    assert [len(trace.x) for trace in points] == [9, 8]
    assert set(points[0].x) == set(exact.x) == {plots.SMALLEST}
    # Rows are bond types; a scan lies where the mean of its model does, and the mean amid its scans.
    assert sorted(set(points[1].y)) == list(rough.y)
    scans = [[x for x, y in zip(points[1].x, points[1].y) if y == row] for row in rough.y]
    assert [len(row) for row in scans] == [3, 2, 3]
    assert list(rough.x) == pytest.approx([np.mean(row) for row in scans])
    layout = plots.bond_figure(run).layout
    assert (layout.xaxis.type, layout.yaxis.ticktext[0]) == ("log", "C-C (3 scans)")


def test_the_paired_figure_counts_what_lies_below_the_line():
    figure = plots.paired_figure(make_run(), "rough", "smooth")
    assert len(figure.data[1].x) == 9
    assert "smooth is smoother, 9 of 9" in figure.layout.title.text


def test_a_scan_is_drawn_from_its_minimum_with_the_fsd_marked():
    run = make_run()
    figure = plots.scan_figure(run, "C-O/1")
    reference = figure.data[0]
    assert reference.name == "reference"
    assert min(reference.y) == 0
    rough = {trace.yaxis: trace for trace in figure.data if trace.name == "rough"}
    ratio = np.maximum([y or 0 for y in rough["y2"].y], 1) / np.maximum([y or 0 for y in figure.data[1].y], 1)
    np.testing.assert_allclose(rough["y3"].y, np.log(ratio), atol=1e-4)
    steps = np.abs(np.diff(rough["y3"].y)) / np.diff(rough["y3"].x)
    np.testing.assert_allclose(rough["y4"].y, steps, rtol=1e-3, atol=1e-3)
    assert "(eV/Å)²" in figure.layout.yaxis2.title.text
    tops = [trace for trace in figure.data if trace.mode == "markers"]
    values = [run.models[name].scans["C-O/1"].values["fsd_full"] for name in ("smooth", "rough")]
    assert [trace.y[0] for trace in tops] == pytest.approx(values)
    with pytest.raises(ValueError, match="no scan 'C-O/99'"):
        plots.scan_figure(run, "C-O/99")


@pytest.mark.parametrize("settings", [Settings(refine=3), Settings(minimum="own", coordinate="alpha")])
def test_the_mark_is_the_fsd_whatever_the_settings(settings):
    run = make_run({"rough": (0.15, 2.1)}, settings)
    (top,) = [t for t in plots.scan_figure(run, "C-C/0").data if t.mode == "markers"]
    assert top.y[0] == pytest.approx(run.models["rough"].scans["C-C/0"].values[f"{settings.fsd.name}_full"])


def test_a_failed_model_is_named_in_the_legend_of_a_scan():
    run = with_result(make_run(), "rough", "C-C/0", failed("x"))
    assert "rough (failed)" in [trace.name for trace in plots.scan_figure(run, "C-C/0").data]


def test_small_runs_show_every_scan_the_roughest_first():
    run = make_run()
    rows = sorted((v.values["fsd_full"], name) for name, v in run.models["rough"].scans.items())
    chosen = plots.shown_scans(run)
    assert sorted(chosen) == sorted(name for _, name in rows)
    assert next(iter(chosen)) == rows[-1][1]
    assert "roughest of rough" in chosen[rows[-1][1]]
    assert "median of rough" in chosen[rows[4][1]]
    assert chosen[rows[0][1]] == "" or "smooth" in chosen[rows[0][1]]
    assert list(plots.shown_scans(make_run({"exact": (0.0, 2.0)})).values()) == [""] * 9


def test_large_runs_show_the_notable_scans_only():
    run = make_run()
    chosen = plots.shown_scans(run, all_up_to=8, limit=2)
    assert len(chosen) == 2
    assert all(chosen.values())
    assert plots.shown_scans(make_run({"exact": (0.0, 2.0)}), all_up_to=8) == {}


def test_one_high_peak_does_not_flatten_the_others():
    run = make_run({"a": (0.02, 2.1), "b": (0.03, 2.1), "spike": (8.0, 2.1)}, per_bond=1)
    heights = {name: model.scans["C-C/0"].values["fsd_full"] for name, model in run.models.items()}
    assert heights["spike"] > 3 * heights["b"] > 0  # it would
    figure = plots.scan_figure(run, "C-C/0")
    top = figure.layout.yaxis4.range[1]
    assert top == pytest.approx(3 * heights["b"])
    (mark,) = [trace for trace in figure.data if trace.mode == "markers+text"]
    assert mark.y[0] < top
    assert mark.text == f"{number(heights['spike'])} ↑"
    assert number(heights["spike"]) in mark.hovertext
    assert plots.scan_figure(make_run(per_bond=1), "C-C/0").layout.yaxis4.range is None


def test_a_scan_has_a_line_that_a_slider_can_move():
    figure = plots.scan_figure(make_run(per_bond=1), "C-C/0")
    (line,) = [shape for shape in figure.layout.shapes if shape.name == "frame"]
    assert (line.yref, line.x0) == ("paper", line.x1)


# settings of each model


def test_models_with_other_settings_stand_in_one_table_and_a_line_says_which():
    own = {"rough": Settings(refine=2, floor=0.5)}
    run = make_run(own=own)
    text = shown(tables.model_table(run))
    assert "FSD, 1/Å" in text  # of both kinds
    assert "n/a" not in text
    fsd = run.models["rough"].estimates["fsd[floor=0.5]_full"]
    assert f"{number(fsd.mean)} {interval(fsd)}" in row_of(text, "rough")
    assert "Settings differ. smooth: the defaults; rough: floor=0.5, refine=2." in " ".join(text.split())
    alike = " ".join(shown(tables.model_table(make_run(settings=Settings(refine=2)))).split())
    assert "Settings other than the defaults: refine=2." in alike
    assert "ettings" not in shown(tables.model_table(make_run()))
    bonds = shown(tables.bond_table(run))
    assert "n/a [" not in bonds
    assert row_of(bonds, "C-C").count("[") == 2


def test_an_fsd_of_another_floor_is_not_compared():
    run = make_run(own={"rough": Settings(floor=0.5)})
    text = shown(tables.comparison_table(run))
    assert row_of(text, "smooth").count("n/a") == 3
    assert "Numbers of other settings are not compared." in " ".join(text.split())
    assert "n/a" not in row_of(shown(tables.comparison_table(run, "force_mae_full")), "smooth")
    refined = make_run(own={"rough": Settings(refine=2)})  # does not touch the FSD
    assert "n/a" not in row_of(shown(tables.comparison_table(refined)), "smooth")


def test_models_that_were_asked_about_other_scans_stand_in_one_table():
    run = make_run({"all": (0.0, 2.1), "few": (0.15, 2.1)}, own={"few": Settings(limit_per_bond=1)})
    text = shown(tables.model_table(run))
    assert "9/9" in row_of(text, "all")
    assert "3/3" in row_of(text, "few")
    assert "few: limit_per_bond=1" in " ".join(text.split())
    assert tables.bond_counts(run) == {"C-C": 3, "C-O": 3, "N-N": 3}
    figure = plots.scan_figure(run, "C-C/2")
    assert "few (not run)" in [trace.name for trace in figure.data]


def test_the_tables_of_a_run_hold_failures_and_types_of_enough_scans():
    run = with_result(make_run(), "rough", "C-C/0", failed("frame 3: broken"))
    text = shown(tables.run_tables(run))
    for words in ("bsct v2 · morse-set", "Scans that do not count", "broken"):
        assert words in text
    assert "by bond type" not in text
    many = shown(tables.run_tables(make_run(per_bond=tables.FEW)))
    assert "FSD, 1/Å by bond type" in many
    assert "do not count" not in many


# looks


def test_models_keep_their_looks_and_differ():
    run = make_run({f"m{k}": (0.0, 2.1) for k in range(9)}, per_bond=1)
    looks = list(plots.style_of(run).values())
    assert len(set(looks)) == 9
