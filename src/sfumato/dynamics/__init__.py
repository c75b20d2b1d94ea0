"""Molecular dynamics of batches: states, integrators, what is observed, when a replica leaves, relaxation.

Functions on arrays: nothing here reads or writes a file, prints, or draws a random number that is not a
function of a key and a step. Units are Å, fs, amu, eV and K; velocities are in Å/fs. Positions, velocities
and sums are in double precision, whatever the potential computes in.
"""
