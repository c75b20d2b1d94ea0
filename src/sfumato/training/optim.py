"""The optimizer: what decays, how the learning rate runs, and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato.training.settings import TrainSettings
from sfumato.training.stages import Stage


def optimizer(model: nn.Module, settings: TrainSettings, lr: float) -> torch.optim.AdamW:
    """Return AdamW in which only the weights of linear maps decay.

    Args:
        model: whose weights to train.
        settings: of the run.
        lr: learning rate.
    """
    decaying = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    names = {id(weight) for weight in decaying}
    others = [weight for weight in model.parameters() if id(weight) not in names]
    groups = [
        {"params": decaying, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=settings.betas, fused=True)


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


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float, steps: int) -> None:
    """Move averaged weights towards those of the model by 1 − decay, by more in the first steps.

    Args:
        average: the averaged model.
        model: the trained one.
        decay: of the memory per step; at most (1 + n)/(10 + n) after n steps.
        steps: n, done before.
    """
    decay = min(decay, (1 + steps) / (10 + steps))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def clip(parameters: Sequence[Tensor], largest: float) -> float:
    """Scale gradients down to a largest norm; return the norm that they had."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, largest))
