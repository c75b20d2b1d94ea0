"""Density functional theory through Psi4, which runs in a Python of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.files import new_folder, remove_folder
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

PSI4_KNOWN = {("wb97m-d3bj", "def2-tzvppd", 99, 590): (-1.170553063, -76.479728049)}
"""Energies of hydrogen and water in hartree for (xc, basis, radial_points, angular_points).

PySCF's are 1.05e-4 and 5e-6 hartree higher. Without density fitting the programs agree to 1e-7, so it is the
fit: Psi4 expands long-range exchange in the metric of the plain Coulomb operator and on one side only, which
costs 9.9e-5 and 5.5e-6 hartree of exact exchange here; PySCF's uses the operator's own metric.
"""

PYTHON_VARIABLE = "SFUMATO_PSI4_PYTHON"
"""Environment variable that names the Python with Psi4 in it."""

WORKER = Path(__file__).with_name("psi4_worker.py")


class DiedError(RuntimeError):
    """The Psi4 process ended without an answer."""


class _Process:
    """A running Psi4 with fixed settings: one line in, one line out, killed with this process."""

    def __init__(self, python: str, settings: dict[str, Any]) -> None:
        # Psi4 leaves files where it runs, and its complaints are wanted if it dies.
        self._folder = new_folder("psi4", os.environ.get("PSI_SCRATCH"))
        self._errors = self._folder / "errors"
        threads = str(settings["threads"])
        with self._errors.open("wb") as errors:
            try:
                self._process = subprocess.Popen(
                    [python, str(WORKER), str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=self._folder,
                    env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
                    text=True,
                )
            except OSError as error:
                remove_folder(self._folder)
                raise ValueError(f"Psi4: cannot run {python}: {error.strerror}") from None
        self._lock = threading.Lock()
        # Called when nobody needs it any more, at the latest when Python ends.
        self.end = weakref.finalize(self, _end, self._process, self._folder)
        try:
            self.facts = self.ask(settings)
        except DiedError as error:
            raise ValueError(f"Psi4: {python} cannot run it: {error}") from None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            DiedError: the process ended instead.
        """
        with self._lock:
            try:
                return self._exchange(json.dumps(request))
            except BaseException:
                self.end()  # a late answer must never be taken for that of the next request
                raise

    def _exchange(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if reply:
            answer: dict[str, Any] = json.loads(reply)
            return answer
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        hint = " (often: out of memory)" if code == -signal.SIGKILL else ""
        last = self._errors.read_text(errors="replace").strip().rpartition("\n")[2]
        raise DiedError(f"the Psi4 process {how}{hint}" + (f": {last}" if last else ""))

    def alive(self) -> bool:
        """Tell whether it can take a request."""
        return self.end.alive and self._process.poll() is None


def _end(process: subprocess.Popen[str], folder: Path) -> None:
    process.kill()
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # a request that nobody will read
        process.stdin.close()
    with process:  # closes the other pipe and waits
        remove_folder(folder)


_running: dict[tuple[int, Psi4], _Process] = {}
"""The Psi4 processes of this process, by its id (a fork has its own) and engine."""


@dataclass(frozen=True)
class Psi4(Engine):
    """Density functional theory through Psi4 with density fitting, in one process beside this one.

    Psi4 gives the functional without dispersion, D3(BJ) comes from the package dftd3 with Psi4's parameters
    for the functional. Each structure is computed from scratch. If its SCF does not converge it is done
    again with second-order steps, or damped where Psi4 has no such steps (meta-GGAs). Energies differ from
    PySCF's by the density fit, see `PSI4_KNOWN`. Its forces leave out that the grid moves, hence the fine
    grid: at 75/302, Psi4's default, the forces of a small molecule do not add up to zero by some meV/Å.

    Args:
        xc: functional in Psi4's spelling, with its dispersion correction.
        basis: basis set in Psi4's spelling.
        radial_points: of the grid, per atom.
        angular_points: of the grid, per shell; a Lebedev number such as 302, 434, 590.
        convergence: of the SCF, in energy (hartree) and density.
        max_cycle: SCF iterations of each attempt.
        threads: of Psi4, which does not look at OMP_NUM_THREADS.
        memory: GiB for Psi4's large arrays; the whole process takes about one more.
        python: the Python that has Psi4; by default SFUMATO_PSI4_PYTHON, else the one that the program
            `psi4` on the PATH runs with.
    """

    xc: str = "wb97m-d3bj"
    basis: str = "def2-tzvppd"
    radial_points: int = 99
    angular_points: int = 590
    convergence: float = 1e-8
    max_cycle: int = 100
    threads: int = 1
    memory: float = 2.0
    python: str = ""

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
        return digest([self._engine(), json.dumps(self._settings(), sort_keys=True)])

    def _settings(self) -> dict[str, Any]:
        """Return what Psi4 is told once."""
        settings = {name: value for name, value in asdict(self).items() if name != "python"}
        return settings | {"xc": self.xc.lower(), "basis": self.basis.lower()}

    def _process(self) -> _Process:
        """Return the running Psi4, or start it."""
        key = (os.getpid(), self)
        if key not in _running or not _running[key].alive():
            process = _Process(self.python or _find_python(), self._settings())
            self._check(process.facts)
            _running[key] = process
        return _running[key]

    def _check(self, reply: dict[str, Any]) -> None:
        if "refused" in reply:
            raise ValueError(f"Psi4 cannot compute {self.level}: {reply['refused']}")
        kind = (reply.get("dispersion") or {"type": "d3bj"})["type"]
        if kind != "d3bj":
            raise ValueError(
                f"Psi4 cannot compute {self.level}: dispersion correction {kind} is not available here; "
                "take a functional without one or with D3(BJ)"
            )

    def _engine(self) -> str:
        facts = self._process().facts
        engine = f"psi4 {facts['version']}"
        return engine + (f", dftd3 {_version('dftd3', 'psi4')}" if facts["dispersion"] else "")

    def label(self, system: System, guess: Any = None) -> Label:
        """Label one molecule.

        Args:
            system: a molecule.
            guess: ignored.

        Returns:
            Energy and forces; where Psi4 itself crashed, a failure with its reason.

        Raises:
            ValueError: Psi4 is missing, the system is periodic, functional or basis do not serve it, atoms
                overlap, or charge and multiplicity do not fit the electrons.
        """
        if system.pbc.any():
            raise ValueError("Psi4: the system is periodic; this engine labels molecules")
        _unpaired(system)
        _refuse_overlap(system)
        engine, start = self._engine(), time.perf_counter()
        process = self._process()
        request = {
            "numbers": system.numbers.tolist(),
            "positions": (system.positions / BOHR).ravel().tolist(),
            "charge": system.charge,
            "multiplicity": system.multiplicity,
        }
        try:
            found = process.ask(request)
        except DiedError as error:
            return _failed(system, start, engine, str(error))
        self._check(found)
        if "failed" in found:
            process.end()  # an error may leave Psi4 in no state to go on
            return _failed(system, start, engine, found["failed"])
        energy, gradient = found["energy"], np.array(found["gradient"])
        if process.facts["dispersion"]:
            more, slope = _d3bj(system, process.facts["dispersion"]["params"])
            energy, gradient = energy + more, gradient + slope
        return Label(
            energy=energy * HARTREE,
            forces=-gradient * HARTREE_PER_BOHR,
            converged=True,
            spin_squared=found["spin_squared"],
            seconds=time.perf_counter() - start,
            engine=engine,
            message=found["message"],
        )

    def self_test(self) -> bool:
        """Compare hydrogen and water with pinned energies.

        Returns:
            True; False where no energies are pinned for these settings.

        Raises:
            ValueError: an energy differs by more than `SELF_TEST_TOLERANCE`.
        """
        key = (self.xc.lower(), self.basis.lower(), self.radial_points, self.angular_points)
        return _compare(self, PSI4_KNOWN.get(key))


def _d3bj(system: System, params: dict[str, float]) -> tuple[float, Floats]:
    """Return energy (hartree) and gradient (hartree per bohr) of D3(BJ) without three-body terms."""
    from dftd3.interface import DispersionModel, RationalDampingParam

    model = DispersionModel(system.numbers, system.positions / BOHR)
    found = model.get_dispersion(RationalDampingParam(**params, s9=0.0), grad=True)
    return float(found["energy"]), np.array(found["gradient"])


def _find_python() -> str:
    """Return the Python that has Psi4: the stated one, or that of the program `psi4`."""
    if stated := os.environ.get(PYTHON_VARIABLE):
        return stated
    program = shutil.which("psi4")
    if program:
        with Path(program).open("rb") as file:
            line = file.readline(500).decode(errors="replace")
        words = line.removeprefix("#!").split()
        if line.startswith("#!") and words:
            return words[1] if words[0].endswith("/env") and len(words) > 1 else words[0]
    raise ValueError(
        "Psi4 is not installed, or its program psi4 is not on the PATH; install it (Debian: apt install "
        f"psi4; conda: conda install psi4), or name a Python that has it in {PYTHON_VARIABLE}"
    )


def make_psi4(level: str) -> Psi4:
    """Return the engine at a level "functional/basis".

    Raises:
        ValueError: the level does not read like that.
    """
    return Psi4(*_split_level("Psi4", level))
