"""Retention against the official layer (microsoft/torchscale, MultiScaleRetention, run in float64)."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.retnet import Retention
from zoo.contract import LayerContext

from .compare import drawn, in_pieces, leaves, vectors

T, D, H = 32, 16, 2


def load(parity, form):
    """The recorded tensors, the input, and our layer under the recorded parameters."""
    recorded, leaves = parity("retnet_parallel")
    mixer = Retention(LayerContext(width=D, length=T), heads=H, form=form).double()
    mixer.load_state_dict({name: value for name, value in leaves.items() if name != "input"})
    return recorded, leaves["input"], mixer


@pytest.mark.parametrize(("form", "tolerances"), [("parallel", (1e-12, 1e-12)), ("recurrent", (2e-5, 1e-4))])
def test_parallel(oracle, parity, form, tolerances):
    """The recurrent form differs from it by 1.1e-5, as the official recurrent form does."""
    recorded, x, mixer = load(parity, form)
    proof = oracle("retnet", f"torchscale, MultiScaleRetention in parallel (recorded), form={form}")
    proof.recorded(mixer(x)[0], recorded, leaves(mixer, input=x), *tolerances)


def test_recurrent(oracle, parity):
    recorded, x, mixer = load(parity, "recurrent")
    proof = oracle("retnet", "torchscale, MultiScaleRetention step by step (recorded)")
    proof.outputs(mixer(x)[0], recorded["output.step"], 1e-9)
    steps, state = in_pieces(mixer, x)
    proof.outputs(steps, recorded["output.step"], 1e-9)
    proof.outputs(state["S"], recorded["state.final"], 1e-9)
    scale = recorded["state.final.official_scale"].sqrt()[:, None, None]
    proof.outputs(state["S"].transpose(-1, -2) / scale, recorded["state.final.official_kv"], 1e-9)


def official_steps(x, weights, heads, gate, eps):
    """The official recurrent form, written from its code: the carried product is divided by √scale as it goes."""
    B, T, D = x.shape
    K = D // heads
    angle = (1 / 10000 ** torch.linspace(0, 1, K // 2, dtype=x.dtype)).repeat_interleave(2)
    gamma = 1 - 2.0 ** (-5 - torch.arange(heads, dtype=x.dtype))

    def shifted(z, t):
        half = torch.stack([-z[..., 1::2], z[..., ::2]], dim=-1).flatten(-2)
        return z * torch.cos(angle * t) + half * torch.sin(angle * t)

    outputs, kv, scale = [], torch.zeros((), dtype=x.dtype), torch.zeros(heads, dtype=x.dtype)
    for t in range(T):
        q, k, v, g = (x[:, t] @ weights[f"{name}_proj.weight"].T for name in "qkvg")
        q, k = shifted(q.view(B, heads, K), t), shifted(K**-0.5 * k.view(B, heads, K), t)
        before, scale = scale, scale * gamma + 1
        keep = (before.sqrt() * gamma / scale.sqrt()).view(heads, 1, 1)
        kv = keep * kv + v.view(B, heads, -1, 1) * k[:, :, None] / scale.sqrt().view(heads, 1, 1)
        o = (q[:, :, None] * kv).sum(-1)
        o = o / (o.square().mean(-1, keepdim=True) + eps).sqrt()
        outputs.append((gate(g) * o.flatten(1)) @ weights["out_proj.weight"].T)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize(
    ("heads", "factor", "gate", "eps"), [(1, 1.0, "gelu", 1e-6), (3, 1.5, "swish", 1e-2), (6, 2.0, "swish", 1e-6)]
)
def test_other_sizes(oracle, heads, factor, gate, eps):
    torch.manual_seed(0)
    options = {"heads": heads, "value_factor": factor, "gate_fn": gate, "eps": eps}
    mixer, x = drawn(Retention(LayerContext(width=12, length=19), **options)), vectors(2, 19, 12)
    want = official_steps(x, leaves(mixer), heads, {"swish": F.silu, "gelu": F.gelu}[gate], eps)
    proof = oracle("retnet", "the official recurrent form, step by step")
    proof.equal(mixer(x)[0], want, leaves(mixer, input=x), tolerance=1e-9)
