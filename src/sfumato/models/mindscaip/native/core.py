"""The weights of a network bound to the compiled core, and what it computes with them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.graph.layout import GraphSettings, Topology
from sfumato.models.harmonics import harmonic_norms, harmonic_slopes, smearing
from sfumato.models.mindscaip.config import MinDScAIPConfig
from sfumato.models.mindscaip.native import Graph, Pairs, Settings, library
from sfumato.models.network import Network

PANEL = 16
"""Channels, of a token and of each head, come in multiples of this."""

KEPT = 2**28
"""Bytes that one pass may hold for the next time."""


def obstacle(config: MinDScAIPConfig) -> str:
    """Return why the core cannot compute a network of these settings, or "" if it can."""
    sizes = {
        "width": config.width,
        "channels of a head": config.width * config.attention_factor // config.heads,
        "hidden channels": config.width * config.hidden_factor,
    }
    for what, size in sizes.items():
        if size % PANEL:
            return f"{what}: {size} is not a multiple of {PANEL}"
    if config.graph.rank != "compact":
        return f"graph.rank: {config.graph.rank}"
    heads = ("direct_forces", "direct_stress", "denoising")
    return next((f"{name}: the core has no such head" for name in heads if getattr(config, name)), "")


class Core:
    """The core of one network. Copies of a network begin with one of their own."""

    def __init__(self) -> None:
        self._compiled = library()
        self._network: int | None = None
        self._passes: list[int] = []
        self._owners: list[tuple[dict[str, torch.nn.Parameter | None], str]] = []
        self._where: tuple[int, ...] = ()
        self._when: tuple[int, ...] = ()
        self._alive: tuple[Any, ...] = ()
        self.size = 0
        """How many numbers the weights have."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Core:
        return Core()

    def __reduce__(self) -> tuple[type[Core], tuple[()]]:
        return Core, ()

    def __del__(self) -> None:
        if self._compiled is not None:
            for one in self._passes:
                self._compiled.sfumato_free_pass(one)
            self._compiled.sfumato_free_network(self._network)

    def begin(self, model: Network, topology: Topology, positions: Tensor, cell: Tensor) -> Evaluation:
        """Return an evaluation of a batch, for the weights as they are.

        Args:
            model: that this is the core of, in single precision on the CPU.
            topology: of the batch.
            positions: (N, 3) Å.
            cell: (G, 3, 3) Å.
        """
        self._bind(model)
        return Evaluation(self, topology, positions, cell)

    def _bind(self, model: Network) -> None:
        """Read the weights where they have moved or changed."""
        weights = self._weights(model)
        where = tuple(weight.data_ptr() for weight in weights)
        when = tuple(weight._version for weight in weights)
        if where != self._where:
            compiled_core().sfumato_free_network(self._network)
            self._network = None
            self._network = self._made(model)
            self._where, self._when = where, ()
        if when != self._when:
            check(compiled_core().sfumato_pack(self._network))
            self._when = when

    def _weights(self, model: Network) -> list[Tensor]:
        """Return all weights in order; which modules have them is looked up once, and what, every time."""
        if not self._owners:
            for name, _ in model.named_parameters():
                module, _, last = name.rpartition(".")
                self._owners.append((model.get_submodule(module)._parameters, last))
        return [owner[name] for owner, name in self._owners]  # type: ignore[misc]

    def _made(self, model: Network) -> int:
        config = model.config
        assert isinstance(config, MinDScAIPConfig)
        weights, names = dict(model.named_parameters()), list(_names(config))
        starts = np.cumsum([0, *(weight.numel() for weight in weights.values())]).tolist()
        place = dict(zip(weights, starts))
        addresses = [weights[name].data_ptr() if name in weights else None for name in names]
        places = np.array([place.get(name, -1) for name in names], dtype=np.int64)
        centers, spread, height = smearing(config.radial, config.graph.cutoff, config.smearing)
        settings = _settings(config, spread, height)
        l_max = max(settings.l_max, 0)
        slopes, norms = harmonic_slopes(l_max).contiguous(), harmonic_norms(l_max)
        self.size, self._alive = starts[-1], (centers, list(weights.values()))
        made = compiled_core().sfumato_network(
            settings,
            (ctypes.c_void_p * len(names))(*addresses),
            places.ctypes.data,
            centers.data_ptr(),
            slopes.data_ptr(),
            norms.data_ptr(),
        )
        if not made:
            raise MemoryError("the compiled core ran out of memory")
        return int(made)

    @property
    def network(self) -> int:
        """Where the compiled core has the network."""
        assert self._network is not None
        return self._network

    def take_pass(self) -> int:
        """Return memory for one pass."""
        made = self._passes.pop() if self._passes else compiled_core().sfumato_pass()
        if not made:
            raise MemoryError("the compiled core ran out of memory")
        return int(made)

    def give_back(self, one: int) -> None:
        """Keep the memory of a pass for the next, or let it go where it has grown large."""
        if compiled_core().sfumato_bytes(one) > KEPT:
            compiled_core().sfumato_free_pass(one)
        else:
            self._passes.append(one)


@dataclass(frozen=True)
class _Share:
    """Structures begin … end of a batch, which one thread works on, and where their atoms and edges begin."""

    one: int
    begin: int
    end: int
    atom: int
    edge: int


class Evaluation:
    """One evaluation of a batch: `forward`, then `pull`, then, where it is to learn, `learn`; then `close`.

    Energies have no units. Structures are shared among as many threads as torch has: the sums of two threads
    differ from those of one in the last digits of the weights' gradient, and in nothing else.

    Args:
        core: of the network.
        topology: of the batch.
        positions: (N, 3) Å.
        cell: (G, 3, 3) Å.
    """

    def __init__(self, core: Core, topology: Topology, positions: Tensor, cell: Tensor) -> None:
        self.core, self.topology = core, topology
        t = topology
        self._alive = tuple(
            part.contiguous()
            for part in (t.numbers, t.system, t.pair_source, t.pair_target, t.pair_shift, t.reverse)
        )
        sizes = (len(t.numbers), len(t.reverse), len(t.pair_source), t.n_systems)
        self._pairs = Pairs(*sizes, *(part.data_ptr() for part in self._alive))
        self.positions, self.cell = (part.detach().double().contiguous() for part in (positions, cell))
        self.shares = list(self._shared())

    def _shared(self) -> Iterator[_Share]:
        """Cut the batch into shares of about the same number of edges."""
        t, threads = self.topology, min(torch.get_num_threads(), self.topology.n_systems)
        if threads <= 1:
            yield _Share(self.core.take_pass(), 0, t.n_systems, 0, 0)
            return
        atoms = np.searchsorted(t.system.numpy(), np.arange(t.n_systems + 1))
        edges = np.searchsorted(t.source.numpy(), atoms)
        work = edges + atoms
        cuts = np.searchsorted(work, work[-1] * np.arange(1, threads) / threads)
        ends = np.unique([0, *cuts, t.n_systems])
        for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist()):
            yield _Share(self.core.take_pass(), begin, end, int(atoms[begin]), int(edges[begin]))

    def forward(self, learn: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return (N,) energies of atoms, and (E,) distances and log e of edges.

        Args:
            learn: keep what `learn` needs.
        """
        atoms = torch.empty(len(self.positions), dtype=torch.float64)
        distance, log_e = torch.empty(2, len(self.topology.reverse), dtype=torch.float64)

        def run(s: _Share) -> int:
            where = (s.one, self.core.network, self._pairs, s.begin, s.end)
            inputs = (self.positions.data_ptr(), self.cell.data_ptr(), int(learn))
            outputs = (_at(atoms, s.atom), _at(distance, s.edge), _at(log_e, s.edge))
            return int(compiled_core().sfumato_forward(*where, *inputs, *outputs))

        self._together(run)
        return atoms, distance, log_e

    def pull(self, extra: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return (N, 3) −∂e/∂r and (G, 3, 3) ∂e/∂ε.

        Args:
            extra: (E,) gradients by distance and log e of an energy that the core does not know.
        """
        forces = torch.zeros(len(self.positions), 3, dtype=torch.float64)
        strain = torch.zeros(len(self.cell), 3, 3, dtype=torch.float64)
        by_distance, by_log_e = (part.double().contiguous() for part in extra) if extra else (None, None)

        def run(s: _Share) -> int:
            inputs = (_at(by_distance, s.edge), _at(by_log_e, s.edge))
            return int(
                compiled_core().sfumato_pull(s.one, *inputs, _at(forces, s.atom), _at(strain, s.begin))
            )

        self._together(run)
        return forces, (strain + strain.transpose(1, 2)) / 2

    def learn(self, c: Tensor, moves: Tensor, strain: Tensor) -> Tensor:
        """Return c ∂e/∂θ + d/dt ∂e/∂θ as atoms and cells move, one after the other for all weights.

        Args:
            c: (N,) of each atom.
            moves: (N, 3).
            strain: (G, 3, 3), symmetric.
        """
        c, moves, strain = (part.detach().double().contiguous() for part in (c, moves, strain))
        sums = torch.zeros(len(self.shares), self.core.size)

        def run(s: _Share) -> int:
            inputs = (_at(c, s.atom), _at(moves, s.atom), _at(strain, s.begin))
            return int(compiled_core().sfumato_learn(s.one, *inputs, _at(sums, self.shares.index(s))))

        self._together(run)
        return sums[0] if len(sums) == 1 else sums.sum(0)

    def close(self) -> None:
        """Give memory back."""
        for share in self.shares:
            self.core.give_back(share.one)
        self.shares = []

    def _together(self, run: Callable[[_Share], int]) -> None:
        if len(self.shares) == 1:
            codes = [run(self.shares[0])]
        else:
            codes = list(_threads(len(self.shares)).map(run, self.shares))
        for code in codes:
            check(code)


@lru_cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "sfumato-core")


def _at(part: Tensor | None, start: int) -> int | None:
    """Return where the rows of an array from `start` on are."""
    return None if part is None else part.data_ptr() + start * part.stride(0) * part.element_size()


def compiled_core() -> ctypes.CDLL:
    """Return the core, which is known to be there."""
    compiled = library()
    assert compiled is not None
    return compiled


def check(code: int) -> None:
    """Raise what the core reports.

    Raises:
        MemoryError: memory did not suffice.
        RuntimeError: anything else.
    """
    if code == 1:
        raise MemoryError("the compiled core ran out of memory")
    if code:
        raise RuntimeError("the compiled core failed")


def graph_settings(g: GraphSettings) -> Graph:
    """Return the settings of a graph as the core takes them."""
    return Graph(g.k, g.d0, g.beta, g.cutoff, g.rank_offset, g.f_max, g.mode == "mutual")


def _settings(c: MinDScAIPConfig, spread: float, height: float) -> Settings:
    inner = c.width * c.attention_factor
    angular = c.directional == "angular_bias"
    return Settings(
        *(c.width, c.heads, inner, c.width * c.hidden_factor, c.layers, c.radial),
        *(c.angular_degree if angular else 0, -1 if angular else c.l_max),
        *(c.gated, c.node_ffn, c.layer_readout),
        *(1 / (c.temperature * (inner / c.heads) ** 0.5), height, spread),
        graph_settings(c.graph),
    )


def _names(config: MinDScAIPConfig) -> Iterator[str]:
    """Yield the names of weights in the order in which `connect` of core.cpp takes them."""
    yield from ("sources.weight", "targets.weight", "itself")
    yield from _linear("geometry", "mix")
    for layer in range(config.layers):
        for half in ("leaving", "arriving"):
            block = f"layers.{layer}.{half}"
            yield from _linear(f"{block}.attention.qkv", f"{block}.attention.out")
            yield f"{block}.attention.angles"
            feed = f"{block}.feed"
            yield from _linear(
                *(f"{feed}.{part}" for part in ("edge.up", "edge.down", "node.up", "node.down"))
            )
        yield from _linear(f"layers.{layer}.readout.up", f"layers.{layer}.readout.down")
    yield from _linear("heads.energy.up", "heads.energy.down")


def _linear(*maps: str) -> Iterator[str]:
    for name in maps:
        yield from (f"{name}.weight", f"{name}.bias")
