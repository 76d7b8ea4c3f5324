"""Kimi Linear: one matrix for the latent and the key that all heads share, no bias of output gates."""

from typing import Any

from zoo.published.transformers.configs import expect
from zoo.published.transformers.hybrids.base import (
    Hybrid,
    Weights,
    cut,
    cut_convolution,
    each,
    experts,
    glu,
    names,
)

NAMES = names(
    {
        "0.norm": "input_layernorm",
        "0.inner.dt_bias": "self_attn.forget_gate.dt_bias",
        "0.inner.f_proj.0": "self_attn.forget_gate.f_a_proj",
        "0.inner.f_proj.1": "self_attn.forget_gate.f_b_proj",
        "0.inner.g_proj.0": "self_attn.g_a_proj",
        "0.inner.g_proj.1": "self_attn.g_b_proj",
        **{f"0.inner.q_proj.{i}": f"self_attn.q_{name}" for i, name in enumerate(("a_proj", "a_layernorm", "b_proj"))},
        "0.inner.kv_proj.1": "self_attn.kv_a_layernorm",
        "0.inner.kv_proj.2": "self_attn.kv_b_proj",
        "0.inner": "self_attn",
        "1.norm": "post_attention_layernorm",
        **glu("1.inner", "mlp"),
        **experts("mlp", "gate", "shared_experts"),
        "1.inner.bias": "mlp.gate.e_score_correction_bias",
    }
)


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, attention_bias=False, n_group=1, rms_norm_eps=1e-5, hidden_act="silu")
    ranks = ("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    return {
        **{name: getattr(config, name) for name in (*ranks, "layer_types", "mlp_layer_types")},
        "delta_heads": config.linear_num_heads,
        "delta_head_dim": config.linear_head_dim,
        "conv_size": config.linear_conv_kernel_dim,
        "experts": config.num_local_experts,
        "top_k": config.num_experts_per_tok,
        "shared": config.n_shared_experts,
        "expert_expand": config.moe_intermediate_size / config.hidden_size,
        "normalise": config.norm_topk_prob,
        "scale": float(config.routed_scaling_factor),
        "mlp_expand": config.intermediate_size / config.hidden_size,
    }


def prepare(config: Any, weights: Weights) -> None:
    inner = config.linear_num_heads * config.linear_head_dim
    for at in each(weights, "forget_gate.A_log"):
        weights[f"{at}A_log"] = weights[f"{at}forget_gate.A_log"].flatten()
        weights[f"{at}g_b_proj.bias"] = weights[f"{at}g_b_proj.weight"].new_zeros(inner)
    for at in each(weights, "kv_a_proj_with_mqa.weight"):
        parts = {"kv_proj.0": config.kv_lora_rank, "k_rope": config.qk_rope_head_dim}
        cut(weights, at, "kv_a_proj_with_mqa.weight", parts)
    cut_convolution(weights, inner, inner)


HYBRID = Hybrid("kimi_linear", options, NAMES, prepare)
