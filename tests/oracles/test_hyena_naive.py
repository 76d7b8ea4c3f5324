"""Hyena of any order against sums written out (paper, definition 3.1 and section 3.3; standalone_hyena.py)."""

import math

import pytest
import torch

from zoo.architectures.hyena import Hyena
from zoo.contract import LayerContext

B, T, D, L = 2, 9, 3, 12


def reference(p, x, order, decays, shift):
    """The operator with parameters p, by loops over time."""
    T = x.shape[1]
    u = x @ p["in_proj.weight"].T + p["in_proj.bias"]
    w = p["short_filter.weight"][:, 0]  # (C, width), the last column for the present
    width = w.shape[1]
    u = torch.stack([sum(w[:, width - 1 - j] * u[:, t - j] for j in range(min(width, t + 1))) for t in range(T)], 1)
    *gates, v = (u + p["short_filter.bias"]).split(D, -1)
    h = p["filter_fn.pos_emb.z"][0, :T]
    inner = sorted({int(n.split(".")[2]) for n in p if n.startswith("filter_fn.implicit") and n.endswith("bias")})
    for index in inner:
        name = f"filter_fn.implicit_filter.{index}"
        h = torch.sin(p["filter_fn.implicit_filter.1.freq"] * (h @ p[f"{name}.weight"].T + p[f"{name}.bias"]))
    h = h @ p[f"filter_fn.implicit_filter.{inner[-1] + 2}.weight"].T
    t = torch.arange(T, dtype=torch.float64)[:, None] / (L - 1)
    deltas = torch.linspace(*decays, (order - 1) * D, dtype=torch.float64)
    h = (h * ((-t * deltas.abs()).exp() + shift)).view(T, order - 1, D)
    for o in range(order - 1):
        z = v * gates[order - 1 - o]
        conv = torch.stack([sum(h[t - s, o] * z[:, s] for s in range(t + 1)) for t in range(T)], 1)
        v = conv + p["filter_fn.bias"].view(order - 1, D)[o] * z
    return (gates[0] * v) @ p["out_proj.weight"].T + p["out_proj.bias"]


@pytest.mark.parametrize(
    ("order", "options"),
    [
        (2, {"num_inner_mlps": 0, "emb_dim": 3, "short_filter_order": 1}),
        (3, {"num_inner_mlps": 1, "emb_dim": 7, "short_filter_order": 4, "shift": 0.1, "w": 3.0}),
        (4, {"num_inner_mlps": 3, "emb_dim": 5, "fast_decay_pct": 0.2, "slow_decay_pct": 0.9, "target": 0.1}),
    ],
)
def test_outputs_and_gradients(oracle, order, options):
    torch.manual_seed(0)
    mixer = Hyena(LayerContext(width=D, length=L), order=order, filter_order=4, **options).double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x, weight = (torch.randn(B, T, D, dtype=torch.float64) for _ in range(2))
    x.requires_grad_()
    names = dict(mixer.named_parameters())
    target = math.log(options.get("target", 0.01))
    decays = target / options.get("slow_decay_pct", 1.5), target / options.get("fast_decay_pct", 0.3)
    want = reference(names, x, order, decays, options.get("shift", 0.0))
    y, _ = mixer(x)
    proof = oracle("hyena", "sums written out, orders 2 to 4")
    proof.outputs(y, want)
    leaves = {"input": x, **names}
    got = torch.autograd.grad((y * weight).sum(), list(leaves.values()))
    expected = torch.autograd.grad((want * weight).sum(), list(leaves.values()))
    proof.gradients(dict(zip(leaves, got, strict=True)), dict(zip(leaves, expected, strict=True)))
