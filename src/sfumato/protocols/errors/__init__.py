"""Errors of energies and forces on labeled structures."""
