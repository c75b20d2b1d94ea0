"""Turn what a user types after --model into a potential."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sfumato.potentials.potential import FromASE, Potential, fingerprint
from sfumato.systems import Batch, Prediction, digest
from sfumato.words import nearest


@dataclass(frozen=True)
class Named:
    """A row of the table of models.

    Args:
        make: builds it; takes the text after the colon, or "".
        what: one line for people.
        needs: what must be installed, empty if nothing.
        argument: how the text after the colon is called in `sfumato list`, empty if it takes none.
    """

    make: Callable[[str], Potential]
    what: str
    needs: str = ""
    argument: str = ""

    @property
    def form(self) -> str:
        """How the argument is written after the name, for example ":FILE" or "[:FILE]"."""
        if self.argument.startswith("["):
            return f"[:{self.argument[1:]}"
        return f":{self.argument}" if self.argument else ""


def _engine(method: str) -> Callable[[str], Potential]:
    def make(_: str) -> Potential:
        from sfumato.potentials.adapters import from_engine
        from sfumato.reference.engines.tblite import TBLite

        return from_engine(TBLite(method), method.lower())

    return make


def _pair(name: str) -> Callable[[str], Potential]:
    def make(_: str) -> Potential:
        from sfumato.models.pair import PAIRS

        return PAIRS[name]

    return make


def _adapter(function: str) -> Callable[[str], Potential]:
    def make(argument: str) -> Potential:
        adapters = importlib.import_module("sfumato.potentials.adapters")
        potential: Potential = getattr(adapters, function)(argument)
        return potential

    return make


def _untrained(text: str) -> Potential:
    from sfumato.potentials.mindscaip import untrained

    return untrained(text)


def _bundled(name: str) -> Callable[[str], Potential]:
    def make(_: str) -> Potential:
        from sfumato.potentials.mindscaip import from_file

        return from_file(DATA / f"{name}.safetensors")

    return make


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
    "lj-neighbour-cap": Named(_pair("lj-neighbour-cap"), "control: energy jumps at a neighbour swap"),
    "lj-direct-noise": Named(_pair("lj-direct-noise"), "control: force is no gradient"),
    "sevennet": Named(_adapter("sevennet"), "SevenNet", "sevenn", "NAME_OR_FILE"),
    "chgnet": Named(_adapter("chgnet"), "CHGNet in a 60 Å box", "chgnet", "[FILE]"),
    "mace": Named(_adapter("mace"), "MACE", "mace-torch", "FILE"),
}


def describe() -> list[tuple[str, str, str]]:
    """Return (spec, what, needs) of every named model."""
    rows = [(f"{name}{row.form}", row.what, row.needs) for name, row in NAMED.items()]
    return [
        *rows,
        ("FILE.safetensors, RUN", "a MinDScAIP model, or the best one of a training run", ""),
        ("FILE.py:FACTORY, PACKAGE.MODULE:FACTORY", "your own: returns an ASE calculator", ""),
    ]


def load(spec: str | Path, device: str = "cpu", dtype: str = "float32") -> Potential:
    """Return the potential that a spec names, on a device and in a precision.

    Args:
        spec: see `resolve`.
        device: "cpu", "cuda" or "cuda:1".
        dtype: "float32" or "float64", of the weights.

    Returns:
        A potential. One of our own models also has `calculator()` for ASE and `torchsim()` for TorchSim.

    Raises:
        ValueError: what `resolve` and `to` of the model refuse, or a device or precision other than the
            default for a model that has its own.
    """
    potential = resolve(str(spec))
    if (device, dtype) == ("cpu", "float32"):
        return potential
    move: Callable[..., Potential] | None = getattr(potential, "to", None)
    if move is None:
        raise ValueError(
            f"model {spec}: it has a device and precision of its own; leave out device and dtype, "
            "or set them where it is made"
        )
    return move(device=device, dtype=dtype)


def resolve(spec: str) -> Potential:
    """Return the potential that a spec names.

    Args:
        spec: a name of `NAMED` (with ":argument" where it takes one), a `.safetensors` file, the folder of
            a training run, `path/to/file.py:factory`, or `package.module:factory`.
            A factory takes nothing and returns an ASE calculator or a Potential.
            Its identity covers the source of the factory's file and what the factory returned, not the
            source of other files of the user that it imports.

    Raises:
        ValueError: an unknown name, a missing file or factory, a file that is no model, a factory that
            raises or returns something else, or a package that is not installed.
    """
    head, colon, tail = spec.rpartition(":") if ".py:" in spec else spec.partition(":")
    name = head if colon else spec
    if name in NAMED:
        row = NAMED[name]
        if tail and not row.argument:
            raise ValueError(f"model {spec!r}: {name} takes no argument; write --model {name}")
        if row.argument and not row.argument.startswith("[") and not tail:
            raise ValueError(f"model {spec!r}: write --model {name}:{row.argument}")
        return row.make(tail)
    if spec.endswith(".safetensors") or (Path(spec).is_file() and Path(spec).suffix != ".py"):
        from sfumato.potentials.mindscaip import from_file

        return from_file(Path(spec).expanduser())
    if spec and Path(spec).is_dir():
        return _from_run(spec)
    if not colon or not tail:
        hint = "add :factory, the name of a function in it" if spec.endswith(".py") else nearest(spec, NAMED)
        raise ValueError(f"unknown model {spec!r}; {hint}")
    return _from_factory(spec, head, tail)


def _from_run(folder: str) -> Potential:
    from sfumato.potentials.mindscaip import from_file

    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise ValueError(f"model {folder!r}: no folder of a training run, or none that was evaluated yet")
    return from_file(path)


@dataclass(frozen=True)
class FromFactory:
    """A Potential that a user's function made; its identity also covers the source of that function.

    Whatever else the Potential offers (elements, other precisions, its calculator) is offered too.
    """

    made: Potential
    source: str

    @property
    def name(self) -> str:
        """The Potential's own."""
        return self.made.name

    @property
    def chunk(self) -> int:
        """The Potential's own."""
        return self.made.chunk

    @property
    def identity(self) -> str:
        """SHA-256 of the source file, the function's name and the Potential's own identity."""
        return digest([self.source, self.made.identity])

    def predict(self, batch: Batch) -> Prediction:
        """See Potential."""
        return self.made.predict(batch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "made":  # asked for while it is being copied
            raise AttributeError(name)
        found = getattr(self.made, name)
        if name not in ("to", "with_dtype"):
            return found
        return lambda *args, **settings: FromFactory(found(*args, **settings), self.source)


def _from_factory(spec: str, module_name: str, factory_name: str) -> Potential:
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
        try:
            made = factory()
        except Exception as error:
            raise ValueError(
                f"model {spec!r}: {factory_name}() raised {type(error).__name__}: {error}"
            ) from error
    if isinstance(made, type) or not (isinstance(made, Potential) or _is_calculator(made)):
        what = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
        raise ValueError(
            f"model {spec!r}: {factory_name}() returned {what}; return an ASE calculator or a Potential"
        )
    source = digest([source, factory_name])
    if isinstance(made, Potential):
        return FromFactory(made, source)
    return FromASE(made, _short_name(module_name, factory_name), digest([source, fingerprint(made)]))


def _is_calculator(made: object) -> bool:
    return hasattr(made, "get_potential_energy") or hasattr(made, "calculate")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a user's file import its neighbours, as it could if Python ran it; only inside this block."""
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
