"""Layers and models against their official code, which ran elsewhere and is recorded in recorded/*.safetensors.

Each recording's JSON says which file and class ran, with which options, and what stood in for a CUDA kernel; those of
flash-linear-attention are made by record_fla.py. Here a `Case` says how to build ours and how our parameters follow
from the official ones; gradients flow back through that, so that all are compared under the official names.
"""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from zoo import Shape, build
from zoo.architectures import rwkv4, rwkv5, rwkv6, rwkv7
from zoo.architectures.based import Based
from zoo.architectures.delta_net import DeltaNet
from zoo.architectures.fast_weights import FastWeights
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.architectures.gla import GLA
from zoo.architectures.h3 import H3
from zoo.architectures.hyena import Hyena
from zoo.architectures.linear_transformer import LinearAttention
from zoo.architectures.linformer import Linformer
from zoo.architectures.mamba import Mamba
from zoo.architectures.mamba2 import Mamba2
from zoo.architectures.mega import Mega
from zoo.architectures.retnet import Retention
from zoo.architectures.s4 import S4
from zoo.architectures.s4d import S4D
from zoo.blocks.stack import Stack
from zoo.contract import Batch, LayerContext
from zoo.published.rwkv import official_names
from zoo.types import Part, Recipe

from . import frontier
from .cases import Case, mixer, renamed, shared, started
from .compare import S4_NAMES, in_pieces, read
from .conftest import SHARED

RECORDED = Path(__file__).parent / "recorded"


def channels_first(f, x, _):
    return f(x["input"].transpose(1, 2))[0].transpose(1, 2)


S4D_CASE = Case("s4d", mixer(S4D), renamed(S4_NAMES), channels_first, steps="output.step")
S4_CASE = Case(
    "s4",
    mixer(S4),
    renamed(S4_NAMES),
    channels_first,
    lambda data: {"l_kernel": data["buffer.layer.kernel.l_kernel"]},
    steps="output.step.dense",
)

# BlinkDL/RWKV-LM


def ranks(h):
    return {f"{name}_lora": h["ranks"][c] for c, name in {"w": "decay", "a": "a", "v": "v", "g": "gate"}.items()}


def rwkv_model(name, more=lambda h: {}):
    def make(h):
        shape = Shape(length=16, vocab=h["vocab"], outputs=h["vocab"], width=h["n_embd"], depth=h["n_layer"])
        return build(name, "lm", shape=shape, **more(h))

    return Case(
        name,
        make,
        lambda p, model: {ours: p[theirs] for ours, theirs in official_names(model).items()},
        lambda f, x, _: f(Batch(x["input"])),
    )


# HazyResearch/safari


def order_first(t, dim, order=3):
    """Channel (v, o) of src/models/sequence/hyena.py → (o, v)."""
    return t.unflatten(dim, (-1, order - 1)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def hyena_weights(p, _):
    last = max(name for name in p if "implicit_filter" in name and name.endswith("weight"))
    return {**p, last: order_first(p[last], 0), "filter_fn.bias": order_first(p["filter_fn.bias"], 0)}


def hyena_buffers(data):
    t, deltas = (data[f"buffer.filter_fn.{name}"] for name in ("pos_emb.t", "modulation.deltas"))
    return {"filter_fn.pos_emb.t": t, "filter_fn.modulation.deltas": order_first(deltas, 2)}


# facebookresearch/mega


def mega_swapped(p, _):
    """The commit in which α and δ have each other's place."""
    return {**p, "move.alpha": p["move.delta"], "move.delta": p["move.alpha"]}


def mega_norm(x, p):
    return F.layer_norm(x, x.shape[-1:], p["norm.norm.weight"], p["norm.norm.bias"])


def mega_prenorm(f, x, p):
    """As the residual type "pre" calls it."""
    return x["input"] + f(mega_norm(x["input"], p), shared_context={"residual": x["input"]})[0]


MEGA = Case("mega", mixer(Mega), run=lambda f, x, p: mega_norm(x["input"] + f(x["input"])[0], p))

# fairseq and rezero


def transformer(architecture, residual, weights, *, causal=False):
    def make(h):
        channel = Part("mlp", activation=h["activation"], expand=h["ffn"] / h["width"])
        recipe = Recipe(mixer=Part("attention", heads=h["heads"]), channel=channel, residual=residual, positions="none")
        return Stack(recipe, LayerContext(width=h["width"], length=16, depth=h["layers"]), causal=causal)

    return Case(architecture, make, weights)


def encoder_weights(p, _):
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


def rezero_weights(p, stack):
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


def linformer_options(h):
    sharing = "key_value" if h["shared_kv_compressed"] else "headwise"
    return {"k": h["max_seq_len"] // h["compressed"], "sharing": sharing}


def linformer_weights(p, _):
    found = {f"out.{kind}": p[f"out_proj.{kind}"] for kind in ("weight", "bias")}
    found |= {f"qkv.{kind}": torch.cat([p[f"{x}_proj.{kind}"] for x in "qkv"]) for kind in ("weight", "bias")}
    return found | renamed({"E": "compress_k.weight", "F": "compress_v.weight"})(p, _)


# fla-org/flash-linear-attention


def linear_attention_options(h):
    d_keys, d_values = (int(h["hidden_size"] * h[name]) // h["num_heads"] for name in ("expand_k", "expand_v"))
    return {"d_keys": d_keys, "d_values": d_values, "eps": 1e-10}


def linear_attention_weights(p, attention):
    """Theirs has no biases where ours has."""
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "out"}
    found = started(**{theirs: f"{ours}_projection" for theirs, ours in names.items()})(p, attention)
    biases = {
        name: torch.zeros_like(b) for name, b in attention.named_parameters() if name.endswith("_projection.bias")
    }
    return biases | found


def rwkv6_weights(theirs, _):
    """Five mixes in another order, each a linear layer's matrix where ours are factors on the right."""
    order = [1, 2, 3, 0, 4]  # theirs r, w, k, v, g; ours w, k, v, r, g
    first, second = theirs["x_proj.0.linear.weight"], theirs["x_proj.2.weight"]
    ours = {
        "time_maa_x": theirs["x_proj.0.mu"],
        "time_maa_w1": first.unflatten(0, (5, -1))[order].flatten(0, 1).T,
        "time_maa_w2": second.unflatten(1, (5, -1)).permute(1, 2, 0)[order],
        "time_decay": theirs["w_proj.linear.lora.2.bias"],
        "time_decay_w1": theirs["w_proj.linear.lora.0.weight"].T,
        "time_decay_w2": theirs["w_proj.linear.lora.2.weight"].T,
        "time_faaaa": theirs["bonus"],
        "ln_x.weight": theirs["g_norm.weight"],
        "ln_x.bias": theirs["g_norm.bias"],
        "output.weight": theirs["o_proj.weight"],
    }
    ours |= {f"time_maa_{c}": theirs["x_bias"]["rwkvg".index(c)] for c in "rwkvg"}
    for c, name in {"r": "receptance", "k": "key", "v": "value", "g": "gate"}.items():
        ours[f"{name}.weight"] = theirs[f"{c}_proj.linear.weight"]
    return ours


def rwkv7_weights(theirs, _):
    ours = started(r_proj="receptance", k_proj="key", v_proj="value", o_proj="output", g_norm="ln_x")(theirs, _)
    for name in [name for name in ours if "lora" in name]:
        part = {"0.weight": "1", "2.weight": "2", "2.bias": "0"}[name.split(".lora.")[1]]
        value = ours.pop(name)
        ours[name[0] + part] = value if part == "0" else value.T
    return ours


MAMBA = {"d_state": "state_size", "d_conv": "conv_kernel", "conv_bias": "use_conv_bias", "bias": "use_bias"}
FLA = {
    "GatedLinearAttention": Case(
        "gla",
        mixer(GLA, heads="num_heads", kv_heads="num_kv_heads"),
        started(g_norm_swish_gate="g_norm"),
        state=("S", True),
    ),
    "DeltaNet": Case("delta_net", mixer(DeltaNet, heads="num_heads"), state=("S", False)),
    "GatedDeltaNet": Case(
        "gated_delta_net", mixer(GatedDeltaNet, heads="num_heads", value_heads="num_v_heads"), state=("S", True)
    ),
    # Its state is not ours: it scales queries, not keys.
    "MultiScaleRetention": Case(
        "retnet", mixer(Retention, heads="num_heads", eps="norm_eps"), started(o_proj="out_proj")
    ),
    # Its causal kernels do not ask for eps.
    "BasedLinearAttention": Case(
        "based",
        mixer(Based, lambda h: {"eps": h.get("eps") or {"chunk": 1e-10}.get(h.get("mode"), 1e-6)}, heads="num_heads"),
    ),
    "LinearAttention": Case(
        "linear_transformer",
        mixer(LinearAttention, linear_attention_options, heads="num_heads"),
        linear_attention_weights,
    ),
    "RWKV6Attention": Case(
        "rwkv6",
        mixer(
            rwkv6.TimeMix,
            lambda h: {
                "head_size": h["hidden_size"] // h["num_heads"],
                "head_size_divisor": (h.get("norm_eps", 1e-5) / 1e-5) ** 0.5,
            },
            mix_lora="proj_low_rank_dim",
            decay_lora="gate_low_rank_dim",
        ),
        rwkv6_weights,
        state=("S", False),
    ),
    "RWKV7Attention": Case(
        "rwkv7",
        mixer(
            rwkv7.TimeMix,
            lambda h: {"head_size_divisor": math.sqrt(h["head_dim"])},  # ε of its GroupNorm is 1e-5 · head_dim
            head_size="head_dim",
            **{f"{name}_lora": f"{name}_low_rank_dim" for name in ("decay", "a", "v", "gate")},
        ),
        rwkv7_weights,
        state=("S", False),
    ),
    "Mamba": Case(
        "mamba",
        mixer(Mamba, lambda h: {"expand": h["intermediate_size"] / h["hidden_size"]}, **MAMBA),
        state=("h", False),
    ),
    "Mamba2": Case("mamba2", mixer(Mamba2, headdim="head_dim", ngroups="n_groups", **MAMBA), state=("S", True)),
}
FAST_WEIGHTS = Case(
    "fast_weights",
    mixer(FastWeights, lambda h: {"attention_norm": not h["skip_attn_normalization"]}, heads="n_head"),
    renamed({"slow_net.weight": "qkvb_net.weight", "out_linear.weight": "o_net.weight"}),
)
CASES = {
    **dict.fromkeys(["s4d_bilinear", "s4d_zoh_real", "s4d_nssm"], S4D_CASE),
    **dict.fromkeys(["s4_rank1", "s4_rank2_nssm", "s4_channels", "s4_doubled", "s4_odd"], S4_CASE),
    "rwkv4_tmix": Case("rwkv4", mixer(rwkv4.TimeMix)),
    "rwkv4_model": rwkv_model("rwkv4"),
    "rwkv5_tmix": Case("rwkv5", mixer(rwkv5.TimeMix)),
    "rwkv5_cmix": Case("rwkv5", mixer(rwkv5.ChannelMix, lambda h: {"expand": h["dim_ffn"] / h["n_embd"]})),
    **dict.fromkeys(["rwkv7_tmix_layer0", "rwkv7_tmix_layer1"], Case("rwkv7", mixer(rwkv7.TimeMix, ranks))),
    "rwkv7_cmix": Case("rwkv7", mixer(rwkv7.ChannelMix, lambda h: {"expand": h["hidden"] / h["n_embd"]})),
    "rwkv7_model": rwkv_model(
        "rwkv7", lambda h: {**ranks(h), "head_size": h["head_size"], "expand": h["hidden"] / h["n_embd"]}
    ),
    **dict.fromkeys(["h3_headdim2", "h3_headdim2_fused", "h3_headdim3"], Case("h3", mixer(H3))),
    "hyena_order3_safari": Case("hyena", mixer(Hyena), hyena_weights, buffers=hyena_buffers),
    **dict.fromkeys(["mega_softmax_causal", "mega_softmax_both_chunk", "mega_laplace_chunk", "mega_relu2_both"], MEGA),
    "mega_swapped_causal": dataclasses.replace(MEGA, ours=mega_swapped),
    "mega_prenorm": dataclasses.replace(MEGA, run=mega_prenorm),
    **dict.fromkeys(
        ["retnet_recurrent_swish", "retnet_recurrent_gelu"],
        Case("retnet", mixer(Retention, lambda h: {"value_factor": h["value_dim"] / h["embed_dim"]})),
    ),
    "deepnorm_encoder": transformer("deepnorm", "deepnorm", encoder_weights),
    "preln_encoder": transformer("pre_ln", "pre", encoder_weights),
    "rezero_encoder": transformer("rezero", "rezero", rezero_weights, causal=True),
    **dict.fromkeys(
        ["linformer_fairseq", "linformer_fairseq_shared"],
        Case("linformer", mixer(Linformer, linformer_options), linformer_weights),
    ),
    **dict.fromkeys(["mamba_a", "mamba_b"], Case("mamba", mixer(Mamba), steps="output.step")),
    "mamba2simple_a": Case("mamba2", mixer(Mamba2, lambda h: {"chunk_size": 4, "norm_groups": 1})),
    **dict.fromkeys(
        ["mamba2simple_b", "mamba2_a", "mamba2_b"], Case("mamba2", mixer(Mamba2, lambda h: {"chunk_size": 4}))
    ),
    **dict.fromkeys(["fwp_delta", "fwp_delta_norm"], FAST_WEIGHTS),
}


def case_of(about, name):
    """The case of a recording, and what it is compared with."""
    if "fla-org" in about["repo"]:
        kind = about["cls"].removesuffix(".eval()")
        case = (FLA | frontier.CASES)[kind]
        if about["dtype"] == "float32":
            case = dataclasses.replace(case, tolerance=1e-5)
        version = about.get("version") or f"at {about['commit'][:8]}"
        return case, f"flash-linear-attention {version}, {kind} (recorded)"
    how = "recorded" if about["source"].startswith("the package") else "transcribed, recorded"
    return (CASES | frontier.OTHERS)[name], f"{about['repo']}, {about['cls']} ({how})"


LAYERS = [*RECORDED.glob("*.json"), *(SHARED / "parity_frontier").glob("*_layer.json")]


@pytest.mark.parametrize("path", sorted(LAYERS), ids=lambda path: path.stem)
def test_recorded(oracle, path):
    about = json.loads(path.read_text(encoding="utf-8"))
    case, source = case_of(about, path.stem)
    data, x, p = read(path.with_suffix(".safetensors"))
    module = case.make(about["hyper"]).double().eval()
    shapes = {key: value.shape for key, value in module.named_parameters()}
    weights = {key: value.reshape(shapes[key]) for key, value in case.ours(p, module).items() if key in shapes}
    assert weights.keys() == shapes.keys(), f"missing: {sorted(shapes.keys() - weights.keys())}"
    weights |= case.buffers(data)

    def call(*args, **more):
        return functional_call(module, weights, args, more)

    proof = oracle(case.architecture, source)
    # A bias on softmax's keys has no effect: its gradient is rounding, measured against the floor of `relative`.
    learned = {key: leaf for key, leaf in (x | p).items() if leaf.requires_grad}
    proof.recorded(case.run(call, x, p), data, learned, case.tolerance, 10 * case.tolerance)
    if case.steps in data:
        time = 2 if case.run is channels_first else 1
        module.load_state_dict({**module.state_dict(), **weights})
        steps, _ = in_pieces(module, data["input"].movedim(time, 1))
        proof.outputs(steps.movedim(1, time), data[case.steps], case.tolerance)
    if case.state and path.parent == RECORDED:  # elsewhere with its axes in another order
        start, (key, turned) = module.init_state(len(x["input"]), device="cpu", dtype=torch.float64), case.state
        y, after = call(x["input"], state=start, **shared(x))
        proof.outputs(y, data["output"], case.tolerance)
        proof.outputs(after[key].mT if turned else after[key], data["state.final"])
