"""RecurrentGemma, our Griffin: the embedding's factor √D becomes one of its table."""

from typing import Any

import torch

from zoo.published.transformers.configs import expect, mlp, rope
from zoo.published.transformers.hybrids.base import Hybrid, Weights, glu, names, scale

NAMES = names(
    {
        "0.norm": "temporal_pre_norm",
        "0.inner.out_proj": "temporal_block.o_proj",
        "0.inner": "temporal_block",
        "1.norm": "channel_pre_norm",
        **glu("1.inner", "mlp_block"),
    },
    norm="final_norm",
)


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, attention_bias=False, num_key_value_heads=1, rms_norm_eps=1e-6, logits_soft_cap=30.0)
    expect(config, block_types=["recurrent", "recurrent", "attention"])
    return {
        "window": config.attention_window_size,
        "lru_width": config.lru_width,
        "d_conv": config.conv1d_width,
        "cap_logits": True,
        "channel": {"glu": {**mlp(config, config.intermediate_size // 2, "hidden_activation"), "bias": True}},
        "positions": rope(config),
        "tie": False,  # the table is scaled, the head is not
    }


def prepare(config: Any, weights: Weights) -> None:
    """The embedding's factor √D, rounded as there, becomes one of its table."""
    scale(weights, {"embed_tokens.weight": float(torch.tensor(config.hidden_size**0.5, dtype=torch.bfloat16))})


HYBRID = Hybrid("griffin", options, NAMES, prepare)
