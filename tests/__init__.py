"""Where things lie that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
"""Real data and peers of the workplace; tests that need it skip with a reason where it is absent."""
