"""Layers of flash-linear-attention, recorded by record_fla.py, and ours with the same weights.

`LAYERS` says for each official class which of our mixers it is, what its options and parameters are called here.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from zoo.architectures.based import Based
from zoo.architectures.delta_net import DeltaNet
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.architectures.gla import GLA
from zoo.architectures.linear_transformer import LinearAttention
from zoo.architectures.mamba import Mamba
from zoo.architectures.mamba2 import Mamba2
from zoo.architectures.retnet import Retention
from zoo.architectures.rwkv6 import TimeMix as TimeMix6
from zoo.architectures.rwkv7 import TimeMix as TimeMix7
from zoo.contract import LayerContext, Mixer

from .compare import read

RECORDED = Path(__file__).parent / "recorded"
Tensors = dict[str, Tensor]


def same(tensors: Tensors) -> Tensors:
    return tensors


def renamed(**patterns: str) -> Callable[[Tensors], Tensors]:
    """With each start of a name, as a pattern, replaced."""

    def rename(tensors: Tensors) -> Tensors:
        for old, new in patterns.items():
            tensors = {re.sub(f"^{old}(?=[._]|$)", new, name): value for name, value in tensors.items()}
        return tensors

    return rename


def rwkv6(theirs: Tensors) -> Tensors:
    """Five mixes in another order, each a linear layer's matrix where ours are factors on the right."""
    order = [1, 2, 3, 0, 4]  # theirs r, w, k, v, g; ours w, k, v, r, g
    first, second = theirs["x_proj.0.linear.weight"], theirs["x_proj.2.weight"]
    ours = {
        "time_maa_x": theirs["x_proj.0.mu"][None, None],
        "time_maa_w1": first.unflatten(0, (5, -1))[order].flatten(0, 1).T,
        "time_maa_w2": second.unflatten(1, (5, -1)).permute(1, 2, 0)[order],
        "time_decay": theirs["w_proj.linear.lora.2.bias"][None, None],
        "time_decay_w1": theirs["w_proj.linear.lora.0.weight"].T,
        "time_decay_w2": theirs["w_proj.linear.lora.2.weight"].T,
        "time_faaaa": theirs["bonus"],
        "ln_x.weight": theirs["g_norm.weight"],
        "ln_x.bias": theirs["g_norm.bias"],
        "output.weight": theirs["o_proj.weight"],
    }
    ours |= {f"time_maa_{c}": theirs["x_bias"]["rwkvg".index(c)][None, None] for c in "rwkvg"}
    for c, name in {"r": "receptance", "k": "key", "v": "value", "g": "gate"}.items():
        ours[f"{name}.weight"] = theirs[f"{c}_proj.linear.weight"]
    return ours


def rwkv7(theirs: Tensors) -> Tensors:
    ours = renamed(r_proj="receptance", k_proj="key", v_proj="value", o_proj="output", g_norm="ln_x")(theirs)
    for name in [name for name in ours if "lora" in name]:
        c, part = name[0], {"0.weight": "1", "2.weight": "2", "2.bias": "0"}[name.split(".lora.")[1]]
        value = ours.pop(name)
        ours[c + part] = value[None, None] if part == "0" else value.T
    return ours | {name: ours[name][None, None] for name in ("k_k", "k_a")}


@dataclass
class Layer:
    """What an official class is here."""

    architecture: str
    mixer: type[Mixer]
    options: dict[str, str] = field(default_factory=dict)
    """Official options that are called something else here; "" for those that follow from others."""
    parameters: Callable[[Tensors], Tensors] = same
    """From official names and layouts to ours; gradients flow back through it, and meet under the official names."""
    also: Callable[[dict[str, Any]], dict[str, Any]] = lambda hyper: {}
    """Options of ours that the official ones, or the absence of one, imply."""
    state: tuple[str, bool] | None = None
    """Which state of ours the official one is, and whether its last two axes are the other way round."""


HEADS = {"num_heads": "heads"}
LAYERS = {
    "GatedLinearAttention": Layer(
        "gla",
        GLA,
        HEADS | {"num_kv_heads": "kv_heads"},
        renamed(g_norm_swish_gate="g_norm"),
        state=("S", True),
    ),
    "DeltaNet": Layer("delta_net", DeltaNet, HEADS, state=("S", False)),
    "GatedDeltaNet": Layer("gated_delta_net", GatedDeltaNet, HEADS | {"num_v_heads": "value_heads"}, state=("S", True)),
    "MultiScaleRetention": Layer(
        "retnet",
        Retention,
        HEADS | {"norm_eps": "eps", "elementwise_affine": ""},
        renamed(o_proj="out_proj"),  # its state is not ours: it scales queries, not keys
    ),
    "BasedLinearAttention": Layer(
        "based",
        Based,
        HEADS | {"num_key_value_heads": "", "mode": "", "causal": ""},
        # Its causal kernels do not ask for eps.
        also=lambda hyper: {"eps": hyper.get("eps") or {"chunk": 1e-10}.get(hyper.get("mode"), 1e-6)},
    ),
    "LinearAttention": Layer(
        "linear_transformer",
        LinearAttention,
        HEADS | dict.fromkeys(["expand_k", "expand_v", "feature_map", "do_feature_map_norm", "output_norm"], ""),
        renamed(q_proj="query_projection", k_proj="key_projection", v_proj="value_projection", o_proj="out_projection"),
        lambda hyper: {
            "d_keys": int(hyper["hidden_size"] * hyper["expand_k"]) // hyper["num_heads"],
            "d_values": int(hyper["hidden_size"] * hyper["expand_v"]) // hyper["num_heads"],
            "eps": 1e-10,
        },
    ),
    "RWKV6Attention": Layer(
        "rwkv6",
        TimeMix6,
        {"proj_low_rank_dim": "mix_lora", "gate_low_rank_dim": "decay_lora"}
        | dict.fromkeys(["num_heads", "expand_k", "norm_eps"], ""),
        rwkv6,
        lambda hyper: {
            "head_size": hyper["hidden_size"] // hyper["num_heads"],
            "head_size_divisor": (hyper.get("norm_eps", 1e-5) / 1e-5) ** 0.5,
        },
        state=("S", False),
    ),
    "RWKV7Attention": Layer(
        "rwkv7",
        TimeMix7,
        {"head_dim": "head_size", "decay_low_rank_dim": "decay_lora", "a_low_rank_dim": "a_lora"}
        | {"v_low_rank_dim": "v_lora", "gate_low_rank_dim": "gate_lora", "num_hidden_layers": "", "layer_idx": ""},
        rwkv7,
        lambda hyper: {"head_size_divisor": math.sqrt(hyper["head_dim"])},  # ε of its GroupNorm is 1e-5 · head_dim
        state=("S", False),
    ),
    "Mamba": Layer(
        "mamba",
        Mamba,
        {"state_size": "d_state", "conv_kernel": "d_conv", "use_conv_bias": "conv_bias", "use_bias": "bias"}
        | {"intermediate_size": ""},
        also=lambda hyper: {"expand": hyper["intermediate_size"] / hyper["hidden_size"]},
        state=("h", False),
    ),
    "Mamba2": Layer(
        "mamba2",
        Mamba2,
        {"state_size": "d_state", "conv_kernel": "d_conv", "use_conv_bias": "conv_bias", "use_bias": "bias"}
        | {"head_dim": "headdim", "n_groups": "ngroups"},
        state=("S", True),
    ),
}


def build(layer: Layer, hyper: dict[str, Any], steps: int) -> Mixer:
    context = LayerContext(
        width=hyper["hidden_size"],
        length=steps,
        causal=hyper.get("causal", True),
        layer=hyper.get("layer_idx", 0),
        depth=2,
    )
    options = {layer.options.get(name, name): value for name, value in hyper.items() if name != "hidden_size"}
    options.pop("", None)
    return layer.mixer(context, **options | layer.also(hyper)).double()


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("fla_*.json")))
def test_layer(oracle, name):
    about = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    data, inputs, official = read(RECORDED / f"{name}.safetensors")
    x, layer = inputs["input"], LAYERS[about["cls"]]
    mixer = build(layer, about["hyper"], x.shape[1])
    weights, own = layer.parameters(official), dict(mixer.named_parameters())
    absent = {name: torch.zeros_like(p) for name, p in own.items() if name not in weights}
    assert weights.keys() <= own.keys()
    assert all(name.endswith("_projection.bias") for name in absent)
    more = {"shared_context": {"v_first": inputs["v_first"]}} if "v_first" in inputs else {}
    state = mixer.init_state(len(x), device="cpu", dtype=x.dtype) if layer.state else None
    y, state = functional_call(mixer, weights | absent, (x,), {"state": state, **more})
    proof = oracle(layer.architecture, f"flash-linear-attention {about['version']}, {about['cls']} (recorded)")
    proof.recorded(y, data, inputs | official, 1e-5, 1e-4)
    if layer.state:
        key, turned = layer.state
        proof.outputs(state[key].mT if turned else state[key], data["state.final"])
