"""Turn what a user types after --model into a potential."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from sfumato.files import expanded
from sfumato.potentials.adopted import adopted, is_potential
from sfumato.potentials.ase import FromASE
from sfumato.potentials.devices import DTYPES, require_device
from sfumato.potentials.factories import call_factory
from sfumato.potentials.fingerprint import fingerprint
from sfumato.potentials.potential import SKIN, Abilities, Potential, Session
from sfumato.systems import Batch, Prediction, digest
from sfumato.words import nearest

Maker = Callable[[str, str], Potential]
"""Builds a potential from the text after the colon, or "", on a device, or where it likes for ""."""


@dataclass(frozen=True)
class Named:
    """A row of the table of models.

    Args:
        make: builds it.
        what: one line for people.
        needs: what must be installed, empty if nothing.
        argument: how the text after the colon is called in `sfumato list`, empty if it takes none.
    """

    make: Maker
    what: str
    needs: str = ""
    argument: str = ""

    @property
    def form(self) -> str:
        """How the argument is written after the name, for example ":FILE" or "[:FILE]"."""
        if self.argument.startswith("["):
            return f"[:{self.argument[1:]}"
        return f":{self.argument}" if self.argument else ""


def _engine(method: str) -> Maker:
    def make(_: str, device: str) -> Potential:
        from sfumato.potentials.engines.tblite import TBLite

        return _on(TBLite(method), device)

    return make


def _pair(name: str) -> Maker:
    def make(_: str, device: str) -> Potential:
        from sfumato.models.pair import PAIRS

        return _on(PAIRS[name], device)

    return make


def _adapter(function: str) -> Maker:
    def make(argument: str, device: str) -> Potential:
        adapters = importlib.import_module("sfumato.potentials.adapters")
        potential: Potential = getattr(adapters, function)(argument, device or "cpu")
        return potential

    return make


def _untrained(architecture: str) -> Maker:
    def make(text: str, device: str) -> Potential:
        from sfumato.potentials.network import untrained

        return _on(untrained(text, architecture), device)

    return make


def _bundled(name: str) -> Maker:
    def make(_: str, device: str) -> Potential:
        from sfumato.potentials.network import from_file

        return _on(from_file(DATA / f"{name}.safetensors"), device)

    return make


def _on(potential: Potential, device: str) -> Potential:
    return potential.to(device=device) if device else potential


DATA = Path(__file__).parents[1] / "data"

BUNDLED = {
    "mindscaip-nano": "a small MinDScAIP trained on organic-mini (docs/mindscaip-nano.md)",
    "esen-nano": "a small eSEN trained on the same (docs/esen-nano.md)",
}
"""Trained models that come with the package, as NAME.safetensors in `data`: name → one line for people."""

TRUSTED = "its files are pickles, which run code: load only what you trust"

NAMED: dict[str, Named] = {
    **{name: Named(_bundled(name), what) for name, what in BUNDLED.items()},
    "mindscaip": Named(
        _untrained("mindscaip"),
        "a preset (nano, small, medium, large) with random weights; rank hard must fail",
        argument="PRESET[:RANK]",
    ),
    "esen": Named(
        _untrained("esen"),
        "equivariant, random weights; no-envelope, neighbor-limit, direct-forces must fail (docs/esen.md)",
        argument="PRESET[:VARIANT]",
    ),
    "gfn2-xtb": Named(_engine("GFN2-xTB"), "extended tight binding", "sfumato[xtb]"),
    "gfn1-xtb": Named(_engine("GFN1-xTB"), "extended tight binding, older", "sfumato[xtb]"),
    "lj": Named(_pair("lj"), "Lennard-Jones, smooth: must pass"),
    "morse": Named(_pair("morse"), "Morse, smooth: must pass"),
    "lj-hard-cutoff": Named(_pair("lj-hard-cutoff"), "control: energy jumps at the cutoff"),
    "lj-neighbor-cap": Named(_pair("lj-neighbor-cap"), "control: energy jumps at a neighbor swap"),
    "lj-direct-noise": Named(_pair("lj-direct-noise"), "control: force is not a gradient"),
    "sevennet": Named(_adapter("sevennet"), f"SevenNet; {TRUSTED}", "sevenn", "NAME_OR_FILE"),
    "chgnet": Named(_adapter("chgnet"), f"CHGNet in a 60 Å box; {TRUSTED}", "chgnet", "[FILE]"),
    "mace": Named(_adapter("mace"), f"MACE; {TRUSTED}", "mace-torch", "FILE"),
}


CONTROLS = ("lj-hard-cutoff", "lj-neighbor-cap", "lj-direct-noise")
"""Models that are broken on purpose, each in one way; whatever judges potentials must call them broken."""

TRAINED = "model.safetensors"
"""What a training run calls its model."""

CLOSE, CLOSER = 0.6, 0.75
"""How alike a name must be to one that is known before that is offered instead; and that of a package."""

RENAMED = {"lj-neighbour-cap": "lj-neighbor-cap"}
"""Names that models had in version 0.1.0."""


def describe() -> list[tuple[str, str, str]]:
    """Return (spec, what, needs) of every named model."""
    rows = [(f"{name}{row.form}", row.what, row.needs) for name, row in NAMED.items()]
    return [
        *rows,
        ("FILE.safetensors, RUN", "a trained network, or the best one of a training run", ""),
        ("FILE.py:FACTORY, PACKAGE.MODULE:FACTORY", "your own: returns an ASE calculator; is run", ""),
    ]


@dataclass(frozen=True)
class ModelSpec:
    """Which potential, and where and how precisely it computes.

    Args:
        spec: see `resolve`.
        device: "cpu", "cuda" or "cuda:1"; empty: where the potential computes by itself.
        dtype: "float32" or "float64"; empty: as the potential was made.
    """

    spec: str
    device: str = ""
    dtype: str = ""

    def resolve(self) -> Potential:
        """Return the potential.

        Raises:
            ValueError: what `resolve` and `Potential.to` refuse.
        """
        return resolve(self.spec, self.device, self.dtype)


def load(spec: str | Path, device: str = "", dtype: str = "") -> Potential:
    """Return the potential that a spec names, on a device and in a precision.

    Args:
        spec: see `resolve`.
        device: "cpu", "cuda" or "cuda:1"; empty: where the potential computes by itself.
        dtype: "float32" or "float64"; empty: as the potential was made.

    Returns:
        A potential; its `calculator()` is for ASE. One of our own models also has `torchsim()`.

    Raises:
        ValueError: what `resolve` refuses.
    """
    return ModelSpec(str(spec), device, dtype).resolve()


def resolve(spec: str, device: str = "", dtype: str = "") -> Potential:
    """Return the potential that a spec names.

    Args:
        spec: a name of `NAMED` (with ":argument" where it takes one), a `.safetensors` file, the folder of
            a training run, `path/to/file.py:factory`, or `package.module:factory`.
            A factory takes nothing, or `device` and `dtype` by these names, and returns an ASE calculator or
            a Potential. Its identity covers the source of the factory's file and what the factory returned,
            not the source of other files of the user that it imports.
        device: "cpu", "cuda" or "cuda:1"; empty: where the potential computes by itself.
        dtype: "float32" or "float64"; empty: as the potential was made.

    Raises:
        ValueError: an unknown name, a missing file or factory, a file that is not a model, a factory that
            raises or returns something else, a package that is not installed, or a device or precision that
            is not there or that the potential does not offer.
    """
    require_device(device)
    if dtype not in ("", *DTYPES):
        raise ValueError(f"dtype: {dtype!r} is unknown; {nearest(dtype, DTYPES)}")
    found = _resolve(spec, device, dtype)
    return found.to(dtype=dtype) if dtype else found


def _resolve(spec: str, device: str, dtype: str) -> Potential:
    head, colon, tail = spec.rpartition(":") if ".py:" in spec else spec.partition(":")
    name = head if colon else spec
    name = RENAMED.get(name, name)
    if name in NAMED:
        row = NAMED[name]
        if tail and not row.argument:
            raise ValueError(f"model {spec!r}: {name} takes no argument; write --model {name}")
        if row.argument and not row.argument.startswith("[") and not tail:
            raise ValueError(f"model {spec!r}: write --model {name}:{row.argument}")
        return row.make(tail, device)
    if spec.endswith(".safetensors") or (Path(spec).is_file() and Path(spec).suffix != ".py"):
        return _on(_trained(expanded(spec)), device)
    if spec and Path(spec).is_dir():
        return _on(_from_run(spec), device)
    if not colon or not tail:
        raise ValueError(f"unknown model {spec!r}; {_hint(spec)}")
    return _from_factory(spec, device, dtype)


def _hint(spec: str) -> str:
    """Return what may have been meant by a name that is not known; a guess only where it is close."""
    if spec.endswith(".py"):
        return "add :factory, the name of a function in it"
    close = get_close_matches(spec, NAMED, n=1, cutoff=CLOSE) or [
        name for name in NAMED if spec and spec in name
    ]
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return "`sfumato list` shows the names; a model of your own is FILE.py:FACTORY or PACKAGE.MODULE:FACTORY"


def _from_run(folder: str) -> Potential:
    path = Path(folder) / TRAINED
    if not path.is_file():
        raise ValueError(
            f"model {folder!r}: not the folder of a training run, or of one that was not evaluated yet: "
            f"it has no {TRAINED}"
        )
    return _trained(path)


def _trained(path: Path) -> Potential:
    """Return the network of a file, named after it; the model of a training run is named after the run."""
    from sfumato.potentials.network import from_file

    potential = from_file(path)
    if path.name == TRAINED and (path.parent / "settings.json").is_file():
        potential.name = path.resolve().parent.name
    return potential


@dataclass(frozen=True)
class FromFactory(Potential):
    """A Potential that a user's function made; its identity also covers the source of that function."""

    made: Potential
    source: str

    @property
    def name(self) -> str:
        """The Potential's own."""
        return self.made.name

    @property
    def abilities(self) -> Abilities:
        """The Potential's own."""
        return self.made.abilities

    @property
    def identity(self) -> str:
        """SHA-256 of the source file, the function's name and the Potential's own identity."""
        return digest([self.source, self.made.identity])

    def compute(self, batch: Batch) -> Prediction:
        """See Potential."""
        return self.made.compute(batch)

    def to(self, *, device: str | None = None, dtype: str | None = None) -> Potential:
        """See Potential."""
        return FromFactory(self.made.to(device=device, dtype=dtype), self.source)

    def session(self, batch: Batch, skin: float = SKIN) -> Session:
        """See Potential."""
        return self.made.session(batch, skin)


def _from_factory(spec: str, device: str, dtype: str) -> Potential:
    try:
        made = call_factory(spec, device=device, dtype=dtype)
    except ValueError as error:
        close = get_close_matches(spec.partition(":")[0], NAMED, n=1, cutoff=CLOSER)
        if isinstance(error.__cause__, ModuleNotFoundError) and close:
            raise ValueError(f"{error} Or did you mean {close[0]!r}?") from error
        raise
    if is_potential(made.thing):
        return _on(FromFactory(adopted(made.thing), made.source), device)
    if isinstance(made.thing, type) or not (
        hasattr(made.thing, "get_potential_energy") or hasattr(made.thing, "calculate")
    ):
        raise ValueError(f"model {spec!r}: {made.what}; return an ASE calculator or a Potential")
    identity = digest([made.source, fingerprint(made.thing)])
    return _on(FromASE(made.thing, made.name, identity, device=made.wishes.get("device", "cpu")), device)
