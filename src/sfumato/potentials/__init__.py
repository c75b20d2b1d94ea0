"""One interface for every potential: the package's own, ASE calculators and third-party models."""
