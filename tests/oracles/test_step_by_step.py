"""Layers against their published equations, written out step by step or pair by pair in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.based import BaseConv, Based
from zoo.architectures.gru import GRU
from zoo.architectures.linear_transformer import LinearAttention
from zoo.architectures.lru import LRU
from zoo.architectures.lstm import LSTM
from zoo.contract import LayerContext

from .compare import copies, drawn, leaves, shaken, vectors

B, T, D = 2, 13, 12


@pytest.mark.parametrize("causal", [True, False])
def test_based(oracle, causal):
    """Where test_recorded.py has nothing: a width of values of its own. Every weight is 1 + s + s²/2."""
    torch.manual_seed(0)
    heads, d, head_dim = 2, 3, 5
    context, x = LayerContext(width=D, length=T, causal=causal), vectors(B, T, D)
    mixer = drawn(Based(context, heads=heads, feature_dim=d, head_dim=head_dim))
    q, k, v = ((x @ getattr(mixer, f"{name}_proj").weight.T).view(B, T, heads, -1).transpose(1, 2) for name in "qkv")
    s = q @ k.transpose(-1, -2) / d**0.5
    weights = 1 + s + s**2 / 2
    weights = weights.tril() if causal else weights
    y = (weights / weights.sum(-1, keepdim=True)) @ v
    want = y.transpose(1, 2).reshape(B, T, -1) @ mixer.o_proj.weight.T
    proof = oracle("based", "the Taylor weights of every pair of steps")
    proof.equal(mixer(x)[0], want, leaves(mixer, x=x), tolerance=1e-9)


@pytest.mark.parametrize(("size", "expand", "bias"), [(3, 4, True), (1, 1, False), (5, 2, True)])
def test_convolution_of_based(oracle, size, expand, bias):
    torch.manual_seed(0)
    context, x = LayerContext(width=D, length=T), vectors(B, T, D)
    mixer = drawn(BaseConv(context, kernel_size=size, expand_proj=expand, use_bias=bias))
    W, inner = mixer.conv1.weight[:, 0], expand * D // 2
    u = x @ mixer.in_proj.weight.T + (mixer.in_proj.bias if bias else 0)
    steps = []
    for t in range(T):
        seen = sum(W[:, size - 1 - j] * u[:, t - j, :inner] for j in range(min(size, t + 1)))
        steps.append((F.silu(seen) * u[:, t, inner:]) @ mixer.out_proj.weight.T + (mixer.out_proj.bias if bias else 0))
    proof = oracle("based", "BaseConv, step by step")
    proof.equal(mixer(x)[0], torch.stack(steps, 1), leaves(mixer, x=x), tolerance=1e-9)


def linear_attention(mixer, x, heads, causal, eps):
    """RecurrentLinearAttention step by step, or LinearAttention, between AttentionLayer's projections."""
    q, k, v = (
        F.linear(x, projection.weight, projection.bias).view(B, T, heads, -1)
        for projection in (mixer.query_projection, mixer.key_projection, mixer.value_projection)
    )
    q, k = F.elu(q) + 1, F.elu(k) + 1
    if causal:
        S, Z, y = torch.zeros((), dtype=x.dtype), torch.zeros((), dtype=x.dtype), []
        for t in range(T):
            S, Z = S + torch.einsum("nhd,nhm->nhdm", k[:, t], v[:, t]), Z + k[:, t]
            z = 1 / (torch.einsum("nhd,nhd->nh", q[:, t], Z) + eps)
            y.append(torch.einsum("nhd,nhdm,nh->nhm", q[:, t], S, z))
        y = torch.stack(y, 1)
    else:
        z = 1 / (torch.einsum("nlhd,nhd->nlh", q, k.sum(1)) + eps)
        y = torch.einsum("nlhd,nhmd,nlh->nlhm", q, torch.einsum("nshd,nshm->nhmd", k, v), z)
    return F.linear(y.flatten(2), mixer.out_projection.weight, mixer.out_projection.bias)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"heads": 3, "eps": 0.1}, {"heads": 5, "d_keys": 2, "d_values": 7}, {"heads": 1}], ids=str
)
def test_linear_transformer(oracle, causal, options):
    torch.manual_seed(0)
    mixer, x = drawn(LinearAttention(LayerContext(width=D, length=T, causal=causal), **options)), vectors(B, T, D)
    want = linear_attention(mixer, x, options.get("heads", 4), causal, options.get("eps", 1e-6))
    proof = oracle("linear_transformer", "the equations of idiap/fast-transformers, step by step")
    proof.equal(mixer(x)[0], want, leaves(mixer, x=x), tolerance=1e-9)


def lru(p, u, x0, gelu):
    """The paper's appendix A. Returns all outputs, and the last x.

    x_t = λ x_{t−1} + γ B u_t, y_t = Re(C x_t) + D u_t, then GELU and W₁ g σ(W₂ g).
    """
    Lambda = torch.exp(-torch.exp(p["nu_log"]) + 1j * torch.exp(p["theta_log"]))
    B_norm = (p["B_re"] + 1j * p["B_im"]) * torch.exp(p["gamma_log"])[:, None]
    C, x, outputs = p["C_re"] + 1j * p["C_im"], x0, []
    for t in range(u.shape[1]):
        x = Lambda * x + (B_norm @ u[:, t].to(x.dtype).T).T
        y = (x @ C.T).real + p["D"] * u[:, t]
        if gelu == "erf":
            g = y * 0.5 * (1 + torch.erf(y / 2**0.5))
        else:
            g = 0.5 * y * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (y + 0.044715 * y**3)))
        gate = torch.sigmoid(g @ p["out2.weight"].T + p["out2.bias"])
        outputs.append((g @ p["out1.weight"].T + p["out1.bias"]) * gate)
    return torch.stack(outputs, 1), x


@pytest.mark.parametrize("options", [{}, {"r_min": 0.9, "r_max": 0.999, "max_phase": 0.3, "gelu": "erf"}], ids=str)
def test_lru(oracle, options):
    torch.manual_seed(1)
    mixer, x = shaken(LRU(LayerContext(width=6, length=11), d_hidden=5, **options), 0.1), vectors(B, 11, 6)
    theirs, gelu = copies(mixer), options.get("gelu", "tanh")
    x0 = torch.randn(B, 5, dtype=torch.complex128)
    want, last = lru(theirs, x, x0, gelu)
    y, state = mixer(x, state={"x": torch.view_as_real(x0)})
    proof = oracle("lru", "the paper's appendix A, step by step in float64")
    proof.equal(y, want, leaves(mixer, input=x), {"input": x, **theirs})
    proof.outputs(state["x"], torch.view_as_real(last))
    proof.outputs(mixer(x)[0], lru(theirs, x, torch.zeros_like(x0), gelu)[0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x)) if isinstance(x, np.ndarray) else torch.sigmoid(x)


def tanh(x):
    return np.tanh(x) if isinstance(x, np.ndarray) else torch.tanh(x)


def lstm(x, W, U, b, c):
    h = memory = 0 * x[:, 0]
    for t in range(x.shape[1]):
        i, f, g, o = [(x[:, t] @ W[k].T + b[k] + h @ U[k].T + c[k]) for k in range(4)]
        memory = sigmoid(f) * memory + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(memory)
        yield h


def gru(x, W, U, b, c):
    h = 0 * x[:, 0]
    for t in range(x.shape[1]):
        r, z, n = [x[:, t] @ W[k].T + b[k] for k in range(3)]
        ur, uz, un = [h @ U[k].T + c[k] for k in range(3)]
        update = sigmoid(z + uz)
        h = (1 - update) * tanh(n + sigmoid(r + ur) * un) + update * h
        yield h


@pytest.mark.parametrize(("kind", "rule", "gates"), [(LSTM, lstm, 4), (GRU, gru, 3)])
def test_lstm_and_gru(oracle, kind, rule, gates):
    """Which torch computes: outputs by NumPy, gradients by autograd through the loop."""
    torch.manual_seed(0)
    mixer, x = drawn(kind(LayerContext(width=6, length=8))), vectors(B, 8, 6)
    y, theirs = mixer(x)[0], copies(mixer)
    arrays = [p.detach().numpy().reshape(gates, 6, *p.shape[1:]) for p in theirs.values()]
    proof = oracle(kind.__name__.lower(), "the published recurrence (NumPy, step by step)")
    proof.outputs(y, torch.from_numpy(np.stack(list(rule(x.detach().numpy(), *arrays)), 1)))
    want = torch.stack(list(rule(x, *(p.view(gates, 6, *p.shape[1:]) for p in theirs.values()))), 1)
    proof.equal(y, want, leaves(mixer, x=x), {"x": x, **theirs})
