"""Training data and training: read and check labeled structures, fit atom energies, load batches, train.

sources and convert: what others publish into packed frames. check: statements about a set that hold or not.
energies: atom energies and the scale of forces. data: batches for one or many processes.
"""
