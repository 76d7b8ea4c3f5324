"""Layers and models against their official code, run in float64 and recorded in recorded/*.safetensors (numbers only).

Each recording's JSON says which file and class ran, with which options, and what stood in for a CUDA kernel. Here a
`Case` says how to build ours and how our parameters follow from the official ones; gradients flow back through that,
so that all are compared under the official names.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from zoo import Shape, build
from zoo.architectures import rwkv4, rwkv5, rwkv7
from zoo.architectures.fast_weights import FastWeights
from zoo.architectures.h3 import H3
from zoo.architectures.hyena import Hyena
from zoo.architectures.linformer import Linformer
from zoo.architectures.mamba import Mamba
from zoo.architectures.mamba2 import Mamba2
from zoo.architectures.mega import Mega
from zoo.architectures.retnet import Retention
from zoo.architectures.s4 import S4
from zoo.architectures.s4d import S4D
from zoo.blocks.stack import Stack
from zoo.contract import Batch, LayerContext
from zoo.types import Part, Recipe

from .compare import S4_NAMES, in_pieces, read

RECORDED = Path(__file__).parent / "recorded"
Weights = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Case:
    """`make` builds ours from the recording's hyperparameters; `ours` gives our parameters from the official ones."""

    architecture: str
    make: Callable[[dict[str, Any]], torch.nn.Module]
    ours: Callable[[Weights, torch.nn.Module], Weights] = lambda p, _: p
    run: Callable[[Callable[..., Any], Weights, Weights], Tensor] = lambda f, x, _: f(x["input"])[0]
    buffers: Callable[[Weights], Weights] = lambda _: {}
    steps: str | None = None
    """The recorded outputs of the official step mode, if any."""
    tolerance: float = 1e-9


def renamed(table: dict[str, str]) -> Callable[[Weights, torch.nn.Module], Weights]:
    """By our names those that there are."""
    return lambda p, _: {mine: p[theirs] for mine, theirs in table.items() if theirs in p}


def channels_first(f: Callable[..., Any], x: Weights, _: Weights) -> Tensor:
    return f(x["input"].transpose(1, 2))[0].transpose(1, 2)


# state-spaces/s4


def s4d(h: dict[str, Any]) -> S4D:
    options = {name: h[name] for name in ("d_state", "disc", "n_ssm") if name in h}
    return S4D(LayerContext(width=h["d_model"], length=h["L"]), **options)


def s4(h: dict[str, Any]) -> S4:
    options = {name: h[name] for name in ("d_state", "rank", "n_ssm", "channels") if name in h}
    return S4(LayerContext(width=h["d_model"], length=h["l_max"] or h["L"]), **options)


S4D_CASE = Case("s4d", s4d, renamed(S4_NAMES), channels_first, steps="output.step")
S4_CASE = Case(
    "s4",
    s4,
    renamed(S4_NAMES),
    channels_first,
    lambda data: {"l_kernel": data["buffer.layer.kernel.l_kernel"]},
    steps="output.step.dense",
)

# BlinkDL/RWKV-LM


def rwkv7_mixer(h: dict[str, Any]) -> rwkv7.TimeMix:
    r, context = h["ranks"], LayerContext(width=h["n_embd"], length=16, layer=h["layer_id"], depth=2)
    return rwkv7.TimeMix(
        context, head_size=h["head_size"], decay_lora=r["w"], a_lora=r["a"], v_lora=r["v"], gate_lora=r["g"]
    )


def rwkv7_run(f: Callable[..., Any], x: Weights, _: Weights) -> Tensor:
    shared_context = {"v_first": x["v_first"]} if "v_first" in x else {}
    return f(x["input"], shared_context=shared_context)[0]


def rwkv7_model(h: dict[str, Any]) -> torch.nn.Module:
    r, shape = h["ranks"], language(h)
    ranks = {"decay_lora": r["w"], "a_lora": r["a"], "v_lora": r["v"], "gate_lora": r["g"]}
    return build("rwkv7", "lm", shape=shape, head_size=h["head_size"], expand=h["hidden"] / h["n_embd"], **ranks)


def language(h: dict[str, Any]) -> Shape:
    return Shape(length=16, vocab=h["vocab"], outputs=h["vocab"], width=h["n_embd"], depth=h["n_layer"])


def rwkv_names(p: Weights, model: torch.nn.Module) -> Weights:
    fixed = {
        "embedding.table.weight": "emb.weight",
        "embedding.norm.weight": "blocks.0.ln0.weight",
        "embedding.norm.bias": "blocks.0.ln0.bias",
        "backbone.norm.weight": "ln_out.weight",
        "backbone.norm.bias": "ln_out.bias",
        "head.weight": "head.weight",
    }
    found = {}
    for name, _ in model.named_parameters():
        if name in fixed:
            found[name] = p[fixed[name]]
            continue
        _, _, index, where, rest = name.split(".", 4)
        block, second = divmod(int(index), 2)
        there = f"ln{1 + second}" if where == "norm" else ("att", "ffn")[second]
        found[name] = p[f"blocks.{block}.{there}.{rest}"]
    return found


def logits(f: Callable[..., Any], x: Weights, _: Weights) -> Tensor:
    return f(Batch(x["input"]))


# HazyResearch/safari


def hyena(h: dict[str, Any]) -> Hyena:
    options = {k: v for k, v in h.items() if k not in ("d_model", "l_max", "L")}
    return Hyena(LayerContext(width=h["d_model"], length=h["l_max"]), **options)


def order_first(t: Tensor, dim: int, order: int = 3) -> Tensor:
    """Channel (v, o) of src/models/sequence/hyena.py → (o, v)."""
    return t.unflatten(dim, (-1, order - 1)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def hyena_weights(p: Weights, model: torch.nn.Module) -> Weights:
    last = max(name for name in p if "implicit_filter" in name and name.endswith("weight"))
    return {**p, last: order_first(p[last], 0), "filter_fn.bias": order_first(p["filter_fn.bias"], 0)}


def hyena_buffers(data: Weights) -> Weights:
    t, deltas = (data[f"buffer.filter_fn.{name}"] for name in ("pos_emb.t", "modulation.deltas"))
    return {"filter_fn.pos_emb.t": t, "filter_fn.modulation.deltas": order_first(deltas, 2)}


# facebookresearch/mega


def mega(h: dict[str, Any]) -> Mega:
    context = LayerContext(width=h["embed_dim"], length=h["max_positions"], causal=not h["bidirectional"])
    names = ("zdim", "hdim", "ndim", "attention_activation", "chunk_size", "rel_pos_bias")
    return Mega(context, **{name: h[name] for name in names})


def mega_weights(p: Weights, model: torch.nn.Module) -> Weights:
    return {name: value for name, value in p.items() if not name.startswith("norm.")}


def mega_swapped(p: Weights, model: torch.nn.Module) -> Weights:
    """The commit in which α and δ have each other's place."""
    return {**mega_weights(p, model), "move.alpha": p["move.delta"], "move.delta": p["move.alpha"]}


def mega_run(f: Callable[..., Any], x: Weights, p: Weights) -> Tensor:
    y = x["input"] + f(x["input"])[0]
    return F.layer_norm(y, y.shape[-1:], p["norm.norm.weight"], p["norm.norm.bias"])


def mega_prenorm_run(f: Callable[..., Any], x: Weights, p: Weights) -> Tensor:
    """As the residual type "pre" calls it."""
    normed = F.layer_norm(x["input"], x["input"].shape[-1:], p["norm.norm.weight"], p["norm.norm.bias"])
    return x["input"] + f(normed, shared_context={"residual": x["input"]})[0]


# torchscale, fairseq and rezero


def retention(h: dict[str, Any]) -> Retention:
    return Retention(
        LayerContext(width=h["embed_dim"], length=12),
        heads=h["heads"],
        value_factor=h["value_dim"] / h["embed_dim"],
        gate_fn=h["gate_fn"],
        eps=h["eps"],
    )


def transformer(h: dict[str, Any], residual: str, causal: bool) -> Stack:
    channel = Part("mlp", activation=h["activation"], expand=h["ffn"] / h["width"])
    recipe = Recipe(mixer=Part("attention", heads=h["heads"]), channel=channel, residual=residual, positions="none")
    return Stack(recipe, LayerContext(width=h["width"], length=16, depth=h["layers"]), causal=causal)


def encoder_weights(p: Weights, stack: torch.nn.Module) -> Weights:
    """`layers.{i}.` there are two sublayers here; Pre-LN has one more norm at the end."""
    found = {f"norm.{kind}": p[f"layer_norm.{kind}"] for kind in ("weight", "bias") if f"layer_norm.{kind}" in p}
    for i in range(3):
        f, g = f"sublayers.{2 * i}", f"sublayers.{2 * i + 1}"
        for kind in ("weight", "bias"):
            found[f"{f}.inner.qkv.{kind}"] = torch.cat([p[f"layers.{i}.self_attn.{x}_proj.{kind}"] for x in "qkv"])
            found[f"{f}.inner.out.{kind}"] = p[f"layers.{i}.self_attn.out_proj.{kind}"]
            found[f"{g}.inner.up.{kind}"] = p[f"layers.{i}.ffn.fc1.{kind}"]
            found[f"{g}.inner.down.{kind}"] = p[f"layers.{i}.ffn.fc2.{kind}"]
            found[f"{f}.norm.{kind}"] = p[f"layers.{i}.self_attn_layer_norm.{kind}"]
            found[f"{g}.norm.{kind}"] = p[f"layers.{i}.final_layer_norm.{kind}"]
    return found


def rezero_weights(p: Weights, stack: torch.nn.Module) -> Weights:
    """One weight for both branches of a layer there, one for each branch here."""
    found = {}
    for i in range(2):
        f, g = f"sublayers.{2 * i}", f"sublayers.{2 * i + 1}"
        scales = [name for name, _ in stack.named_parameters() if name.startswith((f"{f}.", f"{g}."))]
        found |= {name: p[f"{i}.resweight"] for name in scales if ".inner." not in name}
        for kind in ("weight", "bias"):
            found[f"{f}.inner.qkv.{kind}"] = p[f"{i}.self_attn.in_proj_{kind}"]
            found[f"{f}.inner.out.{kind}"] = p[f"{i}.self_attn.out_proj.{kind}"]
            found[f"{g}.inner.up.{kind}"] = p[f"{i}.linear1.{kind}"]
            found[f"{g}.inner.down.{kind}"] = p[f"{i}.linear2.{kind}"]
    return found


def linformer(h: dict[str, Any]) -> Linformer:
    context = LayerContext(width=h["embed_dim"], length=h["max_seq_len"], causal=False)
    sharing = "key_value" if h["shared_kv_compressed"] else "headwise"
    return Linformer(context, heads=h["heads"], k=h["max_seq_len"] // h["compressed"], sharing=sharing)


def linformer_weights(p: Weights, mixer: torch.nn.Module) -> Weights:
    found = {f"out.{kind}": p[f"out_proj.{kind}"] for kind in ("weight", "bias")}
    found |= {f"qkv.{kind}": torch.cat([p[f"{x}_proj.{kind}"] for x in "qkv"]) for kind in ("weight", "bias")}
    found["E"] = p["compress_k.weight"]
    return found | ({"F": p["compress_v.weight"]} if "compress_v.weight" in p else {})


# state-spaces/mamba and IDSIA/lmtool-fwp


def mamba(h: dict[str, Any]) -> Mamba:
    return Mamba(LayerContext(width=h["d_model"], length=9), **{k: v for k, v in h.items() if k != "d_model"})


def mamba2(h: dict[str, Any]) -> Mamba2:
    options = {k: tuple(v) if k == "dt_limit" else v for k, v in h.items() if k != "d_model"}
    return Mamba2(LayerContext(width=h["d_model"], length=9), chunk_size=4, **options)


def fast_weights(h: dict[str, Any]) -> FastWeights:
    norm = not h["skip_attn_normalization"]
    context = LayerContext(width=h["d_model"], length=8)
    return FastWeights(context, heads=h["n_head"], d_head=h["d_head"], attention_norm=norm, eps=h["eps"])


def h3(h: dict[str, Any]) -> H3:
    options = {name: h[name] for name in ("d_state", "head_dim", "disc", "layout")}
    return H3(LayerContext(width=h["d_model"], length=10), **options)


MEGA_CASE = Case("mega", mega, mega_weights, mega_run)
FAST_WEIGHTS = renamed({"slow_net.weight": "qkvb_net.weight", "out_linear.weight": "o_net.weight"})
CASES = {
    **dict.fromkeys(["s4d_bilinear", "s4d_zoh_real", "s4d_nssm"], S4D_CASE),
    **dict.fromkeys(["s4_rank1", "s4_rank2_nssm", "s4_channels", "s4_doubled", "s4_odd"], S4_CASE),
    "rwkv4_tmix": Case("rwkv4", lambda h: rwkv4.TimeMix(LayerContext(width=h["n_embd"], length=9))),
    "rwkv4_model": Case("rwkv4", lambda h: build("rwkv4", "lm", shape=language(h)), rwkv_names, logits),
    "rwkv5_tmix": Case(
        "rwkv5",
        lambda h: rwkv5.TimeMix(
            LayerContext(width=h["n_embd"], length=9),
            **{k: h[k] for k in ("dim_att", "head_size", "head_size_divisor")},
        ),
    ),
    "rwkv5_cmix": Case(
        "rwkv5",
        lambda h: rwkv5.ChannelMix(LayerContext(width=h["n_embd"], length=9), expand=h["dim_ffn"] / h["n_embd"]),
    ),
    **dict.fromkeys(["rwkv7_tmix_layer0", "rwkv7_tmix_layer1"], Case("rwkv7", rwkv7_mixer, run=rwkv7_run)),
    "rwkv7_cmix": Case(
        "rwkv7", lambda h: rwkv7.ChannelMix(LayerContext(width=h["n_embd"], length=9), expand=h["hidden"] / h["n_embd"])
    ),
    "rwkv7_model": Case("rwkv7", rwkv7_model, rwkv_names, logits),
    **dict.fromkeys(["h3_headdim2", "h3_headdim2_fused", "h3_headdim3"], Case("h3", h3)),
    "hyena_order3_safari": Case("hyena", hyena, hyena_weights, buffers=hyena_buffers),
    **dict.fromkeys(["mega_softmax_causal", "mega_laplace_chunk", "mega_relu2_both"], MEGA_CASE),
    "mega_softmax_both_chunk": MEGA_CASE,
    "mega_swapped_causal": dataclasses.replace(MEGA_CASE, ours=mega_swapped),
    "mega_prenorm": dataclasses.replace(MEGA_CASE, run=mega_prenorm_run),
    **dict.fromkeys(["retnet_recurrent_swish", "retnet_recurrent_gelu"], Case("retnet", retention)),
    "deepnorm_encoder": Case("deepnorm", lambda h: transformer(h, "deepnorm", causal=False), encoder_weights),
    "preln_encoder": Case("pre_ln", lambda h: transformer(h, "pre", causal=False), encoder_weights),
    "rezero_encoder": Case("rezero", lambda h: transformer(h, "rezero", causal=True), rezero_weights),
    **dict.fromkeys(["linformer_fairseq", "linformer_fairseq_shared"], Case("linformer", linformer, linformer_weights)),
    **dict.fromkeys(["mamba_a", "mamba_b"], Case("mamba", mamba, steps="output.step")),
    "mamba2simple_a": Case("mamba2", lambda h: mamba2({**h, "norm_groups": 1})),
    **dict.fromkeys(["mamba2simple_b", "mamba2_a", "mamba2_b"], Case("mamba2", mamba2)),
    **dict.fromkeys(["fwp_delta", "fwp_delta_norm"], Case("fast_weights", fast_weights, FAST_WEIGHTS)),
}


@pytest.mark.parametrize("name", CASES)
def test_recorded(oracle, name):
    case, about = CASES[name], json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    data, x, p = read(RECORDED / f"{name}.safetensors")
    module = case.make(about["hyper"]).double().eval()
    shapes = {key: value.shape for key, value in module.named_parameters()}
    weights = {key: value.reshape(shapes[key]) for key, value in case.ours(p, module).items() if key in shapes}
    assert weights.keys() == shapes.keys(), f"missing: {sorted(shapes.keys() - weights.keys())}"
    weights |= case.buffers(data)

    y = case.run(lambda *args, **more: functional_call(module, weights, args, more), x, p)
    how = "recorded" if about["source"].startswith("the package") else "transcribed, recorded"
    proof = oracle(case.architecture, f"{about['repo']}, {about['cls']} ({how})")
    # A bias on softmax's keys has no effect: its gradient is rounding, measured against the floor of `relative`.
    learned = {key: leaf for key, leaf in (x | p).items() if leaf.requires_grad}
    proof.recorded(y, data, learned, case.tolerance, 10 * case.tolerance)
    if case.steps is not None and case.steps in data:
        time = 2 if case.run is channels_first else 1
        module.load_state_dict({**module.state_dict(), **weights})
        steps, _ = in_pieces(module, data["input"].movedim(time, 1))
        proof.outputs(steps.movedim(1, time), data[case.steps], case.tolerance)
