"""Published Mamba and Mamba-2 checkpoints, read into our modules.

Two formats hold the same tensors: mamba-ssm's (`config.json` with `ssm_cfg`, models/mixer_seq_simple.py) and
transformers' (`model_type` mamba or mamba2). Sizes follow from the shapes of the weights. A config must agree with
them, and adds what shapes do not show: Mamba-2's number of groups, the place of its norm, the ε of the norms.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.contract import Model, Shape
from zoo.published import files, tokenizer_files
from zoo.published.errors import PretrainedError, building
from zoo.published.files import sizes_of
from zoo.published.names import Pair, renamed, to_ours

LENGTH = 2048
"""The training length of the published models (Gu & Dao 2023, section 4.2; Dao & Gu 2024, section 9.2)."""
TABLE, HEAD, MIXER = "backbone.embedding.weight", "lm_head.weight", "backbone.layers.0.mixer."
TRANSFORMERS_TABLE = "backbone.embeddings.weight"
MAMBA_SSM = {
    "embedding.table.weight": TABLE,
    "0.norm": "backbone.layers.{}.norm",
    "0.inner": "backbone.layers.{}.mixer",
    "backbone.norm": "backbone.norm_f",
    "head": "lm_head",
}
"""Prefixes of our names, and of mamba-ssm's; see `renamed`."""
LAYERS = {"Mamba1": "mamba", "Mamba2": "mamba2"}
"""Values of `ssm_cfg.layer`, and our architectures."""
OPTIONS = {
    "mamba": ("d_state", "d_conv", "expand", "dt_rank", "conv_bias", "bias"),
    "mamba2": (
        *("d_state", "d_conv", "expand", "headdim", "ngroups", "dt_limit", "conv_bias", "bias"),
        *("D_has_hdim", "rmsnorm", "norm_before_gate"),
    ),
}
"""Keys of `ssm_cfg` that change the function computed: our options have the same names."""
IGNORED = (
    *("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "A_init_range", "conv_init", "chunk_size"),
    *("use_fast_path", "use_mem_eff_path", "layer_idx", "device", "dtype"),
)
"""Keys of `ssm_cfg` for initial weights or for the implementation."""
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
"""Keys of transformers' config that both families have, and our options."""
FAMILIES = {"mamba": {"time_step_rank": "dt_rank"}, "mamba2": {"head_dim": "headdim", "n_groups": "ngroups"}}
NORMS = {("mamba", 1e-5): "rms_eps5", ("mamba", 1e-6): "rms", ("mamba2", 1e-5): "rms_eps5"}


def load(where: str, *, tokenizer: str | Path | None = None, length: int | None = None) -> Model:
    """Our `mamba` or `mamba2` with the weights at a path or hub id, in float32.

    Weights of Mamba-2 without a config are assumed to have one group, and the norm after the gate.

    Args:
        tokenizer: a `tokenizer.json`, the folder it is in, or `bytes`. None: the one beside the weights, if any.
        length: the longest sequence it will see, 2048 by default; the model itself has no limit.
    """
    path = files.find(where)
    weights, config = _weights(path), files.config(path) or {}
    options = _options(weights, config, where)
    architecture, vocab = options.pop("architecture"), options.pop("vocab")
    tie = _is_tied(weights, config, where)
    if tie:
        weights[HEAD] = weights[TABLE]
    with building(where):
        width, depth = options.pop("width"), options.pop("depth")
        shape = Shape(LENGTH if length is None else length, vocab, vocab=vocab, width=width, depth=depth)
        model = zoo.build(architecture, shape=shape, tie=tie, **options)
    pairs = mamba_ssm_pairs(model)
    files.refuse_names((), weights.keys() - {name for pair in pairs for name in pair.theirs}, where)
    files.fit(model, to_ours(pairs, weights, where), where)
    chosen = tokenizer or tokenizer_files.beside(path)
    model.tokenizer = tokenizer_files.load(chosen, vocab, where, config) if chosen else None
    return model


def mamba_ssm_pairs(model: Model, table: str = TABLE) -> list[Pair]:
    """The tensors of our `mamba` or `mamba2` language model and their names in mamba-ssm."""
    names = renamed(model, {**MAMBA_SSM, "embedding.table.weight": table}, sublayers=1)
    return [Pair(ours, (theirs,)) for ours, theirs in names.items()]


transformers_pairs = partial(mamba_ssm_pairs, table=TRANSFORMERS_TABLE)


def expansion(inner: int, width: int) -> float:
    """The option `expand` of a layer with `inner` channels: the smallest fraction of `width` that rounds down to it."""
    return inner / width if int(inner / width * width) == inner else (inner + 0.5) / width


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors in float32, under mamba-ssm's names."""
    return {name.replace(TRANSFORMERS_TABLE, TABLE): value.float() for name, value in files.read(path).items()}


def _is_tied(weights: Mapping[str, Tensor], config: Mapping[str, Any], where: str) -> bool:
    """Whether the head is the embedding table: it is equal to it, or not stored."""
    tied = config.get("tie_word_embeddings", config.get("tie_embeddings"))
    if HEAD not in weights and tied is False:
        raise PretrainedError(
            f"{where}: not the weights of this model: it lacks {HEAD}, and its config does not tie it"
        )
    return HEAD not in weights or (tied is not False and torch.equal(weights[HEAD], weights[TABLE]))


def _options(weights: Mapping[str, Tensor], config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Architecture, sizes and options: those of the config, and by the shapes of the weights what it leaves out."""
    stated = _from_config(config, where)
    measured = _from_shapes(weights, stated.get("ngroups", 1), where)
    architecture = measured["architecture"]
    if stated.get("architecture", architecture) != architecture:
        raise PretrainedError(
            f"{where}: its config says {stated['architecture']}, and its weights are {architecture}'s"
        )
    return measured | stated


def _from_shapes(weights: Mapping[str, Tensor], groups: int, where: str) -> dict[str, Any]:
    """Architecture, sizes and options, from the shapes of the first layer."""
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


def _from_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Architecture, sizes and options that a config states, under our names."""
    family = config.get("model_type")
    if family and family not in FAMILIES:
        raise PretrainedError(f"{where}: its config is of {family!r}, neither mamba nor mamba2")
    if not family and "ssm_cfg" not in config and "d_model" not in config:
        return {}
    try:
        options = _from_transformers(config, family, where) if family else _from_mamba_ssm(config, where)
    except PretrainedError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PretrainedError(f"{where}: its config has an invalid value: {error}") from None
    for name in ("vocab", "ngroups"):
        if name in options and (not isinstance(options[name], int) or options[name] < 1):
            raise PretrainedError(f"{where}: its config says {name} {options[name]!r}")
    return options


def _from_transformers(config: Mapping[str, Any], family: str, where: str) -> dict[str, Any]:
    eps, activation = config.get("layer_norm_epsilon", 1e-5), config.get("hidden_act", "silu")
    if (family, eps) not in NORMS:
        known = " or ".join(str(eps) for name, eps in NORMS if name == family)
        raise PretrainedError(f"{where}: layer_norm_epsilon {eps} is not supported; our {family} has {known}")
    if activation not in ("silu", "swish"):
        raise PretrainedError(f"{where}: hidden_act {activation!r} is not supported; our {family} has silu")
    names = TRANSFORMERS | FAMILIES[family]
    options = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    if family == "mamba2":
        options.setdefault("ngroups", 8)  # Mamba2Config's default
        options |= limit(config.get("time_step_limit"))
    return {"architecture": family, "norm": NORMS[family, eps], **options}


def _from_mamba_ssm(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    layer = {key: value for key, value in (config.get("ssm_cfg") or {}).items() if value is not None}
    kind = layer.pop("layer", "Mamba1")
    unsupported = {
        f"ssm_cfg.layer {kind!r}": kind not in LAYERS,
        "d_intermediate, an MLP between the layers,": config.get("d_intermediate"),
        "attn_layer_idx, attention among the layers,": config.get("attn_layer_idx"),
        "rms_norm false, a LayerNorm,": not config.get("rms_norm", True),
    }
    known = OPTIONS.get(LAYERS.get(kind, ""), ())
    unsupported |= {f"ssm_cfg.{key}": key not in (*known, *IGNORED) for key in layer}
    for what, present in unsupported.items():
        if present:
            raise PretrainedError(f"{where}: {what} is not supported")
    options = {key: value for key, value in layer.items() if key in known}
    options |= limit(options.pop("dt_limit", None))
    sizes = {"d_model": "width", "n_layer": "depth"}
    options |= {ours: config[theirs] for theirs, ours in sizes.items() if theirs in config}
    if "vocab_size" in config:
        multiple = config.get("pad_vocab_size_multiple", 8) or 1
        options["vocab"] = -(-config["vocab_size"] // multiple) * multiple
    return {"architecture": LAYERS[kind], **options}


def limit(given: Any) -> dict[str, Any]:
    """The bounds of Δ, if any, as finite numbers; transformers writes ∞ as {"__float__": "Infinity"}."""
    if given is None:
        return {}
    low, high = (float(bound["__float__"] if isinstance(bound, Mapping) else bound) for bound in given)
    if (low, high) == (0.0, math.inf):
        return {}
    return {"dt_limit": (low, min(high, torch.finfo(torch.float32).max))}
