"""Sinkhorn attention against the PyPI package sinkhorn-transformer, and against the paper block by block.

The package puts sorted keys in the place of sorted values (0.11.4, `b_v_r = b_k_r.reshape`). Where the projections of
keys and values are one, that cannot be seen, and the sum of their gradients is the same; where they differ, a plain
loop judges.
"""

import math

import pytest
import torch

from zoo.architectures.sinkhorn import Sinkhorn
from zoo.contract import LayerContext

from .compare import drawn, gradients_of, leaves, vectors

B, T, D, H = 2, 24, 16, 2
NETS = pytest.mark.parametrize("sort_net", ["simple", "attention"])


def build(sort_net, *, length=T, block_size=4, **options):
    torch.manual_seed(0)
    context = LayerContext(width=D, length=length, causal=False)
    return drawn(Sinkhorn(context, heads=H, block_size=block_size, sort_net=sort_net, **options), 0.4)


@NETS
@pytest.mark.parametrize(
    ("block_size", "temperature", "iterations", "lengths", "training"),
    [(4, 0.75, 5, [T, T], False), (6, 0.4, 2, [T, 20], False), (8, 1.0, 8, [T, 17], True)],
)
def test_package(oracle, monkeypatch, sort_net, block_size, temperature, iterations, lengths, training):
    """Evaluating, without its noise; in training, with the same noise."""
    package = pytest.importorskip("sinkhorn_transformer.sinkhorn_transformer")
    ours = build(sort_net, block_size=block_size, temperature=temperature, iterations=iterations).train(training)
    with torch.no_grad():
        ours.to_kv.weight[D:] = ours.to_kv.weight[:D]
    peer = package.SinkhornSelfAttention(
        D, block_size, T, heads=H, non_permutative=False, sinkhorn_iter=iterations, temperature=temperature,
        use_simple_sort_net=sort_net == "simple",
    ).double()  # fmt: skip
    renamed = {name.replace("linear", "sinkhorn_attention.sort_net.linear"): p for name, p in ours.state_dict().items()}
    peer.load_state_dict(renamed)
    if not training:
        monkeypatch.setattr(package, "sample_gumbel", lambda shape, device, dtype: torch.zeros(shape, dtype=dtype))
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    # Its sums take in what is masked: zeros, here.
    x = (torch.randn(B, T, D, dtype=torch.float64) * mask[..., None]).requires_grad_()
    weight = torch.randn(B, T, D, dtype=torch.float64) * mask[..., None]

    def run(layer, call):
        torch.manual_seed(3)
        y = call(x)
        found = gradients_of(y, weight, {name.rsplit("sort_net.", 1)[-1]: p for name, p in leaves(layer, x=x).items()})
        found["to_kv.weight"] = found["to_kv.weight"].view(2, D, D).sum(0)
        found["x"] = found["x"] * mask[..., None]
        return y[mask], found

    y, have = run(ours, lambda x: ours(x, mask=mask)[0])
    expected, want = run(peer, lambda x: peer(x, input_mask=None if mask.all() else mask))
    proof = oracle("sinkhorn", "sinkhorn-transformer, SinkhornSelfAttention (keys = values)")
    proof.outputs(y, expected)
    proof.gradients(have, want)


def loop(p, x, *, b, simple, tau, n):
    """One row without padding, head by head and block by block."""
    N, d, rows = x.shape[0] // b, D // H, []
    kv = p["to_kv.weight"].split(D)
    for h in range(H):
        part = slice(h * d, (h + 1) * d)
        q, k, v = x @ p["to_q.weight"][part].T, x @ kv[0][part].T, x @ kv[1][part].T
        Q, K, V = ([y[i * b : (i + 1) * b] for i in range(N)] for y in (q, k, v))
        R = []
        for i in range(N):
            if simple:
                features = torch.cat([Q[i].sum(0), K[i].sum(0)])
                R.append(torch.stack([features @ p["linear"][0, h, :, j] for j in range(N)]))
            else:
                R.append(torch.stack([Q[i].mean(0) @ K[j].mean(0) / math.sqrt(d) for j in range(N)]))
        P = (torch.stack(R).clamp(min=0) + 1e-6) ** (1 / tau)
        for _ in range(n):
            P = P / P.sum(1, keepdim=True)
            P = P / P.sum(0, keepdim=True)
        out = []
        for i in range(N):
            keys = torch.cat([sum(P[i, j] * K[j] for j in range(N)), K[i]])
            values = torch.cat([sum(P[i, j] * V[j] for j in range(N)), V[i]])
            for t in range(b):
                weights = torch.stack([(Q[i][t] * key).sum() / math.sqrt(d) for key in keys]).exp()
                out.append((weights[:, None] * values).sum(0) / weights.sum())
        rows.append(torch.stack(out))
    return torch.cat(rows, -1) @ p["to_out.weight"].T + p["to_out.bias"]


@NETS
@pytest.mark.parametrize(("b", "tau", "n"), [(4, 0.75, 5), (6, 0.5, 3)])
def test_plain_loop(oracle, sort_net, b, tau, n):
    """Keys and values apart; the second row is half as long."""
    mixer = build(sort_net, block_size=b, temperature=tau, iterations=n).eval()
    x, p = vectors(B, T, D), leaves(mixer)
    mask = torch.arange(T) < torch.tensor([T, T // 2])[:, None]
    want = torch.cat([loop(p, row, b=b, simple=sort_net == "simple", tau=tau, n=n) for row in (x[0], x[1, : T // 2])])
    proof = oracle("sinkhorn", "the paper's equations, block by block")
    proof.equal(mixer(x, mask=mask)[0][mask], want, {"x": x, **p})
