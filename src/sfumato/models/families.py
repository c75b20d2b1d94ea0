"""The families of networks, one table; nothing in it is imported before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from sfumato.config import explained
from sfumato.models.config import NetworkConfig
from sfumato.words import nearest

if TYPE_CHECKING:
    import torch

    from sfumato.models.network import Network

DEFAULT = "mindscaip"
"""The family of settings that name no architecture, as all settings of version 0.1.0."""


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Args:
        config: returns the class of its settings, whose `architecture` is the name of the row.
        network: returns the class of its networks, which is called with settings, a generator of the weights
            and their dtype.
        presets: returns named settings.
        variants: returns named changes of settings, each of one choice.
    """

    config: Callable[[], type[NetworkConfig]]
    network: Callable[[], Callable[..., Network]]
    presets: Callable[[], Mapping[str, NetworkConfig]] = dict
    variants: Callable[[], Mapping[str, Mapping[str, Any]]] = dict


def _mindscaip_config() -> type[NetworkConfig]:
    from sfumato.models.mindscaip.config import MinDScAIPConfig

    return MinDScAIPConfig


def _mindscaip_network() -> Callable[..., Network]:
    from sfumato.models.mindscaip.network import MinDScAIP

    return MinDScAIP


def _mindscaip_presets() -> Mapping[str, NetworkConfig]:
    from sfumato.models.mindscaip.config import PRESETS

    return PRESETS


def _esen_config() -> type[NetworkConfig]:
    from sfumato.models.esen.config import ESENConfig

    return ESENConfig


def _esen_network() -> Callable[..., Network]:
    from sfumato.models.esen.network import ESEN

    return ESEN


def _esen_presets() -> Mapping[str, NetworkConfig]:
    from sfumato.models.esen.config import PRESETS

    return PRESETS


def _esen_variants() -> Mapping[str, Mapping[str, Any]]:
    from sfumato.models.esen.config import VARIANTS

    return VARIANTS


FAMILIES: dict[str, Family] = {
    "mindscaip": Family(_mindscaip_config, _mindscaip_network, _mindscaip_presets),
    "esen": Family(_esen_config, _esen_network, _esen_presets, _esen_variants),
}


def family(architecture: str) -> Family:
    """Return a row of the table.

    Raises:
        ValueError: an unknown architecture; names the nearest valid one.
    """
    if architecture not in FAMILIES:
        raise ValueError(f"architecture {architecture!r} is unknown; {nearest(architecture, FAMILIES)}")
    return FAMILIES[architecture]


def preset(name: str, architecture: str = DEFAULT, **changes: Any) -> NetworkConfig:
    """Return named settings of a family, with some of them changed.

    Args:
        name: of the preset.
        architecture: a key of `FAMILIES`.
        changes: settings by name; of `graph` some suffice.

    Raises:
        ValueError: an unknown preset, setting or value; names the nearest valid one.
    """
    row = family(architecture)
    presets = row.presets()
    if name not in presets:
        hint = nearest(name, presets) if presets else "it has none"
        raise ValueError(f"{architecture} has no preset {name!r}; {hint}")
    base = presets[name]
    if isinstance(changes.get("graph"), Mapping):
        changes["graph"] = asdict(base.graph) | dict(changes["graph"])
    return _configured(row, dict(base) | changes)


def read_config(value: Any) -> Any:
    """Return the settings of a network from what a file says.

    Args:
        value: a preset of the default family by name, or a mapping: `architecture` (by default `DEFAULT`),
            perhaps a `preset`, and settings.

    Returns:
        The settings; what is neither is returned as it is.

    Raises:
        ValueError: an unknown architecture, preset, setting or value.
    """
    if isinstance(value, str):
        return preset(value)
    if not isinstance(value, Mapping):
        return value
    settings = dict(value)
    for word in ("architecture", "preset"):
        if word in settings and settings[word] in (None, ""):
            raise ValueError(f"{word}: is empty; name one, or leave the line out")
    architecture = str(settings.pop("architecture", DEFAULT))
    if "preset" in settings:
        return preset(str(settings.pop("preset")), architecture, **settings)
    return _configured(family(architecture), settings)


def _configured(row: Family, settings: Mapping[str, Any]) -> NetworkConfig:
    try:
        return row.config()(**settings)
    except ValidationError as error:
        raise ValueError(explained(error)) from None


def stated_architecture(config: NetworkConfig) -> dict[str, Any]:
    """Return what to write before the settings of a network so that `read_config` knows its family.

    Nothing where it is the default: what hashes settings gives the same as in version 0.1.0.
    """
    return {} if config.architecture == DEFAULT else {"architecture": config.architecture}


def build(
    config: NetworkConfig, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
) -> Network:
    """Return a network with random weights.

    Args:
        config: its settings.
        generator: of the weights; None: seed 0.
        dtype: of the weights; None: single precision.

    Raises:
        ValueError: settings that do not make a network.
    """
    import torch

    generator = generator or torch.Generator().manual_seed(0)
    return family(config.architecture).network()(config, generator, dtype or torch.float32)
