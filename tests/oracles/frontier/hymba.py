"""Hymba as released, and as NVIDIA's minimal code has it: how each is compared, by the name of the recording."""

import re

from torch import nn

from zoo.architectures.hymba import Hymba
from zoo.contract import LayerContext
from zoo.types import Part

from ..cases import Case

MAMBA = ("d_state", "d_conv", "expand", "dt_rank", "conv_bias")


class Layers(nn.ModuleList):
    """One behind the other, with what they share."""

    def forward(self, x):
        shared = {}
        for layer in self:
            x, _ = layer(x, shared_context=shared)
        return x


def layers(h, at, rope, **options):
    """Those of eight, of which the first, fourth and last have no window."""
    positions = Part("rope") if rope else None
    contexts = [LayerContext(h["hidden_size"], 128, layer=i, depth=8, positions=positions) for i in at]
    heads = {"heads": h["num_attention_heads"], "kv_heads": h["num_key_value_heads"]}
    return Layers(Hymba(context, **heads, **options) for context in contexts)


def released(h):
    """Official windows are beside the query's own step."""
    options = {name: h[f"mamba_{name}"] for name in MAMBA}
    options |= {"bias": h["mamba_proj_bias"], "inner_norms": h["mamba_inner_layernorms"]}
    return layers(h, h["layers"], True, window=h["sliding_window"] + 1, **options)


def minimal(h):
    """Its queries and keys are as wide as its values."""
    window, expand = h["attention_window_size"], h["mamba_expand"]
    sizes = {"d_state": h["ssm_state_size"], "d_conv": h["conv_kernel_size"], "dt_rank": h["time_step_rank"]}
    sizes |= {"expand": expand, "kq_head_dim": expand * h["hidden_size"] // h["num_attention_heads"]}
    at, width = ([0], {}) if window is None else ([1], {"window": window + 1})
    return layers(h, at, h.get("use_positional_embedding", False), bias=True, **sizes, **width)


def renamed(p, _):
    """Ours has one of each where theirs has lists of one, and no module for the state space alone."""
    found = {}
    for name, value in p.items():
        name = re.sub(r"\b(A_log|D|x_proj|dt_proj)\.0", r"\1", name).replace("mamba.", "")
        name = name.replace("B_layernorm", "b_layernorm").replace("C_layernorm", "c_layernorm")
        found[name if name[0].isdigit() else f"0.{name}"] = value
    return found


def run(f, x, _):
    return f(x["input"])


OTHERS = dict.fromkeys(["hymba_global", "hymba_window"], Case("hymba", released, renamed, run))
OTHERS |= dict.fromkeys(["hymba_minimal", "hymba_minimal_window"], Case("hymba", minimal, renamed, run))
