"""GLA against the layer of the PyPI package flash-linear-attention; and its recurrence against recorded fla numbers."""

import os

import pytest
import torch

from zoo.contract import Site
from zoo.mixers.gla import GLA
from zoo.ops.linear_attention import linear_attention

B, T, D = 2, 9, 24
OPTIONS = [
    {},
    {"num_heads": 2, "expand_k": 1.0, "expand_v": 2.0, "gate_low_rank_dim": 5, "gate_logit_normalizer": 4},
    {"num_heads": 4, "num_kv_heads": 2, "expand_k": 1.0, "clamp_min": -0.03, "feature_map": "relu"},
    {"num_heads": 3, "expand_k": 0.75, "use_short_conv": True, "conv_size": 3, "conv_bias": True},
    {"gate_fn": "sigmoid", "norm_eps": 1e-3, "elementwise_affine": False},
    {"use_output_gate": False, "use_short_conv": True},
]
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton asks while it is first imported, by whichever test


@pytest.fixture(scope="module")
def official():
    """fla's layer, its Triton kernels in their first configuration where they are interpreted."""
    if not torch.cuda.is_available():
        autotuner = pytest.importorskip("triton.runtime.autotuner").Autotuner
        autotuner.run = lambda self, *x, **o: self.fn.run(*x, **o, **self.configs[0].all_kwargs())
    return pytest.importorskip("fla.layers.gla").GatedLinearAttention


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(map(str, o)) or "default")
def test_layer(official, oracle, options):
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    theirs = official(hidden_size=D, layer_idx=0, **options).to(device)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    named = {{"num_heads": "heads", "num_kv_heads": "kv_heads"}.get(name, name): v for name, v in options.items()}
    ours = GLA(Site(width=D, length=T), **named).to(device)
    ours.load_state_dict(theirs.state_dict())
    x, weight = torch.randn(2, B, T, D, device=device)
    x.requires_grad_()
    wanted, got = theirs(x)[0], ours(x)[0]
    proof = oracle("gla", "flash-linear-attention, GatedLinearAttention")
    proof.outputs(got, wanted)
    found = []
    for layer, y in ((ours, got), (theirs, wanted)):
        names = [name.replace("g_norm_swish_gate", "g_norm") for name, _ in layer.named_parameters()]
        gradients = torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()])
        found.append(dict(zip(["x", *names], gradients, strict=True)))
    proof.gradients(*found)


def test_recurrence(oracle, parity):
    recorded, x = parity("fla_gla")
    q, k, v, gk = (x[name].transpose(1, 2) for name in ("q", "k", "v", "gk"))
    o, S = linear_attention(q * q.shape[-1] ** -0.5, k, v, gk, x["initial_state"])
    proof = oracle("gla", "flash-linear-attention, naive_recurrent_gla (recorded)")
    proof.outputs(o.transpose(1, 2), recorded["output"], 1e-9)
    proof.outputs(S, recorded["state.final"], 1e-9)
    gradients = torch.autograd.grad(o, list(x.values()), recorded["cotangent"].transpose(1, 2))
    wanted = {name: recorded[f"grad.input.{name}"] for name in x}
    proof.gradients(dict(zip(x, gradients, strict=True)), wanted, 1e-9)
