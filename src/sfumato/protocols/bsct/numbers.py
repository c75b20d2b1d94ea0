"""The numbers of the Bond Smoothness Characterization Test as people read them: titles, units, meanings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.protocols.bsct import analysis as bsct
from sfumato.protocols.bsct.kinds import BOND, Sides, sides_of
from sfumato.protocols.bsct.measure import residual_name
from sfumato.protocols.bsct.settings import Settings
from sfumato.report.numbers import Metric

if TYPE_CHECKING:
    from sfumato.metrics.stats import Estimate
    from sfumato.protocols.protocol import Run

_ROUGH = (
    "Force Smoothness Deviation: along a scan, the steepest change per Å of bond or arc length of the "
    "logarithm of the model's squared force change over the reference's. A kink or ripple that the reference "
    "does not have makes it large; the reference itself has 0."
)
_BEFORE = "Over the frames up to the reference minimum ({first})."
_AFTER = "Over the frames from the reference minimum on ({last})."
_WORK = (
    "Work–energy residual: the largest mismatch between an energy step of the model and the work of its own "
    "forces. Large where the energy jumps or the force is not its gradient."
)

_FALSE = (
    "Height of the largest {} of the energy that the reference does not have, 0 where there is none; more "
    "than 25 meV, kT at room temperature, changes what happens in a simulation."
)

_METRICS = (
    ("fsd", "{fsd}_full", "{FSD}", "1/Å", _ROUGH),
    ("fsd_compress", "{fsd}_compress", "{FSD} {before}", "1/Å", _BEFORE),
    ("fsd_stretch", "{fsd}_stretch", "{FSD} {after}", "1/Å", _AFTER),
    (
        "outside",
        "{outside}_full",
        "{OUTSIDE}",
        "1/Å",
        "The FSD without the 0.1 Å on either side of the reference minimum, where it mostly reads how well "
        "the place of the minimum agrees.",
    ),
    ("barrier", "false_barrier", "false barrier", "eV", _FALSE.format("barrier")),
    ("well", "false_well", "false well", "eV", _FALSE.format("well")),
    (
        "variation",
        "excess_variation",
        "excess variation",
        "eV",
        "How far the energy goes up and down beyond what one well and the reference need.",
    ),
    (
        "order",
        "{order}_full",
        "work–energy order",
        "",
        "How fast the work–energy residual falls when the step is halved: 3 where energy and force are "
        "smooth, 1 where the force jumps or is not a gradient, 0 where the energy jumps; the worst interval.",
    ),
    ("force", "force_mae_full", "force MAE", "eV/Å", "Mean absolute error of the force components."),
    (
        "energy",
        "energy_mae_aligned_full",
        "energy MAE",
        "eV",
        "Mean absolute error of energies, each measured from the frame of the reference minimum.",
    ),
    ("work", "{work}_full", "work–energy", "eV", _WORK),
    (
        "work_stretch",
        "{work}_stretch",
        "work–energy {after}",
        "eV",
        "The same over the frames from the reference minimum on ({last}).",
    ),
    ("minima", "spurious_minima", "extra minima", "", "Minima of the energy beyond those of the reference."),
    ("maxima", "spurious_maxima", "extra maxima", "", "Maxima of the energy beyond those of the reference."),
    (
        "inflections",
        "spurious_inflections",
        "extra inflections",
        "",
        "Inflections of the energy beyond those of the reference.",
    ),
    (
        "position",
        "well_position_error",
        "well position",
        "Å",
        "Model − reference: coordinate at the minimum.",
    ),
    (
        "depth",
        "well_depth_error",
        "{end}",
        "eV",
        "Model − reference: rise from the minimum to the last frame.",
    ),
    ("wall", "wall_error", "{start}", "eV", "Model − reference: rise from the minimum to the first frame."),
)

FSD = "fsd"
"""The word of the FSD over whole scans, by which models are ranked."""


def metrics_of(settings: Settings, sides: Sides = BOND) -> dict[str, Metric]:
    """Return how numbers are presented, by a short word that does not depend on settings.

    Args:
        settings: of a model; one that differs from its default is part of a number's key and title.
        sides: what the frames before and after the minimum are called; keys always say compress and stretch.
    """
    fsd, work = settings.fsd.name, residual_name(settings)
    outside = fsd.replace("fsd", "fsd_outside", 1)
    names = {"fsd": fsd, "FSD": fsd.replace("fsd", "FSD"), "work": work, "outside": outside}
    names |= vars(sides) | {
        "OUTSIDE": fsd.replace("fsd", "FSD outside", 1),
        "order": work.replace("residual", "order"),
    }
    return {
        word: Metric(key.format(**names), title.format(**names), unit, meaning.format(**names))
        for word, key, title, unit, meaning in _METRICS
    }


def settings_of(run: Run, model: str) -> Settings:
    """Return the settings that a model was measured with."""
    settings: Settings = run.settings[model]
    return settings


def shared_metrics(run: Run) -> dict[str, Metric]:
    """Return how numbers are presented to all models at once; titles that differ are the default ones."""
    sides = sides_of(run)
    each = [metrics_of(settings_of(run, name), sides) for name in run.models]
    return {
        word: each[0][word] if each and all(one[word] == each[0][word] for one in each) else usual
        for word, usual in metrics_of(Settings(), sides).items()
    }


def key_of(run: Run, model: str, word: str = FSD) -> str:
    """Return what a number is called in a model's results."""
    return metrics_of(settings_of(run, model))[word].key


def estimate_of(run: Run, model: bsct.ModelResult, word: str = FSD) -> Estimate | None:
    """Return the mean of a number over a model's scans; None where there is none."""
    return model.estimates.get(key_of(run, model.name, word))
