"""A campaign replaces its own earlier result and nothing else."""

from dataclasses import replace

import pytest

from sfumato.campaigns.campaign import CampaignOptions
from sfumato.campaigns.label import label_structures
from sfumato.campaigns.place import require_place
from sfumato.campaigns.samples import sample
from sfumato.campaigns.scans import Recipe, build_scans
from sfumato.datasets.labeled import declaration
from sfumato.io import Molecule
from tests.campaigns.test_scans import ETHANE, Spring, ethane

FRESH = CampaignOptions(fresh=True)


def label(path, engine, options=FRESH):
    label_structures([Molecule("a", ETHANE)], engine, path, store=path.with_suffix(".store"), options=options)


def build(path, engine, options=FRESH):
    build_scans(ethane(), engine, path, Recipe("MIT", frames=5), options=options)


@pytest.mark.parametrize("write", [label, build])
@pytest.mark.parametrize("name", ["m.xyz", "m.extxyz", "m.h5"])
def test_labels_of_another_level_are_replaced_on_request_only(tmp_path, write, name):
    path, other = tmp_path / name, replace(Spring(), level="spring 2")
    write(path, Spring(), CampaignOptions())
    write(path, Spring(), CampaignOptions())  # its own result, once more
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds labels of spring, .* replaced by labels of spring 2; move"):
        write(path, other, CampaignOptions())
    assert path.read_bytes() == before
    assert other.asked == []  # said before any work
    write(path, other)
    if name != "m.h5":
        assert declaration(path).level == "spring 2"


@pytest.mark.parametrize(
    "text", ["1\nLattice energy of silver\nAg 0 0 0\n", "notes", "\x89HDF\r\n\x1a\n damaged"]
)
def test_what_no_campaign_wrote_is_left_alone(tmp_path, text):
    path = tmp_path / "molecules.xyz"
    path.write_text(text, encoding="latin-1", newline="")
    for write in (label, build):
        with pytest.raises(
            ValueError, match=r"molecules.xyz: exists and holds no labels that a campaign wrote"
        ):
            write(path, Spring(), CampaignOptions())
    with pytest.raises(ValueError, match="holds no labels that a campaign wrote"):
        sample(ethane(), Spring(), path, None)
    assert path.read_bytes() == text.encode("latin-1")
    label(path, Spring())
    assert declaration(path).level == "spring"


def test_nothing_is_lost_with_an_empty_file(tmp_path):
    (tmp_path / "o.xyz").touch()
    for path in (tmp_path / "o.xyz", tmp_path / "new.xyz", tmp_path):
        require_place(path, "spring", fresh=False)
