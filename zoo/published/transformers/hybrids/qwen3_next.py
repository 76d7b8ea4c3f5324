"""Qwen3-Next: one matrix for queries, keys, values and gates, which stand head by head."""

from typing import Any

from zoo.published.errors import PretrainedError
from zoo.published.transformers.configs import expect, rope
from zoo.published.transformers.hybrids.base import (
    ATTENTION,
    Hybrid,
    Weights,
    cut,
    cut_convolution,
    delta,
    each,
    experts,
    mixture,
    names,
    without_correction,
)

NAMES = names(
    {
        "0.norm": "input_layernorm",
        **ATTENTION,
        **{f"0.inner.{part}": f"self_attn.{part}" for part in ("gate", "q_norm", "k_norm")},
        "0.inner.o_norm": "linear_attn.norm",
        "0.inner.o_proj": "linear_attn.out_proj",
        "0.inner": "linear_attn",
        "1.norm": "post_attention_layernorm",
        **experts("mlp", "gate", "shared_expert"),
        "1.inner.shared_gate": "mlp.shared_expert_gate",
    }
)


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, attention_bias=False, decoder_sparse_step=1, mlp_only_layers=[], rms_norm_eps=1e-6)
    shared, rest = divmod(config.shared_expert_intermediate_size, config.moe_intermediate_size)
    if rest or not shared:
        raise PretrainedError(
            f"our qwen3_next has no shared_expert_intermediate_size {config.shared_expert_intermediate_size}; only "
            f"multiples of moe_intermediate_size {config.moe_intermediate_size}"
        )
    return {
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        **delta(config),
        "norm_eps": config.rms_norm_eps,
        "layer_types": config.layer_types,
        "channel": {"moe": mixture(config, config.num_experts, shared=shared, shared_gate=True)},
        "positions": rope(config),
    }


def prepare(config: Any, weights: Weights) -> None:
    G, K, V = config.linear_num_key_heads, config.linear_key_head_dim, config.linear_value_head_dim
    H, d, shared = config.num_attention_heads, config.head_dim, config.linear_num_value_heads // G
    for at in each(weights, "in_proj_qkvz.weight"):
        values = shared * V
        cut(weights, at, "in_proj_qkvz.weight", {"q_proj": K, "k_proj": K, "v_proj": values, "g_proj": values}, G)
        cut(weights, at, "in_proj_ba.weight", {"b_proj": shared, "a_proj": shared}, G)
    for at in each(weights, "q_norm.weight"):
        cut(weights, at, "q_proj.weight", {"q_proj": d, "gate": d}, H)
        for norm in ("q_norm.weight", "k_norm.weight"):  # theirs is 1 + w
            weights[f"{at}{norm}"] = 1 + weights[f"{at}{norm}"]
    cut_convolution(weights, G * K, G * shared * V)
    without_correction(weights, "mlp", "gate")


HYBRID = Hybrid("qwen3_next", options, NAMES, prepare)
