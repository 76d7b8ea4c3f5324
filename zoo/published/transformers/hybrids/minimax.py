"""MiniMax-01: what norms the input of a layer is ours of the layer before; factors β of what a layer adds."""

import math
from typing import Any

from zoo.published.errors import PretrainedError
from zoo.published.transformers.configs import expect, rope
from zoo.published.transformers.hybrids.base import (
    ATTENTION,
    Hybrid,
    Weights,
    experts,
    mixture,
    names,
    scale,
    without_correction,
)

NAMES = {
    "embedding.norm": "model.layers.0.input_layernorm",
    **names(
        {
            "0.norm": "post_attention_layernorm",
            **ATTENTION,
            "0.inner": "self_attn",
            "1.norm": "next_layernorm",
            **experts("mlp", "gate"),
        }
    ),
}


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, rms_norm_eps=1e-5, sliding_window=None)
    alpha = (2 * config.num_hidden_layers) ** 0.25
    for name in ("full_attn_alpha_factor", "linear_attn_alpha_factor", "mlp_alpha_factor"):
        if not math.isclose(getattr(config, name), alpha, rel_tol=1e-6):
            raise PretrainedError(
                f"our minimax has no {name} {getattr(config, name)}; only (2 · num_hidden_layers)^¼, {alpha:.7g}"
            )
    return {
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim or config.hidden_size // config.num_attention_heads,
        "layer_types": config.layer_types,
        "channel": {"moe": mixture(config, config.num_local_experts, width=config.intermediate_size, shared=0)},
        "positions": {"rope": {**rope(config)["rope"], "fraction": 1.0}},  # whatever the config says
    }


def prepare(config: Any, weights: Weights) -> None:
    factors = {
        "o_proj.weight": config.full_attn_beta_factor,
        "out_proj.weight": config.linear_attn_beta_factor,
        "experts.down_proj": config.mlp_beta_factor,
    }
    scale(weights, factors)
    after = [f"model.layers.{i}.input_layernorm.weight" for i in range(1, config.num_hidden_layers)]
    for i, norm in enumerate([*after, "model.norm.weight"]):  # one norm stands behind each layer, one before all
        weights[f"model.layers.{i}.next_layernorm.weight"] = weights[norm]
    without_correction(weights, "mlp", "gate")


HYBRID = Hybrid("minimax", options, NAMES, prepare)
