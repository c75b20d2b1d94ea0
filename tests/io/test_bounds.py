"""Small files that unpack to much: refused before the memory is taken."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zstandard

from sfumato.io import read_molecules, read_released_archive, read_released_folder
from sfumato.io.molecules import MoleculeError, molecule_from_smiles
from tests.released_layout import SCANS, lay_out, partition_bytes, released_files


def bomb_header(kind: bytes, size: int) -> bytes:
    """A tar whose only header of this kind announces so many bytes, packed to next to nothing."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = kind, size
    compressor = zstandard.ZstdCompressor().compressobj()
    packed = [compressor.compress(member.tobuf(tarfile.GNU_FORMAT))]
    packed += [compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*packed, compressor.flush()])


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_a_tar_is_bounded(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(bomb_header(kind, 1 << 28))
    assert path.stat().st_size < 1 << 17
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (1 << 28, 1 << 28));"
        "from sfumato.io import read_released_archive; read_released_archive(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert "a header announces 268435456 bytes" in done.stderr


def test_an_archive_that_unpacks_without_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.io.released.SPARE", 0)
    path = tmp_path / "a.tar.zst"
    member = tarfile.TarInfo("README")
    member.size = 1 << 28
    content = member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 28)
    path.write_bytes(zstandard.ZstdCompressor().compress(content))
    with pytest.raises(ValueError, match="unpacks to more than any data does"):
        read_released_archive(path)


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def announcing(shape: tuple[int, ...]) -> bytes:
    """An .npy whose header announces a shape, of which there are no numbers."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("labels", "grid", "message"),
    [
        (npy(np.zeros(10**7, dtype="i1")), [0.7, 2.8, 5], "labels has 10000128 bytes"),
        (announcing((10**12,)), [0.7, 2.8, 5], "labels announces shape"),
        (npy(np.zeros(5, dtype="i8")), [0.7, 2.8, 1e8], "perturb_range must be"),
    ],
)
def test_a_partition_is_bounded(tmp_path: Path, labels: bytes, grid: list[float], message: str) -> None:
    files = released_files(*SCANS[:1])
    key = next(name for name in files if name.endswith("partition.npz"))
    assert files[key] == partition_bytes(SCANS[0])
    files[key] = npz(bond_index=npy(np.array([1, 2])), labels=labels, perturb_range=npy(np.array(grid)))
    with pytest.raises(ValueError, match=rf"partition\.npz: .*{message}"):
        read_released_folder(lay_out(tmp_path, files))


def test_one_molecule_too_large_for_a_conformer_stalls_nothing(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    path = tmp_path / "a.smi"
    path.write_text(f"CC ethane\n{'C' * 400} chain\n{'C' * 100_000} longer\nCO methanol\n")
    found = read_molecules(path)
    assert [molecule.name for molecule in found] == ["ethane", "methanol"]
    assert [exclusion.name for exclusion in found.rejected] == ["chain", "longer"]
    assert "give coordinates" in found.rejected[0].reason
    assert len(found.rejected[1].reason) < 300
    with pytest.raises(MoleculeError, match="1202 atoms"):
        molecule_from_smiles("C" * 400)
