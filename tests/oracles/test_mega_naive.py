"""Mega against the official block written out: recurrence, double loops, post-norm (moving_average_gated_attention.py).

The relative positions are built as the official code builds them: by tiling and cutting, and by rotating each position.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.mega import Mega
from zoo.contract import LayerContext

from .compare import in_pieces, leaves, shaken, vectors

B, T, D, N, Z, E = 2, 11, 4, 3, 6, 5


def ema(p, x):
    """h_t = q h_{t−1} + p β x_t in one direction, or in two; the present counts in both."""

    def run(rows, steps):
        delta, alpha, beta = (p[f"move.{n}"][rows, :, 0] for n in ("delta", "alpha", "beta"))
        keep = 1 - torch.sigmoid(delta) * torch.sigmoid(alpha)
        h, out = x.new_zeros(len(x), D, N), {}
        for t in steps:
            h = keep * h + torch.sigmoid(delta) * beta * x[:, t, :, None]
            out[t] = (h * p["move.gamma"][rows]).sum(-1) / math.sqrt(N)
        return torch.stack([out[t] for t in range(x.shape[1])], 1)

    y = run(slice(0, D), range(x.shape[1]))
    if len(p["move.gamma"]) == 2 * D:
        y = y + run(slice(D, 2 * D), reversed(range(x.shape[1])))
    return F.silu(y + p["move.omega"] * x)


def relative_bias(p, L):
    """(L, L), as `SimpleRelativePositionalBias` and `RotaryRelativePositionalBias` make it."""
    if "rel_pos_bias.rel_pos_bias" in p:
        table = p["rel_pos_bias.rel_pos_bias"]
        longest = (len(table) + 1) // 2
        row = F.pad(table[longest - L : longest + L - 1], (0, L)).tile(L)[: L * (3 * L - 2)]
        return row.view(L, 3 * L - 2)[:, L - 1 : 2 * L - 1]
    half = Z // 2
    angles = torch.arange(L)[:, None] * torch.exp(torch.arange(half, dtype=torch.float64) * -(math.log(10000) / half))

    def rotated(v):
        v1, v2 = v.expand(L, Z).chunk(2, -1)
        return torch.cat([v1 * angles.cos() - v2 * angles.sin(), v2 * angles.cos() + v1 * angles.sin()], 1)

    return rotated(p["rel_pos_bias.alpha"]) @ rotated(p["rel_pos_bias.beta"]).T


def reference(p, x, lengths, chunk, activation, causal):
    """The block LN(x + y), which is what the residual type "post" is: each row up to its length, and zero beyond."""
    outputs = []
    for row, length in zip(x, lengths, strict=True):
        x1 = row[None, :length]
        v = F.silu(x1 @ p["v_proj.weight"].T + p["v_proj.bias"])
        base = ema(p, x1) @ p["mx_proj.weight"].T + p["mx_proj.bias"]
        u, z, r, hx = base.split([D, Z, E, D], -1)
        z, r = F.silu(z), F.silu(r)
        q, k = (z * p["gamma"][i] + p["beta"][i] for i in (0, 1))
        a = []
        for t in range(length):
            start = 0 if chunk < 0 else t // chunk * chunk
            end = t + 1 if causal else length if chunk < 0 else min(start + chunk, length)
            bias = relative_bias(p, end - start)[t - start]
            scores = (k[0, start:end] * q[0, t]).sum(-1)
            if activation == "softmax":
                weights = torch.softmax(scores / math.sqrt(Z) + bias, -1)
            else:
                scores = scores / (end - start) + bias
                normal = torch.distributions.Normal(*torch.tensor([0.707107, 0.282095], dtype=x.dtype))
                weights = normal.cdf(scores) if activation == "laplace" else scores.relu() ** 2
            a.append((weights[:, None] * v[0, start:end]).sum(0))
        h = F.silu(hx + (torch.stack(a)[None] * r) @ p["h_proj.weight"].T + p["h_proj.bias"])
        out = x1 + torch.sigmoid(u) * (h - x1)
        outputs.append(F.pad(F.layer_norm(out, (D,)), (0, 0, 0, len(row) - length))[0])
    return torch.stack(outputs)


CASES = [
    (-1, "softmax", "simple"),
    (-1, "laplace", "rotary"),
    (4, "softmax", "rotary"),
    (4, "laplace", "simple"),
    (4, "relu2", "simple"),
    (16, "softmax", "simple"),
]


def build(chunk, activation, bias, causal):
    torch.manual_seed(0)
    options = {"chunk_size": chunk, "attention_activation": activation, "rel_pos_bias": bias}
    mixer = Mega(LayerContext(width=D, length=15, causal=causal), zdim=Z, hdim=E, ndim=N, **options)
    return shaken(mixer, 1.0), vectors(B, T, D)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("chunk", "activation", "bias"), CASES)
@pytest.mark.parametrize("lengths", [[T, T], [T, 6]])
def test_outputs_and_gradients(oracle, lengths, chunk, activation, bias, causal):
    mixer, x = build(chunk, activation, bias, causal)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y, _ = mixer(x, mask=None if lengths == [T, T] else mask)
    y = F.layer_norm(x + y, (D,)).masked_fill(~mask[..., None], 0)
    want = reference(leaves(mixer), x, lengths, chunk, activation, causal)
    oracle("mega", "the official block written out in loops").equal(y, want, leaves(mixer, input=x))


@pytest.mark.parametrize(("chunk", "activation", "bias"), CASES)
def test_steps(oracle, chunk, activation, bias):
    mixer, x = build(chunk, activation, bias, causal=True)
    got = F.layer_norm(x + in_pieces(mixer, x)[0], (D,))
    want = reference(leaves(mixer), x, [T, T], chunk, activation, True)
    oracle("mega", "the official block written out in loops").outputs(got, want)
