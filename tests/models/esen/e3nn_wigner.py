"""Wigner matrices of e3nn, for `test_so3.py`: where e3nn is installed, this writes `e3nn_wigner.npz`.

    PYTHON tests/models/esen/e3nn_wigner.py

The file was written by e3nn 0.6.0 with torch 2.13.0, in double precision. The polar axis of e3nn is y, and
its harmonics of degree 1 are x, y, z: with (x, y, z) there for our (y, z, x) its harmonics are ours.
Rotations are stored in our axes, matrices as e3nn returns them: D(R) Y(v) = Y(R v). Generators are dD/dt of
turns about our x, y and z by an angle t. e3nn takes rotations apart into angles, at which it loses digits
close to its axis: within 1e-7 of it its matrices are off by 4e-10, so nothing here is that close.
"""

from pathlib import Path

import numpy as np

OURS = [1, 2, 0]
"""Which of our axes is e3nn's x, y and z."""


def turns():
    """Return twelve rotations, (12, 3, 3): random ones, a few about an axis, two close to one."""
    rng = np.random.default_rng(0)
    quaternions = np.vstack(
        [
            rng.normal(size=(6, 4)),
            [[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0.3], [1, 1, 1, 1], [1, 1e-3, -2e-3, 0], [1e-3, 1, 0, 0]],
        ]
    )
    w, *v = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    x, y, z = v
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def main():
    """Write the file."""
    import torch
    from e3nn import o3

    torch.set_default_dtype(torch.float64)
    found = {"rotations": turns()}
    theirs = torch.from_numpy(found["rotations"][:, OURS][:, :, OURS])
    for degree in (1, 2, 3):
        found[f"wigner_{degree}"] = o3.Irrep(degree, 1).D_from_matrix(theirs).numpy()
        generators = o3.so3_generators(degree).numpy()
        found[f"generators_{degree}"] = generators[[OURS.index(axis) for axis in range(3)]]
    np.savez(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main()
