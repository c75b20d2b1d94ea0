"""Published scores of other potentials on the silicon sets, for comparison.

Source: Liu & Mo 2024, npj Comput. Mater. 10, s41524-024-01333-3, its released tables: single models of each
type trained on the original set, and medians over a hundred models of each type and training set.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Released:
    """Scores of one model, or medians of many.

    Args:
        name: type of model and training set.
        interstitial: err_M and err_A.
        vacancy: likewise.
    """

    name: str
    interstitial: tuple[float, float]
    vacancy: tuple[float, float]

    def of(self, defect: str) -> tuple[float, float] | None:
        """Return err_M and err_A of a defect; None where there are none."""
        return {"interstitial": self.interstitial, "vacancy": self.vacancy}.get(defect)


RELEASED = (
    Released("GAP, original set", (0.177, 0.216), (0.100, 0.112)),
    Released("MTP, original set", (0.162, 0.199), (0.070, 0.077)),
    Released("SNAP, original set", (0.216, 0.252), (0.160, 0.123)),
    Released("DeePMD, original set", (0.247, 0.331), (0.154, 0.194)),
    Released("GAP, original set, median", (0.305, 0.364), (0.137, 0.154)),
    Released("GAP, interstitials added, median", (0.205, 0.227), (0.138, 0.159)),
    Released("GAP, vacancies added, median", (0.298, 0.355), (0.108, 0.119)),
    Released("MTP, interstitials added, median", (0.189, 0.212), (0.133, 0.146)),
    Released("MTP, vacancies added, median", (0.262, 0.315), (0.110, 0.107)),
    Released("NNP, original set, median", (0.342, 0.395), (0.215, 0.218)),
    Released("NNP, interstitials added, median", (0.297, 0.340), (0.210, 0.220)),
    Released("NNP, vacancies added, median", (0.334, 0.400), (0.176, 0.194)),
    Released("SNAP, original set, median", (0.374, 0.364), (0.261, 0.223)),
    Released("SNAP, interstitials added, median", (0.313, 0.326), (0.206, 0.207)),
    Released("SNAP, vacancies added, median", (0.342, 0.395), (0.179, 0.178)),
    Released("DeePMD, original set, median", (0.402, 0.490), (0.276, 0.298)),
    Released("DeePMD, interstitials added, median", (0.304, 0.347), (0.289, 0.308)),
)
