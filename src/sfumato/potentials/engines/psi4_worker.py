"""The half of the Psi4 engine that runs inside Psi4's own Python: JSON lines in, JSON lines out.

The first line in holds the settings, the first line out what Psi4 is; then each structure in is answered by
one line out. It imports nothing of Sfumato.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

PR_SET_PDEATHSIG = 1
"""Linux's request for a signal when the parent dies, however it dies."""

DAMPING = 50.0
"""Per cent of the old density kept in each step of a stubborn SCF."""


class RefusedError(Exception):
    """Something that the user must change."""


def die_with(parent: int) -> None:
    """Let this process be killed with its parent; other systems than Linux end it at the end of its input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def import_psi4() -> Any:
    """Import Psi4, also from the folder where Debian keeps it."""
    try:
        import psi4
    except ImportError:
        sys.path += [os.path.dirname(folder) for folder in glob.glob(f"{sys.prefix}/lib/*/psi4")]
        import psi4
    return psi4


class Worker:
    """Psi4 with fixed settings."""

    def __init__(self, psi4: Any, settings: dict[str, Any]) -> None:
        from psi4.driver.procrouting.dft import dft_builder, functionals

        self.psi4, self.settings = psi4, settings
        self.build = dft_builder.build_superfunctional_from_dictionary
        psi4.core.set_output_file(os.devnull, False)
        psi4.core.IOManager.shared_object().set_default_path(os.getcwd())
        psi4.set_num_threads(settings["threads"])
        psi4.set_memory(int(settings["memory"] * 2**30))
        if settings["xc"] not in functionals:
            raise RefusedError(f"unknown functional {settings['xc']!r}")
        self.xc = functionals[settings["xc"]]
        built = self.functional("", 1, 1, True)
        if built.needs_vv10():
            raise RefusedError("Psi4 has no gradient of VV10; take a functional with D3(BJ) instead")
        if built.is_c_hybrid():
            raise RefusedError("the perturbation theory of double hybrids is not available here")
        self.meta = built.is_meta()

    def hello(self) -> dict[str, Any]:
        """Return the version, and the functional's dispersion correction, which is left to the other side."""
        return {"version": self.psi4.__version__, "dispersion": self.xc.get("dispersion")}

    def functional(self, name: str, points: int, derivatives: int, restricted: bool) -> Any:
        """Build the functional without its dispersion correction; called by Psi4."""
        return self.build(self.xc, points, derivatives, restricted)[0]

    def attempts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield options to try in turn. Psi4 has no second-order steps for meta-GGAs: they are damped."""
        yield "", {}
        if self.meta:
            yield "converged with damping", {"damping_percentage": DAMPING}
        else:
            yield "converged by second-order steps", {"soscf": True}

    def label(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return energy (hartree), gradient (hartree per bohr), ⟨S²⟩ and what it took."""
        psi4, settings = self.psi4, self.settings
        for number in sorted(set(request["numbers"])):
            self.check_basis(number)
        molecule = psi4.core.Molecule.from_arrays(
            geom=request["positions"],
            elez=request["numbers"],
            units="Bohr",
            molecular_charge=request["charge"],
            molecular_multiplicity=request["multiplicity"],
            fix_com=True,
            fix_orientation=True,
            fix_symmetry="c1",
            tooclose=0,
            verbose=0,
        )
        restricted = request["multiplicity"] == 1
        options = {
            "basis": settings["basis"],
            "reference": "rks" if restricted else "uks",
            "scf_type": "df",
            "dft_radial_points": settings["radial_points"],
            "dft_spherical_points": settings["angular_points"],
            "e_convergence": settings["convergence"],
            "d_convergence": settings["convergence"],
            "maxiter": settings["max_cycle"],
        }
        given = {"dft_functional": self.functional, "molecule": molecule}
        for message, more in self.attempts():
            psi4.core.clean()
            psi4.core.clean_options()
            psi4.set_options({**options, **more})
            try:
                energy, found = psi4.energy("scf", return_wfn=True, **given)
            except psi4.driver.p4util.exceptions.SCFConvergenceError:
                continue
            return {
                "energy": energy,
                "gradient": psi4.gradient("scf", ref_wfn=found, **given).to_array().tolist(),
                "spin_squared": 0.0 if restricted else spin_squared(found),
                "message": message,
            }
        return {"failed": f"SCF not converged in two attempts of {settings['max_cycle']}"}

    def check_basis(self, number: int) -> None:
        """Refuse an element that the basis set does not have."""
        psi4, basis = self.psi4, self.settings["basis"]
        atom = psi4.core.Molecule.from_arrays(geom=[0, 0, 0], elez=[number], verbose=0)
        try:
            psi4.core.BasisSet.build(atom, "ORBITAL", basis, quiet=True)
        except psi4.driver.qcdb.exceptions.BasisSetNotFound:
            raise RefusedError(f"no basis set {basis} for {atom.symbol(0).capitalize()}") from None


def spin_squared(found: Any) -> float:
    """Return ⟨S²⟩ of an unrestricted determinant."""
    import numpy as np

    alpha, beta = np.asarray(found.Ca_subset("AO", "OCC")), np.asarray(found.Cb_subset("AO", "OCC"))
    shared = alpha.T @ np.asarray(found.S()) @ beta
    s = (found.nalpha() - found.nbeta()) / 2
    return float(s * (s + 1) + found.nbeta() - (shared**2).sum())


def main() -> None:
    """Answer until the input ends."""
    del sys.path[0]  # this folder, which has modules called psi4 and ase
    die_with(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Psi4 prints must not get between the answers

    def answer(reply: dict[str, Any]) -> None:
        answers.write(json.dumps(reply) + "\n")
        answers.flush()

    settings = json.loads(sys.stdin.readline())
    try:
        worker = Worker(import_psi4(), settings)
    except ImportError as error:
        answer({"refused": f"{sys.executable} cannot import it: {error}"})
        return
    except RefusedError as error:
        answer({"refused": str(error)})
        return
    answer(worker.hello())
    for line in sys.stdin:
        try:
            answer(worker.label(json.loads(line)))
        except RefusedError as error:
            answer({"refused": str(error)})
        except Exception as error:  # noqa: BLE001 (whatever Psi4 raises is the reason of a failed point)
            answer({"failed": " ".join(str(error).partition("The most recent")[0].split())})


if __name__ == "__main__":
    main()
