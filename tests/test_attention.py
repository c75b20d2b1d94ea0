"""Attention by hand, and the blocked half-layers against the plain ones to rounding, twice differentiated."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from sfumato.models import attention, blocked, calculus
from sfumato.models.attention import NEVER, Table, Window, attend
from sfumato.models.harmonics import legendre
from sfumato.models.layers import Block
from tests.tiny_models import config

F64, F32 = torch.float64, torch.float32
DEGREES = (3, 1, 0, 4)
HEADS, WIDTH = 2, 8


def random(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def table(dtype=F64, width=WIDTH, seed=0):
    """Windows of 4 atoms with 3, 1, 0 and 4 edges, in any order."""
    edges = sum(DEGREES)
    order = torch.randperm(edges, generator=torch.Generator().manual_seed(seed)) + len(DEGREES)
    rows = len(DEGREES) + edges
    slots = torch.full((len(DEGREES), 1 + max(DEGREES)), rows)
    slots[:, 0] = torch.arange(len(DEGREES))
    start = 0
    for atom, degree in enumerate(DEGREES):
        slots[atom, 1 : 1 + degree] = order[start : start + degree]
        start += degree
    return Table.of(slots, rows, HEADS, width, dtype), slots


def window(angular=True, dtype=F64, seed=1):
    made, _ = table(dtype)
    n, k = made.slots.shape
    edge = -random(n, k, seed=seed).square()
    edge[0, 2] = NEVER  # an edge that a skin has in excess
    edge[:, 0] = 0
    bias = torch.where(made.present > 0, edge.to(dtype), 2 * NEVER)
    if not angular:
        return Window(made, bias)
    around = functional.normalize(random(n, k, 3, seed=seed + 1), dim=2)
    is_edge = made.present.double() * (made.slots >= n)
    around = around * is_edge[:, :, None]
    cosine = (around @ around.transpose(1, 2)).to(dtype)
    mask = (is_edge[:, :, None] * is_edge[:, None, :]).to(dtype)
    return Window(made, bias, cosine, legendre(cosine, 4, mask))


def test_attention_row_by_row():
    """Queries, keys and values of one window at a time, weights e·exp(q·k/τ√d + Σ w P), in loops."""
    w, rows = window(), len(DEGREES) + sum(DEGREES)
    qkv, weights = random(rows, 3 * WIDTH), random(HEADS, 5, seed=4)
    found = attend(qkv, w, weights, HEADS, 0.3)
    _, slots = table()
    q, key, v = qkv.view(rows, 3, HEADS, -1).unbind(1)
    for atom in range(len(DEGREES)):
        members = [(place, int(row)) for place, row in enumerate(slots[atom]) if row < rows]
        for place, row in members:
            for head in range(HEADS):
                logits = []
                for other, column in members:
                    angle = (weights[head] * w.angles[atom, :, place, other]).sum()
                    logits.append(0.3 * q[row, head] @ key[column, head] + w.bias[atom, other] + angle)
                p = torch.stack(logits).softmax(0)
                expected = sum(weight * v[column, head] for weight, (_, column) in zip(p, members))
                assert (found.view(rows, HEADS, -1)[row, head] - expected).abs().max() < 1e-14


def test_a_key_of_weight_zero_is_not_there():
    w = window(angular=False)
    qkv = random(len(w.table.place), 3 * WIDTH)
    found = attend(qkv, w, None, HEADS, 0.3)
    other = qkv.clone()
    other[w.table.slots[0, 2], WIDTH:] = 1e6
    changed = (attend(other, w, None, HEADS, 0.3) - found).abs().amax(1) > 0
    assert not changed.any()


def test_where_every_key_has_weight_zero_nothing_is_nan():
    w = window(angular=False)
    silent = Window(w.table, torch.full_like(w.bias, NEVER))
    for method in ("plain", "blocked"):
        block, x = half(method, angular=False), random(len(w.table.place), WIDTH).requires_grad_()
        out = block(x, silent)
        (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), x)
        assert all(part.isfinite().all() for part in (out, slope, bend))


def block_of(dtype=F64, **changes):
    made = Block(config(width=WIDTH, heads=HEADS, angular_degree=4, **changes)).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.uniform_(-0.7, 0.7, generator=generator)
    return made


def half(method, angular=True, **changes):
    made = block_of(directional="angular_bias" if angular else "harmonics", **changes)
    return lambda x, w: made(x, w, method)


def derivatives(method, made, w, dtype=F64):
    """Value, gradients by tokens, log e and cosines, and those of a sum of them by all and by weights."""
    rows = len(w.table.place)
    x, bias = random(rows, WIDTH, dtype=dtype).requires_grad_(), w.bias.clone().requires_grad_()
    cosine = None if w.cosine is None else w.cosine.clone().requires_grad_()
    mask = None if w.angles is None else w.angles[:, 0]
    angles = None if cosine is None else legendre(cosine, 4, mask)
    local = Window(w.table, bias, cosine, angles)
    g = random(rows, WIDTH, seed=7, dtype=dtype).requires_grad_()
    inputs = [x, bias] if cosine is None else [x, bias, cosine]
    value = made(x, local, method)
    first = torch.autograd.grad(value, inputs, g, create_graph=True)
    # Empty places have no log e and no angle to change.
    there = w.table.present
    along = [random(rows, WIDTH, seed=8, dtype=dtype), random(*bias.shape, seed=9, dtype=dtype) * there]
    if mask is not None:
        along.append(random(*cosine.shape, seed=10, dtype=dtype) * mask)
    total = sum((slope * a).sum() for slope, a in zip(first, along)) + (value * g.detach()).sum()
    second = torch.autograd.grad(total, [*inputs, g, *made.parameters()])
    return [value, *first, *second]


VARIANTS = [
    {"directional": "angular_bias"},
    {"directional": "harmonics"},
    {"directional": "angular_bias", "attention_factor": 2, "gated": True, "node_ffn": False},
    {"directional": "harmonics", "attention_factor": 2, "node_ffn": False, "temperature": 5.0},
]


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize(("hot", "keep"), [(2**19, 2**18), (2**19, 0), (1, 2**18), (1, 0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 5e-15), (F32, 4e-6)])
def test_blocked_is_plain_to_rounding(monkeypatch, changes, hot, keep, dtype, tolerance):
    """In one piece or atom by atom, P kept or computed again. Observed 1.3e-15 and 9e-7 of the largest."""
    monkeypatch.setitem(attention.HOT, "cpu", hot)
    monkeypatch.setattr(blocked, "KEEP", keep)
    made, w = block_of(dtype, **changes), window(changes["directional"] == "angular_bias", dtype)
    assert len(w.table.parts) == (1 if hot > 1 else 4)
    pairs = zip(derivatives("blocked", made, w, dtype), derivatives("plain", made, w, dtype), strict=True)
    for one, other in pairs:
        assert one.dtype == dtype
        assert (one - other).abs().max() <= tolerance * max(1.0, float(other.detach().abs().max()))


@pytest.mark.parametrize("angular", [True, False])
def test_blocked_passes_gradgradcheck(angular):
    w = window(angular)
    made = block_of(directional="angular_bias" if angular else "harmonics")
    there = w.table.present > 0

    def energy(x, bias, cosine=None):
        local_bias = torch.where(there, bias, w.bias)
        if cosine is None:
            return made(x, Window(w.table, local_bias), "blocked")
        mask = w.angles[:, 0]
        cosine = torch.where(mask > 0, cosine, 0.0)
        return made(x, Window(w.table, local_bias, cosine, legendre(cosine, 4, mask)), "blocked")

    bias = torch.where(w.bias > -50, w.bias, -3.0)
    inputs = [random(len(w.table.place), WIDTH), bias] + ([w.cosine.clone()] if angular else [])
    inputs = [value.requires_grad_() for value in inputs]
    assert gradcheck(energy, inputs, fast_mode=True)
    assert gradgradcheck(energy, inputs, fast_mode=True)


def test_gradients_of_weights_are_made_only_when_asked_for(monkeypatch):
    made, w = block_of(directional="harmonics"), window(False)
    counted = []
    count = blocked._Linear.count

    def spy(self, g, x, constant=True):
        counted.append(self.by_weight is not None)
        count(self, g, x, constant)

    monkeypatch.setattr(blocked._Linear, "count", spy)
    x = random(len(w.table.place), WIDTH).requires_grad_()
    out = made(x, w, "blocked").square().sum()
    (slope,) = torch.autograd.grad(out, x, create_graph=True)
    assert not any(counted)
    counted.clear()
    slope.square().sum().backward()
    assert all(counted)
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_gradients_of_weights_alone_and_of_one_weight():
    made, w = block_of(directional="harmonics"), window(False)
    x = random(len(w.table.place), WIDTH)
    found, expected = (
        torch.autograd.grad(made(x, w, method).square().sum(), [made.attention.qkv.weight])
        for method in ("blocked", "plain")
    )
    assert (found[0] - expected[0]).abs().max() < 1e-12


@pytest.mark.parametrize("what", ["a third derivative", "two derivatives by weights"])
def test_what_is_not_derived_is_an_error_not_a_zero(what):
    made, w = block_of(directional="harmonics"), window(False)
    x = random(len(w.table.place), WIDTH).requires_grad_()

    def all_of_it(method):
        by = x if what == "a third derivative" else made.attention.out.weight
        (slope,) = torch.autograd.grad(made(x, w, method).square().sum(), by, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), by, create_graph=True)
        return torch.autograd.grad(bend.square().sum(), by) if by is x else bend

    all_of_it("plain")
    with pytest.raises(RuntimeError, match=r"set model\.method = 'plain'"):
        all_of_it("blocked")


def pulls(value, pull, second, x):
    """Compare the three formulas of one function with torch's derivatives of `value`."""
    x = x.clone().requires_grad_()
    out = value(x)
    g, a = random(*out.shape, seed=2).requires_grad_(), random(*x.shape, seed=3)
    (slope,) = torch.autograd.grad(out, x, g, create_graph=True)
    assert (pull(g.detach(), x.detach()) - slope).abs().max() < 1e-13
    push, curvature = torch.autograd.grad((slope * a).sum(), [g, x])
    for found, expected in zip(second(a, g.detach(), x.detach()), (push, curvature), strict=True):
        assert (found - expected).abs().max() < 1e-14 * max(100.0, expected.abs().max())


def test_norm_and_its_derivatives_are_torchs():
    def pull(g, x):
        return calculus.norm_pull(g, *calculus.norm(x))

    def second(a, g, x):
        return calculus.norm_second(a, g, *calculus.norm(x))

    x = random(6, 5)
    x[0] = 1e-3 * x[0]  # where ε counts
    pulls(lambda x: functional.layer_norm(x, (5,), eps=calculus.EPSILON), pull, second, x)


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_activations_and_their_derivatives_are_torchs(scale):
    pulls(functional.silu, calculus.silu_pull, calculus.silu_second, scale * random(6, 8))

    def glu(x):
        u, v = x.chunk(2, -1)
        return functional.silu(u) * v

    assert (calculus.glu(random(3, 8)) - glu(random(3, 8))).abs().max() == 0
    pulls(glu, calculus.glu_pull, calculus.glu_second, scale * random(6, 8))


def test_scattered_rows_come_back():
    made, _ = table()
    rows = random(len(made.place), 3).requires_grad_()
    index = made.slots.view(-1)
    found = calculus.scatter_rows(rows, index, made.place)
    assert (found[made.place] == rows).all()
    assert (found[made.present.view(-1) == 0] == 0).all()
    assert gradgradcheck(lambda r: calculus.scatter_rows(r, index, made.place).sin(), rows)


def test_parts_cover_every_row_once():
    attention_hot = attention.HOT["cpu"]
    attention.HOT["cpu"] = 1
    try:
        made, slots = table()
    finally:
        attention.HOT["cpu"] = attention_hot
    rows = torch.cat([part.rows for part in made.parts])
    assert torch.equal(rows.sort().values, torch.arange(len(made.place)))
    for atom, part in enumerate(made.parts):
        assert part.rows.tolist() == [row for row in slots[atom].tolist() if row < len(made.place)]
