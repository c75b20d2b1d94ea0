"""Harmonics, Legendre polynomials and Gaussians against closed forms and each other."""

import math

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre
from torch.autograd import gradcheck, gradgradcheck

from sfumato.models.harmonics import gaussians, legendre, smearing, solid_harmonics

F64, F32 = torch.float64, torch.float32


def directions(n=40, seed=0, dtype=F64):
    vectors = torch.randn(n, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1).to(dtype)


def test_the_first_harmonics_by_hand():
    x, y, z = directions().unbind(1)
    found = solid_harmonics(directions(), 2).unbind(1)
    s3, s5, s15 = math.sqrt(3), math.sqrt(5), math.sqrt(15)
    expected = [
        torch.ones_like(x),
        *(s3 * y, s3 * z, s3 * x),
        *(s15 * x * y, s15 * y * z, s5 * (3 * z * z - 1) / 2, s15 * x * z, s15 * (x * x - y * y) / 2),
    ]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-14


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 4e-15), (F32, 2e-6)])
def test_the_addition_theorem(dtype, tolerance):
    """Σ_m Y_lm(a) Y_lm(b) = (2l + 1) P_l(a·b). Observed 1.5e-15 and 6e-7 of 2l + 1."""
    a, b = directions(seed=1, dtype=dtype), directions(seed=2, dtype=dtype)
    products = solid_harmonics(a, 8) * solid_harmonics(b, 8)
    cosine = (a.double() * b.double()).sum(1).numpy()
    for l in range(9):  # noqa: E741
        found = products[:, l * l : (l + 1) ** 2].sum(1).double().numpy() / (2 * l + 1)
        assert np.abs(found - eval_legendre(l, cosine)).max() < tolerance


def test_harmonics_are_orthonormal_on_the_sphere():
    """By Gauss–Legendre in z times a trapezoid in φ, exact for these degrees: ∫Y Y′ = 4π δ."""
    z, weight = np.polynomial.legendre.leggauss(12)
    phi = np.arange(24) * 2 * np.pi / 24
    grid_z, grid_phi = (part.ravel() for part in np.meshgrid(z, phi, indexing="ij"))
    r = np.sqrt(1 - grid_z**2)
    points = torch.tensor(np.stack([r * np.cos(grid_phi), r * np.sin(grid_phi), grid_z], axis=1))
    values = solid_harmonics(points, 5)
    w = torch.tensor(np.repeat(weight, 24) / (2 * 24))
    assert ((values * w[:, None]).T @ values - torch.eye(36, dtype=F64)).abs().max() < 1e-13


def test_solid_harmonics_are_homogeneous_and_harmonic():
    at = directions(5).requires_grad_()
    one, two = solid_harmonics(at, 4), solid_harmonics(2 * at, 4)
    for l in range(5):  # noqa: E741
        block = slice(l * l, (l + 1) ** 2)
        assert (two[:, block] - 2**l * one[:, block]).abs().max() < 1e-12
    for column in range(25):
        (slope,) = torch.autograd.grad(one[:, column].sum(), at, create_graph=True)
        if slope.requires_grad:
            bend = sum(
                torch.autograd.grad(slope[:, c].sum(), at, retain_graph=True)[0][:, c] for c in range(3)
            )
            assert bend.abs().max() < 1e-12, column


def test_harmonics_are_differentiable_to_any_order():
    at = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert gradcheck(lambda v: solid_harmonics(v, 4), at)
    assert gradgradcheck(lambda v: solid_harmonics(v, 4), at)

    def slope(v):
        return torch.autograd.grad(solid_harmonics(v, 4)[:, 20].sum(), v, create_graph=True)[0]

    assert gradgradcheck(slope, at)


def cosines(seed=0, n=2, k=4):
    """Cosines of a table whose first row and column are empty."""
    around = directions(n * k, seed).view(n, k, 3)
    around[:, 0] = 0
    mask = torch.ones(n, k, k, dtype=F64)
    mask[:, 0] = mask[:, :, 0] = 0
    return around @ around.transpose(1, 2), mask


def test_legendre_polynomials_are_scipys_and_zero_where_masked():
    cosine, mask = cosines()
    found = legendre(cosine, 6, mask).numpy()
    for l in range(7):  # noqa: E741
        expected = eval_legendre(l, cosine.numpy()) * mask.numpy()
        assert np.abs(found[:, l] - expected).max() < 1e-14


def test_legendre_polynomials_are_differentiable_to_any_order():
    cosine, mask = cosines()
    cosine.requires_grad_()
    assert gradcheck(lambda c: legendre(c * mask, 6, mask), cosine)
    assert gradgradcheck(lambda c: legendre(c * mask, 6, mask), cosine)


@pytest.mark.parametrize("scale", [1.0, 2.0, 5.0, 10.0])
def test_the_norm_of_a_row_of_gaussians_is_one_whatever_the_smearing(scale):
    """Exactly the sum of e^{−x²} over a grid of spacing 1/γ, far from the ends of the range."""
    centers, width, height = smearing(128, 6.0, scale)
    assert width == pytest.approx(scale * 6 / 127)
    middle = torch.linspace(2.4, 3.6, 31, dtype=F64)
    norm = gaussians(middle, centers, width, height).square().sum(1)
    assert (norm - 1).abs().max() < 2e-4
    assert height**2 * scale * math.sqrt(math.pi) == pytest.approx(1.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-12), (F32, 2e-5)])
def test_gaussians_and_two_derivatives_by_hand(dtype, tolerance):
    """Observed 4e-15 and 3e-6, relative to the largest value of each derivative."""
    centers, width, height = smearing(20, 5.0, 3.0)
    d = torch.linspace(0.3, 5.5, 40, dtype=dtype).requires_grad_()
    weights = torch.randn(20, dtype=F64, generator=torch.Generator().manual_seed(0))
    value = gaussians(d, centers.to(dtype), width, height) @ weights.to(dtype)
    (slope,) = torch.autograd.grad(value.sum(), d, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), d)
    z = (d.detach().double()[:, None] - centers) / width
    g = height * torch.exp(-z * z / 2)
    expected = g @ weights, (-z / width * g) @ weights, ((z * z - 1) / width**2 * g) @ weights
    for found, truth in zip((value, slope, bend), expected, strict=True):
        assert (found.detach() - truth).abs().max() < tolerance * truth.abs().max()


def test_gaussians_are_differentiable_to_any_order():
    centers, width, height = smearing(7, 3.0, 2.0)
    d = torch.tensor([0.2, 1.1, 2.9], dtype=F64, requires_grad=True)
    assert gradgradcheck(lambda x: gaussians(x, centers, width, height).tanh(), d)

    def slope(x):
        return torch.autograd.grad(gaussians(x, centers, width, height).tanh().sum(), x, create_graph=True)[0]

    assert gradgradcheck(slope, d)


def test_the_end_of_a_gaussian_cannot_be_seen():
    centers, width, height = smearing(128, 6.0, 1.0)
    far = gaussians(torch.tensor([5.0], dtype=F64), centers, width, height)
    assert 0 < far.min() < 1e-25
    assert gaussians(torch.tensor([5.0], dtype=F32), centers.float(), width, height).min() > 1e-37
