"""The optimizer: what decays, how the learning rate runs, and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.training.settings import TrainSettings
from sfumato.training.stages import Stage


class Flat:
    """The weights of a model in one array: what acts on each of them by itself does so in one pass.

    The weights of the model become views of it, those of its own size and shape.

    Args:
        model: whose weights to lay out; optimizers and cores that knew them before do not any more.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module) -> None:
        named = dict(model.named_parameters())
        self.weights = torch.cat([weight.detach().reshape(-1) for weight in named.values()])
        self.shapes = [weight.shape for weight in named.values()]
        for (name, weight), part in zip(named.items(), self.parts(self.weights), strict=True):
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, nn.Parameter(part, weight.requires_grad))

    def parts(self, whole: Tensor) -> list[Tensor]:
        """Return views of an array of as many numbers, weight by weight."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = torch.split(whole, sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


class AdamW:
    """AdamW in which only the weights of linear maps decay, on a flat array.

    Args:
        model: whose weights to train; they are laid out flat, with gradients beside them.
        settings: of the run.
        lr: learning rate.

    Source: Loshchilov & Hutter 2019.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, lr: float) -> None:
        self.flat = Flat(model)
        self.weights = self.flat.weights
        self.gradient = torch.zeros_like(self.weights)
        parameters = list(model.parameters())
        for weight, part in zip(parameters, self.flat.parts(self.gradient), strict=True):
            weight.grad = part
        linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
        decays = [id(weight) in linear for weight in parameters]
        self._decay = torch.zeros_like(self.weights)
        for part, does in zip(self.flat.parts(self._decay), decays, strict=True):
            part.fill_(settings.weight_decay if does else 0.0)
        # States are kept weight by weight, those that decay first.
        self._order = sorted(range(len(parameters)), key=lambda i: not decays[i])
        weights = nn.Parameter(self.weights)
        weights.grad = self.gradient
        self._adam = torch.optim.AdamW([weights], lr=lr, betas=settings.betas, weight_decay=0.0, fused=True)

    def zero_grad(self) -> None:
        """Set the gradients to zero."""
        self.gradient.zero_()

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the weights along their gradients.

        Args:
            lr: learning rate.
        """
        self._adam.param_groups[0]["lr"] = lr
        self.weights.addcmul_(self.weights, self._decay, value=-lr)
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the moments of each weight, and how many steps there were."""
        states: dict[int, dict[str, Tensor]] = self._adam.state_dict()["state"]
        if not states:
            return {"state": {}}
        state = states[0]
        moments = {name: self.flat.parts(state[name]) for name in ("exp_avg", "exp_avg_sq")}
        return {
            "state": {
                place: {"step": state["step"]} | {name: parts[i] for name, parts in moments.items()}
                for place, i in enumerate(self._order)
            }
        }

    def load_state_dict(self, found: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        if not found["state"]:
            return
        state: dict[str, Tensor] = {"step": found["state"][0]["step"]}
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.zeros_like(self.weights)
            parts = self.flat.parts(state[name])
            for place, i in enumerate(self._order):
                parts[i].copy_(found["state"][place][name])
        self._adam.load_state_dict(self._adam.state_dict() | {"state": {0: state}})


def rate(stage: Stage, done: float) -> float:
    """Return the learning rate: linear from a fraction of it, then along a cosine to the last.

    Args:
        stage: its numbers.
        done: how much of the stage is over, in its unit.

    Source: Liu et al. 2026, Table 7 (warm-up).
    """
    whole = float(stage.epochs or stage.steps or 1)
    if done < stage.warmup:
        return stage.lr * (stage.warmup_factor + (1 - stage.warmup_factor) * done / stage.warmup)
    part = min(1.0, (done - stage.warmup) / max(whole - stage.warmup, 1e-12))
    return stage.lr * (stage.final_factor + (1 - stage.final_factor) * 0.5 * (1 + math.cos(math.pi * part)))


def follow(average: Tensor, weights: Tensor, decay: float, steps: int) -> None:
    """Move averaged weights towards those of the model by 1 − decay, by more in the first steps.

    Args:
        average: of the averaged model, flat.
        weights: of the trained one.
        decay: of the memory per step; at most (1 + n)/(10 + n) after n steps.
        steps: n, done before.
    """
    decay = min(decay, (1 + steps) / (10 + steps))
    average.lerp_(weights, 1 - decay)


def clip(gradient: Tensor, largest: float) -> float:
    """Scale a gradient down to a largest norm; return the norm that it had."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
    return float(norm)
