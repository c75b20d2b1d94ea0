"""What is scanned is called by its name in tables, pages, figures and files."""

import re
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from sfumato.models.pair import PAIRS
from sfumato.protocols.bsct.export import csv_table, latex_table, markdown_table
from sfumato.protocols.bsct.page import bsct_page
from sfumato.protocols.bsct.tables import comparison_table, run_tables
from sfumato.protocols.run import run
from sfumato.reference.scans import candidates
from sfumato.systems import Batch, Scan, ScanSet, System
from tests.made_runs import make_run, shown


def scans(coordinate):
    """Two scans of butane, labeled by a pair potential."""
    atoms = molecule("trans-butane")
    rest = System(atoms.numbers, atoms.positions)
    found = []
    for candidate in candidates(rest, coordinate, frames=15)[:2]:
        name = f"{candidate.type}/butane-{len(found)}"
        frames = [replace(rest, positions=positions) for positions in candidate.positions]
        labels = PAIRS["morse"].predict(Batch.of(frames))
        forces = labels.forces.reshape(len(frames), -1, 3)
        found.append(
            Scan(
                name,
                rest.numbers,
                candidate.positions,
                candidate.lengths,
                labels.energy,
                forces,
                candidate.atoms,
                candidate.fragment,
                0,
                1,
            )
        )
    return ScanSet(f"{coordinate}s", "Morse", "CC0-1.0", "made by hand", found)


@pytest.mark.parametrize("coordinate", ["angle", "torsion"])
def test_scans_of_angles_and_torsions_are_not_called_bonds(tmp_path, coordinate):
    done = run("bsct", ["lj", "morse"], scans(coordinate), out=tmp_path / "run")
    assert done.complete
    texts = [shown(run_tables(done)), shown(comparison_table(done))]
    texts += [csv_table(done).replace("fsd_compress", "").replace("fsd_stretch", "")]
    texts += [markdown_table(done), latex_table(done)]
    page = bsct_page([done])
    texts += [re.sub(r"<script.*?</script>", "", "".join(page.body), flags=re.S)]
    texts += [
        str(figure.layout.to_plotly_json()) + str([t.name for t in figure.data]) for _, figure in page.figures
    ]
    keys = r"(fsd|energy|force|work)\w*_(compress|stretch)|by_bond|limit_per_bond"
    for text in texts:
        found = re.search(
            r"compress|stretch|\bbonds?\b(?! (?:length|or arc|is turned))", re.sub(keys, "", text)
        )
        assert not found, text[max(0, found.start() - 80) : found.end() + 80]
    assert {"angle": "narrow", "torsion": "before min"}[coordinate] in texts[0]
    assert csv_table(done).startswith(f"model,{coordinate},metric,")


def test_scans_of_bonds_keep_the_published_words():
    text = shown(run_tables(make_run()))
    assert "compress" in text
    assert "stretch" in text
    assert csv_table(make_run()).startswith("model,bond,metric,")


def test_scans_of_several_kinds_have_no_word_of_one(tmp_path):
    mixed = ScanSet(
        "mixed", "Morse", "CC0-1.0", "made by hand", [*scans("angle").scans, *scans("torsion").scans]
    )
    done = run("bsct", ["lj"], mixed, out=tmp_path / "run")
    assert "before min" in shown(run_tables(done))
    assert csv_table(done).startswith("model,type,metric,")
    assert np.isfinite(done.models["lj"].estimates["fsd_compress"].mean)
