"""The edges of a batch, found among candidates by the compiled core."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.graph.layout import Candidates, GraphSettings, Topology, refuse_one_place
from sfumato.models.mindscaip.native.core import check, compiled_core, graph_settings


def select_compiled(
    candidates: Candidates,
    positions: Tensor,
    cell: Tensor,
    numbers: Tensor,
    system: Tensor,
    settings: GraphSettings,
) -> Topology:
    """Find the edges; arguments, result and errors are those of `select_edges`.

    Ranks are taken in double precision here, and witnesses are fewer: the edges are the same but for those
    whose weight is 1e-86.
    """
    core = compiled_core()
    distance = candidates.lengths(positions, cell, system)
    refuse_one_place(candidates, distance, system)
    inputs = [part.contiguous() for part in (candidates.i, candidates.j, candidates.shift, distance)]
    sizes = torch.empty(2, dtype=torch.int64)
    selection = core.sfumato_selection()
    try:
        where = [part.data_ptr() for part in inputs]
        check(
            core.sfumato_select(
                selection, graph_settings(settings), len(distance), *where, len(numbers), sizes.data_ptr()
            )
        )
        edges, pairs = sizes.tolist()
        source, target = torch.empty(2, pairs, dtype=torch.int64)
        shift, reverse = torch.empty(pairs, 3, dtype=torch.int64), torch.empty(edges, dtype=torch.int64)
        core.sfumato_selected(selection, *(part.data_ptr() for part in (source, target, shift, reverse)))
    finally:
        core.sfumato_free_selection(selection)
    return Topology(
        numbers=numbers,
        system=system,
        n_systems=len(cell),
        pair_source=source,
        pair_target=target,
        pair_shift=shift,
        reverse=reverse,
        mutual=settings.mode == "mutual",
    )
