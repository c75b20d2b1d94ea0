"""Bridges to potentials that live in other packages, each imported only when asked for.

Model files of other packages are pickles, which run code when they are read: load only files you trust.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.potentials.ase import FromASE
from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, Prediction, System

BOX = 60.0
"""Å, side of the periodic box for molecules in models that know only crystals."""

BOX_GAP = 12.0
"""Å that must stay free between a molecule in the box and its image, beyond the reach of such models."""

LEGACY_FLAG = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""Environment variable by which torch, and packages on import, allow pickles for the whole process."""


@dataclass(frozen=True)
class InBox(Potential):
    """A potential for crystals that also takes molecules, each centerd in a cubic box of side `BOX`.

    Args:
        inner: the potential that needs a periodic cell.
    """

    inner: Potential

    @property
    def name(self) -> str:
        """The inner potential's."""
        return self.inner.name

    @property
    def identity(self) -> str:
        """The inner potential's."""
        return self.inner.identity

    @property
    def abilities(self) -> Abilities:
        """The inner potential's."""
        return self.inner.abilities

    def compute(self, batch: Batch) -> Prediction:
        """Evaluate; no stress unless every structure came with a cell of its own.

        Raises:
            ValueError: a molecule too large for the box, or a structure periodic in some directions only.
        """
        found = self.inner.predict(Batch.of([boxed(system) for system in batch]))
        return found if batch.pbc.all() else replace(found, stress=None)


def boxed(system: System) -> System:
    """Return a molecule centerd in a periodic cubic box of side `BOX`; a crystal as it is.

    Args:
        system: periodic in all directions or in none.

    Raises:
        ValueError: a molecule too large for the box, or a structure periodic in some directions only.
    """
    if system.pbc.all():
        return system
    if system.pbc.any():
        raise ValueError(
            "the structure is periodic in some directions only, and this model needs all three; "
            "give it a cell with enough vacuum and make it fully periodic"
        )
    low, high = system.positions.min(axis=0, initial=np.inf), system.positions.max(axis=0, initial=-np.inf)
    if (high - low > BOX - BOX_GAP).any():
        raise ValueError(
            f"the molecule is {(high - low).max():.1f} Å long; with {BOX_GAP:g} Å between images it does "
            f"not fit the {BOX:g} Å box in which this model sees molecules"
        )
    return System(
        numbers=system.numbers,
        positions=system.positions + (BOX - low - high) / 2,
        cell=BOX * np.eye(3),
        pbc=np.ones(3, dtype=bool),
        charge=system.charge,
        multiplicity=system.multiplicity,
    )


@contextlib.contextmanager
def legacy_torch_load() -> Iterator[None]:
    """Let `torch.load` read pickled models inside this block, and put everything back after it.

    A call that asks for `weights_only=True` still gets it. Importing some packages allows pickles for the
    whole process by an environment variable; that is undone here as well.
    """
    import torch

    original, flag = torch.load, os.environ.get(LEGACY_FLAG)

    @wraps(original)
    def load(*args: Any, **settings: Any) -> Any:
        if settings.get("weights_only") is None:
            settings["weights_only"] = False
        return original(*args, **settings)

    torch.load = load
    try:
        yield
    finally:
        torch.load = original
        if flag is None:
            os.environ.pop(LEGACY_FLAG, None)
        else:
            os.environ[LEGACY_FLAG] = flag


@contextlib.contextmanager
def _loading(kind: str, model: str, package: str) -> Iterator[None]:
    """Load a third party's model: pickles allowed, its banner not printed, failures explained."""
    try:
        with legacy_torch_load(), contextlib.redirect_stdout(io.StringIO()):
            yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f"model {kind}: the module {error.name} is not installed here; install it with "
            f"'pip install {package}', best in an environment of its own"
        ) from error
    except Exception as error:
        raise ValueError(
            f"model {kind}:{model}: it cannot be loaded as a {kind} model: {type(error).__name__}: {error}"
        ) from error


def _check_file(kind: str, path: str) -> None:
    if not Path(path).is_file():
        raise ValueError(f"model {kind}:{path}: there is no file {path}")


def sevennet(model: str, device: str = "cpu") -> Potential:
    """Return a SevenNet model as a potential.

    Args:
        model: a checkpoint file, or the name of one that comes with the package ("sevennet-0").

    Raises:
        ValueError: sevenn is missing, or `model` is neither a checkpoint nor a name it knows.

    Source: Park et al. 2024, "Scalable parallel algorithm for graph neural network interatomic potentials".
    """
    with _loading("sevennet", model, "sevenn"):
        from sevenn.calculator import SevenNetCalculator

        calculator = SevenNetCalculator(model, device=device)
    name = _name("sevennet", model)
    return FromASE(calculator, name, elements=calculator.type_map, device=device, charge=False)


def chgnet(model: str, device: str = "cpu") -> Potential:
    """Return a CHGNet model as a potential; molecules are put into the box of `boxed`.

    Args:
        model: a saved model, or "" for the one that comes with the package (0.3.0).

    Raises:
        ValueError: chgnet or the file is missing, or it is not a CHGNet model.

    Source: Deng et al. 2023, "CHGNet as a pretrained universal neural network potential".
    """
    if model:
        _check_file("chgnet", model)
    with _loading("chgnet", model, "chgnet"):
        from chgnet.model.dynamics import CHGNetCalculator
        from chgnet.model.model import CHGNet

        made = CHGNet.from_file(model) if model else CHGNet.load(verbose=False)
        calculator = CHGNetCalculator(made, use_device=device)
    name = _name("chgnet", model)
    return InBox(FromASE(calculator, name, elements=range(1, 95), device=device, charge=False))


def mace(model: str, device: str = "cpu") -> Potential:
    """Return a MACE model as a potential, in the precision it was saved in.

    Args:
        model: a saved model.

    Raises:
        ValueError: mace-torch or the file is missing, or it is not a MACE model.

    Source: Batatia et al. 2022, "MACE: Higher order equivariant message passing neural networks".
    """
    _check_file("mace", model)
    with _loading("mace", model, "mace-torch"):
        import torch
        from mace.calculators import MACECalculator

        made = torch.load(model, map_location=device)
        dtype = str(next(made.parameters()).dtype).removeprefix("torch.")
        calculator = MACECalculator(models=made, device=device, default_dtype=dtype)
    # Models with long-range charges, and those that embed the total charge and spin.
    charge = "Polar" in type(made).__name__ or bool(getattr(made, "embedding_specs", None))
    name = _name("mace", model)
    return FromASE(calculator, name, elements=calculator.z_table.zs, device=device, charge=charge)


def _name(kind: str, model: str) -> str:
    """Return a short name for tables: mace-small for mace:models/small.model."""
    stem = Path(model).stem if Path(model).is_file() else model
    return stem if stem.startswith(kind) else f"{kind}-{stem}".rstrip("-")
