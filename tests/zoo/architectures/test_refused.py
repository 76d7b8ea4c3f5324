"""Options that a mixer cannot have are refused where it is built, and inputs it was not built for when they come."""

import pytest
import torch

from zoo.architectures import rwkv5
from zoo.architectures.based import BaseConv, Based
from zoo.architectures.bigbird import BigBird
from zoo.architectures.delta_net import DeltaNet
from zoo.architectures.fast_weights import FastWeights
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.architectures.gmlp import SpatialGate
from zoo.architectures.gss import GSS
from zoo.architectures.h3 import H3
from zoo.architectures.hyena import Hyena
from zoo.architectures.linear_transformer import LinearAttention
from zoo.architectures.linformer import Linformer
from zoo.architectures.longformer import Longformer
from zoo.architectures.lru import LRU
from zoo.architectures.mamba import Mamba
from zoo.architectures.mamba2 import Mamba2
from zoo.architectures.mega import Mega
from zoo.architectures.mlp_mixer import TokenMLP
from zoo.architectures.mlstm import MLSTM
from zoo.architectures.nystromformer import Nystromformer
from zoo.architectures.performer import Performer
from zoo.architectures.reformer import Reformer
from zoo.architectures.retnet import Retention
from zoo.architectures.s4 import S4
from zoo.architectures.s4d import S4D
from zoo.architectures.s5 import S5
from zoo.architectures.sinkhorn import Sinkhorn
from zoo.architectures.slstm import SLSTM
from zoo.architectures.synthesizer import Synthesizer
from zoo.contract import LayerContext, Part
from zoo.layers import MIXERS
from zoo.options import make

T = 17
REFUSED = {
    Based: [({"heads": 5}, "width 12"), ({"feature_dim": 0}, "feature_dim"), ({"eps": -1.0}, "eps")],
    BaseConv: [({"expand_proj": 0}, "two halves"), ({"kernel_size": 0}, "kernel_size")],
    BigBird: [({"heads": 5}, "does not divide"), ({"block_size": 0}, "0"), ({"random_blocks": 0}, "0")],
    DeltaNet: [
        ({"heads": 5}, "key width 12 does not divide into 5 heads"),
        ({"heads": 0}, "at least 1"),
        ({"expand_v": 0.25, "heads": 2}, "value width 3"),
        ({"qk_activation": "gelu"}, "qk_activation"),
        ({"qk_norm": "l1"}, "qk_norm"),
        ({"conv_size": 0}, "conv_size"),
    ],
    FastWeights: [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"heads": 0}, "does not divide"),
        ({"d_head": 0}, "d_head"),
        ({"rule": "hebb"}, "rule"),
        ({"feature_map": "favor"}, "feature_map"),
        ({"feature_map": "dpfp", "nu": 6}, "between 1 and 5"),
    ],
    GatedDeltaNet: [
        ({"heads": 4, "value_heads": 6}, "not a multiple"),
        ({"heads": 0}, "not a multiple"),
        ({"head_dim": 5, "expand_v": 1.5}, "whole number"),
        ({"heads": 64}, "too small"),
        ({"head_dim": 0}, "too small"),
        ({"output_gate_activation": "gelu"}, "output_gate_activation"),
        ({"conv_size": 0}, "conv_size"),
    ],
    SpatialGate: [({"expand": 0.1}, "even number"), ({"expand": 1.25}, "even number")],
    GSS: [({"d_hidden": 0}, "d_hidden"), ({"expand": 0.01}, "expand"), ({"d_state": 0}, "d_state")],
    H3: [
        ({"d_state": 7}, "even"),
        ({"head_dim": 5}, "width 12 does not divide into heads of 5"),
        ({"init": "hippo"}, "not one of lin"),
        ({"disc": "euler"}, "not one of zoh"),
        ({"layout": "hd"}, "not one of h d"),
        ({"dt_min": 1}, "dt"),
    ],
    Hyena: [
        ({"order": 1}, "order"),
        ({"emb_dim": 4}, "odd"),
        ({"emb_dim": 1}, "odd"),
        ({"short_filter_order": 0}, "short_filter_order"),
        ({"filter_order": 0}, "MLP"),
        ({"num_inner_mlps": -1}, "MLP"),
    ],
    LinearAttention: [({"heads": 5}, "width 12"), ({"d_keys": 0}, "d_keys"), ({"eps": 0.0}, "eps")],
    Linformer: [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"k": T + 1}, f"k must lie in 1 .. {T}"),
        ({"k": 0}, "k must lie in 1"),
        ({"sharing": "layerwise"}, "'layerwise' is not one of none, headwise, key_value"),
    ],
    Longformer: [
        ({"window": 3}, "even"),
        ({"window": 0}, "even"),
        ({"heads": 5}, "does not divide"),
        ({"global_tokens": -1}, "-1"),
    ],
    LRU: [
        ({"d_hidden": 0}, "d_hidden"),
        ({"r_min": 0.9, "r_max": 0.5}, "r_min < r_max"),
        ({"r_max": 1.1}, "r_max"),
        ({"max_phase": -3.1}, "max_phase"),
    ],
    Mamba: [
        ({"d_state": 0}, "d_state"),
        ({"d_conv": 0}, "d_conv"),
        ({"expand": 0.05}, "expand"),
        ({"dt_rank": "full"}, "dt_rank"),
        ({"dt_init": "zero"}, "not one of random"),
        ({"dt_min": 1.0}, "dt_min"),
    ],
    Mamba2: [
        ({"headdim": 5}, "heads of 5"),
        ({"ngroups": 5}, "5 groups"),
        ({"norm_groups": 5}, "24 into 5"),
        ({"d_ssm": 28, "headdim": 4}, "d_ssm 28"),
        ({"d_state": 0}, "d_state"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"A_init_range": (0.0, 1.0)}, "A_init_range"),
        ({"dt_max": 1e-4}, "dt_min"),
    ],
    Mega: [
        ({"zdim": 0}, "at least 1"),
        ({"ndim": 0}, "at least 1"),
        ({"zdim": 3, "rel_pos_bias": "rotary"}, "even zdim"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"attention_activation": "relu"}, "not one of softmax"),
        ({"rel_pos_bias": "alibi"}, "not one of simple"),
    ],
    TokenMLP: [({"tokens_ratio": 0.01}, "leaves no hidden units")],
    MLSTM: [
        ({"heads": 3, "round_proj_up_to_multiple_of": 64}, "64 units, .* do not divide into 3 heads"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"qkv_proj_blocksize": 5, "round_proj_up_to_multiple_of": 64}, "blocks"),
        ({"proj_factor": 0}, "proj_factor"),
        ({"conv1d_kernel_size": 0}, "conv1d_kernel_size must be at least 1"),
        ({"round_proj_up_to_multiple_of": 0}, "round_proj_up_to_multiple_of must be"),
    ],
    Nystromformer: [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"num_landmarks": 0}, "at least 1"),
        ({"conv_kernel_size": 4}, "odd"),
        ({"init_option": "fast"}, "'fast' is not one of exact, original"),
    ],
    Performer: [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"kernel": "cosine"}, "'cosine' is not one of softmax, relu"),
        ({"features": 0}, "at least 1"),
        ({"eps": 0.0}, "must be positive"),
    ],
    Reformer: [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"buckets": 3}, "even"),
        ({"buckets": []}, "even"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"hashes": 0}, "hashes must be at least 1"),
        ({"before": -1}, "negative"),
        ({"duplicates": False, "after": 1}, "before=1 and after=0"),
    ],
    Retention: [
        ({"heads": 5}, "width 12"),
        ({"heads": 4}, "even"),
        ({"heads": 3, "value_factor": 0.4}, "values 4 wide"),
        ({"heads": 3, "gate_fn": "relu"}, "swish, gelu"),
        ({"heads": 3, "form": "chunkwise"}, "recurrent, parallel"),
    ],
    rwkv5.TimeMix: [
        ({"head_size": 5}, "does not divide into heads"),
        ({"head_size": 1}, "at least 2 channels"),
        ({"head_size": 4, "dim_att": 10}, "does not divide into heads"),
        ({"head_size": 4, "dim_att": 0}, "does not divide into heads|at least 2 channels"),
    ],
    S4: [
        ({"d_state": 7}, "even"),
        ({"init": "lin"}, "not one of legs"),
        ({"init": "legt"}, "rank 2"),
        ({"n_ssm": 5}, "n_ssm 5"),
        ({"n_ssm": 0}, "n_ssm 0"),
        ({"init": "hippo", "n_ssm": 1}, "even for init hippo"),
        ({"channels": 0}, "channels"),
        ({"dt_min": 1}, "dt"),
    ],
    S4D: [
        ({"d_state": 7}, "even"),
        ({"init": "hippo"}, "not one of lin"),
        ({"dt_min": 1}, "dt"),
        ({"n_ssm": 36}, "divide"),
    ],
    S5: [
        ({"d_state": 12, "blocks": 4}, "d_state 12 does not divide into 4 blocks"),
        ({"blocks": 0}, "blocks"),
        ({"dt_min": 1}, "dt"),
    ],
    Sinkhorn: [
        ({"heads": 5}, "does not divide"),
        ({"block_size": 0}, "positive"),
        ({"temperature": 0.0}, "positive"),
        ({"sort_net": "bubble"}, "'bubble' is not one of simple, attention"),
    ],
    SLSTM: [
        ({"heads": 5}, "width 12 does not divide into 5 heads"),
        ({"heads": 2, "conv1d_kernel_size": -1}, "conv1d_kernel_size"),
    ],
    Synthesizer: [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"variant": "sparse"}, "'sparse' is not one of dense"),
        ({"dot": "times"}, "'times' is not one of none"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"factor": T + 1}, f"factor must lie in 1 .. {T}"),
    ],
}


def build(kind, **options):
    context = LayerContext(width=12, length=T, causal=kind.traits.causal != "no")
    return make(MIXERS, Part(kind, **options), context)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [(kind, *case) for kind, cases in REFUSED.items() for case in cases],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_options_that_cannot_be(kind, options, message):
    with pytest.raises(ValueError, match=message):
        build(kind, **options)


@pytest.mark.parametrize(
    ("kind", "options", "steps", "message"),
    [
        (SpatialGate, {"expand": 2}, T - 1, f"exactly {T}"),
        (TokenMLP, {}, T - 1, f"exactly {T}"),
        (TokenMLP, {}, T + 1, f"exactly {T}"),
        (Linformer, {"heads": 3, "k": 5}, T + 1, f"at most {T}"),
        (BigBird, {"heads": 2, "block_size": 1, "random_blocks": 1}, T + 1, f"{T} at most"),
        (Sinkhorn, {"heads": 2}, T + 1, f"{T} at most"),
        (Hyena, {}, T + 1, f"hyena: {T + 1} steps exceed the {T}"),
        (Mega, {}, T + 1, f"mega: {T + 1} steps exceed the {T}"),
        (Synthesizer, {"heads": 3}, T + 1, f"at most {T}"),
    ],
)
def test_lengths_that_cannot_be(kind, options, steps, message):
    with pytest.raises(ValueError, match=message):
        build(kind, **options)(torch.zeros(1, steps, 12))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [(Hyena, {}, "exceed"), (Mega, {}, "exceed"), (Synthesizer, {"heads": 3}, f"{T + 1} steps")],
)
def test_a_state_counts_towards_the_length(kind, options, message):
    mixer = build(kind, **options)
    _, state = mixer(torch.zeros(1, T, 12), state=mixer.init_state(1, device="cpu", dtype=torch.float32))
    with pytest.raises(ValueError, match=message):
        mixer(torch.zeros(1, 1, 12), state=state)
