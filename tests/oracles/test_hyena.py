"""Hyena against the official operator of order 2 (recorded), and of any order against sums written out.

The sums follow the paper, definition 3.1 and section 3.3, and standalone_hyena.py of HazyResearch/safari.
"""

import math

import pytest
import torch

from zoo.architectures.hyena import Hyena
from zoo.contract import LayerContext

from .compare import in_pieces, leaves, shaken, vectors

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
    mixer = shaken(Hyena(LayerContext(width=D, length=L), order=order, filter_order=4, **options))
    x = vectors(B, T, D)
    target = math.log(options.get("target", 0.01))
    decays = target / options.get("slow_decay_pct", 1.5), target / options.get("fast_decay_pct", 0.3)
    want = reference(leaves(mixer), x, order, decays, options.get("shift", 0.0))
    oracle("hyena", "sums written out, orders 2 to 4").equal(mixer(x)[0], want, leaves(mixer, input=x))


def test_official(oracle, parity):
    """HyenaOperator: outputs, gradients, the filter, pieces. t and the window are ours, in float32."""
    data, official = parity("hyena_order2")
    mixer, x = Hyena(LayerContext(width=16, length=32), filter_order=16, emb_dim=5).double(), official.pop("input")
    ours = {name: p for name, p in mixer.state_dict().items() if name.endswith((".t", ".deltas", ".freq"))}
    mixer.load_state_dict({**ours, **official})
    proof = oracle("hyena", "HazyResearch/safari, HyenaOperator (recorded)")
    proof.recorded(mixer(x)[0], data, leaves(mixer, input=x), 1e-5, 1e-4)
    proof.outputs(mixer.filter_fn(32), data["aux.filter"])
    for sizes in (1, [5, 1, 26]):
        proof.outputs(in_pieces(mixer, x, sizes)[0], data["output"])
    for name in ("filter_fn.pos_emb.t", "filter_fn.modulation.deltas"):
        torch.testing.assert_close(mixer.state_dict()[name], data[f"buffer.{name}"], rtol=0, atol=1e-6)
