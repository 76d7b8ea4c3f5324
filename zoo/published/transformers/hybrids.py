"""Hybrids that both the zoo and transformers have: their configs, and their weights under our names.

Some weights are kept otherwise there: one matrix for what are several of ours, or a factor of its own beside a matrix.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from zoo.contract import Model
from zoo.published.errors import PretrainedError
from zoo.published.mamba import expansion, limit
from zoo.published.names import Pair, renamed, to_ours
from zoo.published.transformers.configs import expect, mlp, rope

Weights: TypeAlias = dict[str, Tensor]


def _unchanged(config: Any, weights: Weights) -> None:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """How to read one family of transformers."""

    architecture: str
    options: Callable[[Any], dict[str, Any]]
    """Ours, by a config. Raises PretrainedError for what our modules lack."""
    names: Mapping[str, str]
    """Prefixes of our names and of theirs; see `renamed`."""
    prepare: Callable[[Any, Weights], None] = _unchanged
    """Adds to their weights those that our modules have and theirs keep otherwise."""
    sublayers: int = 2
    """Of ours in a layer of theirs."""

    def weights(self, model: Model, config: Any, theirs: Mapping[str, Tensor], where: str) -> Weights:
        """Their weights under the names of our model."""
        prepared = dict(theirs)
        self.prepare(config, prepared)
        pairs = []
        for ours, name in renamed(model, self.names, sublayers=self.sublayers).items():
            parts = [name.replace(".qkv.", f".{part}_proj.") for part in "qkv"] if ".qkv." in name else [name]
            pairs.append(Pair(ours, tuple(parts)))
        return to_ours(pairs, prepared, where)


def _names(
    block: Mapping[str, str], *, table: str = "embed_tokens", norm: str = "norm", layer: str = "model.layers.{}"
) -> dict[str, str]:
    """The prefixes of a model, of those in a block. `norm` is the last."""
    outside = {"embedding.table": f"model.{table}", "backbone.norm": f"model.{norm}", "head": "lm_head"}
    return {**outside, **{ours: f"{layer}.{theirs}" for ours, theirs in block.items()}}


def _glu(ours: str, theirs: str) -> dict[str, str]:
    """The three matrices of a gated MLP, and their biases."""
    kinds, parts = ("weight", "bias"), ("gate", "up", "down")
    return {f"{ours}.{part}.{kind}": f"{theirs}.{part}_proj.{kind}" for part in parts for kind in kinds}


def _experts(theirs: str, router: str, shared: str = "") -> dict[str, str]:
    """A mixture of experts, some of which may be shared."""
    mixture = {"gate_up": "experts.gate_up_proj", "down": "experts.down_proj", "router": router, "bias": "bias"}
    together = _glu("1.inner.shared", f"{theirs}.{shared}") if shared else {}
    return {**{f"1.inner.{ours}": f"{theirs}.{name}" for ours, name in mixture.items()}, **together}


ATTENTION = {"0.inner.qkv": "self_attn.qkv", "0.inner.out": "self_attn.o_proj"}
QWEN3_NEXT = _names(
    {
        "0.norm": "input_layernorm",
        **ATTENTION,
        **{f"0.inner.{part}": f"self_attn.{part}" for part in ("gate", "q_norm", "k_norm")},
        "0.inner.o_norm": "linear_attn.norm",
        "0.inner.o_proj": "linear_attn.out_proj",
        "0.inner": "linear_attn",
        "1.norm": "post_attention_layernorm",
        **_experts("mlp", "gate", "shared_expert"),
        "1.inner.shared_gate": "mlp.shared_expert_gate",
    }
)
KIMI_LINEAR = _names(
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
        **_glu("1.inner", "mlp"),
        **_experts("mlp", "gate", "shared_experts"),
        "1.inner.bias": "mlp.gate.e_score_correction_bias",
    }
)
MINIMAX = {
    "embedding.norm": "model.layers.0.input_layernorm",
    **_names(
        {
            "0.norm": "post_attention_layernorm",
            **ATTENTION,
            "0.inner": "self_attn",
            "1.norm": "next_layernorm",
            **_experts("mlp", "gate"),
        }
    ),
}
JAMBA = _names(
    {
        "0.norm": "input_layernorm",
        **ATTENTION,
        "0.inner": "mamba",
        "1.norm": "pre_ff_layernorm",
        **_glu("1.inner", "feed_forward"),
        **_experts("feed_forward", "router"),
    },
    norm="final_layernorm",
)
NEMOTRON_H = _names(
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
FALCON_H1 = _names(
    {
        "0.norm": "input_layernorm",
        "0.inner.parts.0.qkv": "self_attn.qkv",
        "0.inner.parts.0.out": "self_attn.o_proj",
        "0.inner.parts.1": "mamba",
        "1.norm": "pre_ff_layernorm",
        **_glu("1.inner", "feed_forward"),
    },
    norm="final_layernorm",
)
OLMO_HYBRID = _names(
    {
        "0.norm": "input_layernorm",
        **ATTENTION,
        **{f"0.inner.{part}": f"self_attn.{part}" for part in ("q_norm", "k_norm")},
        "0.inner": "linear_attn",
        "1.norm": "post_attention_layernorm",
        **_glu("1.inner", "mlp"),
    }
)

RECURRENT_GEMMA = _names(
    {
        "0.norm": "temporal_pre_norm",
        "0.inner.out_proj": "temporal_block.o_proj",
        "0.inner": "temporal_block",
        "1.norm": "channel_pre_norm",
        **_glu("1.inner", "mlp_block"),
    },
    norm="final_norm",
)


def _each(weights: Weights, name: str) -> Iterator[str]:
    """What stands before `name` in the names that end so."""
    return iter([key.removesuffix(name) for key in weights if f".{key}".endswith(f".{name}")])


def _cut(weights: Weights, at: str, name: str, parts: Mapping[str, int], groups: int = 1) -> None:
    """The rows of a matrix as several matrices, of so many rows in each of `groups`, one behind the other."""
    cut = weights[f"{at}{name}"].unflatten(0, (groups, -1)).split(list(parts.values()), dim=1)
    for part, rows in zip(parts, cut, strict=True):
        weights[f"{at}{part}.weight"] = rows.flatten(0, 1)


def _cut_convolution(weights: Weights, keys: int, values: int) -> None:
    for at in _each(weights, "conv1d.weight"):
        _cut(weights, at, "conv1d.weight", {"q_conv1d": keys, "k_conv1d": keys, "v_conv1d": values})


def _without_correction(weights: Weights, channel: str, router: str) -> None:
    """What balances our experts, and theirs lack, is 0."""
    for at in _each(weights, f"{channel}.{router}.weight"):
        rows = weights[f"{at}{channel}.{router}.weight"]
        weights[f"{at}{channel}.bias"] = rows.new_zeros(len(rows))


def _prepare_qwen3_next(config: Any, weights: Weights) -> None:
    G, K, V = config.linear_num_key_heads, config.linear_key_head_dim, config.linear_value_head_dim
    H, d, shared = config.num_attention_heads, config.head_dim, config.linear_num_value_heads // G
    for at in _each(weights, "in_proj_qkvz.weight"):
        values = shared * V
        _cut(weights, at, "in_proj_qkvz.weight", {"q_proj": K, "k_proj": K, "v_proj": values, "g_proj": values}, G)
        _cut(weights, at, "in_proj_ba.weight", {"b_proj": shared, "a_proj": shared}, G)
    for at in _each(weights, "q_norm.weight"):
        _cut(weights, at, "q_proj.weight", {"q_proj": d, "gate": d}, H)
        for norm in ("q_norm.weight", "k_norm.weight"):  # theirs is 1 + w
            weights[f"{at}{norm}"] = 1 + weights[f"{at}{norm}"]
    _cut_convolution(weights, G * K, G * shared * V)
    _without_correction(weights, "mlp", "gate")


def _prepare_kimi_linear(config: Any, weights: Weights) -> None:
    inner = config.linear_num_heads * config.linear_head_dim
    for at in _each(weights, "forget_gate.A_log"):
        weights[f"{at}A_log"] = weights[f"{at}forget_gate.A_log"].flatten()
        weights[f"{at}g_b_proj.bias"] = weights[f"{at}g_b_proj.weight"].new_zeros(inner)
    for at in _each(weights, "kv_a_proj_with_mqa.weight"):
        parts = {"kv_proj.0": config.kv_lora_rank, "k_rope": config.qk_rope_head_dim}
        _cut(weights, at, "kv_a_proj_with_mqa.weight", parts)
    _cut_convolution(weights, inner, inner)


def _prepare_minimax(config: Any, weights: Weights) -> None:
    names = {
        "o_proj.weight": config.full_attn_beta_factor,
        "out_proj.weight": config.linear_attn_beta_factor,
        "experts.down_proj": config.mlp_beta_factor,
    }
    _scale(weights, names)
    after = [f"model.layers.{i}.input_layernorm.weight" for i in range(1, config.num_hidden_layers)]
    for i, norm in enumerate([*after, "model.norm.weight"]):  # one norm stands behind each layer, one before all
        weights[f"model.layers.{i}.next_layernorm.weight"] = weights[norm]
    _without_correction(weights, "mlp", "gate")


def _prepare_jamba(config: Any, weights: Weights) -> None:
    _without_correction(weights, "feed_forward", "router")


def _prepare_falcon_h1(config: Any, weights: Weights) -> None:
    """Multipliers become factors of the weights."""
    inward, gate, down = config.attention_in_multiplier, *config.mlp_multipliers
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
    _scale(weights, factors)


def _prepare_olmo_hybrid(config: Any, weights: Weights) -> None:
    for at in _each(weights, "post_feedforward_layernorm.weight"):  # in layers of attention norms stand behind
        weights[f"{at}input_layernorm.weight"] = weights[f"{at}post_attention_layernorm.weight"]
        weights[f"{at}post_attention_layernorm.weight"] = weights[f"{at}post_feedforward_layernorm.weight"]
    keys, values = config.linear_num_key_heads, config.linear_num_value_heads
    _cut_convolution(weights, keys * config.linear_key_head_dim, values * config.linear_value_head_dim)


def _prepare_recurrent_gemma(config: Any, weights: Weights) -> None:
    """The embedding's factor √D, rounded as there, becomes one of its table."""
    _scale(weights, {"embed_tokens.weight": float(torch.tensor(config.hidden_size**0.5, dtype=torch.bfloat16))})


def _scale(weights: Weights, factors: Mapping[str, float | Tensor]) -> None:
    """Multiply the tensors whose names end so."""
    for name, factor in factors.items():
        for at in _each(weights, name):
            weights[f"{at}{name}"] = factor * weights[f"{at}{name}"]


def _qwen3_next(config: Any) -> dict[str, Any]:
    _expect(config, attention_bias=False, decoder_sparse_step=1, mlp_only_layers=[], rms_norm_eps=1e-6)
    shared, rest = divmod(config.shared_expert_intermediate_size, config.moe_intermediate_size)
    if rest or not shared:
        raise PretrainedError(
            f"our qwen3_next has no shared_expert_intermediate_size {config.shared_expert_intermediate_size}; only "
            f"multiples of moe_intermediate_size {config.moe_intermediate_size}"
        )
    return {
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        **_delta(config),
        "layer_types": config.layer_types,
        "channel": {"moe": _mixture(config, config.num_experts, shared=shared, shared_gate=True)},
        "positions": rope(config),
    }


def _kimi_linear(config: Any) -> dict[str, Any]:
    _expect(config, attention_bias=False, n_group=1, rms_norm_eps=1e-5, hidden_act="silu")
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


def _minimax(config: Any) -> dict[str, Any]:
    _expect(config, rms_norm_eps=1e-5, sliding_window=None)
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
        "channel": {"moe": _mixture(config, config.num_local_experts, width=config.intermediate_size, shared=0)},
        "positions": {"rope": {**rope(config)["rope"], "fraction": 1.0}},  # whatever the config says
    }


def _jamba(config: Any) -> dict[str, Any]:
    _expect(config, rms_norm_eps=1e-6, mamba_conv_bias=True, mamba_proj_bias=False, hidden_act="silu")
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


def _nemotron_h(config: Any) -> dict[str, Any]:
    _expect(config, mlp_bias=False, use_bias=False, use_conv_bias=True, layer_norm_epsilon=1e-5)
    _expect(config, mlp_hidden_act="relu2", mamba_hidden_act="silu")
    inner = config.mamba_num_heads * config.mamba_head_dim
    return {
        "kv_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "d_state": config.ssm_state_size,
        "d_conv": config.conv_kernel,
        "expand": expansion(inner, config.hidden_size),
        "headdim": config.mamba_head_dim,
        "ngroups": config.n_groups,
        **limit((config.time_step_min, math.inf)),  # of time_step_limit it makes no use
        "mlp_expand": config.intermediate_size / config.hidden_size,
        "layer_types": config.layer_types,
        "depth": sum(kind != "mlp" for kind in config.layer_types),
    }


def _falcon_h1(config: Any) -> dict[str, Any]:
    _expect(config, attention_bias=False, mlp_bias=False, projectors_bias=False, mamba_proj_bias=False)
    _expect(config, mamba_conv_bias=True, rms_norm_eps=1e-5, hidden_act="silu")
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


def _falcon_channels(config: Any) -> int:
    return config.mamba_n_heads * config.mamba_d_head


def _olmo_hybrid(config: Any) -> dict[str, Any]:
    _expect(config, attention_bias=False, rms_norm_eps=1e-6)
    return {
        "kv_heads": config.num_key_value_heads,
        **_delta(config),
        "allow_neg_eigval": config.linear_allow_neg_eigval,
        "layer_types": config.layer_types,
        "channel": {"glu": mlp(config, config.intermediate_size, "hidden_act")},
        "positions": rope(config) if (config.rope_parameters or {}).get("rope_theta") else "none",
    }


def _recurrent_gemma(config: Any) -> dict[str, Any]:
    _expect(config, attention_bias=False, num_key_value_heads=1, rms_norm_eps=1e-6, logits_soft_cap=30.0)
    _expect(config, block_types=["recurrent", "recurrent", "attention"])
    return {
        "window": config.attention_window_size,
        "lru_width": config.lru_width,
        "d_conv": config.conv1d_width,
        "cap_logits": True,
        "channel": {"glu": {**mlp(config, config.intermediate_size // 2, "hidden_activation"), "bias": True}},
        "positions": rope(config),
        "tie": False,  # the table is scaled, the head is not
    }


def _delta(config: Any) -> dict[str, Any]:
    """Heads and sizes of Gated DeltaNet."""
    return {
        "delta_heads": config.linear_num_key_heads,
        "delta_value_heads": config.linear_num_value_heads,
        "delta_head_dim": config.linear_key_head_dim,
        "expand_v": config.linear_value_head_dim / config.linear_key_head_dim,
        "conv_size": config.linear_conv_kernel_dim,
    }


def _mixture(config: Any, experts: int, *, width: int | None = None, **more: Any) -> dict[str, Any]:
    """A mixture of SwiGLUs weighed by a softmax."""
    _expect(config, hidden_act="silu")
    return {
        "experts": experts,
        "top_k": config.num_experts_per_tok,
        "expand": (width or config.moe_intermediate_size) / config.hidden_size,
        "score": "softmax",
        "normalise": getattr(config, "norm_topk_prob", True),
        **more,
    }


def _expect(config: Any, **expected: Any) -> None:
    for name, value in expected.items():
        expect(config, name, value)


HYBRIDS: Mapping[str, Hybrid] = {
    "qwen3_next": Hybrid("qwen3_next", _qwen3_next, QWEN3_NEXT, _prepare_qwen3_next),
    "kimi_linear": Hybrid("kimi_linear", _kimi_linear, KIMI_LINEAR, _prepare_kimi_linear),
    "minimax": Hybrid("minimax", _minimax, MINIMAX, _prepare_minimax),
    "jamba": Hybrid("jamba", _jamba, JAMBA, _prepare_jamba),
    "nemotron_h": Hybrid("nemotron_h", _nemotron_h, NEMOTRON_H, sublayers=1),
    "falcon_h1": Hybrid("falcon_h1", _falcon_h1, FALCON_H1, _prepare_falcon_h1),
    "olmo_hybrid": Hybrid("olmo_hybrid", _olmo_hybrid, OLMO_HYBRID, _prepare_olmo_hybrid),
    "recurrent_gemma": Hybrid("griffin", _recurrent_gemma, RECURRENT_GEMMA, _prepare_recurrent_gemma),
}
"""By their model_type."""
