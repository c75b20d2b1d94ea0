"""The contract every potential must pass: `check(potential)`, for a terminal and for anyone's own tests."""

from sfumato.testing.bench import Settings
from sfumato.testing.contract import CHECKS, Check, Progress, check
from sfumato.testing.result import ContractReport, Measured, Result

__all__ = ["CHECKS", "Check", "ContractReport", "Measured", "Progress", "Result", "Settings", "check"]
