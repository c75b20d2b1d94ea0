"""Attention by hand, and the blocked half-layers against the plain ones to rounding, twice differentiated."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from sfumato.models.harmonics import legendre
from sfumato.models.mindscaip import blocked, calculus, windows
from sfumato.models.mindscaip.attention import attend
from sfumato.models.mindscaip.layers import Block
from sfumato.models.mindscaip.windows import NEVER, Window, tables
from tests.tiny_models import config

F64, F32 = torch.float64, torch.float32
DEGREES = (3, 1, 0, 4)
HEADS, WIDTH = 2, 8


def random(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed)).to(dtype)


ROWS = len(DEGREES) + sum(DEGREES)


def all_slots(seed=0):
    """Windows of 4 atoms with 3, 1, 0 and 4 edges, in any order."""
    order = torch.randperm(sum(DEGREES), generator=torch.Generator().manual_seed(seed)) + len(DEGREES)
    slots = torch.full((len(DEGREES), 1 + max(DEGREES)), ROWS)
    slots[:, 0] = torch.arange(len(DEGREES))
    start = 0
    for atom, degree in enumerate(DEGREES):
        slots[atom, 1 : 1 + degree] = order[start : start + degree]
        start += degree
    return slots


def window(made, angular=True, seed=1):
    n, k = made.slots.shape
    dtype = made.present.dtype
    edge = -random(n, k, seed=seed).square()
    edge[0, min(2, k - 1)] = NEVER  # an edge that a skin has in excess
    edge[:, 0] = 0
    bias = torch.where(made.present > 0, edge.to(dtype), 2 * NEVER)
    if not angular:
        return Window(made, bias)
    around = functional.normalize(random(n, k, 3, seed=seed + 1), dim=2)
    is_edge = made.present.double() * (made.slots >= len(DEGREES))
    around = around * is_edge[:, :, None]
    cosine = (around @ around.transpose(1, 2)).to(dtype)
    mask = (is_edge[:, :, None] * is_edge[:, None, :]).to(dtype)
    return Window(made, bias, cosine, legendre(cosine, 4, mask))


def neighborhood(angular=True, dtype=F64):
    """The windows of all atoms, in one table or in several."""
    found = tables(all_slots(), ROWS, HEADS, WIDTH, dtype)
    return tuple(window(made, angular, seed) for seed, made in enumerate(found, 1))


@pytest.mark.parametrize("lanes", [16, 2])
def test_attention_row_by_row(monkeypatch, lanes):
    """Queries, keys and values of one window at a time, weights e·exp(q·k/τ√d + Σ w P), in loops."""
    monkeypatch.setattr(windows, "LANES", lanes)
    around = neighborhood()
    assert len(around) == (1 if lanes == 16 else 3)
    qkv, weights = random(ROWS, 3 * WIDTH), random(HEADS, 5, seed=4)
    found = attend(qkv, around, weights, HEADS, 0.3)
    q, key, v = qkv.view(ROWS, 3, HEADS, -1).unbind(1)
    seen = []
    for w in around:
        for atom, slots in enumerate(w.table.slots.tolist()):
            members = [(place, row) for place, row in enumerate(slots) if row < ROWS]
            for place, row in members:
                seen.append(row)
                for head in range(HEADS):
                    logits = []
                    for other, column in members:
                        angle = (weights[head] * w.angles[atom, :, place, other]).sum()
                        logits.append(0.3 * q[row, head] @ key[column, head] + w.bias[atom, other] + angle)
                    p = torch.stack(logits).softmax(0)
                    expected = sum(weight * v[column, head] for weight, (_, column) in zip(p, members))
                    assert (found.view(ROWS, HEADS, -1)[row, head] - expected).abs().max() < 1e-14
    assert sorted(seen) == list(range(ROWS))


def test_a_key_of_weight_zero_is_not_there():
    (w,) = neighborhood(angular=False)
    qkv = random(ROWS, 3 * WIDTH)
    other = qkv.clone()
    other[w.table.slots[0, 2], WIDTH:] = 1e6
    found, same = (attend(values, (w,), None, HEADS, 0.3) for values in (qkv, other))
    assert torch.equal(found, same)


@pytest.mark.parametrize("method", ["plain", "blocked"])
def test_where_every_key_has_weight_zero_nothing_is_nan(method):
    (w,) = neighborhood(angular=False)
    silent = (Window(w.table, torch.full_like(w.bias, NEVER)),)
    x = random(ROWS, WIDTH).requires_grad_()
    out = block_of(directional="harmonics")(x, silent, method)
    (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.square().sum(), x)
    assert all(part.isfinite().all() for part in (out, slope, bend))


def block_of(dtype=F64, **changes):
    made = Block(config(width=WIDTH, heads=HEADS, angular_degree=4, **changes)).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data.uniform_(-0.7, 0.7, generator=generator)
    return made


def differentiable(around):
    """The same windows, log e and cosines to be differentiated by; what empty places hold must not change."""
    made, inputs, there = [], [], []
    for w in around:
        bias = w.bias.clone().requires_grad_()
        inputs, there = [*inputs, bias], [*there, w.table.present]
        if w.cosine is None:
            made.append(Window(w.table, bias))
            continue
        cosine, mask = w.cosine.clone().requires_grad_(), w.angles[:, 0]
        inputs, there = [*inputs, cosine], [*there, mask]
        made.append(Window(w.table, bias, cosine, legendre(cosine, 4, mask)))
    return tuple(made), inputs, there


def derivatives(method, made, around, nodes_only=False):
    """Value, gradients by tokens, log e and cosines, and those of a sum of them by all and by weights."""
    dtype = around[0].bias.dtype
    x, g = (random(ROWS, WIDTH, seed=seed, dtype=dtype).requires_grad_() for seed in (0, 7))
    local, others, there = differentiable(around)
    value = made(x, local, method, nodes_only=nodes_only)
    unread = {"allow_unused": nodes_only, "materialize_grads": nodes_only}
    first = torch.autograd.grad(value, [x, *others], g[: len(value)], create_graph=True, **unread)
    along = [random(*slope.shape, seed=8 + k, dtype=dtype) for k, slope in enumerate(first)]
    along[1:] = [a * mask for a, mask in zip(along[1:], there, strict=True)]
    total = sum((slope * a).sum() for slope, a in zip(first, along, strict=True))
    total = total + (value * g[: len(value)].detach()).sum()
    second = torch.autograd.grad(total, [x, *others, g, *made.parameters()], **unread)
    return [value, *first, *second]


VARIANTS = [
    {"directional": "angular_bias"},
    {"directional": "harmonics"},
    {"directional": "angular_bias", "attention_factor": 2, "gated": True, "node_ffn": False},
    {"directional": "harmonics", "attention_factor": 2, "node_ffn": False, "temperature": 5.0},
]


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize(("hot", "lanes", "keep"), [(2**19, 16, 2**18), (1, 16, 0), (1, 2, 2**18)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 3e-14), (F32, 2e-5)])
@pytest.mark.parametrize("nodes_only", [False, True])
def test_blocked_is_plain_to_rounding(monkeypatch, changes, hot, lanes, keep, dtype, tolerance, nodes_only):
    """In one piece or atom by atom, P kept or computed again. Observed 6e-15 and 9e-7 of the largest."""
    monkeypatch.setitem(windows.HOT, "cpu", hot)
    monkeypatch.setattr(windows, "LANES", lanes)
    monkeypatch.setattr(blocked, "KEEP", keep)
    made = block_of(dtype, **changes)
    around = neighborhood(changes["directional"] == "angular_bias", dtype)
    assert sum(len(w.table.parts) for w in around) == (1 if hot > 1 else 4)
    found, expected = (derivatives(method, made, around, nodes_only) for method in ("blocked", "plain"))
    pairs = zip(found, expected, strict=True)
    for one, other in pairs:
        assert one.dtype == dtype
        assert (one - other).abs().max() <= tolerance * max(1.0, float(other.detach().abs().max()))


@pytest.mark.parametrize("method", ["plain", "blocked"])
def test_self_tokens_alone_are_the_first_of_all(method):
    made, around = block_of(directional="angular_bias"), neighborhood()
    x = random(ROWS, WIDTH)
    nodes = made(x, around, method, nodes_only=True)
    assert nodes.shape == (len(DEGREES), WIDTH)
    assert (nodes - made(x, around, method)[: len(DEGREES)]).abs().max() < 1e-14


@pytest.mark.parametrize("angular", [True, False])
@pytest.mark.parametrize("lanes", [16, 2])
def test_blocked_passes_gradgradcheck(monkeypatch, angular, lanes):
    monkeypatch.setattr(windows, "LANES", lanes)
    around = neighborhood(angular)
    made = block_of(directional="angular_bias" if angular else "harmonics")
    _, others, _there = differentiable(around)

    def tokens(x, *others):
        values, local = iter(others), []
        for w in around:
            bias = torch.where(w.bias > -50, next(values), w.bias)
            if not angular:
                local.append(Window(w.table, bias))
                continue
            mask = w.angles[:, 0]
            cosine = torch.where(mask > 0, next(values), 0.0)
            local.append(Window(w.table, bias, cosine, legendre(cosine, 4, mask)))
        return made(x, tuple(local), "blocked")

    inputs = [random(ROWS, WIDTH), *(value.detach().clamp(min=-3) for value in others)]
    inputs = [value.requires_grad_() for value in inputs]
    assert gradcheck(tokens, inputs, fast_mode=True)
    assert gradgradcheck(tokens, inputs, fast_mode=True)


def test_gradients_of_weights_are_made_only_when_asked_for(monkeypatch):
    made, around = block_of(directional="harmonics"), neighborhood(False)
    counted = []
    count = blocked._Linear.count

    def spy(self, g, x, constant=True):
        counted.append(self.by_weight is not None)
        count(self, g, x, constant)

    monkeypatch.setattr(blocked._Linear, "count", spy)
    x = random(ROWS, WIDTH).requires_grad_()
    out = made(x, around, "blocked").square().sum()
    (slope,) = torch.autograd.grad(out, x, create_graph=True)
    assert not any(counted)
    counted.clear()
    slope.square().sum().backward()
    assert all(counted)
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_gradients_of_weights_alone_and_of_one_weight():
    made, around = block_of(directional="harmonics"), neighborhood(False)
    x = random(ROWS, WIDTH)
    found, expected = (
        torch.autograd.grad(made(x, around, method).square().sum(), [made.attention.qkv.weight])
        for method in ("blocked", "plain")
    )
    assert (found[0] - expected[0]).abs().max() < 1e-12


@pytest.mark.parametrize("what", ["a third derivative", "two derivatives by weights"])
def test_what_is_not_derived_is_an_error_not_a_zero(what):
    made, around = block_of(directional="harmonics"), neighborhood(False)
    x = random(ROWS, WIDTH).requires_grad_()

    def all_of_it(method):
        by = x if what == "a third derivative" else made.attention.out.weight
        (slope,) = torch.autograd.grad(made(x, around, method).square().sum(), by, create_graph=True)
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


def test_scattered_rows_come_back(monkeypatch):
    monkeypatch.setattr(windows, "LANES", 2)
    values = random(ROWS, 3).requires_grad_()
    for made in tables(all_slots(), ROWS, HEADS, WIDTH, F64):
        where = (made.slots.view(-1), made.rows, made.place)
        found = calculus.scatter_rows(values, *where)
        assert torch.equal(found[made.place], values[made.rows])
        assert (found[made.present.view(-1) == 0] == 0).all()
        assert gradgradcheck(lambda r, where=where: calculus.scatter_rows(r, *where).sin(), values)


@pytest.mark.parametrize("lanes", [16, 2])
def test_parts_cover_every_row_once(monkeypatch, lanes):
    monkeypatch.setitem(windows.HOT, "cpu", 1)
    monkeypatch.setattr(windows, "LANES", lanes)
    parts = [part for made in tables(all_slots(), ROWS, HEADS, WIDTH, F64) for part in made.parts]
    rows = torch.cat([part.rows for part in parts])
    assert torch.equal(rows.sort().values, torch.arange(ROWS))
    expected = sorted([row for row in slots if row < ROWS] for slots in all_slots().tolist())
    assert sorted(part.rows.tolist() for part in parts) == expected


@pytest.mark.parametrize("hot", [1, 2**19])
@pytest.mark.parametrize("slots", [[[0]], [[0, 2], [1, 2]], [[0, 4, 4], [1, 4, 4], [2, 3, 4]]])
def test_atoms_without_edges_attend_to_themselves(monkeypatch, hot, slots):
    """Also where no atom of a part has an edge: attention is then the value of the self token."""
    monkeypatch.setitem(windows.HOT, "cpu", hot)
    rows = max(max(row) for row in slots) if len(slots[0]) > 1 else 1
    made = tables(torch.tensor(slots), rows, HEADS, WIDTH, F64)
    for part in (part for table in made for part in table.parts):
        assert part.take.max() < len(part.rows) * 3 * HEADS
        assert part.take_one.max() < len(part.rows) * HEADS
    (w,) = (Window(table, (1 - table.present) * 2 * NEVER) for table in made)
    qkv = random(rows, 3 * WIDTH)
    block = block_of(directional="harmonics")
    out = block.attention.qkv(functional.layer_norm(qkv[:, :WIDTH], (WIDTH,), eps=calculus.EPSILON))
    expected = qkv[:, :WIDTH] + block.attention.out(out[:, 2 * WIDTH :])
    weights = dict(block.attention.named_parameters())
    found = blocked.attend_rows(qkv[:, :WIDTH], (w,), block.attention.scale, weights)
    assert (found - expected)[0].abs().max() < 1e-14


def test_a_batch_without_atoms_has_no_windows():
    assert tables(torch.zeros(0, 1, dtype=torch.long), 0, HEADS, WIDTH, F64) == ()
