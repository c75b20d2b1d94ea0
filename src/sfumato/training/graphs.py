"""Graphs of training batches, put together from those of their frames.

A graph depends on distances alone. So that of a frame is found once, from the frame as it is stored, and
belongs to it however it is turned; and what a step computes does not depend on what came before it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfumato.graph.layout import GraphSettings, Topology, index_stage
from sfumato.systems import Batch, Ints


class Graphs:
    """The graphs of batches.

    Args:
        settings: of the graph.
        skin: Å.
        keep: find the graph of each frame once, and put those of batches together from them.
    """

    def __init__(self, settings: GraphSettings, skin: float, keep: bool) -> None:
        self.settings, self.skin, self.keep = settings, skin, keep
        self._kept: dict[int, Topology] = {}

    def of(self, frames: Ints, batch: Batch, displaced: bool = False) -> Topology:
        """Return the graph of a batch.

        Args:
            frames: (G,) the numbers of its structures in the set.
            batch: the structures, not turned.
            displaced: they are not those of the set.
        """
        if not self.keep or displaced:
            return self._found(batch)
        if any(frame not in self._kept for frame in frames.tolist()):
            for frame, system in zip(frames.tolist(), batch):
                if frame not in self._kept:
                    self._kept[frame] = self._found(Batch.of([system]))
        return joined([self._kept[frame] for frame in frames.tolist()])

    def _found(self, batch: Batch) -> Topology:
        arrays = (batch.positions, batch.cell, batch.pbc, batch.numbers, batch.index)
        positions, cell, pbc, numbers, system = (torch.from_numpy(array.copy()) for array in arrays)
        return index_stage(positions, cell, pbc, numbers, system, self.settings, self.skin)


def joined(parts: list[Topology]) -> Topology:
    """Put the graphs of some structures together to that of their batch.

    Args:
        parts: each of one structure or more.
    """
    if len(parts) == 1:
        return parts[0]
    atoms = [len(t.numbers) for t in parts]
    edges = [len(t.reverse) for t in parts]
    before = np.cumsum([0, *atoms]).tolist()
    edges_before = np.cumsum([0, *edges]).tolist()
    systems = np.cumsum([0, *(t.n_systems for t in parts)]).tolist()

    def pairs(values: list[Tensor]) -> Tensor:
        """All edges, then all witnesses."""
        heads = [value[:e] for value, e in zip(values, edges)]
        return torch.cat(heads + [value[e:] for value, e in zip(values, edges)])

    return Topology(
        numbers=torch.cat([t.numbers for t in parts]),
        system=torch.cat([t.system + s for t, s in zip(parts, systems)]),
        n_systems=systems[-1],
        pair_source=pairs([t.pair_source + n for t, n in zip(parts, before)]),
        pair_target=pairs([t.pair_target + n for t, n in zip(parts, before)]),
        pair_shift=pairs([t.pair_shift for t in parts]),
        reverse=torch.cat(
            [torch.where(t.reverse < 0, t.reverse, t.reverse + e) for t, e in zip(parts, edges_before)]
        ),
        mutual=parts[0].mutual,
    )
