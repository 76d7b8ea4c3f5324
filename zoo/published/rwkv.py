"""RWKV-4, 5.2, 6 and 7 checkpoints as BlinkDL publishes them: read into our modules or the package `rwkv`, and written.

Version, sizes and options follow from the names and shapes of the tensors. Two things do not:

    time_decay  official files hold w; rwkv.cpp's conversion holds −exp(w) for RWKV-4 and exp(−exp(w)) for 5.2
    ln_x        its eps is 1e-5 · head_size_divisor²: 64e-5 in official code, 1e-5 under rwkv.cpp's RWKV-5.2

rwkv.cpp's conversion also drops axes of length 1, transposes low-rank factors, and joins the six token-shift vectors of
RWKV-7 into `x_rwkvag` (6, 1, C). All of it is undone here.
"""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import zoo
from zoo import tokenizers
from zoo.contract import Model, Shape
from zoo.published import files, rwkv_package, tokenizer_files
from zoo.published.errors import PretrainedError, building
from zoo.published.names import renamed

ROOTS = ("emb", "blocks", "ln_out", "head")
"""Prefixes of the model's tensors; anything else in a file is ignored."""
UNUSED = {f"blocks.0.att.v{i}" for i in range(3)}
"""Tensors that the first layer of an official RWKV-7 has and does not use."""
JOINED, SHIFTS = ".att.x_rwkvag", "rwkvag"
"""rwkv.cpp's name for the token-shift vectors x_r, x_w, … of a layer, and their order."""
OFFICIAL = {
    "embedding.table": "emb",
    "embedding.norm": "blocks.0.ln0",
    "0.norm": "blocks.{}.ln1",
    "0.inner": "blocks.{}.att",
    "1.norm": "blocks.{}.ln2",
    "1.inner": "blocks.{}.ffn",
    "backbone.norm": "ln_out",
}
"""Prefixes of our names, and of the official ones; see `renamed`."""
FACTORS = {
    6: ("time_maa_w1", "time_maa_w2", "time_decay_w1", "time_decay_w2"),
    7: tuple(f"{c}{i}" for c in "wavg" for i in (1, 2)),
}
"""Low-rank factors, which conversions transpose."""
OFFICIAL_DIVISOR = 8.0


def load(
    where: str,
    *,
    through: Literal["zoo", "rwkv"] = "zoo",
    length: int = 1024,
    tokenizer: str | Path | None = None,
    head_size_divisor: float | None = None,
    decay: Literal["auto", "raw", "applied"] = "auto",
    strategy: str | None = None,
) -> Model:
    """A language model from a checkpoint, in float32.

    Args:
        through: `zoo` for our modules, `rwkv` for the package.
        length: the training length in tokens; the model reads any length.
        tokenizer: `bytes`, `rwkv_world`, a tokenizer.json, or a vocabulary in World's format (.txt). By default bytes
            for 256 tokens, World for 65,536 where the package is installed, else none.
        head_size_divisor: see above; 8 by default, 1 for an applied decay, since such files are rwkv.cpp's.
        decay: whether time_decay holds w (`raw`) or what it becomes (`applied`). `auto` takes it for raw in a pickle
            and in safetensors, unless all values can be applied decays and the axes are those of rwkv.cpp: (H, N, 1),
            or in RWKV-4 mixing vectors of one axis.
        strategy: the package's device and precision, such as `cuda fp16`; fp32 by default, on CUDA where there is one.
    """
    if strategy is not None and through == "zoo":
        raise PretrainedError(f"strategy={strategy!r} is for through='rwkv'")
    version, weights, applied = _read(where, decay)
    if head_size_divisor is None:
        head_size_divisor = 1.0 if applied else OFFICIAL_DIVISOR
    elif version == 4:
        raise PretrainedError(f"{where}: RWKV-4 has no ln_x that a head_size_divisor could change")
    model = _built(weights, version, head_size_divisor, length, where)
    names, weights = official_names(model), _in_shape(weights, model)
    files.agree({names[name]: value for name, value in model.state_dict().items()}, weights, where)
    if through == "rwkv":
        model = rwkv_package.Packaged(
            version, scaled(weights, version, head_size_divisor), model.shape, where, strategy
        )
    else:
        model.to_empty(device="cpu")
        files.fit(model, {name: weights[theirs] for name, theirs in names.items()}, where)
    vocab = model.shape.vocab or 0
    model.tokenizer = tokenizer_files.load(tokenizer, vocab, where) if tokenizer else _default_tokenizer(vocab)
    return model


def save(model: Model, path: str | Path) -> Path:
    """Write one of our language models rwkv4 to rwkv7 as an official checkpoint (.pth or .safetensors).

    A head_size_divisor other than the official 8 is folded into the weights (see `scaled`).
    """
    path, architecture = Path(path), str(model.built.get("architecture", ""))
    if not re.fullmatch("rwkv[4-7]", architecture) or model.role != "lm":
        what = f"{architecture or type(model).__name__} as {model.role}"
        raise PretrainedError(f"{what} has no RWKV checkpoint; rwkv4 to rwkv7 as lm have")
    if model.shape.vocab != model.shape.outputs:
        raise PretrainedError(
            f"an RWKV checkpoint gives the tokens it reads: {model.shape.vocab}, not {model.shape.outputs}"
        )
    if path.suffix not in (".pth", ".safetensors"):
        raise PretrainedError(f"{path}: an RWKV checkpoint is a .pth or a .safetensors")
    version, names = int(architecture[-1]), official_names(model)
    weights = {names[name]: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    weights = scaled(weights, version, float(model.built["options"].get("head_size_divisor", OFFICIAL_DIVISOR)))
    if version == 7:
        same_shape = "blocks.1.att.v" if (model.shape.depth or 1) > 1 else "blocks.0.att.a"
        weights |= {name: torch.zeros_like(weights[same_shape + name[-1]]) for name in UNUSED}
    if version == 4:
        weights = {name: value.view(1, 1, -1) if "time_mix" in name else value for name, value in weights.items()}
    rwkv_package.write(weights, path)
    return path


def official_names(model: Model) -> dict[str, str]:
    """Our names of the tensors of one of our RWKV models, mapped to the official ones."""
    return renamed(model, OFFICIAL)


def _read(where: str, decay: str) -> tuple[int, dict[str, Tensor], bool]:
    """The version, the weights under official names with raw decays, and whether the file held applied ones."""
    path = files.find(where)
    weights = {name: value for name, value in files.read(path).items() if name.startswith(ROOTS)}
    weights = _split_shifts(weights, where)
    version = version_of(weights, where)
    if version == 7:
        weights = {name: value for name, value in weights.items() if name not in UNUSED}
    if version > 5:
        weights = _untransposed(weights, version)
    pickled = any(file.suffix != ".safetensors" for file in files.weights_in(path))
    applied = decay == "applied" or (decay == "auto" and not pickled and holds_applied(weights, version))
    return version, _raw_decays(weights, version, where) if applied else weights, applied


def _split_shifts(weights: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights with every `x_rwkvag` taken apart."""
    split = {}
    for name, value in weights.items():
        if not name.endswith(JOINED):
            split[name] = value
            continue
        if value.shape[:1] != (len(SHIFTS),):
            raise PretrainedError(f"{where}: {name} has the shape {tuple(value.shape)}, where (6, 1, C) is expected")
        prefix = name.removesuffix(SHIFTS)
        split |= {f"{prefix}{letter}": vector for letter, vector in zip(SHIFTS, value, strict=True)}
    return split


def version_of(weights: Mapping[str, Tensor], where: str) -> int:
    """4, 5 (5.2), 6 or 7, recognised by tensors that only its time mixing has."""
    att = {name.partition(".att.")[2]: value for name, value in weights.items() if ".att." in name}
    gated = "gate.weight" in att
    if att.keys() & {"r_k", "k_k", "x_r", "w0"}:
        return 7
    if any(name.startswith("time_maa") for name in att):
        if gated:
            return 6
        raise _unknown("a variant of RWKV-6 without its gate (x060a, x060b)", where)
    if any(name.startswith("ln_x") for name in att):
        decay = att.get("time_decay")
        if gated and (decay is None or decay.shape[1:].numel() > 1):  # 5.1 has one value per head
            return 5
        raise _unknown("RWKV-5.1" if gated else "RWKV-5.0", where)
    if "time_decay" in att:
        return 4
    raise _unknown("no RWKV", where)


def _unknown(found: str, where: str) -> PretrainedError:
    return PretrainedError(f"{where}: this is {found}; the zoo has RWKV-4, 5.2, 6 and 7")


def holds_applied(weights: Mapping[str, Tensor], version: int) -> bool:
    """Whether the decays look like those of rwkv.cpp's conversion, by values and axes; see `load`."""
    decays = [value for name, value in weights.items() if name.endswith(".time_decay")]
    mixes = [value for name, value in weights.items() if ".time_mix" in name]
    axes = all(value.dim() == 3 for value in decays) if version == 5 else all(value.dim() == 1 for value in mixes)
    return version < 6 and axes and all(_is_applied(value, version) for value in decays)


def _is_applied(value: Tensor, version: int) -> bool:
    return bool((value <= 0).all() if version == 4 else ((value >= 0) & (value <= 1)).all())


def _raw_decays(weights: Mapping[str, Tensor], version: int, where: str) -> dict[str, Tensor]:
    """w from −exp(w) or exp(−exp(w)); a decay that was rounded to 0 becomes the smallest float."""
    if version > 5:
        raise PretrainedError(f"{where}: the decay of RWKV-{version} follows the data; no file can hold it applied")
    raw = dict(weights)
    for name, value in weights.items():
        if name.endswith(".time_decay"):
            if not _is_applied(value, version):
                bounds = "at most 0" if version == 4 else "from 0 to 1"
                raise PretrainedError(f"{where}: {name} is not {bounds}, as an applied decay is; say decay='raw'")
            log_w = value.double() if version == 4 else value.double().clamp(min=torch.finfo(torch.float32).tiny).log()
            raw[name] = torch.log(-log_w).float()
    return raw


def scaled(weights: Mapping[str, Tensor], version: int, head_size_divisor: float) -> dict[str, Tensor]:
    """The same model with the official eps of ln_x: GroupNorm of c·y with eps c²·e is GroupNorm of y with eps e.

    y is linear in W_v. So is RWKV-7's bonus, which bypasses the norm: r_k undoes the factor there.
    """
    c, result = OFFICIAL_DIVISOR / head_size_divisor, dict(weights)
    if version == 4 or c == 1.0:
        return result
    for name, value in weights.items():
        if name.endswith(".att.value.weight"):
            result[name] = value.float() * c
        elif name.endswith(".att.r_k"):
            result[name] = value.float() / c
    return result


def _built(weights: Mapping[str, Tensor], version: int, divisor: float, length: int, where: str) -> Model:
    """Our model of these sizes on the meta device, where no initial weights are drawn."""
    vocab, width = (_size(weights, "emb.weight", axis, where) for axis in (0, 1))
    depth = _depth(weights, where)
    options = _options(weights, version, width, depth, where)
    if version > 4:
        options["head_size_divisor"] = divisor
    with building(where), torch.device("meta"):
        shape = Shape(length=length, vocab=vocab, outputs=vocab, width=width, depth=depth)
        return zoo.build(f"rwkv{version}", "lm", shape=shape, **options)


def _options(weights: Mapping[str, Tensor], version: int, width: int, depth: int, where: str) -> dict[str, Any]:
    """Options of our architecture, from the shapes in the first block that has them."""

    def size(name: str, axis: int, block: int = 0) -> int:
        return _size(weights, f"blocks.{block}.{name}", axis, where)

    options: dict[str, Any] = {"expand": size("ffn.key.weight", 0) / max(width, 1)}
    if version > 4:
        options["head_size"] = size("att.r_k" if version == 7 else "att.time_faaaa", 1)
    if version in (5, 6) and size("att.key.weight", 0) != width:
        options["dim_att"] = size("att.key.weight", 0)
    if version == 6:
        options |= {"mix_lora": size("att.time_maa_w1", 1) // 5, "decay_lora": size("att.time_decay_w1", 1)}
    if version == 7:
        options |= {f"{name}_lora": size(f"att.{c}1", 1) for c, name in (("w", "decay"), ("a", "a"), ("g", "gate"))}
        if depth > 1:
            options["v_lora"] = size("att.v1", 1, block=1)
    return options


def _size(weights: Mapping[str, Tensor], name: str, axis: int, where: str) -> int:
    shape = tuple(files.tensor(weights, name, where).shape)
    if axis >= len(shape):
        raise PretrainedError(f"{where}: {name} has the shape {shape}, which has too few axes")
    return shape[axis]


def _depth(weights: Mapping[str, Tensor], where: str) -> int:
    blocks = {int(match[1]) for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))}
    for block in range(len(blocks)):
        if block not in blocks:
            raise PretrainedError(f"{where}: it has a block {max(blocks)}, but no block {block}")
    return len(blocks)


def _untransposed(weights: Mapping[str, Tensor], version: int) -> dict[str, Tensor]:
    """The low-rank factors in the official orientation, where the first axis of the first factor is the width."""
    width, first = weights.get("ln_out.weight"), weights.get(f"blocks.0.att.{FACTORS[version][0]}")
    if width is None or first is None or first.shape[:1] == width.shape or first.shape[-1:] != width.shape:
        return dict(weights)
    factors = tuple(f".att.{name}" for name in FACTORS[version])
    return {name: value.mT if name.endswith(factors) and value.dim() > 1 else value for name, value in weights.items()}


def _in_shape(weights: Mapping[str, Tensor], model: Model) -> dict[str, Tensor]:
    """The weights in our shapes, where the two differ in axes of length 1 only."""
    own, result = model.state_dict(), dict(weights)
    for name, theirs in official_names(model).items():
        value = weights.get(theirs)
        if value is not None and [n for n in value.shape if n != 1] == [n for n in own[name].shape if n != 1]:
            result[theirs] = value.reshape(own[name].shape)
    return result


def _default_tokenizer(vocab: int) -> tokenizers.Tokenizer | None:
    """The tokenizer that RWKV models with this vocabulary have; None where it is unknown or its package is missing."""
    if vocab == tokenizers.Bytes.vocab:
        return tokenizers.Bytes()
    if vocab == tokenizers.World.vocab:
        with contextlib.suppress(tokenizers.TokenizerError):
            return tokenizers.World()
    return None
