"""MinDScAIP."""
