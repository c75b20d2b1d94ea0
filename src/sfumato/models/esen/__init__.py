"""eSEN."""
