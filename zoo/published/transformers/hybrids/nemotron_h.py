"""Nemotron-H: a layer of theirs is a sublayer of ours."""

from typing import Any

from zoo.published.mamba import expansion, limit
from zoo.published.transformers.configs import expect
from zoo.published.transformers.hybrids.base import Hybrid, names

NAMES = names(
    {
        "0.norm": "norm",
        "0.inner.qkv": "mixer.qkv",
        "0.inner.out": "mixer.o_proj",
        "0.inner.up": "mixer.up_proj",
        "0.inner.down": "mixer.down_proj",
        "0.inner": "mixer",
    },
    table="embeddings",
    norm="norm_f",
)


def options(config: Any) -> dict[str, Any]:
    """See `Hybrid.options`."""
    expect(config, mlp_bias=False, use_bias=False, use_conv_bias=True, layer_norm_epsilon=1e-5)
    expect(config, mlp_hidden_act="relu2", mamba_hidden_act="silu")
    inner = config.mamba_num_heads * config.mamba_head_dim
    return {
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "d_state": config.ssm_state_size,
        "d_conv": config.conv_kernel,
        "expand": expansion(inner, config.hidden_size),
        "headdim": config.mamba_head_dim,
        "ngroups": config.n_groups,
        **limit(config.time_step_limit),
        "mlp_expand": config.intermediate_size / config.hidden_size,
        "layer_types": config.layer_types,
        "depth": sum(kind != "mlp" for kind in config.layer_types),
    }


HYBRID = Hybrid("nemotron_h", options, NAMES, sublayers=1)
