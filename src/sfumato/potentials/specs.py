"""Turn what a user types after --model into a potential."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sfumato.potentials.adopted import adopted, is_potential
from sfumato.potentials.ase import FromASE
from sfumato.potentials.devices import DTYPES, require_device
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


def _untrained(text: str, device: str) -> Potential:
    from sfumato.potentials.network import untrained

    return _on(untrained(text), device)


def _bundled(name: str) -> Maker:
    def make(_: str, device: str) -> Potential:
        from sfumato.potentials.network import from_file

        return _on(from_file(DATA / f"{name}.safetensors"), device)

    return make


def _on(potential: Potential, device: str) -> Potential:
    return potential.to(device=device) if device else potential


DATA = Path(__file__).parents[1] / "data"

BUNDLED = {"mindscaip-nano": "a small MinDScAIP trained on organic-mini (docs/mindscaip-nano.md)"}
"""Trained models that come with the package, as NAME.safetensors in `data`: name → one line for people."""

NAMED: dict[str, Named] = {
    **{name: Named(_bundled(name), what) for name, what in BUNDLED.items()},
    "mindscaip": Named(
        _untrained,
        "a preset (nano, small, medium, large) with random weights; rank hard must fail",
        argument="PRESET[:RANK]",
    ),
    "gfn2-xtb": Named(_engine("GFN2-xTB"), "extended tight binding", "sfumato[xtb]"),
    "gfn1-xtb": Named(_engine("GFN1-xTB"), "extended tight binding, older", "sfumato[xtb]"),
    "lj": Named(_pair("lj"), "Lennard-Jones, smooth: must pass"),
    "morse": Named(_pair("morse"), "Morse, smooth: must pass"),
    "lj-hard-cutoff": Named(_pair("lj-hard-cutoff"), "control: energy jumps at the cutoff"),
    "lj-neighbor-cap": Named(_pair("lj-neighbor-cap"), "control: energy jumps at a neighbor swap"),
    "lj-direct-noise": Named(_pair("lj-direct-noise"), "control: force is no gradient"),
    "sevennet": Named(_adapter("sevennet"), "SevenNet", "sevenn", "NAME_OR_FILE"),
    "chgnet": Named(_adapter("chgnet"), "CHGNet in a 60 Å box", "chgnet", "[FILE]"),
    "mace": Named(_adapter("mace"), "MACE", "mace-torch", "FILE"),
}


RENAMED = {"lj-neighbour-cap": "lj-neighbor-cap"}
"""Names that models had in version 0.1.0."""


def describe() -> list[tuple[str, str, str]]:
    """Return (spec, what, needs) of every named model."""
    rows = [(f"{name}{row.form}", row.what, row.needs) for name, row in NAMED.items()]
    return [
        *rows,
        ("FILE.safetensors, RUN", "a MinDScAIP model, or the best one of a training run", ""),
        ("FILE.py:FACTORY, PACKAGE.MODULE:FACTORY", "your own: returns an ASE calculator", ""),
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
        ValueError: an unknown name, a missing file or factory, a file that is no model, a factory that
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
        from sfumato.potentials.network import from_file

        return _on(from_file(Path(spec).expanduser()), device)
    if spec and Path(spec).is_dir():
        return _on(_from_run(spec), device)
    if not colon or not tail:
        hint = "add :factory, the name of a function in it" if spec.endswith(".py") else nearest(spec, NAMED)
        raise ValueError(f"unknown model {spec!r}; {hint}")
    return _from_factory(spec, head, tail, {"device": device, "dtype": dtype})


def _from_run(folder: str) -> Potential:
    from sfumato.potentials.network import from_file

    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"model {folder!r}: no folder of a training run, or none that was evaluated yet")
    return from_file(path)


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


def _from_factory(spec: str, module_name: str, factory_name: str, where: Mapping[str, str]) -> Potential:
    is_file = module_name.endswith(".py")
    path = Path(module_name).expanduser().resolve()
    if is_file and not path.is_file():
        raise ValueError(f"model {spec!r}: there is no file {module_name}")
    with _importable(path.parent if is_file else Path.cwd()):
        module, source = _load(spec, path if is_file else module_name)
        factory = getattr(module, factory_name, None)
        if not callable(factory):
            functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise ValueError(
                f"model {spec!r}: no function {factory_name!r}; {nearest(factory_name, functions)}"
            )
        wishes = _wishes(factory, where)
        try:
            made = factory(**wishes)
        except Exception as error:
            raise ValueError(
                f"model {spec!r}: {factory_name}() raised {type(error).__name__}: {error}"
            ) from error
    name, source = _short_name(module_name, factory_name), digest([source, factory_name])
    potential = _potential(made, name, source, wishes.get("device", "cpu"))
    if potential is None:
        what = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
        raise ValueError(
            f"model {spec!r}: {factory_name}() returned {what}; return an ASE calculator or a Potential"
        )
    return _on(potential, where["device"])


def _wishes(factory: Callable[..., Any], where: Mapping[str, str]) -> dict[str, str]:
    """Return what of device and precision was asked for and the factory takes."""
    try:
        takes = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a callable of C has none
        return {}
    return {key: value for key, value in where.items() if value and key in takes}


def _potential(made: object, name: str, source: str, device: str) -> Potential | None:
    """Return what a factory returned as a potential; None if it is neither that nor a calculator."""
    if is_potential(made):
        return FromFactory(adopted(made), source)
    if isinstance(made, type):
        return None
    if hasattr(made, "get_potential_energy") or hasattr(made, "calculate"):
        return FromASE(made, name, digest([source, fingerprint(made)]), device=device)
    return None


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a user's file import its neighbors, as it could if Python ran it; only inside this block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))


def _load(spec: str, where: Path | str) -> tuple[ModuleType, str]:
    """Import the user's module, and return it with its source text."""
    try:
        if isinstance(where, str):
            module = importlib.import_module(where)
            path = Path(module.__file__ or "")
            return module, path.read_text(encoding="utf-8") if path.suffix == ".py" else ""
        return _load_file(where)
    except ModuleNotFoundError as error:
        unknown = error.name is not None and str(where).startswith(error.name)
        hint = f" ({nearest(error.name or '', NAMED)})" if unknown else ""
        raise ValueError(f"model {spec!r}: {error}{hint}") from error
    except Exception as error:
        raise ValueError(f"model {spec!r}: importing it raised {type(error).__name__}: {error}") from error


def _load_file(path: Path) -> tuple[ModuleType, str]:
    source = path.read_text(encoding="utf-8")
    name = f"sfumato_user_{path.stem}_{digest([source])[:8]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(found)  # dataclasses look it up there
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module, source


def _short_name(module_name: str, factory_name: str) -> str:
    stem = Path(module_name).stem if module_name.endswith(".py") else module_name.rpartition(".")[2]
    return re.sub(r"[^\w.+-]", "_", f"{stem}-{factory_name}")
