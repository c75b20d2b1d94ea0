"""Files in and out: the only rooms that know file formats.

ase_objects: ASE atoms and extended XYZ. scans_hdf5: a packed set of scans. released: the layout in
which bond scans are published, one file per frame, as a folder or an archive.
"""

from sfumato.io.ase_objects import from_ase, read_predictions, read_systems, to_ase, write_systems
from sfumato.io.molecules import Molecule, read_molecules
from sfumato.io.released import read_released_archive, read_released_folder
from sfumato.io.scans_hdf5 import read_scan_set, write_scan_set

__all__ = [
    "Molecule",
    "from_ase",
    "read_molecules",
    "read_predictions",
    "read_released_archive",
    "read_released_folder",
    "read_scan_set",
    "read_systems",
    "to_ase",
    "write_scan_set",
    "write_systems",
]
