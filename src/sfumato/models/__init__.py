"""Interatomic potentials as functions of a batch."""
