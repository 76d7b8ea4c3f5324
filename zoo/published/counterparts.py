"""Language models that both the zoo and transformers have: their configs there, and what their tensors are called.

A counterpart gives the same logits from the same weights. What one side cannot express is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zoo.contract import Model
from zoo.published.errors import PretrainedError
from zoo.published.names import Same
from zoo.types import Part, Shape

LAYER_NORMS = {"layer": 1e-5, "layer_eps6": 1e-6, "layer_eps12": 1e-12}
RMS_NORMS = {"rms": 1e-6, "rms_eps5": 1e-5}
"""Our norms, and their ε."""
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "relu2": "relu2",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
}
"""Their activations, and ours."""
RWKV4 = (
    ("emb.", "embeddings."),
    (".ln0.", ".pre_ln."),
    (".att.", ".attention."),
    (".ffn.", ".feed_forward."),
    ("time_mix_k", "time_mix_key"),
    ("time_mix_v", "time_mix_value"),
    ("time_mix_r", "time_mix_receptance"),
)
"""What RWKV-4's official names have, and transformers' instead."""
Built = tuple[str, Shape, dict[str, Any]]
"""What `zoo.build` makes a language model of: architecture, shape and options."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """One architecture of ours in transformers."""

    config: Callable[[Model], dict[str, Any]]
    """What their config is made of, `model_type` included. Raises PretrainedError for what it cannot express."""
    pairs: Callable[[Model], list[Same]]
    """Our tensors, and theirs. A tensor that is two (a tied head) is named once."""


def of(model: Model) -> Counterpart:
    """The counterpart of a model.

    Raises:
        PretrainedError: `zoo.build` did not make it, it is no language model, or transformers has none like it.
    """
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


def built(config: Any) -> Built:
    """What `zoo.build` makes of a config of transformers.

    Raises:
        PretrainedError: no architecture of ours, or a setting that ours does not have.
    """
    readers = {"gpt2": _gpt2_built, "llama": _llama_built}
    if config.model_type not in readers:
        raise PretrainedError(
            f"through=zoo opens {' and '.join(readers)}, not {config.model_type}; through=transformers opens any"
        )
    return readers[config.model_type](config)


def gpt2_pairs(model: Model) -> list[Same]:
    """`pre_ln` or `gpt2`, and GPT2LMHeadModel, whose weights are (in, out)."""
    found = [
        Same("embedding.table.weight", "transformer.wte.weight"),
        Same("embedding.positions.table", "transformer.wpe.weight"),
    ]
    for layer in range(model.shape.depth or 0):
        for second, norm, parts in (
            (0, "ln_1", {"qkv": "attn.c_attn", "out": "attn.c_proj"}),
            (1, "ln_2", {"up": "mlp.c_fc", "down": "mlp.c_proj"}),
        ):
            ours, theirs = f"backbone.sublayers.{2 * layer + second}", f"transformer.h.{layer}"
            found += [Same(f"{ours}.norm.{kind}", f"{theirs}.{norm}.{kind}") for kind in ("weight", "bias")]
            for part, there in parts.items():
                found += [
                    Same(f"{ours}.inner.{part}.weight", f"{theirs}.{there}.weight", transposed=True),
                    Same(f"{ours}.inner.{part}.bias", f"{theirs}.{there}.bias"),
                ]
    found += [Same(f"backbone.norm.{kind}", f"transformer.ln_f.{kind}") for kind in ("weight", "bias")]
    return found + _head(model)


def llama_pairs(model: Model) -> list[Same]:
    """`transformer_pp` and LlamaForCausalLM."""
    found = [Same("embedding.table.weight", "model.embed_tokens.weight")]
    mlp = ["weight", *(["bias"] if _channel(model).options.get("bias") else [])]
    for layer in range(model.shape.depth or 0):
        a, m, theirs = *(f"backbone.sublayers.{2 * layer + i}" for i in (0, 1)), f"model.layers.{layer}"
        found += [
            Same(f"{a}.norm.weight", f"{theirs}.input_layernorm.weight"),
            Same(f"{a}.inner.qkv.weight", *(f"{theirs}.self_attn.{x}_proj.weight" for x in "qkv")),
            Same(f"{a}.inner.out.weight", f"{theirs}.self_attn.o_proj.weight"),
            Same(f"{m}.norm.weight", f"{theirs}.post_attention_layernorm.weight"),
        ]
        found += [
            Same(f"{m}.inner.{part}.{kind}", f"{theirs}.mlp.{part}_proj.{kind}")
            for part in ("gate", "up", "down")
            for kind in mlp
        ]
    return [*found, Same("backbone.norm.weight", "model.norm.weight"), *_head(model)]


def rwkv4_pairs(model: Model) -> list[Same]:
    """`rwkv4` and RwkvForCausalLM, which has the official names but for some."""
    from zoo.published.rwkv import official_names

    found = []
    for ours, name in official_names(model).items():
        for official, theirs in RWKV4:
            name = name.replace(official, theirs)
        found.append(Same(ours, name if ours == "head.weight" else f"rwkv.{name}"))
    return [pair for pair in found if not (model.recipe.tie and pair.ours == "head.weight")]


def _head(model: Model) -> list[Same]:
    return [] if model.recipe.tie else [Same("head.weight", "lm_head.weight")]


def _gpt2_config(model: Model) -> dict[str, Any]:
    recipe, shape, channel = model.recipe, model.shape, _channel(model)
    _refuse("GPT-2", model, channel="mlp", positions="learned", norms=LAYER_NORMS)
    if not channel.options.get("bias", True):
        raise PretrainedError("transformers' GPT-2 has no channel mlp without biases")
    return {
        "model_type": "gpt2",
        "n_positions": shape.length,
        "n_embd": shape.width,
        "n_layer": shape.depth,
        "n_head": _attention(model).heads,
        "n_inner": _hidden(model),
        "activation_function": _theirs(channel.options.get("activation", "gelu")),
        "layer_norm_epsilon": LAYER_NORMS[recipe.norm],
        **dict.fromkeys(("resid_pdrop", "embd_pdrop"), recipe.dropout),
        "attn_pdrop": 0.0,
    }


def _llama_config(model: Model) -> dict[str, Any]:
    recipe, shape, channel = model.recipe, model.shape, _channel(model)
    rope = _refuse("Llama", model, channel="glu", positions="rope", norms=RMS_NORMS)
    if rope.get("convention", "half") != "half" or rope.get("fraction", 1.0) != 1.0:
        raise PretrainedError("transformers' Llama has no rope with a convention or fraction other than half and 1")
    attention = _attention(model)
    return {
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": _hidden(model),
        "num_hidden_layers": shape.depth,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "max_position_embeddings": shape.length,
        "hidden_act": _theirs(channel.options.get("activation", "silu")),
        "mlp_bias": channel.options.get("bias", False),
        "rms_norm_eps": RMS_NORMS[recipe.norm],
        "rope_theta": float(rope.get("base", 10000.0)),
    }


def _rwkv4_config(model: Model) -> dict[str, Any]:
    _refuse("RWKV", model, channel="rwkv4", positions="none", norms={"layer": 1e-5})
    return {
        "model_type": "rwkv",
        "context_length": model.shape.length,
        "hidden_size": model.shape.width,
        "num_hidden_layers": model.shape.depth,
        "intermediate_size": _hidden(model, "key"),
        "rescale_every": 0,
    }


def _mamba_config(model: Model) -> dict[str, Any]:
    from zoo.published.mamba import transformers_config

    return transformers_config(model)


def _mamba_pairs(model: Model) -> list[Same]:
    from zoo.published.mamba import transformers_pairs

    return transformers_pairs(model)


COUNTERPARTS: Mapping[str, Counterpart] = {
    "gpt2": Counterpart(_gpt2_config, gpt2_pairs),
    "pre_ln": Counterpart(_gpt2_config, gpt2_pairs),
    "transformer_pp": Counterpart(_llama_config, llama_pairs),
    "rwkv4": Counterpart(_rwkv4_config, rwkv4_pairs),
    "mamba": Counterpart(_mamba_config, _mamba_pairs),
    "mamba2": Counterpart(_mamba_config, _mamba_pairs),
}
"""By the names of our architectures."""


def _refuse(
    family: str, model: Model, *, channel: str, positions: str, norms: Mapping[str, float]
) -> Mapping[str, Any]:
    """The options of the positions of a recipe that is as `family` wants it.

    Raises:
        PretrainedError: another residual, norm, channel or positions.
    """
    recipe = model.recipe
    given = recipe.positions if isinstance(recipe.positions, Part) else Part(recipe.positions)
    own = recipe.channels[0]
    for option, value, wanted in (
        ("residual type", recipe.residual, ("pre",)),
        ("norm", recipe.norm, tuple(norms)),
        ("channel", own.name if own else "none", (channel,)),
        ("positions", given.name, (positions,)),
    ):
        if value not in wanted:
            raise PretrainedError(f"transformers' {family} has no {option} {value}; only {' or '.join(wanted)}")
    return given.options


def _attention(model: Model) -> Any:
    sublayers: Any = model.backbone.get_submodule("sublayers")
    return sublayers[0].inner


def _channel(model: Model) -> Part:
    return model.recipe.channels[0] or Part("none")


def _hidden(model: Model, layer: str = "up") -> int:
    """How wide the first channel mixer is inside."""
    sublayers: Any = model.backbone.get_submodule("sublayers")
    return int(getattr(sublayers[1].inner, layer).out_features)


def _theirs(activation: str) -> str:
    return next(theirs for theirs, ours in ACTIVATIONS.items() if ours == activation)


def _gpt2_built(config: Any) -> Built:
    _expect(config, "scale_attn_weights", True)
    _expect(config, "scale_attn_by_inverse_layer_idx", False)
    _expect(config, "add_cross_attention", False)
    options = {
        "heads": config.n_head,
        "norm": _norm(LAYER_NORMS, config, "layer_norm_epsilon"),
        "channel": {"mlp": _inside(config, config.n_inner or 4 * config.n_embd, "activation_function")},
        "tie": config.tie_word_embeddings,
    }
    return "gpt2", _shape(config, config.n_positions), options


def _llama_built(config: Any) -> Built:
    _expect(config, "attention_bias", False)
    _expect(config, "head_dim", config.hidden_size // config.num_attention_heads)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise PretrainedError(f"our transformer_pp has no rope_type {kind!r}")
    options = {
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "norm": _norm(RMS_NORMS, config, "rms_norm_eps"),
        "channel": {"glu": {**_inside(config, config.intermediate_size, "hidden_act"), "bias": config.mlp_bias}},
        "positions": {"rope": {"base": float(rope.get("rope_theta", getattr(config, "rope_theta", 10000.0)))}},
        "tie": config.tie_word_embeddings,
    }
    return "transformer_pp", _shape(config, config.max_position_embeddings), options


def _shape(config: Any, length: int) -> Shape:
    vocab, depth = config.vocab_size, config.num_hidden_layers
    return Shape(length=length, vocab=vocab, outputs=vocab, width=config.hidden_size, depth=depth)


def _expect(config: Any, name: str, wanted: Any) -> None:
    value = getattr(config, name, wanted)
    if value is not None and value != wanted:
        raise PretrainedError(f"our {config.model_type} has no {name} {value!r}; only {wanted!r}")


def _norm(norms: Mapping[str, float], config: Any, name: str) -> str:
    """Our norm with the ε of a config."""
    value = getattr(config, name)
    for norm, eps in norms.items():
        if eps == value:
            return norm
    known = ", ".join(map(str, norms.values()))
    raise PretrainedError(f"our {config.model_type} has no {name} {value!r}; only {known}")


def _inside(config: Any, hidden: int, name: str) -> dict[str, Any]:
    """The options of a channel mixer."""
    activation = getattr(config, name)
    if activation not in ACTIVATIONS:
        raise PretrainedError(f"our {config.model_type} has no {name} {activation!r}; only {', '.join(ACTIVATIONS)}")
    return {"expand": hidden / config.hidden_size, "activation": ACTIVATIONS[activation]}
