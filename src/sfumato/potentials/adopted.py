"""Objects that behave like a potential without being made from it: a user's own class, or an older one."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato.potentials.potential import Abilities, Potential
from sfumato.systems import Batch, Prediction


class Adopted(Potential):
    """An object with `name`, `identity` and `predict(batch)`; what else it says of itself is taken over.

    Args:
        inner: the object. `chunk`, `elements`, `periodic`, `dtype` and a method `with_dtype` are optional.
    """

    abilities: Abilities

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        elements, dtype = getattr(inner, "elements", None), str(getattr(inner, "dtype", ""))
        self.abilities = Abilities(
            batch=int(getattr(inner, "chunk", 1)),
            elements=None if elements is None else frozenset(int(z) for z in elements),
            periodic=getattr(inner, "periodic", None),
            stress=True,
            charge=True,
            dtype=dtype.removeprefix("torch."),
            dtypes=("float32", "float64") if hasattr(inner, "with_dtype") else (),
        )

    @property
    def name(self) -> str:
        """The object's."""
        return str(self.inner.name)

    @property
    def identity(self) -> str:
        """The object's."""
        return str(self.inner.identity)

    def compute(self, batch: Batch) -> Prediction:
        """Return what the object predicts."""
        found = self.inner.predict(batch)
        return Prediction(np.asarray(found.energy), np.asarray(found.forces), found.stress)

    def to(self, *, device: str | None = None, dtype: str | None = None) -> Potential:
        """See Potential."""
        if dtype is not None and dtype in self.abilities.dtypes:
            return Adopted(self.inner.with_dtype(dtype)).to(device=device)
        return super().to(device=device, dtype=dtype)


def is_potential(thing: object) -> bool:
    """Return whether an object can be adopted."""
    return not isinstance(thing, type) and all(
        hasattr(thing, word) for word in ("name", "identity", "predict")
    )


def adopted(thing: Any) -> Potential:
    """Return an object as a potential, itself if it is one.

    Raises:
        ValueError: it has no `name`, `identity` and `predict`.
    """
    if isinstance(thing, Potential):
        return thing
    if not is_potential(thing):
        raise ValueError(f"a {type(thing).__name__} is not a potential: it needs name, identity and predict")
    return Adopted(thing)
