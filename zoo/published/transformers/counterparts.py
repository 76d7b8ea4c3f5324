"""Language models that both the zoo and transformers have: their configs and tensor names in transformers.

A counterpart gives the same logits from the same weights. An option that one side lacks is refused by its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.contract import Model
from zoo.published import mamba, rwkv
from zoo.published.errors import PretrainedError
from zoo.published.names import Pair, renamed, to_ours
from zoo.published.transformers.configs import ACTIVATIONS, LAYER_NORMS, RMS_NORMS, expect, mlp, norm, rope
from zoo.published.transformers.hybrids import HYBRIDS
from zoo.types import Part, Shape

LENGTH = 2048
"""The longest sequence of a model whose config does not state it, as in lm-eval."""
GPT2 = {
    "embedding.table": "transformer.wte",
    "embedding.positions.table": "transformer.wpe.weight",
    "0.norm": "transformer.h.{}.ln_1",
    "0.inner.qkv": "transformer.h.{}.attn.c_attn",
    "0.inner.out": "transformer.h.{}.attn.c_proj",
    "1.norm": "transformer.h.{}.ln_2",
    "1.inner.up": "transformer.h.{}.mlp.c_fc",
    "1.inner.down": "transformer.h.{}.mlp.c_proj",
    "backbone.norm": "transformer.ln_f",
    "head": "lm_head",
}
LLAMA = {
    "embedding.table": "model.embed_tokens",
    "0.norm": "model.layers.{}.input_layernorm",
    "0.inner.qkv": "model.layers.{}.self_attn.qkv_proj",
    "0.inner.out": "model.layers.{}.self_attn.o_proj",
    "1.norm": "model.layers.{}.post_attention_layernorm",
    **{f"1.inner.{part}": f"model.layers.{{}}.mlp.{part}_proj" for part in ("gate", "up", "down")},
    "backbone.norm": "model.norm",
    "head": "lm_head",
}
"""Prefixes of our names, and of transformers'; see `renamed`."""
RWKV4 = (
    ("emb.", "embeddings."),
    (".ln0.", ".pre_ln."),
    (".att.", ".attention."),
    (".ffn.", ".feed_forward."),
    ("time_mix_k", "time_mix_key"),
    ("time_mix_v", "time_mix_value"),
    ("time_mix_r", "time_mix_receptance"),
)
"""Parts of RWKV-4's official names, and of transformers' instead."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """The equivalent in transformers of one of our architectures."""

    config: Callable[[Model], dict[str, Any]]
    """Makes the fields of their config, `model_type` included. Raises PretrainedError for what it cannot express."""
    pairs: Callable[[Model], list[Pair]]
    """Maps our tensors to theirs. A tied head and table are one tensor."""


def of(model: Model) -> Counterpart:
    """The counterpart of a model."""
    if not model.built:
        raise PretrainedError(f"{type(model).__name__} was not made by zoo.build: transformers has none like it")
    name = model.built["architecture"]
    if model.role != "lm":
        raise PretrainedError(f"only language models (role lm) can become a transformers folder; this is {model.role}")
    if name not in COUNTERPARTS:
        raise PretrainedError(f"transformers has no {name}; of the zoo it has {', '.join(sorted(COUNTERPARTS))}")
    if model.shape.vocab != model.shape.outputs:
        raise PretrainedError(
            f"transformers has one vocabulary; this model reads {model.shape.vocab} tokens and tells "
            f"{model.shape.outputs} apart"
        )
    return COUNTERPARTS[name]


def build_arguments(config: Any) -> tuple[str, Shape, dict[str, Any]]:
    """Architecture, shape and options for `zoo.build`, by a config of transformers."""
    readers: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
        "gpt2": ("gpt2", _gpt2_options),
        "llama": ("transformer_pp", _llama_options),
    }
    readers |= {family: (hybrid.architecture, hybrid.options) for family, hybrid in HYBRIDS.items()}
    if config.model_type not in readers:
        *most, last = readers
        raise PretrainedError(
            f"through=zoo opens {', '.join(most)} and {last}, not {config.model_type}; through=transformers opens any"
        )
    architecture, read = readers[config.model_type]
    common = {"heads": config.num_attention_heads, "tie": config.tie_word_embeddings}
    options = common | read(config)
    vocab, depth = config.vocab_size, options.pop("depth", config.num_hidden_layers)
    length = getattr(config, "max_position_embeddings", None) or max(LENGTH, options.get("window", 1))
    shape = Shape(length, vocab, vocab=vocab, width=config.hidden_size, depth=depth)
    return architecture, shape, options


def our_weights(model: Model, inner: Any, where: str) -> dict[str, Tensor]:
    """The weights of a model of transformers under the names of ours, which `build_arguments` told how to build."""
    weights = inner.state_dict()
    if hybrid := HYBRIDS.get(inner.config.model_type):
        return hybrid.weights(model, inner.config, weights, where)
    ours = to_ours(of(model).pairs(model), weights, where)
    if model.recipe.tie:
        ours["head.weight"] = ours["embedding.table.weight"]
    return ours


def gpt2_pairs(model: Model) -> list[Pair]:
    """The tensors of `pre_ln` or `gpt2` and of GPT2LMHeadModel, whose linear layers are (in, out)."""
    names = _untied(model, renamed(model, GPT2)).items()
    return [Pair(ours, (theirs,), ".inner." in ours and ours.endswith(".weight")) for ours, theirs in names]


def llama_pairs(model: Model) -> list[Pair]:
    """The tensors of `transformer_pp` and of LlamaForCausalLM, which keeps queries, keys and values apart."""
    pairs = []
    for ours, theirs in _untied(model, renamed(model, LLAMA)).items():
        parts = [theirs.replace(".qkv_", f".{part}_") for part in "qkv"] if ".qkv_" in theirs else [theirs]
        pairs.append(Pair(ours, tuple(parts)))
    return pairs


def rwkv4_pairs(model: Model) -> list[Pair]:
    """The tensors of `rwkv4` and of RwkvForCausalLM, which renames some of the official ones."""
    pairs = []
    for ours, name in _untied(model, rwkv.official_names(model)).items():
        for official, theirs in RWKV4:
            name = name.replace(official, theirs)
        pairs.append(Pair(ours, (name if ours == "head.weight" else f"rwkv.{name}",)))
    return pairs


def _untied(model: Model, names: dict[str, str]) -> dict[str, str]:
    """The names without that of a head which is the table."""
    return {ours: theirs for ours, theirs in names.items() if not (model.recipe.tie and ours == "head.weight")}


def _gpt2_config(model: Model) -> dict[str, Any]:
    recipe, shape = model.recipe, model.shape
    channel, _ = _require("GPT-2", model, channel="mlp", positions="learned", norms=LAYER_NORMS)
    _refuse_later_options("GPT-2", model)
    if not channel.get("bias", True):
        raise PretrainedError("transformers' GPT-2 has no channel mlp without biases")
    return {
        "model_type": "gpt2",
        "n_positions": shape.length,
        "n_head": _mixers(model)[0].heads,
        "n_inner": _mixers(model)[1].up.out_features,
        "activation_function": _activation(channel.get("activation", "gelu")),
        "layer_norm_epsilon": LAYER_NORMS[recipe.norm],
        **dict.fromkeys(("resid_pdrop", "embd_pdrop"), recipe.dropout),
        "attn_pdrop": 0.0,
    }


def _llama_config(model: Model) -> dict[str, Any]:
    recipe, shape = model.recipe, model.shape
    channel, turning = _require("Llama", model, channel="glu", positions="rope", norms=RMS_NORMS)
    _refuse_later_options("Llama", model)
    if turning.get("convention", "half") != "half" or turning.get("fraction", 1.0) != 1.0:
        raise PretrainedError("transformers' Llama has no rope with a convention or fraction other than half and 1")
    attention = _mixers(model)[0]
    return {
        "model_type": "llama",
        "intermediate_size": _mixers(model)[1].up.out_features,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "max_position_embeddings": shape.length,
        "hidden_act": _activation(channel.get("activation", "silu")),
        "attention_bias": attention.qkv.bias is not None,
        "mlp_bias": channel.get("bias", False),
        "rms_norm_eps": RMS_NORMS[recipe.norm],
        "rope_theta": float(turning.get("base", 10000.0)),
    }


def _rwkv4_config(model: Model) -> dict[str, Any]:
    _require("RWKV", model, channel="rwkv4", positions="none", norms={"layer": 1e-5})
    return {
        "model_type": "rwkv",
        "context_length": model.shape.length,
        "intermediate_size": _mixers(model)[1].key.out_features,
        "rescale_every": 0,
    }


def _mamba_config(model: Model) -> dict[str, Any]:
    family, width, layer = str(model.built["architecture"]), model.shape.width, _mixers(model)[0]
    eps = {norm: eps for (name, eps), norm in mamba.NORMS.items() if name == family}
    _require(family, model, channel="none", positions="none", norms=eps)
    inner = layer.out_proj.in_features
    if inner % width:
        raise PretrainedError(f"transformers' {family} has a whole multiple of the width inside, not {inner}")
    return {
        "model_type": family,
        "expand": inner // width,
        "conv_kernel": layer.conv1d.kernel_size[0],
        "use_bias": layer.in_proj.bias is not None,
        "use_conv_bias": layer.conv1d.bias is not None,
        "hidden_act": "silu",
        "layer_norm_epsilon": eps[model.recipe.norm],
        **(_mamba2_heads(layer) if family == "mamba2" else {"time_step_rank": layer.dt_rank}),
        "state_size": layer.d_state if family == "mamba2" else layer.A_log.shape[1],
    }


def _mamba2_heads(layer: Any) -> dict[str, Any]:
    H, norm = len(layer.A_log), layer.norm
    problem = (
        "D_has_hdim" if len(layer.D) != H else
        "rmsnorm=False" if norm is None else
        "norm_before_gate" if norm.before_gate else
        "norm_groups other than ngroups" if norm.groups != layer.ngroups else
        "channels beside the state space" if H * layer.headdim != layer.out_proj.in_features else None
    )  # fmt: skip
    if problem:
        raise PretrainedError(f"transformers' mamba2 has no {problem}")
    return {
        "num_heads": H,
        "head_dim": layer.headdim,
        "n_groups": layer.ngroups,
        **({"time_step_limit": list(layer.dt_limit)} if layer.dt_limit else {}),
    }


COUNTERPARTS: Mapping[str, Counterpart] = {
    "gpt2": Counterpart(_gpt2_config, gpt2_pairs),
    "pre_ln": Counterpart(_gpt2_config, gpt2_pairs),
    "transformer_pp": Counterpart(_llama_config, llama_pairs),
    "rwkv4": Counterpart(_rwkv4_config, rwkv4_pairs),
    "mamba": Counterpart(_mamba_config, mamba.transformers_pairs),
    "mamba2": Counterpart(_mamba_config, mamba.transformers_pairs),
}
"""By the names of our architectures."""


def _require(
    family: str, model: Model, *, channel: str, positions: str, norms: Mapping[str, float]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check that a recipe is one that `family` can express; returns the options of its channel and of its positions."""
    recipe = model.recipe
    own_positions = recipe.positions if isinstance(recipe.positions, Part) else Part(recipe.positions)
    own_channel = recipe.channels[0] or Part("none")
    for option, value, allowed in (
        ("residual type", recipe.residual, ("pre",)),
        ("norm", recipe.norm, tuple(norms)),
        ("channel", own_channel.name, (channel,)),
        ("positions", own_positions.name, (positions,)),
    ):
        if value not in allowed:
            raise PretrainedError(f"transformers' {family} has no {option} {value}; only {' or '.join(allowed)}")
    return own_channel.options, own_positions.options


def _refuse_later_options(family: str, model: Model) -> None:
    """Refuse what attention of later models has."""
    attention = model.recipe.mixers[0].options
    for option in ("head_dim", "qk_norm", "gate", "sinks"):
        if attention.get(option):
            raise PretrainedError(f"transformers' {family} has no {option}")


def _mixers(model: Model) -> list[Any]:
    """The mixers and channel mixers, in order."""
    sublayers: Any = model.backbone.get_submodule("sublayers")
    return [sublayer.inner for sublayer in sublayers]


def _activation(activation: str) -> str:
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == activation)


def _gpt2_options(config: Any) -> dict[str, Any]:
    expect(config, scale_attn_weights=True)
    expect(config, scale_attn_by_inverse_layer_idx=False)
    expect(config, add_cross_attention=False)
    return {
        "norm": norm(LAYER_NORMS, config, "layer_norm_epsilon"),
        "channel": {"mlp": mlp(config, config.n_inner or 4 * config.n_embd, "activation_function")},
    }


def _llama_options(config: Any) -> dict[str, Any]:
    expect(config, head_dim=config.hidden_size // config.num_attention_heads)
    channel = mlp(config, config.intermediate_size, "hidden_act")
    return {
        "kv_heads": config.num_key_value_heads,
        "bias": getattr(config, "attention_bias", False),
        "norm": norm(RMS_NORMS, config, "rms_norm_eps"),
        "channel": {"glu": {**channel, "bias": config.mlp_bias}},
        "positions": rope(config),
    }
