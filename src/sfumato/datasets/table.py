"""The table of named data sets: what is known about each before it is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Holds = Literal["scans", "frames", "rare events"]

HELD = {
    "scans": "scans",
    "frames": "frames to train on",
    "rare events": "testing sets of rare events (sfumato run rare-events)",
}
"""What a set holds, in words."""


@dataclass(frozen=True)
class DataSet:
    """What is known about a named set before it is here.

    Args:
        name: what the user types.
        description: one line for `data list`.
        level: level of theory of the labels.
        licence: SPDX identifier.
        source: who made it, and at which revision.
        identity: SHA-256 that the set's identity must have.
        counts: pairs of bond type and number of scans, of split or defect and number of frames.
        frames: number of frames in all.
        holds: "scans", "frames" or "rare events".
        url: archive in the released layout, where it is downloaded.
        bundled: file name in the package's data folder, where it ships with it.
    """

    name: str
    description: str
    level: str
    licence: str
    source: str
    identity: str
    counts: tuple[tuple[str, int], ...]
    frames: int
    holds: Holds = "scans"
    url: str = ""
    bundled: str = ""

    @property
    def scans(self) -> int:
        """Number of scans."""
        return sum(count for _, count in self.counts)


_BONDS = ("C-C", "C-N", "C-O", "C-P", "C-S", "N-N", "N-O", "N-P", "O-P")
_BSCT_COMMIT = "79d915b0f1780a6cc680595984b4c210b5660038"
_K4 = "PBE (VASP, 520 eV, 4x4x4 k-points)"
_SILICON = (
    "Liu, He & Mo 2023, npj Comput. Mater. 9, 174; github.com/mogroupumd/Silicon_MLIP_datasets at 6c7fad5"
)
_SILICON_URL = "https://codeload.github.com/mogroupumd/Silicon_MLIP_datasets/tar.gz/6c7fad5"

DATASETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (
        DataSet(
            name="bsct-spice",
            description="bond scans of 485 molecules of the SPICE test set",
            level="wB97M-D3(BJ)/def2-TZVPPD",
            licence="MIT",
            source=f"Liu et al. 2026, arXiv 2602.04861; github.com/ryanliu30/bsct at {_BSCT_COMMIT}",
            identity="8871f40172b1b2115905880515a3d9131ee65ddde79513c535c05dbfd9517a52",
            counts=tuple(zip(_BONDS, (100, 98, 100, 18, 100, 20, 20, 14, 15))),
            frames=48500,
            url=f"https://codeload.github.com/ryanliu30/bsct/tar.gz/{_BSCT_COMMIT}",
        ),
        DataSet(
            name="bsct-mini",
            description="bond scans of nine small molecules, one of each published bond type",
            level="wb97m-d3bj/def2-tzvppd",
            licence="MIT",
            source="sfumato scan build",
            identity="5f6143b96fafe41dcf2d63b51b7d993e069bff74c6197b5ad357944eae0bc15d",
            counts=tuple((bond, 1) for bond in _BONDS),
            frames=900,
            bundled="bsct-mini.h5",
        ),
        DataSet(
            name="bsct-mini-gfn2",
            description="the frames of bsct-mini by a method that takes milliseconds",
            level="GFN2-xTB",
            licence="MIT",
            source="sfumato scan build",
            identity="147915806e4ab67baec390c24fa7d398a975a4c3501d0e602e7c5c2a509615b3",
            counts=tuple((bond, 1) for bond in _BONDS),
            frames=900,
            bundled="bsct-mini-gfn2.h5",
        ),
        DataSet(
            name="bsct-medium",
            description="27 scans of bsct-spice, molecules of 15 to 35 atoms, three of each bond type",
            level="wB97M-D3(BJ)/def2-TZVPPD",
            licence="MIT",
            source=f"Liu et al. 2026, arXiv 2602.04861; github.com/ryanliu30/bsct at {_BSCT_COMMIT}",
            identity="e4a4a6530bd8fe5c89697bbfdfde9b7f3f8face88126c22d2eda088600717ee2",
            counts=tuple((bond, 3) for bond in _BONDS),
            frames=2700,
            bundled="bsct-medium.h5",
        ),
        DataSet(
            name="organic-mini",
            description="configurations of 365 small molecules, split by molecule",
            level="GFN2-xTB",
            licence="MIT",
            source="sfumato data sample",
            identity="6eac7f7e9937154cd39eefc69247b4d33d4e3df94829caadd87e443efc6f59ec",
            counts=(("train", 3973), ("val", 611), ("test", 525)),
            frames=5109,
            holds="frames",
            bundled="organic-mini.h5",
        ),
        DataSet(
            name="silicon-rare-events",
            description="silicon: snapshots of a migrating interstitial and of a migrating vacancy at 1230 K",
            level=_K4,
            licence="not stated (CC-BY-4.0 according to ColabFit)",
            source=_SILICON,
            identity="f0bd42014bd39a7487889b33dcb2d4c29667da9d99c91ff2036d5db027e9484f",
            counts=(("interstitial", 100), ("vacancy", 100)),
            frames=200,
            holds="rare events",
            url=_SILICON_URL,
        ),
        *(
            DataSet(
                name=f"silicon-{defect}-enhanced",
                description=f"silicon: training set, half of it snapshots of a migrating {defect}",
                level=_K4,
                licence="not stated (CC-BY-4.0 according to ColabFit)",
                source=_SILICON,
                identity=identity,
                counts=(("train", 219), ("val", 50), ("test", test)),
                frames=269 + test,
                holds="frames",
                url=_SILICON_URL,
            )
            for defect, test, identity in (
                ("interstitial", 152, "e954ea632b44e6b94dbd5fd494887288843d1aa118115cfa2ef6a94ad0f0dcde"),
                ("vacancy", 131, "e5baa7372f057d2f8bceaa942b899dc8c1a60d95640b1a0b8e6facb17d7676d2"),
            )
        ),
        DataSet(
            name="mlearn-si",
            description="silicon: crystals, strained and hot, with a vacancy, and surfaces",
            level=_K4,
            licence="BSD-3-Clause",
            source="Zuo et al. 2020, J. Phys. Chem. A 124, 731; github.com/materialsvirtuallab/mlearn",
            identity="186fe8b69a08d02c7f7c66fd61bdeab2e8971d89f9cae0e834bf0d3d1ef9981a",
            counts=(("train", 193), ("val", 21), ("test", 25)),
            frames=239,
            holds="frames",
            url="https://codeload.github.com/materialsvirtuallab/mlearn/tar.gz/10c427a",
        ),
    )
}
"""Every named data set; molecules and cells of all of them are neutral with closed shells."""
