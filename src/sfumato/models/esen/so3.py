"""Rotations of spherical harmonics into the frames of edges, without a direction that is special."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from sfumato.models.harmonics import solid_harmonics

P = ParamSpec("P")
R = TypeVar("R")


def _kept(function: Callable[P, R]) -> Callable[P, R]:
    """Compute constants once, not on "meta" nor in inference mode, or they could never be differentiated."""

    @lru_cache
    def on_cpu(*args: Any, **kwargs: Any) -> R:
        with torch.inference_mode(False), torch.device("cpu"):
            return function(*args, **kwargs)

    return cast(Callable[P, R], on_cpu)


def orders(l_max: int, m_max: int) -> list[tuple[int, int]]:
    """Return (l, m) of the features kept in the frame of an edge: by |m|, then m > 0 before m < 0, then l."""
    return [
        (l, sign * m)
        for m in range(m_max + 1)
        for sign in ((1, -1) if m else (1,))
        for l in range(m, l_max + 1)  # noqa: E741
    ]


def places(l_max: int, m_max: int) -> Tensor:
    """Return (R,) where the features kept in the frame of an edge stand among those of an atom."""
    return torch.tensor([l * l + l + m for l, m in orders(l_max, m_max)], device="cpu")  # noqa: E741


def degrees(l_max: int) -> list[int]:
    """Return l of the features of an atom, (l, m) = (0, 0), (1, −1), (1, 0), (1, 1), …."""
    return [l for l in range(l_max + 1) for _ in range(2 * l + 1)]  # noqa: E741


def quaternion(unit: Tensor) -> Tensor:
    """Return unit quaternions (w, i, j, k) of rotations that turn directions onto the z axis.

    North of the equator it is the shortest rotation, (1 + z, y, −x, 0); south of it the shortest one onto
    −z, and then half a turn about x, (y, 1 − z, 0, x). Both are smooth where they are used and beyond; at
    the equator they differ by a turn about z, of which nothing may depend.

    Args:
        unit: (E, 3).

    Returns:
        (E, 4).
    """
    south, (u, p, q) = _chart(unit)
    zero = torch.zeros_like(u)
    northern, southern = torch.stack([u, q, -p, zero], 1), torch.stack([q, u, zero, p], 1)
    return torch.where(south[:, None], southern, northern)


def _chart(unit: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return (E,) whether south of the equator, and u = √((1 + |z|)/2), p = x/2u, q = y/2u."""
    x, y, z = unit.unbind(1)
    south = z < 0
    u = torch.sqrt((1 + torch.where(south, -z, z)) / 2)
    return south, (u, x / (2 * u), y / (2 * u))


def rotations(unit: Tensor, l_max: int, m_max: int) -> Tensor:
    """Return the Wigner matrices that turn features into the frames of edges, where an edge points along z.

    Each element of D^l is a polynomial of degree 2l in the quaternion. South of the equator it is that of the
    mirrored direction (x, y, −z) times a sign: −1 for each sine (m < 0) of the result, and (−1)^(l + m) of
    the argument.

    Smooth: twice and any more times differentiable on either side of the equator, where what depends on the
    frame changes, and nothing that is invariant under turns about the edge.

    Args:
        unit: (E, 3) directions.
        l_max: highest degree.
        m_max: highest order that is kept of the result.

    Returns:
        (E, R, (l_max + 1)²), rows as in `orders`, columns (0, 0), (1, −1), (1, 0), (1, 1), ….
    """
    south, numbers = _chart(unit)
    coefficients, powers, signs = (part.to(unit.device) for part in polynomials(l_max, m_max))
    tables = []
    for number in numbers:
        table = [torch.ones_like(number)]
        for _ in range(2 * l_max):
            table.append(table[-1] * number)
        tables.append(torch.stack(table, 1))
    u, p, q = (table @ power for table, power in zip(tables, powers.to(unit.dtype), strict=True))
    found = (u * p * q) @ coefficients.to(unit.dtype)
    signs = torch.where(south[:, None], signs.to(unit.dtype), 1.0)
    turned: Tensor = found * signs
    return turned.view(len(unit), len(orders(l_max, m_max)), (l_max + 1) ** 2)


@_kept
def polynomials(l_max: int, m_max: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the polynomials of `rotations`.

    Returns:
        Coefficients (M, R n) of M monomials, which powers of u, p and q they have (3, 2 l_max + 1, M), and
        signs (R n,) of the southern half.
    """
    n, rows = (l_max + 1) ** 2, orders(l_max, m_max)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(20 * (l_max + 1) ** 2, 3, generator=generator, dtype=torch.float64)
    numbers = numbers / numbers.norm(dim=1, keepdim=True)
    turned = wigner(matrix(*numbers.unbind(1)), l_max)
    blocks, powers = [], []
    for l in range(l_max + 1):  # noqa: E741
        own = [(a, b, 2 * l - a - b) for a in range(2 * l + 1) for b in range(2 * l + 1 - a)]
        values = torch.stack([(numbers ** torch.tensor(power)).prod(1) for power in own], 1)
        block = torch.zeros(len(own), n, n, dtype=torch.float64)
        at = slice(l * l, (l + 1) ** 2)
        flat = torch.linalg.lstsq(values, turned[:, at, at].flatten(1)).solution
        block[:, at, at] = flat.view(len(own), 2 * l + 1, 2 * l + 1)
        blocks.append(torch.where(block.abs() < 1e-11, 0.0, block))
        powers += own
    sine = torch.tensor([-1.0 if m < 0 else 1.0 for _, m in rows], dtype=torch.float64)
    odd = [(-1.0) ** (l + m) for l in range(l_max + 1) for m in range(-l, l + 1)]  # noqa: E741
    signs = sine[:, None] * torch.tensor(odd, dtype=torch.float64)
    choice = nn.functional.one_hot(torch.tensor(powers).T, 2 * l_max + 1).transpose(1, 2).double()
    return torch.cat(blocks)[:, places(l_max, m_max)].flatten(1), choice, signs.flatten()


def matrix(u: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Return (E, 3, 3) rotation matrices of the quaternions (u, q, −p, 0)."""
    rows = [
        [u * u + q * q - p * p, -2 * p * q, -2 * u * p],
        [-2 * p * q, u * u - q * q + p * p, -2 * u * q],
        [2 * u * p, 2 * u * q, u * u - p * p - q * q],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def wigner(rotation: Tensor, l_max: int) -> Tensor:
    """Return (E, n, n), n = (l_max + 1)², D with Y(R v) = D Y(v), by a fit to points: exact but slow.

    Args:
        rotation: (E, 3, 3) R, in double precision.
        l_max: highest degree.
    """
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(8 * (l_max + 1) ** 2, 3, generator=generator, dtype=torch.float64)
    points = points / points.norm(dim=1, keepdim=True)
    before = torch.linalg.pinv(solid_harmonics(points, l_max))
    after = solid_harmonics((points @ rotation.transpose(1, 2)).flatten(0, 1), l_max)
    after = after.view(len(rotation), len(points), -1)
    found: Tensor = (before @ after).transpose(1, 2)
    degree = torch.tensor(degrees(l_max))
    return torch.where(degree[:, None] == degree, found, 0.0)


@_kept
def sphere_grid(resolution: int, l_max: int) -> tuple[Tensor, Tensor]:
    """Return maps from features to values on a sphere (P, n) and back (n, P), n = (l_max + 1)².

    The points lie on `resolution` circles of latitude, those of a Gauss–Legendre quadrature, with as many
    points each; for more than 2 l_max of them the way there and back is exact.
    """
    height, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(resolution))
    around = torch.arange(resolution, dtype=torch.float64) * 2 * math.pi / resolution
    height, around = (part.flatten() for part in torch.meshgrid(height, around, indexing="ij"))
    radius = (1 - height**2).sqrt()
    points = torch.stack([radius * around.cos(), radius * around.sin(), height], 1)
    values = solid_harmonics(points, l_max)
    share = weight.repeat_interleave(resolution) / (2 * resolution)
    return values, values.T * share


@_kept
def quadrupoles() -> Tensor:
    """Return (5, 3, 3) symmetric matrices without trace, A_m with Y_2m(v) = vᵀ A_m v."""
    found = torch.zeros(5, 3, 3, dtype=torch.float64)
    unit = torch.eye(3, dtype=torch.float64)

    def value(vector: Tensor) -> Tensor:
        found = solid_harmonics(vector[None], 2)
        return found[0, 4:]

    for a in range(3):
        for b in range(3):
            both = value(unit[a] + unit[b]) - value(unit[a]) - value(unit[b])
            found[:, a, b] = both / 2
    return found
