"""A model in one file: weights as safetensors, everything else as JSON in its header; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from sfumato.files import write_bytes
from sfumato.models.config import ELEMENTS, NetworkConfig
from sfumato.models.families import FAMILIES, build, read_config
from sfumato.systems import digest
from sfumato.words import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.models.network import Network

SCHEMA = 1
SUFFIX = ".safetensors"
ENTRY = "sfumato"
"""The one entry of the metadata of a safetensors file that is ours."""

IN_HEADER = ("scale", "reference")
"""Buffers that are written as numbers for people to read, and not among the tensors."""

PICKLES = (b"PK\x03\x04", b"\x80")
"""How files begin that Python's pickle, or torch.save, has written."""


class Facts(BaseModel):
    """What a model was trained on.

    Args:
        dataset: name of the data set; empty for weights that were not trained.
        dataset_sha256: its identity.
        level: of theory, of its labels.
        notes: anything else (JSON types only): settings, scores, dates, licence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = ""
    dataset_sha256: str = ""
    level: str = ""
    notes: dict[str, Any] = {}


class Header(BaseModel):
    """What is written beside the weights.

    Args:
        schema_version: of this table.
        architecture: a key of `FAMILIES`.
        config: all settings of the network, among them the elements it knows.
        dtype: of the weights.
        energy_unit: of everything that comes out.
        length_unit: of everything that goes in, and of 1/length in forces.
        scale: eV and eV/Å, the unit that the network works in.
        atom_energies: eV of a lone atom by symbol, zero where absent.
        facts: what it was trained on.
        sha256: of the rest of the header and the weights; a damaged or edited file is noticed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    architecture: str
    config: SerializeAsAny[NetworkConfig]
    dtype: Literal["float32", "float64"]
    energy_unit: Literal["eV"] = "eV"
    length_unit: Literal["Å"] = "Å"
    scale: FiniteFloat
    atom_energies: dict[str, FiniteFloat]
    facts: Facts = Facts()
    sha256: str = ""

    @field_validator("config", mode="before")
    @classmethod
    def _of_its_family(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        return read_config(value | {"architecture": info.data.get("architecture", "")})

    @field_validator("atom_energies")
    @classmethod
    def _real_elements(cls, value: dict[str, float]) -> dict[str, float]:
        from ase.data import atomic_numbers

        for symbol in value:
            if not 1 <= atomic_numbers.get(symbol, 0) <= ELEMENTS:
                raise ValueError(f"{symbol!r} is not an element that a model has a row for")
        return value

    @classmethod
    def of(cls, model: Network, facts: Facts) -> Header:
        """Describe a model; its dtype must be one of those above."""
        from ase.data import chemical_symbols

        energies = enumerate(model.reference.tolist())
        return cls(
            architecture=model.config.architecture,
            config=model.config,
            dtype=str(model.dtype).removeprefix("torch."),
            scale=model.scale.item(),
            atom_energies={chemical_symbols[z]: energy for z, energy in energies if energy},
            facts=facts,
        )

    def text(self) -> str:
        """Return it as JSON, the same for the same content."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False)

    def sealed(self, tensors: Mapping[str, Tensor]) -> Header:
        """Return it with the digest of itself and the weights."""
        bare = self.model_copy(update={"sha256": ""})
        arrays = (part for key in sorted(tensors) for part in (key, tensors[key].numpy()))
        return bare.model_copy(update={"sha256": digest([bare.text(), *arrays])})


def save(path: str | Path, model: Network, facts: Facts | None = None) -> None:
    """Write a model to a file, whole or not at all.

    Args:
        path: ends with `.safetensors`; a file that is there is replaced.
        model: on any device.
        facts: what it was trained on.

    Raises:
        ValueError: another suffix; a weight, scale or atom energy that is not finite; half precision; a
            trained model that does not say which elements it knows; notes that are not JSON.
    """
    from safetensors.torch import save as to_bytes

    path, facts = Path(path), facts or Facts()
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: a model is saved as {SUFFIX}")
    if facts.dataset and model.config.elements is None:
        raise ValueError(
            f"{path}: the model was trained on {facts.dataset} but claims to know all elements; "
            "set `elements` of its configuration to those of the data"
        )
    tensors = _tensors(model)
    _check_finite(path, tensors)
    try:
        header = Header.of(model, facts).sealed(tensors)
        text = header.text()
    except ValidationError as error:
        raise ValueError(f"{path}: {_first(error)}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: facts.notes: cannot be written as JSON: {error}") from None
    write_bytes(path, to_bytes(tensors, metadata={ENTRY: text}))


def load_model(path: str | Path) -> tuple[Network, Facts]:
    """Read a model from a file; nothing in the file is executed.

    Args:
        path: written by `save`.

    Returns:
        The model on the CPU, in the precision it was saved in, and what it was trained on.

    Raises:
        ValueError: no such file; not a safetensors file, or not one of ours; written by a newer version; an
            unknown architecture; missing, extra, misshapen or damaged weights. Says what to do.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    _check_kind(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = _read_header(path, file.metadata())
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            _check_shapes(path, header.config, shapes)
            tensors = {key: file.get_tensor(key) for key in shapes}
    except SafetensorError as error:
        raise ValueError(
            f"{path}: cannot be read as {SUFFIX} ({error}); it may be cut short: copy or download it again"
        ) from None
    wrong = sorted(key for key, value in tensors.items() if str(value.dtype) != f"torch.{header.dtype}")
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} is {tensors[wrong[0]].dtype}; its header says {header.dtype}")
    _check_finite(path, tensors)
    if header.sealed(tensors) != header:
        raise ValueError(
            f"{path}: header or weights were changed after it was written (SHA-256 differs); get it again"
        )
    model = build(header.config, dtype=getattr(torch, header.dtype))
    model.load_state_dict(tensors | _from_header(header))
    return model, header.facts


def weights_digest(model: Network) -> str:
    """Return the SHA-256 of settings, units, precision and weights: of all that decides predictions."""
    return Header.of(model, Facts()).sealed(_tensors(model)).sha256


def _tensors(model: Network) -> dict[str, Tensor]:
    return {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if name not in IN_HEADER
    }


def _from_header(header: Header) -> dict[str, Tensor]:
    import torch
    from ase.data import atomic_numbers

    reference = torch.zeros(ELEMENTS + 1, dtype=torch.float64)
    for symbol, energy in header.atom_energies.items():
        reference[atomic_numbers[symbol]] = energy
    return {"scale": torch.tensor(header.scale, dtype=torch.float64), "reference": reference}


def _first(error: ValidationError) -> str:
    """Return where the first mistake is and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _check_kind(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its header, which may look like a pickle's first byte.
    if start[8:] != b"{" and start.startswith(PICKLES):
        raise ValueError(
            f"{path}: this is a pickle (a .pt or .pth file), which can run any code when it is read, and is "
            f"refused; load it where it was made and write it with sfumato.models.checkpoint.save as {SUFFIX}"
        )


def _read_header(path: Path, metadata: Mapping[str, str] | None) -> Header:
    text = (metadata or {}).get(ENTRY)
    if text is None:
        raise ValueError(f"{path}: holds tensors but no model of Sfumato; was it written by another program?")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its header is not JSON ({error}); the file is damaged") from None
    schema = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise ValueError(f"{path}: its header states no schema version; the file is damaged")
    if schema > SCHEMA:
        raise ValueError(
            f"{path}: was written by a newer Sfumato (schema {schema}; this one reads up to {SCHEMA}); "
            "update with: pip install --upgrade sfumato"
        )
    name = str(values.get("architecture"))
    if name not in FAMILIES:
        raise ValueError(f"{path}: architecture {name!r} is unknown; {nearest(name, FAMILIES)}")
    try:
        return Header.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: its header says something wrong: {_first(error)}") from None


def _check_shapes(path: Path, config: NetworkConfig, stored: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a file with what its settings ask for, before anything of that size is allocated."""
    import torch

    if config.fewest_tensors > len(stored):
        raise ValueError(
            f"{path}: has {len(stored)} tensors; its settings ask for {config.fewest_tensors} or more"
        )
    try:
        with torch.device("meta"):
            state = build(config).state_dict()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: its settings make no model: {error}") from None
    expected = {key: tuple(value.shape) for key, value in state.items() if key not in IN_HEADER}
    for what, keys in (("lacks", expected.keys() - stored), ("has in excess", stored.keys() - expected)):
        if keys:
            raise ValueError(
                f"{path}: {what} {len(keys)} of {len(expected)} tensors, first {min(keys)!r}; "
                "its settings and its weights do not belong together"
            )
    for key, shape in expected.items():
        if stored[key] != shape:
            raise ValueError(f"{path}: {key} has shape {stored[key]}; its settings ask for {shape}")


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    bad = [key for key, value in tensors.items() if not bool(value.isfinite().all())]
    if bad:
        raise ValueError(
            f"{path}: {len(bad)} of {len(tensors)} tensors hold NaN or infinity, first {bad[0]!r}; "
            "a training run that diverged? Use an earlier checkpoint"
        )
