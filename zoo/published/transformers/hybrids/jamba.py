"""Jamba."""

from typing import Any

from zoo.published.errors import PretrainedError
from zoo.published.transformers.configs import expect
from zoo.published.transformers.hybrids.base import (
    ATTENTION,
    Hybrid,
    Weights,
    experts,
    glu,
    names,
    without_correction,
)

NAMES = names(
    {
        "0.norm": "input_layernorm",
        **ATTENTION,
        "0.inner": "mamba",
        "1.norm": "pre_ff_layernorm",
        **glu("1.inner", "feed_forward"),
        **experts("feed_forward", "router"),
    },
    norm="final_layernorm",
)


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, rms_norm_eps=1e-6, mamba_conv_bias=True, mamba_proj_bias=False, hidden_act="silu")
    if config.num_experts < 2:
        raise PretrainedError(f"our jamba has no num_experts {config.num_experts}; only 2 and more")
    same = ("attn_layer_period", "attn_layer_offset", "expert_layer_period", "expert_layer_offset")
    return {
        **{name: getattr(config, name) for name in same},
        **{name: getattr(config, f"mamba_{name}") for name in ("d_state", "d_conv", "expand", "dt_rank")},
        "kv_heads": config.num_key_value_heads,
        "experts": config.num_experts,
        "top_k": config.num_experts_per_tok,
        "mlp_expand": config.intermediate_size / config.hidden_size,
    }


def prepare(config: Any, weights: Weights) -> None:
    without_correction(weights, "feed_forward", "router")


HYBRID = Hybrid("jamba", options, NAMES, prepare)
