"""What a token sees of the geometry: Gaussians of a distance, harmonics of a direction, Legendre of an angle.

All are infinitely often differentiable where they are evaluated, and closed under differentiation: their
derivatives are combinations of themselves, so that the backward pass needs the values only, and any order
of derivative comes for free.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

FAINT = -60.0
"""Exponent at which a Gaussian ends: numbers next to zero make single-precision products ten times slower."""


def solid_harmonics(vector: Tensor, l_max: int) -> Tensor:
    """Return the real solid harmonics r^l Y_lm of vectors, (l, m) = (0, 0), (1, −1), (1, 0), (1, 1), ….

    On unit vectors they are the spherical harmonics in component normalization, Σ_m Y_lm² = 2l + 1.

    Args:
        vector: (E, 3), any length.
        l_max: highest degree.

    Returns:
        (E, (l_max + 1)²).
    """
    found: Tensor = _SolidHarmonics.apply(vector, l_max)  # type: ignore[no-untyped-call]
    return found


def legendre(cosine: Tensor, degree: int, mask: Tensor) -> Tensor:
    """Return the Legendre polynomials P_0 … P_degree of cosines, all of them times a mask.

    Args:
        cosine: (N, K, K); zero where the mask is.
        degree: highest degree, at least 1.
        mask: (N, K, K), one or zero.

    Returns:
        (N, degree + 1, K, K).
    """
    found: Tensor = _Legendre.apply(cosine, degree, mask)  # type: ignore[no-untyped-call]
    return found


@lru_cache
@torch.inference_mode(False)  # or what is kept could never be differentiated
def legendre_slope(degree: int) -> Tensor:
    """Return M with P_l′ = Σ_j M_jl P_j: 2j + 1 for j = l − 1, l − 3, …."""
    slope = torch.zeros(degree + 1, degree + 1, dtype=torch.float64)
    for l in range(degree + 1):  # noqa: E741
        for j in range(l - 1, -1, -2):
            slope[j, l] = 2 * j + 1
    return slope


def gaussians(distance: Tensor, centers: Tensor, width: float, height: float) -> Tensor:
    """Return height · exp(−(d − μ_n)² / 2 width²), differentiable in the distance.

    Far from its center a Gaussian ends at e^−60 of its height, where neither it nor a derivative is seen in
    double precision.

    Args:
        distance: (E,) Å.
        centers: (R,) μ, Å.
        width: Å.
        height: of each Gaussian at its center.

    Returns:
        (E, R).

    Source: Liu et al. 2026, Section 5.1.
    """
    found: Tensor = _Gaussians.apply(distance, centers, width, height)  # type: ignore[no-untyped-call]
    return found


def smearing(count: int, cutoff: float, scale: float) -> tuple[Tensor, float, float]:
    """Return centers, width and height of Gaussians on 0 … cutoff whose width is `scale` spacings.

    The height 1/√(γ √π) makes the norm of a row one for every γ, so that the size of what follows does not
    depend on the smearing.

    Args:
        count: number of Gaussians.
        cutoff: Å.
        scale: γ, width over spacing.

    Source: Liu et al. 2026, Section 5.1.
    """
    width = scale * cutoff / (count - 1)
    return torch.linspace(0.0, cutoff, count, dtype=torch.float64), width, (scale * math.pi**0.5) ** -0.5


class _SolidHarmonics(Function):
    @staticmethod
    def forward(ctx: Any, vector: Tensor, l_max: int) -> Tensor:
        x, y, z = vector.detach().unbind(-1)
        r2 = x * x + y * y + z * z
        # (x + iy)^m = real[m] + i imaginary[m]
        real, imaginary = [torch.ones_like(x)], [torch.zeros_like(x)]
        for m in range(l_max):
            real.append(x * real[m] - y * imaginary[m])
            imaginary.append(x * imaginary[m] + y * real[m])
        q: dict[tuple[int, int], Tensor] = {(0, 0): real[0]}
        for l in range(1, l_max + 1):  # noqa: E741
            q[l, l] = (2 * l - 1) * q[l - 1, l - 1]
            q[l, l - 1] = (2 * l - 1) * z * q[l - 1, l - 1]
            for m in range(l - 1):
                q[l, m] = ((2 * l - 1) * z * q[l - 1, m] - (l + m - 1) * r2 * q[l - 2, m]) / (l - m)
        rows = []
        for l in range(l_max + 1):  # noqa: E741
            rows += [_norm(l, m) * q[l, m] * imaginary[m] for m in range(l, 0, -1)]
            rows += [_norm(l, m) * q[l, m] * real[m] for m in range(l + 1)]
        values = torch.stack(rows, dim=-1)
        ctx.save_for_backward(values)
        ctx.l_max = l_max
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (values,) = ctx.saved_tensors
        slopes = harmonic_slopes(ctx.l_max).to(grad)
        return torch.stack([((grad @ slope) * values).sum(-1) for slope in slopes], dim=-1), None


@lru_cache
@torch.inference_mode(False)
def harmonic_norms(l_max: int) -> Tensor:
    """Return (l_max + 1, l_max + 1) the factors of component normalization by l and |m|; zero for |m| > l."""
    degrees = range(l_max + 1)
    return torch.tensor(
        [[_norm(l, m) if m <= l else 0.0 for m in degrees] for l in degrees],  # noqa: E741
        dtype=torch.float64,
    )


def _norm(l: int, m: int) -> float:  # noqa: E741
    return math.sqrt((2 - (m == 0)) * (2 * l + 1) * math.factorial(l - m) / math.factorial(l + m))


@lru_cache
@torch.inference_mode(False)
def harmonic_slopes(l_max: int) -> Tensor:
    """Return D (3, n, n), n = (l_max + 1)², with ∂Y_a/∂x_c = Σ_b D_cab Y_b.

    With Φ_lm = Q_lm (x + iy)^m: ∂_z Φ_lm = (l+m) Φ_{l−1,m}, (∂_x + i∂_y) Φ_lm = −Φ_{l−1,m+1} and
    (∂_x − i∂_y) Φ_lm = (l+m)(l+m−1) Φ_{l−1,m−1}; for m = 0 the latter is the conjugate of the former.
    """
    n = (l_max + 1) ** 2
    slopes = torch.zeros(3, n, n, dtype=torch.float64)

    def put(axis: int, l: int, m: int, to: int, factor: float) -> None:  # noqa: E741
        """Add factor · (component `to` of l − 1) to the slope of component m of l, both not normalized."""
        if abs(to) < l:
            ratio = _norm(l, abs(m)) / _norm(l - 1, abs(to))
            slopes[axis, l * (l + 1) + m, (l - 1) * l + to] += factor * ratio

    for l in range(1, l_max + 1):  # noqa: E741
        put(0, l, 0, 1, -1.0)
        put(1, l, 0, -1, -1.0)
        put(2, l, 0, 0, l)
        for m in range(1, l + 1):
            a = (l + m) * (l + m - 1)
            put(0, l, m, m - 1, a / 2)
            put(0, l, m, m + 1, -0.5)
            put(0, l, -m, -(m + 1), -0.5)
            put(1, l, m, -(m + 1), -0.5)
            put(1, l, -m, m - 1, a / 2)
            put(1, l, -m, m + 1, 0.5)
            if m > 1:
                put(0, l, -m, -(m - 1), a / 2)
                put(1, l, m, -(m - 1), -a / 2)
            put(2, l, m, m, l + m)
            put(2, l, -m, -m, l + m)
    return slopes


class _Legendre(Function):
    @staticmethod
    def forward(ctx: Any, cosine: Tensor, degree: int, mask: Tensor) -> Tensor:
        n, k, _ = cosine.shape
        values = cosine.new_empty(n, degree + 1, k, k)
        values[:, 0], values[:, 1] = mask, cosine
        for l in range(1, degree):  # noqa: E741
            product = cosine * values[:, l]
            values[:, l + 1] = product.mul_((2 * l + 1) / (l + 1)).sub_(values[:, l - 1], alpha=l / (l + 1))
        ctx.save_for_backward(values)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        n, degrees, k, _ = values.shape
        mixed = torch.matmul(legendre_slope(degrees - 1).to(grad), grad.reshape(n, degrees, k * k))
        return (mixed.view_as(values) * values).sum(1), None, None


class _Gaussians(Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, centers: Tensor, width: float, height: float) -> Tensor:
        z = (distance.detach()[:, None] - centers) / width
        values = z.square_().mul_(-0.5).clamp_(min=FAINT).exp_().mul_(height)
        ctx.save_for_backward(distance, centers, values)
        ctx.width = width
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        distance, centers, values = ctx.saved_tensors
        slope = (centers - distance[:, None]) * values
        return (slope * grad).sum(1) / ctx.width**2, None, None, None
