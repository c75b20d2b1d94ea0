"""Which cheap number of a model predicts trouble in dynamics: rank correlations over variants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.metrics.correlation import FEWEST, Association, association
from sfumato.metrics.stats import Estimate

OUTCOMES = ("nve.", "heat.")
"""Protocols whose numbers are trouble in dynamics; those of all others are cheap."""

GIVEN = "errors.force_mae"
"""What is held fixed: a rougher model may only be a worse one."""


@dataclass(frozen=True)
class Prediction:
    """How well one number predicts another.

    Args:
        outcome: key of the number that is to be predicted.
        cheap: key of the number that is looked at.
        found: over the variants; left out one by one are the groups.
    """

    outcome: str
    cheap: str
    found: Association

    def as_json(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        a = self.found
        parts = {"spearman": a.spearman, "kendall": a.kendall, "partial": a.partial}
        found: dict[str, Any] = {"outcome": self.outcome, "cheap": self.cheap}
        found |= {name: None if e is None else _json_of(e) for name, e in parts.items()}
        return found | {"without": dict(a.without)}


def _json_of(e: Estimate) -> dict[str, Any]:
    return {"value": e.mean, "interval95": [e.low, e.high], "models": e.n}


def predictions(values: Mapping[str, Sequence[float]], families: Sequence[str]) -> list[Prediction]:
    """Return every outcome with every cheap number, outcome by outcome, the best predictor first.

    Nothing where there are too few models for an interval. Signed numbers count by their size: a drift
    downwards is no better than one upwards.

    Args:
        values: "protocol.number" → (n,) of each model, NaN where it has none.
        families: (n,) of each model.
    """
    if len(families) < FEWEST:
        return []
    sizes = {key: [abs(x) for x in xs] for key, xs in values.items() if not key.startswith("speed.")}
    outcomes = [key for key in sizes if key.startswith(OUTCOMES)]
    found = []
    for outcome in outcomes:
        for key in sizes.keys() - outcomes:
            given = None if key == GIVEN else sizes.get(GIVEN)
            found.append(Prediction(outcome, key, association(sizes[key], sizes[outcome], given, families)))
    return sorted(found, key=lambda p: (outcomes.index(p.outcome), -_rho(p), p.cheap))


def _rho(prediction: Prediction) -> float:
    rho = prediction.found.spearman.mean
    return -2.0 if math.isnan(rho) else rho
