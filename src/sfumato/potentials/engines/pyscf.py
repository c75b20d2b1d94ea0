"""Density functional theory through PySCF."""

from __future__ import annotations

import os
import sys
import time
import warnings
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.potentials.engines.cores import core_potentials
from sfumato.potentials.engines.engine import (
    Engine,
    Label,
    _compare,
    _failed,
    _refuse_overlap,
    _split_level,
    _unpaired,
    _version,
)
from sfumato.potentials.potential import Abilities
from sfumato.systems import Floats, System, digest
from sfumato.units import BOHR, HARTREE, HARTREE_PER_BOHR

PYSCF_KNOWN = {("wb97m-d3bj", "def2-tzvppd", True, 3): (-1.170448400, -76.479722606)}
"""Energies of hydrogen and water in hartree for (xc, basis, density_fit, grid_level)."""

NONLOCAL_GRID_LEVEL = 1
"""Of the non-local part of functionals such as wb97m-v, whose cost grows with the square of the grid."""

DEF2 = ("def2-svp", "def2-tzvp", "def2-qzvp")
"""Beginnings of basis sets whose identity does not depend on how their core potentials are looked up."""

LEVEL_SHIFT = 0.3
"""Hartree by which the virtual orbitals are raised when a plain SCF does not converge."""


def _import_pyscf() -> Any:
    """Import PySCF with the fast matrix kernels of its bundled OpenBLAS.

    The wheels of PySCF carry OpenBLAS 0.3.3, which takes newer processors with AVX2 for the oldest kind and
    multiplies matrices three times slower than it can. It reads its choice from the environment once, while
    it is loaded; the environment is put back right after. SciPy's own OpenBLAS, loaded first, is spared.
    """
    import scipy.linalg  # noqa: F401

    name = "OPENBLAS_CORETYPE"
    cpuinfo = Path("/proc/cpuinfo")
    guide = "pyscf" not in sys.modules and name not in os.environ and cpuinfo.exists()
    if guide and " avx2 " in (text := cpuinfo.read_text()) and " fma " in text:
        os.environ[name] = "Haswell"
    try:
        import pyscf.df
        import pyscf.dft
    finally:
        if guide:
            os.environ.pop(name, None)
    return pyscf


def gpu_available() -> bool:
    """Tell whether gpu4pyscf is installed and there is a CUDA device for it."""
    if find_spec("gpu4pyscf") is None:
        return False
    try:
        import cupy

        return bool(cupy.cuda.runtime.getDeviceCount() > 0)
    except (ImportError, RuntimeError):  # CUDA's libraries, or the driver, are missing or do not fit
        return False


@cache
def _gpu_version() -> str:
    """Return name and version of gpu4pyscf, whose name tells for which CUDA it was built."""
    names = metadata.packages_distributions().get("gpu4pyscf")
    if not names:
        raise ValueError(
            "PySCF: this engine computes on a GPU, and gpu4pyscf is not installed here; "
            "install it with: pip install gpu4pyscf-cuda12x (the number is CUDA's version)"
        )
    return f"{names[0]} {metadata.version(names[0])}"


def _on_host(array: Any) -> Floats:
    """Return an array as numpy's, wherever it lies."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


@dataclass(frozen=True)
class PySCF(Engine):
    """Density functional theory through PySCF, restricted for singlets and unrestricted otherwise.

    The SCF starts on a coarse grid and ends on the full one: about as fast as a start from a neighboring
    frame, yet independent of it. If it does not converge it goes on with a level shift, then by second-order
    steps. The number of threads is PySCF's own (OMP_NUM_THREADS).

    Args:
        xc: functional in PySCF's spelling, with its dispersion correction.
        basis: basis set in PySCF's spelling.
        density_fit: fit Coulomb and exchange with PySCF's default auxiliary basis.
        grid_level: PySCF's grid level, 0 to 9.
        grid_response: let the forces follow the moving grid, so that they are the gradient.
        conv_tol: SCF convergence of the energy in hartree.
        max_cycle: SCF iterations of each attempt.
        gpu: compute on a GPU through gpu4pyscf. Its labels agree with the processor's to rounding and SCF
            tolerance, not to the bit, so they have another identity.
    """

    xc: str = "wb97m-d3bj"
    basis: str = "def2-tzvppd"
    density_fit: bool = True
    grid_level: int = 3
    grid_response: bool = True
    conv_tol: float = 1e-10
    max_cycle: int = 60
    gpu: bool = False

    @property
    def level(self) -> str:
        """Functional and basis, for example "wb97m-d3bj/def2-tzvppd"."""
        return f"{self.xc}/{self.basis}"

    @property
    def abilities(self) -> Abilities:
        """Those of an engine, for molecules only."""
        return replace(super().abilities, periodic=False)

    @property
    def identity(self) -> str:
        """SHA-256 of functional, basis, settings and versions."""
        settings = (self.density_fit, self.grid_level, self.grid_response, self.conv_tol, self.max_cycle)
        more = [] if self.basis.lower().startswith(DEF2) else ["core potentials of the basis"]
        if self.xc.lower().endswith(("-v", "_v", "vv10")):
            more.append(f"non-local grid {NONLOCAL_GRID_LEVEL}")
        return digest([self._engine(), self.xc, self.basis, np.array(settings, dtype=float), *more])

    def _engine(self) -> str:
        engine = f"pyscf {_version('pyscf', 'dft')}"
        if "-d3" in self.xc.lower() or "-d4" in self.xc.lower():
            engine += f", pyscf-dispersion {_version('pyscf-dispersion', 'dft')}"
        return f"{_gpu_version()}, {engine}" if self.gpu else engine

    def _mean_field(self, system: System) -> Any:
        """Return the unsolved mean field of a structure."""
        unpaired = _unpaired(system)
        pyscf = _import_pyscf()
        try:
            molecule = pyscf.gto.Mole(
                atom=[(int(z), x) for z, x in zip(system.numbers, system.positions / BOHR)],
                unit="Bohr",
                basis=self.basis,
                ecp=core_potentials(self.basis, system.numbers),
                charge=system.charge,
                spin=unpaired,
                verbose=0,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an unknown basis also suggests another package
                molecule.build(dump_input=False, parse_arg=False)
            kind = pyscf.dft.UKS if unpaired else pyscf.dft.RKS
            mf = kind(molecule, xc=self.xc)
            mf = mf.density_fit() if self.density_fit else mf
            pyscf.dft.libxc.xc_type(mf.xc)
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"PySCF cannot set up {self.level} for this structure: {error}") from None
        mf = mf.to_gpu() if self.gpu else mf
        mf.chkfile, mf.conv_tol, mf.max_cycle = None, self.conv_tol, self.max_cycle
        return mf

    def _solve(self, mf: Any, guess: Any) -> str:
        """Converge a mean field in place and return what it took; `mf.converged` tells the outcome."""
        grids = type(mf.grids)
        if guess is None:
            mf.grids, mf.nlcgrids = grids(mf.mol), grids(mf.mol)
            mf.grids.level, mf.nlcgrids.level, mf.conv_tol = 0, 0, 1e-5
            mf.kernel()
            guess, mf.conv_tol = mf.make_rdm1(), self.conv_tol
        elif np.shape(guess)[-2:] != (mf.mol.nao, mf.mol.nao):
            raise ValueError(f"PySCF: a guess of shape {np.shape(guess)} is not a density of this structure")
        mf.grids, mf.nlcgrids = grids(mf.mol), grids(mf.mol)
        mf.grids.level, mf.nlcgrids.level = self.grid_level, min(self.grid_level, NONLOCAL_GRID_LEVEL)
        mf.kernel(dm0=guess)
        if mf.converged:
            return ""
        mf.level_shift = LEVEL_SHIFT
        mf.kernel(dm0=mf.make_rdm1())
        mf.level_shift = 0
        if mf.converged:
            return "converged with a level shift"
        second = mf.newton()
        second.kernel(mf.mo_coeff, mf.mo_occ)
        for name in ("converged", "e_tot", "mo_coeff", "mo_occ", "mo_energy"):
            setattr(mf, name, getattr(second, name))
        return "converged by second-order steps"

    def label(self, system: System, guess: Any = None) -> Label:
        """Label one molecule.

        Args:
            system: a molecule.
            guess: the `density` of a neighboring frame's label: the same atoms at other positions.

        Returns:
            Energy and forces; energies do not depend on the guess beyond the SCF tolerance unless the SCF
            has several solutions.

        Raises:
            ValueError: PySCF is missing, the system is periodic, functional or basis do not serve it, atoms
                overlap, or charge and multiplicity do not fit the electrons.
        """
        if system.pbc.any():
            raise ValueError("PySCF: the system is periodic; this engine labels molecules")
        _refuse_overlap(system)
        engine = self._engine()
        mf = self._mean_field(system)
        start = time.perf_counter()
        message = self._solve(mf, guess)
        if not mf.converged:
            return _failed(system, start, engine, f"SCF not converged in three attempts of {self.max_cycle}")
        gradient = mf.nuc_grad_method()
        gradient.grid_response = self.grid_response
        forces = -_on_host(gradient.kernel()) * HARTREE_PER_BOHR
        return Label(
            energy=float(mf.e_tot) * HARTREE,
            forces=forces,
            converged=True,
            spin_squared=float(mf.spin_square()[0]) if system.multiplicity > 1 else 0.0,
            seconds=time.perf_counter() - start,
            engine=engine,
            message=message,
            density=_on_host(mf.make_rdm1()),
        )

    def self_test(self) -> bool:
        """Compare hydrogen and water with pinned energies.

        Returns:
            True; False where no energies are pinned for these settings.

        Raises:
            ValueError: an energy differs by more than `SELF_TEST_TOLERANCE`.
        """
        key = (self.xc.lower(), self.basis.lower(), self.density_fit, self.grid_level)
        return _compare(self, PYSCF_KNOWN.get(key))


def make_pyscf(level: str) -> PySCF:
    """Return the engine at a level "functional/basis", on the GPU where there is one.

    Raises:
        ValueError: the level does not read like that.
    """
    return PySCF(*_split_level("PySCF", level), gpu=gpu_available())
