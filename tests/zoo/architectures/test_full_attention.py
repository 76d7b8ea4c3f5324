"""Sparse and compressed attention is full attention where nothing is left out."""

import pytest
import torch

from zoo.architectures.bigbird import BigBird
from zoo.architectures.linformer import Linformer
from zoo.architectures.longformer import Longformer
from zoo.architectures.nystromformer import Nystromformer
from zoo.architectures.sinkhorn import Sinkhorn
from zoo.contract import LayerContext, Part
from zoo.layers.attention import Attention
from zoo.layers.local_attention import LocalAttention

from .mixers import drawn, vectors

B, T, D, H = 3, 35, 8, 2
NAMES = {
    BigBird: ("query key value", "out"),
    Linformer: ("qkv", "out"),
    LocalAttention: ("q_proj k_proj v_proj", "out_proj"),
    Longformer: ("query key value", "out"),
    Nystromformer: ("query key value", "out"),
    Sinkhorn: ("to_q to_kv", "to_out"),
}
"""Their projections in, side by side, and out."""


def full_attention(mixer, context, **options):
    """With the same weights; where projections have no bias, it is 0."""
    into, out = NAMES[type(mixer)]
    full = Attention(context, heads=H, **options).double()
    state = {f"out.{part}": getattr(mixer.get_submodule(out), part) for part in ("weight", "bias")}
    for part in ("weight", "bias"):
        rows = [getattr(mixer.get_submodule(name), part) for name in into.split()]
        state[f"qkv.{part}"] = torch.zeros(3 * D) if rows[0] is None else torch.cat(rows)
    relative = {name: value for name, value in mixer.state_dict().items() if name.startswith("positions.")}
    full.load_state_dict(state | relative)
    return full


CASES = [
    *((LocalAttention, True, {"window": T, "kv_heads": kv}, kind) for kv in (1, 2) for kind in (None, "alibi", "t5")),
    *((LocalAttention, False, {"window": 2 * T - 1, "kv_heads": kv}, "rope") for kv in (1, 2)),
    (Longformer, True, {"window": 2 * T}, None),
    *((Longformer, False, {"window": 2 * T, "global_tokens": G}, None) for G in (0, 2, T + 5)),
    *((BigBird, False, {"block_size": size, "random_blocks": 2}, None) for size in (4, 8)),  # 9 blocks are 2 r + 5
    *((Sinkhorn, False, {"block_size": T + 3, "sort_net": net}, None) for net in ("simple", "attention")),
    (Nystromformer, False, {"num_landmarks": T, "conv_kernel_size": None}, None),
    *((Linformer, False, {"k": T, "sharing": sharing}, None) for sharing in ("none", "headwise", "key_value")),
]


@pytest.mark.parametrize(("kind", "causal", "options", "positions"), CASES, ids=str)
def test_is_full_attention(kind, causal, options, positions):
    length = 2 * T if kind is LocalAttention else T  # which refuses a window longer than sequences may be
    context = LayerContext(D, length, causal, positions=None if positions is None else Part(positions))
    mixer = drawn(kind(context, heads=H, **options)).eval()
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            if name in ("E", "F"):
                parameter.copy_(torch.eye(T))
            elif "_global." in name:  # which start as copies of the local projections
                parameter.copy_(mixer.get_parameter(name.replace("_global", "")))
    shared = {"kv_heads": options["kv_heads"]} if "kv_heads" in options else {}
    full, x = full_attention(mixer, context, **shared), vectors(B, T, D)
    torch.testing.assert_close(mixer(x)[0], full(x)[0], rtol=1e-10, atol=1e-10)


def test_landmarks_that_lose_nothing_give_full_attention():
    """Each segment holds three equal steps, so its mean is one of them; the pseudo-inverse has converged."""
    context, options = LayerContext(D, 12, causal=False), {"num_landmarks": 4, "conv_kernel_size": None}
    mixer = drawn(Nystromformer(context, heads=H, iterations=40, **options))
    full, x = full_attention(mixer, context), vectors(B, 12, D)
    repeated = x[:, :4].repeat_interleave(3, dim=1)
    torch.testing.assert_close(mixer(repeated)[0], full(repeated)[0], rtol=1e-8, atol=1e-8)
    assert (mixer(x)[0] - full(x)[0]).abs().max() > 1e-2


def seen(mixer, x):
    """By gradients: which step reaches which."""
    x = x.requires_grad_()
    y = mixer(x)[0][0].sum(-1)
    return torch.stack([torch.autograd.grad(out, x, retain_graph=True)[0][0].abs().sum(-1) > 0 for out in y])


@pytest.mark.parametrize("window", [1, 2, 5])
def test_who_sees_whom_in_a_window(window):
    """Causal, the window − 1 steps before; both ways, window // 2 on each side."""
    ahead = torch.arange(T) - torch.arange(T)[:, None]
    for causal, wanted in ((True, (ahead <= 0) & (ahead > -window)), (False, ahead.abs() <= window // 2)):
        mixer = drawn(LocalAttention(LayerContext(D, T, causal), heads=H, window=window))
        assert torch.equal(seen(mixer, vectors(1, T, D)), wanted)


@pytest.mark.parametrize(("causal", "G"), [(False, 0), (False, 3), (True, 3)])
def test_who_sees_whom_in_longformer(causal, G):
    """Half the window on each side, global tokens in rows and columns; causal, one side and no such."""
    mixer = drawn(Longformer(LayerContext(D, T, causal), heads=H, window=4, global_tokens=G))
    t, s = torch.arange(T)[:, None], torch.arange(T)
    wanted = (s <= t) & (s >= t - 2) if causal else ((s - t).abs() <= 2) | (t < G) | (s < G)
    assert torch.equal(seen(mixer, vectors(1, T, D)), wanted)
    assert not causal or not any("global" in name for name, _ in mixer.named_parameters())
