"""The table of protocols."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from sfumato.protocols.bsct import BSCT
from sfumato.protocols.contract import ContractProtocol
from sfumato.protocols.diffusion import Diffusion
from sfumato.protocols.errors import Errors
from sfumato.protocols.heat import Heat
from sfumato.protocols.nve import NVE
from sfumato.protocols.probes import Probes
from sfumato.protocols.protocol import Protocol
from sfumato.protocols.rare_events import RareEventErrors
from sfumato.words import nearest

_ALL: tuple[Protocol, ...] = (
    ContractProtocol(),
    BSCT(),
    Errors(),
    NVE(),
    Heat(),
    Probes(),
    RareEventErrors(),
    Diffusion(),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}

GROUP = "sfumato.protocols"
"""Entry points by which other packages add protocols: each names a class or a function without arguments."""


def find_protocol(protocol: str | Protocol) -> Protocol:
    """Return a protocol.

    Args:
        protocol: a name of `PROTOCOLS`, one that another package adds, "file.py:factory",
            "package.module:factory", or a Protocol.

    Raises:
        ValueError: an unknown name; a factory that returns something else.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol in PROTOCOLS:
        return PROTOCOLS[protocol]
    added = {point.name: point for point in entry_points(group=GROUP)}
    if protocol in added:
        return _made(added[protocol].load()(), protocol)
    if ":" in protocol:
        from sfumato.potentials.factories import call_factory

        return _made(call_factory(protocol).thing, protocol)
    raise ValueError(f"there is no protocol {protocol!r}; {nearest(protocol, [*PROTOCOLS, *added])}")


def _made(found: Any, spec: str) -> Protocol:
    if not isinstance(found, Protocol):
        raise ValueError(f"protocol {spec!r}: expected a Protocol, got a {type(found).__name__}")
    return found
