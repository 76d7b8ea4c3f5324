"""Falcon-H1: multipliers become factors of the weights."""

from typing import Any

import torch

from zoo.published.mamba import expansion, limit
from zoo.published.transformers.configs import expect, mlp, rope
from zoo.published.transformers.hybrids.base import Hybrid, Weights, glu, names, scale

NAMES = names(
    {
        "0.norm": "input_layernorm",
        "0.inner.parts.0.qkv": "self_attn.qkv",
        "0.inner.parts.0.out": "self_attn.o_proj",
        "0.inner.parts.1": "mamba",
        "1.norm": "pre_ff_layernorm",
        **glu("1.inner", "feed_forward"),
    },
    norm="final_layernorm",
)


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, attention_bias=False, mlp_bias=False, projectors_bias=False, mamba_proj_bias=False)
    expect(config, mamba_conv_bias=True, rms_norm_eps=1e-5, hidden_act="silu")
    scaled = config.embedding_multiplier != 1 or config.lm_head_multiplier != 1
    return {
        "kv_heads": config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "d_state": config.mamba_d_state,
        "d_conv": config.mamba_d_conv,
        "expand": expansion(_falcon_channels(config), config.hidden_size),
        "headdim": config.mamba_d_head,
        "ngroups": config.mamba_n_groups,
        **limit(config.time_step_limit),
        "mamba_rms_norm": config.mamba_rms_norm,
        "mamba_norm_before_gate": config.mamba_norm_before_gate,
        "channel": {"glu": mlp(config, config.intermediate_size, "hidden_act")},
        "positions": rope(config),
        "tie": config.tie_word_embeddings and not scaled,
    }


def prepare(config: Any, weights: Weights) -> None:
    """Multipliers become factors of the weights."""
    inward, (gate, down) = config.attention_in_multiplier, config.mlp_multipliers
    z, x, B, C, dt = (config.ssm_in_multiplier * factor for factor in config.ssm_multipliers)
    both, H, inner = config.mamba_n_groups * config.mamba_d_state, config.mamba_n_heads, _falcon_channels(config)
    rows = torch.tensor([z, x, B, C, dt]).repeat_interleave(torch.tensor([inner, inner, both, both, H]))
    factors = {
        "embed_tokens.weight": config.embedding_multiplier,
        "lm_head.weight": config.lm_head_multiplier,
        "q_proj.weight": inward,
        "k_proj.weight": inward * config.key_multiplier,
        "v_proj.weight": inward,
        "o_proj.weight": config.attention_out_multiplier,
        "in_proj.weight": rows[:, None],
        "out_proj.weight": config.ssm_out_multiplier,
        "gate_proj.weight": gate,
        "down_proj.weight": down,
    }
    scale(weights, factors)


def _falcon_channels(config: Any) -> int:
    return config.mamba_n_heads * config.mamba_d_head


HYBRID = Hybrid("falcon_h1", options, NAMES, prepare)
