"""Kimi delta attention against transformers' Kimi Linear: operators and layer."""

import pytest
import torch

from zoo.architectures.kda import KDA
from zoo.contract import LayerContext

from .compare import drawn, vectors

kimi = pytest.importorskip("transformers.models.kimi_linear.modeling_kimi_linear")
D, T, B, HEADS, K = 24, 70, 2, 3, 6


def to_ours(official):
    """Two layers by names there, by places here; the gate's bias has no counterpart."""
    names = {"forget_gate.f_a_proj": "f_proj.0", "forget_gate.f_b_proj": "f_proj.1"}
    names |= {"g_a_proj": "g_proj.0", "g_b_proj": "g_proj.1"}
    found = dict(
        zip(("q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight"), official["conv1d.weight"].chunk(3), strict=True)
    )
    for name, value in official.items():
        part, _, kind = name.rpartition(".")
        if part != "conv1d":
            found[f"{names[part]}.{kind}" if part in names else name.removeprefix("forget_gate.")] = value
    found["A_log"] = found["A_log"].flatten()
    return found


def test_kimi_linear(oracle, in_float64):
    from transformers.models.kimi_linear import KimiLinearConfig

    torch.manual_seed(0)
    config = KimiLinearConfig(
        hidden_size=D, linear_num_heads=HEADS, linear_head_dim=K, linear_conv_kernel_dim=3, rms_norm_eps=1e-5
    )
    official = drawn(kimi.KimiLinearDeltaAttention(config, 0))
    ours = KDA(LayerContext(width=D, length=T), heads=HEADS, head_dim=K, conv_size=3)
    oracle("kda", "transformers, KimiLinearDeltaAttention").layers(
        ours, official, vectors(B, T, D), renamed=to_ours, alone="g_proj.1.bias", tolerance=1e-9
    )
