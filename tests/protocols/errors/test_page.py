"""Tables and page of errors on labeled structures, of models with settings of their own."""

import re

import pytest

from sfumato.models.pair import PAIRS
from sfumato.potentials.potential import Abilities, Potential
from sfumato.protocols.errors import Errors
from sfumato.protocols.errors import figures as plots
from sfumato.protocols.errors.page import errors_page
from sfumato.protocols.errors.settings import Settings
from sfumato.protocols.errors.tables import error_table, failures, split_of
from sfumato.protocols.run import Run, run
from sfumato.report.html import write_report
from tests.made_runs import HOSTILE, row_of, shown
from tests.made_training import frame_set, molecules


class Failing(Potential):
    """A pair potential that cannot do carbon-rich structures."""

    name = HOSTILE
    identity = "failing"
    abilities = Abilities(batch=1)

    def compute(self, batch):
        if (batch.numbers == 6).sum() > 2:
            raise ArithmeticError(f"{HOSTILE} at {len(batch.numbers)} atoms")
        return PAIRS["lj"].predict(batch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two models of one folder, the second on all frames and with other settings."""
    out, data = tmp_path_factory.mktemp("errors") / "run", frame_set(molecules(24))
    one = run("errors", [PAIRS["lj"]], data, settings={"split": "val", "turned": 2}, out=out)
    two = run("errors", [Failing()], data, settings={"split": "all", "turned": 1}, out=out)
    return Run(Errors(), data, one.models | two.models, one.settings | two.settings, two.manifest, two.folder)


def words(run):
    return " ".join(shown(error_table(run)).split())


def test_models_of_other_splits_and_settings_share_a_table(measured):
    text = words(measured)
    assert "errors v1 · made · split val or all · Morse · 6 or 24 frames" in text
    assert "6/6" in text
    assert "lj: turned=2" in text
    assert "turned=1" in text
    alone = Run(
        Errors(),
        measured.data,
        {"lj": measured.models["lj"]},
        {"lj": Settings(split="val")},
        measured.manifest,
        measured.folder,
    )
    assert split_of(alone) == "val"
    assert "ettings" not in words(alone)
    text = shown(error_table(alone))
    assert max(map(len, text.splitlines())) <= 80
    e = alone.models["lj"].subsets["all"]["force_mae"]
    assert f"{1e3 * e.mean:.4g}"[:3] in row_of(text, "force MAE")


def test_failures_are_counted_by_kind_of_reason(measured):
    groups = failures(measured)
    assert {group.model for group in groups} == {HOSTILE}
    assert sum(group.count for group in groups) == len(measured.models[HOSTILE].failed) > 0
    assert HOSTILE in words(measured)


def test_the_page_asks_for_nothing_and_escapes_names(measured, tmp_path):
    page = errors_page([measured])
    text = str(page)
    assert text == str(errors_page([measured]))
    body = text[text.index("<body>") :]
    assert "<img" not in body
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", body)
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings.index("Frames that do not count") == 1
    assert "Settings differ." in text
    assert write_report([page], tmp_path / "new" / "page.html").read_text(encoding="utf-8") == text
    assert [name for name, _ in page.figures] == [
        "run-force-parity",
        "run-force-magnitude",
        "run-energy-parity",
    ]


def test_parity_shows_each_model_on_its_own_frames(measured):
    _, lj, failing = plots.energy_parity(measured).data
    assert (len(lj.x), len(failing.x)) == (6, 24)
    assert lj.marker.color != failing.marker.color


def test_several_runs_share_a_page_and_ids_stay_unique(measured):
    text = str(errors_page([measured, measured]))
    ids = re.findall(r' id="([^"]+)"', re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.DOTALL))
    assert len(ids) == len(set(ids))
    with pytest.raises(ValueError, match="at least one run"):
        errors_page([])
