"""Linformer, Performer, GSS and minGRU against packages on PyPI, most by lucidrains; GSS as a recurrence too."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.gss import GSS
from zoo.architectures.linformer import Linformer
from zoo.architectures.min_gru import MinGRU
from zoo.architectures.performer import Performer
from zoo.contract import LayerContext

from .compare import copies, drawn, leaves, shaken, swapped, vectors

B, T, D, H = 2, 23, 32, 4


def joined(official, *parts):
    """Their `to_q`, `to_k` and `to_v` as our `qkv`, and `to_out`."""
    found = {f"qkv.{part}": torch.cat([official[f"to_{name}.{part}"] for name in "qkv"]) for part in parts}
    return found | {f"out.{part}": official[f"to_out.{part}"] for part in ("weight", "bias")}


def normal(layer):
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.mark.parametrize("steps", [T, 11])
@pytest.mark.parametrize("sharing", ["headwise", "key_value"])
def test_linformer(oracle, sharing, steps):
    theirs = pytest.importorskip("linformer.linformer")
    torch.manual_seed(0)
    ours = Linformer(LayerContext(width=D, length=T, causal=False), heads=H, k=7, sharing=sharing)
    peer = normal(theirs.LinformerSelfAttention(D, T, k=7, heads=H))
    torch.nn.init.zeros_(ours.qkv.bias)  # theirs has none
    if sharing == "key_value":  # `share_kv` there shares the key and value weights as well
        peer.proj_v = peer.proj_k

    def to_ours(official):
        tables = {"E": "proj_k", "F": "proj_v"}
        found = {name: official[there].T[None] for name, there in tables.items() if there in official}
        return found | joined(official, "weight")

    proof = oracle("linformer", "linformer LinformerSelfAttention")
    proof.layers(ours, peer, torch.randn(B, steps, D, requires_grad=True), renamed=to_ours, alone="qkv.bias")


def performers(causal, kernel):
    """Our mixer, and their layer with random weights and the same random features."""
    theirs = pytest.importorskip("performer_pytorch.performer_pytorch")
    torch.manual_seed(0)
    ours = Performer(LayerContext(width=D, length=T, causal=causal), heads=H, kernel=kernel)
    options = {"causal": causal, "generalized_attention": kernel == "relu", "qkv_bias": True}
    peer = normal(theirs.SelfAttention(D, heads=H, dim_head=D // H, **options))
    peer.fast_attention.projection_matrix.copy_(ours.W)
    assert len(ours.W) == theirs.FastAttention(D // H).nb_features == peer.fast_attention.nb_features
    return ours, peer


@pytest.mark.parametrize(("causal", "kernel"), [(False, "softmax"), (False, "relu"), (True, "relu")])
def test_performer(oracle, causal, kernel):
    """Its feature map is transcribed from the official JAX code."""
    x = torch.randn(B, T, D, requires_grad=True)
    proof = oracle("performer", "performer-pytorch SelfAttention")
    proof.layers(*performers(causal, kernel), x, renamed=lambda p: joined(p, "weight", "bias"))


def test_performer_with_causal_softmax_and_no_epsilon(oracle, monkeypatch):
    """Their key maximum over the sequence cancels once ε is 0, in the features and in the normaliser."""
    theirs = pytest.importorskip("performer_pytorch.performer_pytorch")
    features, attention = theirs.softmax_kernel, theirs.causal_linear_attention_noncuda
    monkeypatch.setattr(theirs, "softmax_kernel", lambda x, **options: features(x, **options, eps=0.0))
    ours, peer = performers(True, "softmax")
    ours.eps = 0.0
    peer.fast_attention.causal_linear_fn = lambda q, k, v: attention(q, k, v, eps=0.0)
    proof = oracle("performer", "performer-pytorch SelfAttention")
    proof.layers(ours, peer.double(), vectors(B, T, D), renamed=lambda p: joined(p, "weight", "bias"))


@pytest.mark.parametrize("expand", [1.0, 1.5])
def test_min_gru(oracle, expand):
    """Theirs runs in log space."""
    theirs = pytest.importorskip("minGRU_pytorch").minGRU
    torch.manual_seed(0)
    peer = drawn(theirs(8, expansion_factor=expand, proj_out=True), 1.0)
    ours = MinGRU(LayerContext(width=8, length=13), expand=expand, bias=False)
    names = {"hidden_and_gate.weight": "to_hidden_and_gate.weight", "out.weight": "to_out.weight"}
    oracle("min_gru", "minGRU-pytorch").layers(ours, peer, vectors(2, 13, 8), renamed=swapped(names))


def gss(**options):
    torch.manual_seed(1)
    mixer = GSS(LayerContext(width=8, length=11), **({"d_state": 6, "d_hidden": 3} | options))
    return shaken(mixer, 0.2), vectors(B, 11, 8)


@pytest.mark.parametrize(("expand", "imag_exp"), [(4.0, True), (2.0, False)])
def test_gss(oracle, expand, imag_exp):
    """The layer there is x + f(norm(x)): norm and residual are taken off."""
    package = pytest.importorskip("gated_state_spaces_pytorch.gss")
    mixer, x = gss(expand=expand, imag_exp=imag_exp)
    theirs = package.GSS(
        dim=8, dim_expansion_factor=expand, dss_kernel_N=6, dss_kernel_H=3, dss_kernel_lambda_imag_exp=imag_exp
    ).double()
    names = {name: name.replace("to_u", "to_u.0").replace("to_v", "to_v.0") for name in leaves(mixer)}
    theirs.load_state_dict({names[name]: p for name, p in mixer.state_dict().items()}, strict=False)
    norm, theirs.norm = theirs.norm, torch.nn.Identity()
    proof = oracle("gss", "gated-state-spaces-pytorch 0.1.0, GSS")
    proof.layers(mixer, theirs, norm(x), lambda x: theirs(x) - x, renamed=swapped(names))


def gss_steps(p, x, state):
    """The layer as a recurrence, one step after the other."""
    Lambda = -p["dss.Lambda_real"].exp() + 1j * p["dss.Lambda_imag"].exp()
    C = (p["dss.C_real"] + 1j * p["dss.C_imag"]) * (torch.exp(Lambda) - 1) / Lambda
    outputs = []
    for step in x.unbind(1):
        u, v = F.gelu(step @ p["to_u.weight"].T), F.gelu(step @ p["to_v.weight"].T)
        w = F.layer_norm(v, v.shape[-1:], p["dss.norm.weight"], p["dss.norm.bias"])
        state = torch.exp(Lambda) * state + w[..., None]
        y = (C * state).sum(-1).real + p["dss.param_D"] * w
        outputs.append((y @ p["to_gate.weight"].T * u) @ p["to_out.weight"].T + p["to_out.bias"])
    return torch.stack(outputs, 1), state


def test_gss_as_a_recurrence(oracle):
    mixer, x = gss()
    theirs = copies(mixer)
    x0 = torch.randn(B, 3, 6, dtype=torch.complex128)
    want, last = gss_steps(theirs, x, x0)
    y, state = mixer(x, state={"x": torch.view_as_real(x0)})
    proof = oracle("gss", "the paper's kernel as a recurrence, step by step in float64")
    proof.equal(y, want, leaves(mixer, input=x), {"input": x, **theirs})
    proof.outputs(state["x"], torch.view_as_real(last))
