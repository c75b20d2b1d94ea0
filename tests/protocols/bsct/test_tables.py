"""What a user sees: tables in 80 columns, figures, one offline HTML file; on analytic scans."""

import re
from dataclasses import replace

import numpy as np
import pytest

from sfumato.commands import data_tables
from sfumato.io import Exclusion
from sfumato.metrics.stats import Estimate
from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct import figures as plots
from sfumato.protocols.run import Cost
from sfumato.reference.quality import check_scans
from sfumato.report import tables
from sfumato.systems import ScanSet
from tests.made_runs import diatomic, failed, make_run, row_of, shown, with_result


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (33.208, "33.2"),
        (0.5021, "0.502"),
        (4.0, "4.00"),
        (1234.5, "1234"),
        (0.0, "0"),
        (-13.04, "-13.0"),
        (1.83e-4, "1.8e-4"),
        (2.5e6, "2.5e6"),
        (float("nan"), "n/a"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert tables.number(value) == text


def test_an_interval_has_the_decimals_of_its_mean():
    assert tables.interval(Estimate(33.21, 28.12, 39.0, 9, 9)) == "[28.1, 39.0]"
    assert tables.interval(Estimate(33.21, -0.01, 139.0, 9, 9)) == "[0.0, 139.0]"
    assert tables.interval(Estimate(2.0, np.nan, np.nan, 1, 9)) == "[n/a]"


def test_a_p_value_is_never_zero():
    assert [tables.p_value(p) for p in (1e-4, 0.0123, 0.5, np.nan)] == ["< 0.001", "0.012", "0.50", "n/a"]


# tables


def test_the_model_table_gives_mean_interval_and_coverage_smoothest_first():
    run = make_run({"rough": (0.15, 2.1), "smooth": (0.0, 2.1)})
    text = shown(tables.model_table(run))
    fsd = run.models["rough"].estimates["fsd_full"]
    assert f"{tables.number(fsd.mean)} {tables.interval(fsd)}" in row_of(text, "rough")
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
    assert all(line.count("[") == line.count("]") in (2, 3) for line in rows)


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
    run = make_run(settings=bsct.Settings(floor=0.5, refine=2))
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
    for word in (tables.number(d.mean), tables.interval(d), "100%", tables.p_value(d.p_value), "9/9"):
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
        ("rough", "SCF not converged", ["C-C/0", "C-C/1", "C-O/0", "N-N/2"]),
        ("smooth", "not all frames evaluated yet", ["C-C/0"]),
    ]
    text = shown(tables.failure_table(run))
    assert "4/9" in row_of(text, "rough")
    assert "and 1 more" in " ".join(text.split())
    assert "1 more reasons" in shown(tables.failure_table(run, most=1))
    assert "every model finished" in shown(tables.failure_table(make_run()))


def test_the_plan_adds_up_and_shares_the_time():
    costs = [Cost("a", 100, 40, 120.0, 0.05, 0.2), Cost("b", 100, 0, 60.0, 0.001, 0.002)]
    text = shown(tables.plan_table(costs, 2))
    assert "50.0 – 200" in row_of(text, "a")
    assert "1 min 00 s" in row_of(text, "a")
    assert re.search(r"together +200 +40 +1 min 30 s", text)
    assert "together" not in shown(tables.plan_table(costs[:1]))


def test_rows_show_words_as_they_are():
    text = shown(tables.rows_table(("model", "needs"), [("chgnet:[FILE]", "[red]x[/red]")]))
    assert "chgnet:[FILE]" in text
    assert "[red]x[/red]" in text
    with pytest.raises(ValueError, match="expected 2 words, got 1"):
        tables.rows_table(("a", "b"), [("x",)])


def test_names_and_reasons_are_never_markup():
    run = make_run({"[red]a[/red]": (0.0, 2.1), "b": ("failed", "[bold] at [/x]")})
    text = shown(tables.model_table(run)) + shown(tables.failure_table(run))
    assert "[red]a[/red]" in text
    assert "[bold] at [/x]" in " ".join(text.split())


def test_quality_shows_what_was_measured_and_fails_loudly():
    scan = diatomic("C-C/a")
    forces = np.array(scan.forces)
    forces[:, 0, 0] += 0.3
    data = ScanSet("bad", "Morse", "MIT", "x", (replace(scan, forces=forces),))
    text = shown(data_tables.quality_table(check_scans(data)))
    assert "1 scans, 60 frames" in text
    assert re.search(r"^FAIL .*0\.300 eV/Å", text, re.MULTILINE)
    assert "pass" in text


def test_exclusions_group_over_bonds():
    found = [Exclusion(m, f"atoms {k}-{k + 1}: clash: too close") for m in ("a", "b") for k in range(3)]
    text = shown(data_tables.exclusion_table([*found, Exclusion("c", "unreadable")]))
    assert re.search(r"6 +clash: too close +a, b", text)
    assert text.index("clash") < text.index("unreadable")
    two = [Exclusion("a", "clash: 0.9 Å"), Exclusion("b", "clash: 0.8 Å")]
    assert re.search(r"2 +for example clash: 0\.9 Å +a, b", shown(data_tables.exclusion_table(two)))


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


@pytest.mark.parametrize(
    "settings", [bsct.Settings(refine=3), bsct.Settings(minimum="own", coordinate="alpha")]
)
def test_the_mark_is_the_fsd_whatever_the_settings(settings):
    run = make_run({"rough": (0.15, 2.1)}, settings)
    (top,) = [t for t in plots.scan_figure(run, "C-C/0").data if t.mode == "markers"]
    assert top.y[0] == pytest.approx(run.models["rough"].scans["C-C/0"].values[f"{settings.fsd.name}_full"])


def test_a_failed_model_is_named_in_the_legend_of_a_scan():
    run = with_result(make_run(), "rough", "C-C/0", failed("x"))
    assert "rough (failed)" in [trace.name for trace in plots.scan_figure(run, "C-C/0").data]


def test_notable_scans_are_the_roughest_and_the_median_and_not_too_many():
    run = make_run()
    rows = sorted((v.values["fsd_full"], name) for name, v in run.models["rough"].scans.items())
    chosen = plots.notable_scans(run)
    assert next(iter(chosen)) == rows[-1][1]
    assert "roughest of rough" in chosen[rows[-1][1]]
    assert "median of rough" in chosen[rows[4][1]]
    assert len(plots.notable_scans(run, limit=2)) == 2
    assert plots.notable_scans(make_run({"exact": (0.0, 2.0)})) == {}


def test_models_keep_their_looks_and_differ():
    run = make_run({f"m{k}": (0.0, 2.1) for k in range(9)}, per_bond=1)
    looks = list(plots.style_of(run).values())
    assert len(set(looks)) == 9
