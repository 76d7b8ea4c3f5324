"""Mamba and Mamba-2 as published, in our modules.

Two formats hold the same tensors: that of mamba-ssm (`config.json` with `ssm_cfg`, models/mixer_seq_simple.py) and
that of transformers (`model_type` mamba or mamba2). Sizes are read off the weights; a config beside them must agree,
and says what shapes cannot: into how many groups Mamba-2 divides, where its norm stands, the norms' ε. On CUDA our
modules run mamba-ssm's kernels where it is installed (`zoo.ops`), so that nothing else changes with the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.contract import Model, Shape
from zoo.published import files, tokenizer_files
from zoo.published.errors import PretrainedError
from zoo.published.files import sizes_of
from zoo.published.names import Same, to_ours

LENGTH = 2048
"""Steps that the published models were trained on (Gu & Dao 2023, section 4.2; Dao & Gu 2024, section 9.2)."""
TABLE, HEAD, MIXER = "backbone.embedding.weight", "lm_head.weight", "backbone.layers.0.mixer."
LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2"}
"""`ssm_cfg.layer`, and our architecture."""
OPTIONS = {
    "mamba": ("d_state", "d_conv", "expand", "dt_rank", "conv_bias", "bias"),
    "mamba2": (
        *("d_state", "d_conv", "expand", "headdim", "ngroups", "dt_limit", "conv_bias", "bias"),
        *("D_has_hdim", "rmsnorm", "norm_before_gate"),
    ),
}
"""Keys of `ssm_cfg` that change what is computed: our options have the same names."""
MOOT = (
    *("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "A_init_range", "conv_init", "chunk_size"),
    *("use_fast_path", "use_mem_eff_path", "layer_idx", "device", "dtype"),
)
"""Keys of `ssm_cfg` that say how weights start, or how the same numbers are computed."""
TRANSFORMERS = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "vocab_size": "vocab",
    "expand": "expand",
    "state_size": "d_state",
    "conv_kernel": "d_conv",
    "use_bias": "bias",
    "use_conv_bias": "conv_bias",
}
"""Keys of transformers' config in both families, and ours."""
OF_FAMILY = {"mamba": {"time_step_rank": "dt_rank"}, "mamba2": {"head_dim": "headdim", "n_groups": "ngroups"}}
NORMS = {("mamba", 1e-5): "rms_eps5", ("mamba", 1e-6): "rms", ("mamba2", 1e-5): "rms_eps5"}


def load(where: str, *, tokenizer: str | Path | None = None, length: int | None = None) -> Model:
    """Our `mamba` or `mamba2` with the weights at a path or hub id, in float32.

    Mamba-2's weights without a config are taken to be of one group, with the norm behind the gate.

    Args:
        tokenizer: a `tokenizer.json`, the folder it is in, or `bytes`. None: the one beside the weights, if any.
        length: the longest sequence it will see, 2048 by default; the model itself has no limit.

    Raises:
        PretrainedError: nothing there, not Mamba's weights, a layer we do not have, or a tokenizer that does not fit.
    """
    path = files.find(where)
    weights = _weights(path)
    config = files.config(path) or {}
    told = _told(config, where)
    sizes = _seen(weights, told.get("ngroups", 1), where)
    if told.get("architecture", sizes["architecture"]) != sizes["architecture"]:
        raise PretrainedError(
            f"{where}: its config says {told['architecture']}, and its weights are {sizes['architecture']}'s"
        )
    sizes |= told
    tie = _tied(weights, config, where)
    if tie:
        weights[HEAD] = weights[TABLE]
    architecture, vocab = sizes.pop("architecture"), sizes.pop("vocab")
    try:
        steps, width, depth = LENGTH if length is None else length, sizes.pop("width"), sizes.pop("depth")
        shape = Shape(steps, vocab, vocab=vocab, width=width, depth=depth)
        with torch.random.fork_rng(devices=[]):
            model = zoo.build(architecture, shape=shape, tie=tie, **sizes)
    except (TypeError, ValueError) as error:
        raise PretrainedError(f"{where}: {error}") from None
    pairs = mamba_ssm_pairs(model)
    more = sorted(weights.keys() - {name for pair in pairs for name in pair.theirs})
    if more:
        raise PretrainedError(f"{where}: not the weights of this model: it has also {', '.join(more[:3])}")
    files.fit(model, to_ours(pairs, weights, where), where)
    asked = tokenizer or tokenizer_files.beside(path)
    model.tokenizer = tokenizer_files.opened(asked, vocab, where, config) if asked else None
    return model


def mamba_ssm_pairs(model: Model) -> list[Same]:
    """The tensors of our `mamba` or `mamba2` language model, and their names in mamba-ssm."""
    return [Same(name, _renamed(name)) for name in model.state_dict()]


def transformers_pairs(model: Model) -> list[Same]:
    """As `mamba_ssm_pairs`, with the names of transformers."""
    return [Same(name, _renamed(name).replace(TABLE, "backbone.embeddings.weight")) for name in model.state_dict()]


def transformers_config(model: Model) -> dict[str, Any]:
    """What `MambaConfig` or `Mamba2Config` is made of, for the same logits from the same weights.

    Raises:
        PretrainedError: another architecture or role, or an option that transformers does not have.
    """
    from zoo.architectures.mamba import Mamba
    from zoo.architectures.mamba2 import Mamba2

    kinds = {type(sublayer.inner) for sublayer in getattr(model.backbone, "sublayers", ())}
    family = "mamba" if kinds == {Mamba} else "mamba2" if kinds == {Mamba2} else None
    recipe, shape = model.recipe, model.shape
    plain = recipe.residual == "pre" and recipe.channel is None and recipe.positions == "none"
    if family is None or model.role != "lm" or not plain:
        raise PretrainedError("only language models of mamba or mamba2 as they are can become transformers' Mamba")
    whole: Any = model
    mixers = [sublayer.inner for sublayer in whole.backbone.sublayers]
    mixer, told = mixers[0], model.tokenizer
    inner = mixer.out_proj.in_features
    eps = {kind: eps for (name, eps), kind in NORMS.items() if name == family}.get(recipe.norm)
    if eps is None:
        raise PretrainedError(f"transformers' {family} has no norm {recipe.norm}")
    if shape.vocab != shape.outputs:
        raise PretrainedError(f"transformers' {family} has as many outputs as tokens; these are {shape.outputs}")
    if inner % shape.width:
        raise PretrainedError(f"transformers' {family} has a whole multiple of the width inside, not {inner}")
    return {
        "model_type": family,
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "num_hidden_layers": len(mixers),
        "expand": inner // shape.width,
        "conv_kernel": mixer.conv1d.kernel_size[0],
        "use_bias": mixer.in_proj.bias is not None,
        "use_conv_bias": mixer.conv1d.bias is not None,
        "hidden_act": "silu",
        "layer_norm_epsilon": eps,
        "tie_word_embeddings": whole.head.weight is whole.embedding.table.weight,
        "bos_token_id": told.prefix if told else None,
        "eos_token_id": told.end if told else None,
        "pad_token_id": None,
        **(_heads(mixer) if family == "mamba2" else _ranks(mixer)),
    }


def expansion(inner: int, width: int) -> float:
    """The option `expand` by which a layer of `width` has `inner` channels: it is multiplied out, then cut."""
    return inner / width if int(inner / width * width) == inner else (inner + 0.5) / width


def _ranks(mixer: Any) -> dict[str, Any]:
    return {"state_size": mixer.A_log.shape[1], "time_step_rank": mixer.dt_rank}


def _heads(mixer: Any) -> dict[str, Any]:
    H, norm = len(mixer.A_log), mixer.norm
    problem = (
        "D_has_hdim" if len(mixer.D) != H else
        "rmsnorm=False" if norm is None else
        "norm_before_gate" if norm.before_gate else
        "norm_groups other than ngroups" if norm.groups != mixer.ngroups else
        "channels beside the state space" if H * mixer.headdim != mixer.out_proj.in_features else None
    )  # fmt: skip
    if problem:
        raise PretrainedError(f"transformers' mamba2 has no {problem}")
    return {
        "state_size": mixer.d_state,
        "num_heads": H,
        "head_dim": mixer.headdim,
        "n_groups": mixer.ngroups,
        **({"time_step_limit": list(mixer.dt_limit)} if mixer.dt_limit else {}),
    }


def _renamed(name: str) -> str:
    if name.startswith("head."):
        return f"lm_{name}"
    name = name.replace("embedding.table.", "backbone.embedding.").replace("backbone.norm.", "backbone.norm_f.")
    return name.replace("backbone.sublayers.", "backbone.layers.").replace(".inner.", ".mixer.")


def _weights(path: Path) -> dict[str, Tensor]:
    """In float32, under mamba-ssm's names."""
    found = files.read(path).items()
    return {name.replace("backbone.embeddings.", "backbone.embedding."): value.float() for name, value in found}


def _tied(weights: Mapping[str, Tensor], config: Mapping[str, Any], where: str) -> bool:
    """Whether the head is the table: it equals it, or is not stored."""
    said = config.get("tie_word_embeddings", config.get("tie_embeddings"))
    if HEAD not in weights and said is False:
        raise PretrainedError(
            f"{where}: not the weights of this model: it lacks {HEAD}, and its config does not tie it"
        )
    return HEAD not in weights or (said is not False and torch.equal(weights[HEAD], weights[TABLE]))


def _seen(weights: Mapping[str, Tensor], groups: int, where: str) -> dict[str, Any]:
    """Architecture, sizes and options, by the shapes of the first layer."""
    vocab, width = sizes_of(weights, TABLE, 2, where)
    _, inner = sizes_of(weights, f"{MIXER}out_proj.weight", 2, where)
    channels, _, d_conv = sizes_of(weights, f"{MIXER}conv1d.weight", 3, where)
    layers = {name.split(".")[2] for name in weights if name.startswith("backbone.layers.")}
    sizes = {"vocab": vocab, "width": width, "depth": len(layers), "d_conv": d_conv}
    sizes |= {"bias": f"{MIXER}in_proj.bias" in weights, "conv_bias": f"{MIXER}conv1d.bias" in weights}
    if f"{MIXER}x_proj.weight" in weights:
        N, rank = (sizes_of(weights, MIXER + name, 2, where)[1] for name in ("A_log", "dt_proj.weight"))
        return {"architecture": "mamba", **sizes, "expand": expansion(inner, width), "d_state": N, "dt_rank": rank}
    (H,), (skips,) = (sizes_of(weights, MIXER + name, 1, where) for name in ("A_log", "D"))
    rows, _ = sizes_of(weights, f"{MIXER}in_proj.weight", 2, where)
    both = rows - 2 * inner - H  # B and C of all groups
    if channels - both != inner:
        raise PretrainedError(f"{where}: channels beside the state space (d_ssm) are not supported")
    sizes |= {"expand": inner // width, "headdim": inner // H, "d_state": both // (2 * groups)}
    sizes |= {"D_has_hdim": skips != H, "rmsnorm": f"{MIXER}norm.weight" in weights}
    return {"architecture": "mamba2", **sizes}


def _told(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Architecture, sizes and options that a config names, under our names.

    Raises:
        PretrainedError: it names something we do not have.
    """
    family = config.get("model_type")
    if family and family not in OF_FAMILY:
        raise PretrainedError(f"{where}: its config is of {family!r}, neither mamba nor mamba2")
    try:
        if family:
            told = _told_by_transformers(config, family, where)
        elif "ssm_cfg" in config or "d_model" in config:
            told = _told_by_mamba_ssm(config, where)
        else:
            return {}
    except PretrainedError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PretrainedError(f"{where}: its config has a value that cannot be: {error}") from None
    for name in ("vocab", "ngroups"):
        if name in told and (not isinstance(told[name], int) or told[name] < 1):
            raise PretrainedError(f"{where}: its config says {name} {told[name]!r}")
    return told


def _told_by_transformers(config: Mapping[str, Any], family: str, where: str) -> dict[str, Any]:
    eps, activation = config.get("layer_norm_epsilon", 1e-5), config.get("hidden_act", "silu")
    if (family, eps) not in NORMS:
        known = " or ".join(str(eps) for name, eps in NORMS if name == family)
        raise PretrainedError(f"{where}: layer_norm_epsilon {eps} is not supported; our {family} has {known}")
    if activation not in ("silu", "swish"):
        raise PretrainedError(f"{where}: hidden_act {activation!r} is not supported; our {family} has silu")
    names = TRANSFORMERS | OF_FAMILY[family]
    told = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    if family == "mamba2":
        told.setdefault("ngroups", 8)  # what Mamba2Config takes where it is not said
        told |= _limit(config.get("time_step_limit"))
    return {"architecture": family, "norm": NORMS[family, eps], **told}


def _told_by_mamba_ssm(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    layer = {key: value for key, value in (config.get("ssm_cfg") or {}).items() if value is not None}
    kind = layer.pop("layer", "Mamba1")
    more = {
        f"ssm_cfg.layer {kind!r}": kind not in LAYERS,
        "d_intermediate, an MLP between the layers,": config.get("d_intermediate"),
        "attn_layer_idx, attention among the layers,": config.get("attn_layer_idx"),
        "rms_norm false, a LayerNorm,": not config.get("rms_norm", True),
    }
    known = OPTIONS.get(LAYERS.get(kind, ""), ())
    more |= {f"ssm_cfg.{key}": key not in (*known, *MOOT) for key in layer}
    for what, there in more.items():
        if there:
            raise PretrainedError(f"{where}: {what} is not supported")
    told = {key: value for key, value in layer.items() if key in known}
    told |= _limit(told.pop("dt_limit", None))
    told |= {ours: config[theirs] for theirs, ours in (("d_model", "width"), ("n_layer", "depth")) if theirs in config}
    if "vocab_size" in config:
        multiple = config.get("pad_vocab_size_multiple", 8) or 1
        told["vocab"] = -(-config["vocab_size"] // multiple) * multiple
    return {"architecture": LAYERS[kind], **told}


def _limit(given: Any) -> dict[str, Any]:
    """The bounds of Δ, if there are any, as finite numbers. transformers writes ∞ as {"__float__": "Infinity"}."""
    if given is None:
        return {}
    low, high = (float(bound["__float__"] if isinstance(bound, Mapping) else bound) for bound in given)
    if (low, high) == (0.0, math.inf):
        return {}
    return {"dt_limit": (low, min(high, torch.finfo(torch.float32).max))}
