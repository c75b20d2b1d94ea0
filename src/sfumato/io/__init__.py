"""Files in and out: the only rooms that know file formats.

ase_objects: ASE atoms and extended XYZ. molecules: SMILES, SDF and named structures. scans_hdf5 and
frames_hdf5: packed sets of scans and of labeled frames. released: the layout in which bond scans are
published, one file per frame, as a folder or an archive.
"""

from sfumato.io.ase_objects import from_ase, read_predictions, read_systems, to_ase, write_systems
from sfumato.io.frames_hdf5 import FrameFile, read_frame_set, write_frame_set
from sfumato.io.molecules import Exclusion, Molecule, Molecules, read_molecules
from sfumato.io.released import read_released_archive, read_released_folder
from sfumato.io.scans_hdf5 import read_scan_set, write_scan_set

__all__ = [
    "Exclusion",
    "FrameFile",
    "Molecule",
    "Molecules",
    "from_ase",
    "read_frame_set",
    "read_molecules",
    "read_predictions",
    "read_released_archive",
    "read_released_folder",
    "read_scan_set",
    "read_systems",
    "to_ase",
    "write_frame_set",
    "write_scan_set",
    "write_systems",
]
