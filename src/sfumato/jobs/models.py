"""The models of a run, as a user names them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sfumato.potentials.adopted import adopted
from sfumato.potentials.devices import spread
from sfumato.potentials.potential import Potential
from sfumato.potentials.specs import ModelSpec


@dataclass(frozen=True, eq=False)
class Model:
    """A model of a run.

    Args:
        name: in tables.
        spec: how workers make it; None for an object, which stays in this process.
        potential: the model in this process.
        devices: that workers are bound to; empty: wherever the model is.
    """

    name: str
    spec: ModelSpec | None
    potential: Potential
    devices: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: str | ModelSpec | Potential, device: str = "", dtype: str = "") -> Model:
        """Read `SPEC`, `NAME=SPEC`, a ModelSpec or a Potential.

        Args:
            model: what the user named.
            device: one, several with commas between, or "cuda" for every GPU; empty for no wish.
            dtype: "float32" or "float64"; empty for no wish.

        Raises:
            ValueError: what `ModelSpec.resolve` refuses; a device or precision for an object.
        """
        if not isinstance(model, str | ModelSpec):
            potential = adopted(model)
            return cls(potential.name, None, potential.to(device=device or None, dtype=dtype or None))
        name = ""
        if isinstance(model, str):
            named = re.fullmatch(r"([\w.+-]+)=(.+)", model)
            name, model = (named[1] if named else ""), ModelSpec(named[2] if named else model, device, dtype)
        devices = spread(model.device)
        spec = ModelSpec(model.spec, devices[0] if devices else "", model.dtype)
        potential = spec.resolve()
        return cls(name or potential.name, spec, potential, devices)


def resolved(models: Sequence[str | ModelSpec | Potential], device: str = "", dtype: str = "") -> list[Model]:
    """Resolve the models of a run, before anything starts.

    Raises:
        ValueError: a model that cannot be resolved, or two models of one name.
    """
    found = [Model.of(model, device, dtype) for model in models]
    for name, count in Counter(model.name for model in found).items():
        if count > 1:
            raise ValueError(f"{count} models are called {name!r}; tell them apart with --model NAME=SPEC")
    return found
