"""A network as a TorchSim model: everything stays on its device, in batches."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sfumato.graph.verlet import Neighbors
from sfumato.models.network import Network, evaluate
from sfumato.potentials.potential import MissingElementError

RESULTS = ("energy", "forces", "stress")


def torchsim_model(network: Network, name: str, skin: float, stress: bool) -> Any:
    """Return a `torch_sim` model for all its integrators, optimizers and batchers.

    Its dtype is float64, whatever precision the network has, because that is what TorchSim gives states
    that it makes for a model: an energy of many atoms needs more than seven digits. States in float32 are
    accepted, and answered in float32. Neighbors are bounded in number, so memory goes with the number of
    atoms, and batchers are told so.

    Args:
        network: in the precision and on the device that it is to have; the states are there too.
        name: for messages.
        skin: Å, see `Neighbors`.
        stress: whether to compute stress of states periodic in three directions. Those without a periodic
            direction have none; others are then refused. A cell in a state whose only flag says that nothing
            is periodic is refused too, since TorchSim clears that flag for slabs.

    Raises:
        ValueError: torch-sim is not installed.
    """
    try:
        interface: Any = import_module("torch_sim.models.interface").ModelInterface
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the module {error.name} is not installed here; install it with: pip install 'sfumato[torchsim]'"
        ) from None

    class NetworkModel(interface):  # type: ignore[misc]
        """The TorchSim face of a network."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self._device, self._dtype = network.device, torch.float64
            self._compute_forces, self._compute_stress = True, stress
            self._memory_scales_with = "n_atoms"
            self.neighbors = Neighbors(network.config.graph, skin)

        @torch.inference_mode(False)
        def forward(self, state: Any, **__: Any) -> dict[str, Tensor]:
            """Return energy (G,), forces (N, 3) and, if asked for, stress (G, 3, 3) of a periodic state."""
            state = SimpleNamespace(**state) if isinstance(state, dict) else state
            arrays = _arrays(state)
            positions, cell, pbc, numbers, system = arrays
            _refuse_lost_directions(name, state, cell)
            with_stress = stress and _has_stress(name, pbc)
            known = network.config.known_elements
            MissingElementError.check(name, known, numbers.cpu().numpy(), system.cpu().numpy())
            topology = self.neighbors.topology(*arrays)
            # Out of memory is left as it comes: batchers look for it to find out what fits.
            found = evaluate(self.network, topology, positions, cell, stress=with_stress)
            answer = {
                key: value for key, value in vars(found).items() if key in RESULTS and value is not None
            }
            result = {key: value.to(state.positions.dtype) for key, value in answer.items()}
            if not all(bool(value.isfinite().all()) for value in result.values()):
                raise ValueError(f"{name}: a prediction is not a finite number")
            return result

    return NetworkModel()


def _has_stress(name: str, pbc: Tensor) -> bool:
    """Return whether all (G, 3) directions are periodic; refuse a state of which some are."""
    if bool(pbc.any()) and not bool(pbc.all()):
        raise ValueError(
            f"{name}: stress needs three periodic directions in every structure of a state; otherwise use "
            "stress=False"
        )
    return bool(pbc.all())


def _refuse_lost_directions(name: str, state: Any, cell: Tensor) -> None:
    """Refuse cells without periodic directions where one flag stands for three: they may be slabs."""
    flags = torch.as_tensor(state.pbc)
    if flags.numel() == 1 and not bool(flags) and bool(cell.any()):
        raise ValueError(
            f"{name}: the state has a cell but no periodic direction. TorchSim has one flag for all three "
            "and clears it for slabs and wires, whose energies would be those of clusters. Use the ASE "
            "calculator for them, a state with three flags, or for molecules a cell of zeros"
        )


def _arrays(state: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return copies of positions, cells, periodic directions, atomic numbers and systems of a state.

    Copies, since what was made under `torch.inference_mode` can have no part in a gradient.
    """
    # TorchSim has lattice vectors in columns.
    positions, cell = state.positions.detach().double().clone(), state.cell.detach().double().mT.clone()
    # One flag for all directions in older versions of TorchSim, one for each in newer ones.
    pbc = torch.as_tensor(state.pbc, dtype=torch.bool, device=positions.device).expand(len(cell), 3).clone()
    return positions, cell, pbc, state.atomic_numbers.long().clone(), state.system_idx.clone()
