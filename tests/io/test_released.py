"""The released layout: the fast parser is the equal of ASE, and what contradicts itself is refused."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfumato import io as sio
from sfumato.io.extxyz_frame import parse_frame
from sfumato.systems import Scan
from tests.released_layout import (
    SCANS,
    archive_at,
    frame_text,
    lay_out,
    make_scan,
    make_set,
    needs_released,
    partition_bytes,
    read_real_files,
    released_files,
    tar_bytes,
)


@pytest.fixture(scope="module")
def real_files() -> dict[str, bytes]:
    """The files of the first two released scans, as they are in the archive."""
    return read_real_files(2)


def assert_as_ase(text: str) -> None:
    """Compare the parser with ASE on one text."""
    frame = parse_frame(text, "here")
    atoms = ase.io.read(io.StringIO(text), format="extxyz")
    np.testing.assert_array_equal(frame.numbers, atoms.numbers)
    np.testing.assert_array_equal(frame.positions, atoms.positions)
    np.testing.assert_array_equal(frame.energy, atoms.calc.results["energy"])
    np.testing.assert_array_equal(frame.forces, atoms.calc.results["forces"])
    if isinstance(atoms.info.get("smiles"), str):
        assert frame.smiles == atoms.info["smiles"]


def test_a_frame_means_what_it_says() -> None:
    frame = parse_frame(
        '2\nProperties=species:S:1:pos:R:3:forces:R:3 id=3 smiles="[H]Cl" energy=-2.5 pbc="F F F"\n'
        "H 0 0 0.5 1 2 3\nCl 0 0 1.77 -1 -2 -3e-1\n",
        "here",
    )
    assert frame.numbers.tolist() == [1, 17]
    assert frame.positions.tolist() == [[0, 0, 0.5], [0, 0, 1.77]]
    assert frame.forces.tolist() == [[1, 2, 3], [-1, -2, -0.3]]
    assert (frame.energy, frame.smiles) == (-2.5, "[H]Cl")


numbers_as_text = st.one_of(
    st.floats(-1e6, 1e6).map(repr),
    st.floats(-99, 99).map(lambda v: f"{v:16.8f}"),
    st.integers(-99, 99).map(str),
    st.sampled_from(["nan", "-0.0", "1e-3", "1E5", "inf", "+2.5", "-0.00000000"]),
)
bare = st.text("abcXYZ019()@+-/#.", min_size=1, max_size=8)
quoted = st.text("abcXYZ019()[]{}@+-/=#.,' ", min_size=1, max_size=12).map(lambda s: f'"{s}"')
extra_pairs = st.lists(
    st.tuples(st.sampled_from(["id", "bond", "smiles", "dataset", "pbc", "note", "charge"]), bare | quoted),
    max_size=4,
    unique_by=lambda pair: pair[0],
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_header_is_read_as_ase_reads_it_or_not_at_all(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3))
    pairs = [f"{key}={value}" for key, value in data.draw(extra_pairs)]
    pairs += ["Properties=species:S:1:pos:R:3:forces:R:3", f"energy={data.draw(numbers_as_text).strip()}"]
    gap = data.draw(st.sampled_from([" ", "  ", "\t"]))
    header = gap.join(data.draw(st.permutations(pairs)))
    rows = [
        " ".join(
            [
                data.draw(st.sampled_from(["H", "C", "Cl", "I"])),
                *(data.draw(numbers_as_text) for _ in range(6)),
            ]
        )
        for _ in range(n)
    ]
    text = "\n".join([str(n), header, *rows, ""])
    try:
        parse_frame(text, "here")
    except ValueError:
        return  # refusing is always allowed; the next tests say what may not be refused
    assert_as_ase(text)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(float, (4, 6), elements=st.floats(-99, 99)),
    st.floats(-1e6, 0) | st.just(float("nan")),
    st.text("CNO()[]=#:/@+-123", min_size=1, max_size=30),
)
def test_every_frame_of_the_dialect_is_read_without_ase(rows: np.ndarray, energy: float, smiles: str) -> None:
    lines = ["O ".ljust(3) + " ".join(f"{v:16.8f}" for v in row) for row in rows]
    header = f'Properties=species:S:1:pos:R:3:forces:R:3 id=7 bond=O-O smiles="{smiles}" dataset="A B" '
    text = "\n".join(["4", header + f'energy={energy} pbc="F F F"', *lines, ""])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ase.io, "read", None)
        frame = parse_frame(text, "here")
    assert frame.smiles == smiles
    assert_as_ase(text)


@needs_released
def test_real_frames_are_read_as_ase_reads_them(
    real_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = {name: data.decode() for name, data in real_files.items() if name.endswith(".xyz")}
    assert len(frames) == 202
    for text in list(frames.values())[::7]:
        assert_as_ase(text)
    monkeypatch.setattr(ase.io, "read", None)
    for name, text in frames.items():
        parse_frame(text, name)


@pytest.mark.parametrize(
    "header",
    [
        "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 author=me",
        "Properties=species:S:1:forces:R:3:pos:R:3 energy=-1.0",
        "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 smiles={C C}",
        'Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc="F F F" Lattice="9 0 0 0 9 0 0 0 9"',
        r'Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 smiles="a\"b"',
        "Properties=species:S:1:pos:R:3:forces:R:3 energy=-2.0 energy=-1.0",
    ],
)
def test_other_headers_are_left_to_ase(header: str) -> None:
    assert_as_ase(f"1\n{header}\nH 1 2 3 4 5 6\n")


def test_charge_and_spin_of_a_frame_are_kept() -> None:
    frame = parse_frame(
        "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1 charge=1 spin=2\nH 1 2 3 4 5 6\n", ""
    )
    assert (frame.charge, frame.multiplicity) == (1, 2)


def test_the_backslash_of_a_smiles_is_kept() -> None:
    text = '1\nProperties=species:S:1:pos:R:3:forces:R:3 smiles="F/C=C\\F" energy=-1\nH 1 2 3 4 5 6\n'
    assert parse_frame(text, "here").smiles == "F/C=C\\F"


GOOD = '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc="F F F"\nH 1 2 3 4 5 6\nO 1 2 3 4 5 6\n'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "", "it has no header"),
        ("2\nP", "two\nP", "line 1 must be the number of atoms, got 'two'"),
        ("2\nP", "3\nP", "line 1 announces 3 atoms, but 2 lines follow"),
        ("O 1 2 3 4 5 6\n", "", "line 1 announces 2 atoms, but 1 lines follow"),
        ("O 1 2 3 4 5 6\n", "O 1 2 3 4 5 6\n" + GOOD, "line 1 announces 2 atoms, but 6 lines follow"),
        ("O 1 2 3 4 5 6", "O 1 2 3 4 5", "line 4 has 6 columns, expected 7"),
        ("H 1 2 3 4 5 6\nO", "H 1 2 3 4 5 6 O", "1 lines follow"),
        ("O 1", "Oo 1", "'Oo' is not an element"),
        ("O 1", "O 1.0.0", "1.0.0"),
        (" energy=-1.0", "", "the frame has no energy"),
        ("energy=-1.0", "energy=low", "could not convert string to float: 'low'"),
        (":forces:R:3", "", "the frame has no forces|cannot be read"),
        ('pbc="F F F"', 'pbc="T T T" Lattice="9 0 0 0 9 0 0 0 9"', "the frame is periodic"),
        ('pbc="F F F"', "charge=0.5", "charge: expected a whole number"),
    ],
)
def test_a_malformed_frame_is_refused(old: str, new: str, message: str) -> None:
    parse_frame(GOOD, "here")
    assert old in GOOD
    with pytest.raises(ValueError, match=message) as caught:
        parse_frame(GOOD.replace(old, new), "here")
    assert str(caught.value).startswith("here: ")


# --- folders and archives --------------------------------------------------------------------------------


def test_a_released_folder_gives_its_scans_in_order(tmp_path: Path) -> None:
    found = sio.read_released_folder(
        lay_out(tmp_path / "mine", released_files(*SCANS)), level="L", licence="MIT"
    )
    assert [scan.name for scan in found] == ["C-C/12", "C-O/7", "C-O/64"]
    assert [scan.identity for scan in found] == [scan.identity for scan in SCANS]
    assert [scan.smiles for scan in found] == [scan.smiles for scan in SCANS]
    assert (found.name, found.level, found.licence, found.source) == ("mine", "L", "MIT", "mine")


@pytest.mark.parametrize("packing", ["", "gz", "zst"])
@pytest.mark.parametrize("root", ["", "./", "bsct_spice/", "bsct-79d915b/bsct_spice/"])
def test_an_archive_of_any_kind_and_depth_gives_the_same(tmp_path: Path, packing: str, root: str) -> None:
    files = dict(reversed(released_files(*SCANS, root=root).items()))
    found = sio.read_released_archive(archive_at(tmp_path / "a.tar", files, packing), level="made/up")
    assert found.identity == make_set(*SCANS).identity


def test_the_folder_of_the_bond_folders_itself_is_accepted(tmp_path: Path) -> None:
    lay_out(tmp_path, released_files(*SCANS))
    for folder in (tmp_path, tmp_path / "bsct_spice"):
        assert len(sio.read_released_folder(folder)) == 3


def test_what_is_not_part_of_the_layout_is_passed_over(tmp_path: Path) -> None:
    strays = {
        "README.md": b"read me",
        "bsct_spice/.DS_Store": b"\0",
        "bsct_spice/notes/a.txt": b"",
        "bsct_spice/C-O/stray.txt": b"",
        "bsct_spice/C-O/empty/readme": b"",
        "bsct_spice/C-O/.hidden/atoms_0.xyz": b"",
        "bsct_spice/C-O/7/._atoms_0.xyz": b"\0\1",
        "bsct_spice/C-O/7/atoms_0.xyz~": b"",
        "bsct_spice/C-O/7/atoms_x.xyz": b"",
        "bsct_spice/C-O/7/plots/atoms_0.xyz": b"",
        "bsct_spice/results/7/atoms_0.xyz": b"",
    }
    files = {**strays, **released_files(*SCANS)}
    identity = make_set(*SCANS).identity
    assert sio.read_released_folder(lay_out(tmp_path / "f", files), level="made/up").identity == identity
    archive = archive_at(tmp_path / "a.tar", files)
    assert sio.read_released_archive(archive, level="made/up").identity == identity


def test_frames_are_sorted_as_numbers(tmp_path: Path) -> None:
    scan = make_scan("C-O/7", 12)
    found = sio.read_released_folder(lay_out(tmp_path, released_files(scan)))
    np.testing.assert_array_equal(found.scans[0].energy, scan.energy)


def test_a_frame_without_energy_has_no_forces(tmp_path: Path) -> None:
    scan = make_scan()
    energy, forces = scan.energy.copy(), scan.forces.copy()
    energy[2], forces[2] = np.nan, -0.0
    files = released_files(replace(scan, energy=energy, forces=forces))
    found = sio.read_released_folder(lay_out(tmp_path, files)).scans[0]
    assert found.labeled.tolist() == [True, True, False, True, True]
    assert np.isnan(found.forces[2]).all()
    np.testing.assert_array_equal(found.positions, scan.positions)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_labels_of_any_sign_become_the_motion_that_lengthens(
    tmp_path: Path, swap: bool, flip: bool, signed: bool
) -> None:
    scan = make_scan()
    signs = -scan.fragment if flip else scan.fragment
    bond = scan.atoms[::-1] if swap else scan.atoms
    labels = signs if signed else (signs + 1) // 2
    files = released_files(scan)
    files["bsct_spice/C-O/7/partition.npz"] = partition_bytes(scan, labels=labels, bond_index=bond)
    found = sio.read_released_folder(lay_out(tmp_path, files)).scans[0]
    first, second = found.atoms
    axis = found.positions[0, second] - found.positions[0, first]
    axis /= np.linalg.norm(axis)
    moved = found.positions[0] + 0.1 * found.fragment[:, None] * axis
    assert np.linalg.norm(moved[second] - moved[first]) == pytest.approx(found.coordinate[0] + 0.2, abs=1e-7)
    assert found.fragment[second] == 1


def broken(**changes: bytes | None) -> dict[str, bytes]:
    """Return the layout of one scan with some files changed, or absent where None."""
    files = released_files(make_scan())
    for key, data in changes.items():
        name = "bsct_spice/C-O/7/" + key.replace("npz", ".npz").replace("xyz", ".xyz")
        if data is None:
            del files[name]
        else:
            files[name] = data
    return files


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pickle-ran",)


S = make_scan()
STRETCHED = replace(S, positions=S.positions + 2e-6 * (np.arange(5) == 2)[:, None] * [1.0, 1.0, 1.0])
OTHER = replace(S, numbers=[1, 6, 8, 1, 9])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (broken(partitionnpz=None), "C-O/7: partition.npz is missing"),
        (broken(atoms_3xyz=None), r"C-O/7: 1 of 5 frames missing: atoms_3\.xyz"),
        (broken(atoms_5xyz=frame_text(S, 4).encode()), r"atoms_5\.xyz is there, but the grid has 5 frames"),
        (
            broken(atoms_2xyz=frame_text(STRETCHED, 2).encode()),
            "in frame 2 the bond is .* perturb_range says",
        ),
        (broken(atoms_2xyz=frame_text(S, 3).encode()), "in frame 2 the bond is"),
        (broken(atoms_2xyz=frame_text(OTHER, 2).encode()), r"atoms_2\.xyz is another molecule than atoms_0"),
        (broken(atoms_2xyz=b"\xff\xfe"), r"atoms_2\.xyz: not a text file"),
        (broken(atoms_2xyz=b""), r"atoms_2\.xyz: not an XYZ file"),
        (broken(partitionnpz=b"PK\3\4 broken"), "partition.npz: not a readable .npz"),
        (broken(partitionnpz=b""), "partition.npz: not a readable .npz"),
        (broken(partitionnpz=partition_bytes(S)[:-30]), "partition.npz: not a readable .npz"),
        (
            broken(partitionnpz=partition_bytes(S, labels=np.array([Payload()], dtype=object))),
            "partition.npz: not a readable .npz of plain arrays: Object arrays",
        ),
        (broken(partitionnpz=partition_bytes(S, labels=[0, 0, 1, 1])), "4 labels for 5 atoms"),
        (broken(partitionnpz=partition_bytes(S, labels=[0, 0, 1, 1, 2])), "labels must be 0 and 1, or"),
        (
            broken(partitionnpz=partition_bytes(S, labels=[0, 1, 1, 0, 0])),
            "both atoms of the bond have label",
        ),
        (
            broken(partitionnpz=partition_bytes(S, labels=[1, 0, 1, 1, 0])),
            "atom 0 is .* labels and frames dis",
        ),
        (broken(partitionnpz=partition_bytes(S, bond_index=[1, 9])), "names an atom outside 0…4"),
        (
            broken(partitionnpz=partition_bytes(S, bond_index=[1.0, 2.0])),
            "bond_index must be two atom numbers",
        ),
        (broken(partitionnpz=partition_bytes(S, perturb_range=[0.7, 2.8, 4.5])), "perturb_range must be"),
        (broken(partitionnpz=partition_bytes(S, perturb_range=[0.7, np.nan, 5])), "perturb_range must be"),
    ],
)
def test_an_incomplete_or_contradictory_scan_is_refused(
    tmp_path: Path, files: dict[str, bytes], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        sio.read_released_folder(lay_out(tmp_path / "f", files))
    with pytest.raises(ValueError, match=message):
        sio.read_released_archive(archive_at(tmp_path / "a.tar", files))
    assert not (tmp_path / "pickle-ran").exists()


def test_a_missing_part_of_the_partition_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, bond_index=[1, 2], labels=[0, 0, 1, 1, 0])
    with pytest.raises(ValueError, match=r"partition\.npz: .*perturb_range"):
        sio.read_released_folder(lay_out(tmp_path, broken(partitionnpz=buffer.getvalue())))


def with_header(scan: Scan, words: str, frames: range) -> dict[str, bytes]:
    files = released_files(scan)
    for k in frames:
        name = f"bsct_spice/{scan.name}/atoms_{k}.xyz"
        files[name] = files[name].replace(b'pbc="F F F"', words.encode())
    return files


def test_charge_and_spin_come_from_the_frames_or_the_caller(tmp_path: Path) -> None:
    stated = with_header(make_scan(), "charge=1 spin=2", range(5))
    found = sio.read_released_folder(lay_out(tmp_path / "a", stated), charge=-1).scans[0]
    assert (found.charge, found.multiplicity) == (1, 2)
    silent = lay_out(tmp_path / "b", released_files(make_scan()))
    found = sio.read_released_folder(silent, charge=-1, multiplicity=3).scans[0]
    assert (found.charge, found.multiplicity) == (-1, 3)
    with pytest.raises(ValueError, match="the frames do not agree on the charge"):
        sio.read_released_folder(lay_out(tmp_path / "c", with_header(make_scan(), "charge=1", range(2))))


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        sio.read_released_folder(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"no scans: expected <bond>/<id>/atoms_<i>\.xyz"):
        sio.read_released_folder(tmp_path)


@pytest.mark.parametrize("packing", ["", "gz", "zst"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.98])
def test_a_truncated_archive_is_refused(tmp_path: Path, packing: str, kept: float) -> None:
    data = tar_bytes(released_files(*SCANS), packing)
    if not packing:
        data = data.rstrip(b"\0") + bytes(1024)  # a plain tar may lose the padding after its end mark
    (tmp_path / "a.tar").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"a\.tar: "):
        sio.read_released_archive(tmp_path / "a.tar")


@pytest.mark.parametrize("packing", ["", "gz", "zst"])
def test_an_archive_cut_between_two_scans_is_refused(tmp_path: Path, packing: str) -> None:
    one = tar_bytes(released_files(SCANS[0])).rstrip(b"\0")
    cut = one + b"\0" * (-len(one) % 512)
    if packing == "gz":
        import gzip

        cut = gzip.compress(cut)
    elif packing == "zst":
        cut = zstandard.ZstdCompressor().compress(cut)
    (tmp_path / "a.tar").write_bytes(cut)
    with pytest.raises(ValueError, match=r"a\.tar: damaged, truncated or not a tar archive"):
        sio.read_released_archive(tmp_path / "a.tar")


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_a_damaged_archive_is_refused(tmp_path: Path, packing: str) -> None:
    data = bytearray(tar_bytes(released_files(*SCANS), packing))
    for k in range(len(data) // 2, len(data) // 2 + 16):
        data[k] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tar: "):
        sio.read_released_archive(tmp_path / "a.tar")


@pytest.mark.parametrize("data", [b"", b"not an archive", b"\x1f\x8bnot gzip", b"\x28\xb5\x2f\xfdnot zstd"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tar: damaged, truncated or not a tar archive"):
        sio.read_released_archive(tmp_path / "a.tar")
    with pytest.raises(ValueError, match="no such file"):
        sio.read_released_archive(tmp_path / "b.tar")


@pytest.mark.parametrize("name", ["../bsct_spice/C-O/7/atoms_0.xyz", "/bsct_spice/C-O/7/atoms_0.xyz"])
def test_a_member_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"refused: .* is not a plain file inside the archive"):
        sio.read_released_archive(archive_at(tmp_path / "a.tar", {name: b"x", **released_files(SCANS[0])}))


@pytest.mark.parametrize(
    ("kind", "size"), [(tarfile.SYMTYPE, 0), (tarfile.LNKTYPE, 0), (tarfile.REGTYPE, 2**25)]
)
def test_a_link_or_a_monster_in_an_archive_is_refused(tmp_path: Path, kind: bytes, size: int) -> None:
    member = tarfile.TarInfo("bsct_spice/C-O/7/atoms_0.xyz")
    member.type, member.linkname, member.size = kind, "/etc/passwd", size
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member, io.BytesIO(bytes(size)))
    with pytest.raises(ValueError, match=r"refused: bsct_spice/C-O/7/atoms_0\.xyz"):
        sio.read_released_archive(tmp_path / "a.tar")


def test_one_file_twice_in_an_archive_is_refused(tmp_path: Path) -> None:
    files = released_files(SCANS[0])
    for twice in ("atoms_1.xyz", "partition.npz"):
        name = f"bsct_spice/C-C/12/{twice}"
        again = {**files, f"./{name}": files[name]}
        with pytest.raises(ValueError, match=f"{name}: there twice"):
            sio.read_released_archive(archive_at(tmp_path / "a.tar", again))


def test_the_released_folder_wins_over_others_in_an_archive(tmp_path: Path) -> None:
    other = released_files(SCANS[1], root="example/")
    both = {**other, **released_files(SCANS[0], root="top/bsct_spice/")}
    found = sio.read_released_archive(archive_at(tmp_path / "a.tar", both))
    assert [scan.name for scan in found] == ["C-C/12"]
    two = {**other, **released_files(SCANS[0], root="more/")}
    with pytest.raises(ValueError, match="scans in several folders: example, more"):
        sio.read_released_archive(archive_at(tmp_path / "a.tar", two))


@needs_released
def test_real_scans_are_complete_and_agree_with_themselves(
    tmp_path: Path, real_files: dict[str, bytes]
) -> None:
    found = sio.read_released_archive(archive_at(tmp_path / "a.tar.zst", real_files, "zst"))
    assert [len(scan) for scan in found] == [100, 100]
    scan = next(scan for scan in found if scan.name == "C-C/10423")
    prefix = "bsct_spice/C-C/10423/"
    text = real_files[prefix + "atoms_42.xyz"].decode()
    atoms = ase.io.read(io.StringIO(text), format="extxyz")
    assert scan.energy[42] == atoms.get_potential_energy()
    np.testing.assert_array_equal(scan.forces[42], atoms.get_forces())
    assert (scan.coordinate[0], scan.coordinate[-1]) == (0.76, 3.04)
    with np.load(io.BytesIO(real_files[prefix + "partition.npz"]), allow_pickle=False) as partition:
        assert scan.atoms.tolist() == partition["bond_index"].tolist()
