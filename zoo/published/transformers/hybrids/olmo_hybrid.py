"""OLMo Hybrid: in layers of attention norms stand behind."""

from typing import Any

from zoo.published.transformers.configs import expect, mlp, rope
from zoo.published.transformers.hybrids.base import (
    ATTENTION,
    Hybrid,
    Weights,
    cut_convolution,
    delta,
    each,
    glu,
    names,
)

NAMES = names(
    {
        "0.norm": "input_layernorm",
        **ATTENTION,
        **{f"0.inner.{part}": f"self_attn.{part}" for part in ("q_norm", "k_norm")},
        "0.inner": "linear_attn",
        "1.norm": "post_attention_layernorm",
        **glu("1.inner", "mlp"),
    }
)


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, attention_bias=False, rms_norm_eps=1e-6)
    return {
        "kv_heads": config.num_key_value_heads,
        **delta(config),
        "allow_neg_eigval": config.linear_allow_neg_eigval,
        "layer_types": config.layer_types,
        "channel": {"glu": mlp(config, config.intermediate_size, "hidden_act")},
        "positions": rope(config) if (config.rope_parameters or {}).get("rope_theta") else "none",
    }


def prepare(config: Any, weights: Weights) -> None:
    for at in each(weights, "post_feedforward_layernorm.weight"):  # in layers of attention norms stand behind
        weights[f"{at}input_layernorm.weight"] = weights[f"{at}post_attention_layernorm.weight"]
        weights[f"{at}post_attention_layernorm.weight"] = weights[f"{at}post_feedforward_layernorm.weight"]
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    cut_convolution(weights, keys * config.linear_key_head_dim, values * config.linear_value_head_dim)


HYBRID = Hybrid("olmo_hybrid", options, NAMES, prepare)
