"""MinDScAIP written down slowly: one structure, one token and one window at a time, over a dict of edges."""

import math

import torch
from scipy.special import eval_legendre, lpmv
from torch.nn import functional

from tests.graph_oracle import graph


def real_harmonics(r, l_max):
    """Σ_m Y_lm² = 2l + 1, from scipy's associated Legendre functions."""
    x, y, z = (r / (r @ r) ** 0.5).tolist()
    phi = math.atan2(y, x)
    values = []
    for l in range(l_max + 1):  # noqa: E741
        for m in range(-l, l + 1):
            k = abs(m)
            norm = math.sqrt((2 * l + 1) * math.factorial(l - k) / math.factorial(l + k) * (2 if m else 1))
            turn = math.cos(k * phi) if m >= 0 else math.sin(k * phi)
            values.append((-1) ** k * norm * lpmv(k, l, z) * turn)
    return values


def energy(model, system):
    """Energy of a structure in eV, without gradients."""
    with torch.no_grad():
        return _energy(model, system)


def _energy(model, system):
    config = model.config
    n = len(system)
    edges = graph(system.positions, system.cell, system.pbc, config.graph)
    names = [(i, i, None) for i in range(n)] + [(k[0], k[1], k[2:]) for k in edges]
    vectors = [None] * n + [r for r, _ in edges.values()]
    log_e = [0.0] * n + [bias for _, bias in edges.values()]
    x = [_token(model, system, *name[:2], r) for name, r in zip(names, vectors)]
    node = [torch.zeros(config.width, dtype=torch.float64) for _ in range(n)]
    for layer in model.layers:
        for block, end in ((layer.leaving, 0), (layer.arriving, 1)):
            x = _attended(block.attention, config, x, names, vectors, log_e, end)
            for row, name in enumerate(names):
                feed = block.feed["node" if name[2] is None and "node" in block.feed else "edge"]
                x[row] = x[row] + _feed(feed, _norm(x[row]))
        if layer.readout is not None:
            node = [v + _feed(layer.readout, _norm(x[i])) for i, v in enumerate(node)]
    head = model.heads["energy"]
    total = 0.0
    for i in range(n):
        total += float(model.scale * _feed(head, _norm(node[i] + x[i]))[0])
        total += float(model.reference[system.numbers[i]])
    return total


def _norm(x):
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()


def _linear(map_, x):
    return map_.weight @ x + map_.bias


def _feed(feed, x):
    u = _linear(feed.up, x)
    if feed.gated:
        half = len(u) // 2
        return _linear(feed.down, u[:half] * torch.sigmoid(u[:half]) * u[half:])
    return _linear(feed.down, u * torch.sigmoid(u))


def _token(model, system, i, j, r):
    config = model.config
    if r is None:
        seen = model.itself
    else:
        d, width = float((r @ r) ** 0.5), config.smearing * config.graph.cutoff / (config.radial - 1)
        v = [
            math.exp(-((d - n * config.graph.cutoff / (config.radial - 1)) ** 2) / (2 * width**2))
            / (config.smearing * math.pi**0.5) ** 0.5
            for n in range(config.radial)
        ]
        if config.directional == "harmonics":
            v += real_harmonics(r, config.l_max)
        u = _linear(model.geometry, torch.tensor(v, dtype=torch.float64))
        seen = functional.silu(u)
    elements = model.sources.weight[system.numbers[i]] + model.targets.weight[system.numbers[j]]
    return _linear(model.mix, _norm(seen + elements))


def _attended(attention, config, x, names, vectors, log_e, end):
    """Tokens with the same source (end 0) or destination (end 1) attend to each other."""
    inner, heads = config.width * config.attention_factor, config.heads
    d = inner // heads
    projected = [_linear(attention.qkv, _norm(token)).view(3, heads, d) for token in x]
    new = []
    for a, name in enumerate(names):
        window = [b for b, other in enumerate(names) if other[end] == name[end]]
        out = []
        for h in range(heads):
            logits = []
            for b in window:
                s = float(projected[a][0, h] @ projected[b][1, h]) / (config.temperature * d**0.5) + log_e[b]
                if config.directional == "angular_bias" and vectors[a] is not None and vectors[b] is not None:
                    u, w = (r / (r @ r) ** 0.5 for r in (vectors[a], vectors[b]))
                    degrees = range(1, config.angular_degree + 1)
                    s += sum(float(c) * eval_legendre(n, u @ w) for c, n in zip(attention.angles[h], degrees))
                logits.append(s)
            p = torch.softmax(torch.tensor(logits, dtype=torch.float64), 0)
            out.append(sum(weight * projected[b][2, h] for weight, b in zip(p, window)))
        new.append(x[a] + _linear(attention.out, torch.cat(out)))
    return new
