"""Small scans, and the released layout made from them or cut from the real archive."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zstandard
from ase.data import chemical_symbols

from sfumato.systems import Scan, ScanSet
from tests import SHARED

RELEASED = SHARED / "data" / "bsct-spice.tar.zst"
needs_released = pytest.mark.skipif(
    not RELEASED.is_file(), reason="the released data are not beside the repository"
)


def make_scan(name: str = "C-O/7", frames: int = 5, seed: int = 0) -> Scan:
    """Return a small scan that follows x_i(α) = x_i + α h_i r̂, with eight decimals as the files have."""
    rng = np.random.default_rng(seed)
    symbols = {"C-O/": [6, 8], "N-N/": [7, 7], "C-C/": [6, 6]}[name[:4]]
    numbers = np.array([1, *symbols, 1, 1])
    fragment = np.array([-1, -1, 1, 1, -1])
    grid = np.linspace(0.71, 2.84, frames)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    start = rng.normal(scale=2.0, size=(5, 3))
    start[2] = start[1] + grid[0] * axis
    positions = start + 0.5 * (grid - grid[0])[:, None, None] * fragment[:, None] * axis
    return Scan(
        name=name,
        numbers=numbers,
        positions=positions.round(8),
        coordinate=grid,
        energy=rng.normal(size=frames) - 4000.0,
        forces=rng.normal(size=(frames, 5, 3)).round(8),
        atoms=np.array([1, 2]),
        fragment=fragment,
        charge=0,
        multiplicity=1,
        smiles="[H:1][C:2](/[H:5])=[O:3][H:4]",
    )


def make_set(*scans: Scan) -> ScanSet:
    return ScanSet("mini", "made/up", "MIT", "the tests", scans, {"seed": 0, "steps": ["a", "b"]})


def frame_text(scan: Scan, k: int) -> str:
    """Write one frame as the released files do."""
    header = (
        f"Properties=species:S:1:pos:R:3:forces:R:3 id={scan.name.split('/')[1]} bond={scan.stratum} "
        f'smiles="{scan.smiles}" dataset="DES370K Monomers" energy={float(scan.energy[k])!r} pbc="F F F"'
    )
    rows = np.concatenate([scan.positions[k], scan.forces[k]], axis=1)
    lines = [
        f"{chemical_symbols[z]:2s} " + " ".join(f"{v:16.8f}" for v in row)
        for z, row in zip(scan.numbers, rows)
    ]
    return "\n".join([str(len(lines)), header, *lines, ""])


def partition_bytes(scan: Scan, **other: object) -> bytes:
    grid = scan.coordinate
    content = {
        "bond": scan.stratum,
        "bond_index": scan.atoms,
        "labels": ((scan.fragment + 1) // 2).astype(np.int32),
        "perturb_range": np.array([grid[0], grid[-1], len(grid)]),
        "rotation": "1.0x",
        "unit_vec": np.array([1.0, 0.0, 0.0]),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{**content, **other})  # type: ignore[arg-type]
    return buffer.getvalue()


def released_files(*scans: Scan, root: str = "bsct_spice/") -> dict[str, bytes]:
    """Return the released layout as {path: contents}."""
    files = {}
    for scan in scans:
        for k in range(len(scan)):
            files[f"{root}{scan.name}/atoms_{k}.xyz"] = frame_text(scan, k).encode()
        files[f"{root}{scan.name}/partition.npz"] = partition_bytes(scan)
        files[f"{root}{scan.name}/unperturbed.xyz"] = frame_text(scan, 0).encode()
    return files


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tar_bytes(files: dict[str, bytes], packing: str = "") -> bytes:
    """Pack {path: contents} as tar, or with packing "gz" or "zst"."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if packing == "gz" else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    plain = buffer.getvalue()
    return zstandard.ZstdCompressor().compress(plain) if packing == "zst" else plain


def archive_at(path: Path, files: dict[str, bytes], packing: str = "") -> Path:
    path.write_bytes(tar_bytes(files, packing))
    return path


def read_real_files(scans: int) -> dict[str, bytes]:
    """Return the files of the first released scans, as they are in the archive."""
    files: dict[str, bytes] = {}
    folders: set[str] = set()
    with (
        RELEASED.open("rb") as raw,
        zstandard.ZstdDecompressor().stream_reader(raw) as plain,
        tarfile.open(fileobj=plain, mode="r|") as archive,
    ):
        for member in archive:
            if not member.isfile():
                continue
            folders.add(member.name.rsplit("/", 1)[0])
            if len(folders) > scans:
                break
            stream = archive.extractfile(member)
            assert stream is not None
            files[member.name] = stream.read()
    return files


SCANS = (make_scan("C-C/12", 4, 2), make_scan("C-O/7"), make_scan("C-O/64", 6, 3))
