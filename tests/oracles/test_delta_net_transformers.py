"""The gated delta rule and Gated DeltaNet against transformers: Qwen3-Next's operators, both models' layers."""

import pytest
import torch

from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.contract import LayerContext
from zoo.ops.delta_rule import delta_rule

from .compare import gradients_of, leaves

pytest.importorskip("transformers.models.qwen3_next")
pytest.importorskip("transformers.models.olmo_hybrid")
D, T, B = 24, 33, 2
HEADS, VALUE_HEADS, K, V, KERNEL = 2, 4, 6, 9, 3
OPTIONS = {"heads": HEADS, "value_heads": VALUE_HEADS, "head_dim": K, "expand_v": V / K, "conv_size": KERNEL}
CONFIG = {
    "hidden_size": D,
    "linear_num_key_heads": HEADS,
    "linear_num_value_heads": VALUE_HEADS,
    "linear_key_head_dim": K,
    "linear_value_head_dim": V,
    "linear_conv_kernel_dim": KERNEL,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
}
WIDTHS = [HEADS * K, HEADS * K, VALUE_HEADS * V]


@pytest.mark.parametrize("name", ["torch_recurrent_gated_delta_rule", "torch_chunk_gated_delta_rule"])
def test_gated_delta_rule(oracle, name):
    from transformers.models.qwen3_next import modeling_qwen3_next as qwen

    torch.manual_seed(0)
    q, k, v = torch.randn(B, 70, 3, 5), torch.randn(B, 70, 3, 5), torch.randn(B, 70, 3, 7)
    g, beta, S = -torch.rand(B, 70, 3).exp(), 2 * torch.rand(B, 70, 3), torch.randn(B, 3, 5, 7)
    k = torch.nn.functional.normalize(k, dim=-1)
    inputs = dict(zip(("q", "k", "v", "g", "beta", "S"), (q, k, v, g, beta, S), strict=True))
    for x in inputs.values():
        x.requires_grad_()
    want = getattr(qwen, name)(q, k, v, g=g, beta=beta, initial_state=S, output_final_state=True)
    first = [x.transpose(1, 2) for x in (q * 5**-0.5, k, v, beta, g)]
    o, last = delta_rule(*first, state=S, chunk=16)
    got = o.transpose(1, 2), last
    proof = oracle("gated_delta_net", f"transformers, qwen3_next {name}")
    for ours, theirs in zip(got, want, strict=True):
        proof.outputs(ours, theirs)
    joined = [torch.cat([y.flatten() for y in pair]) for pair in (got, want)]
    cotangent = torch.randn_like(joined[0])
    proof.gradients(*(gradients_of(y, cotangent, inputs) for y in joined))


def ours():
    """Our layer with random weights, in float32, in which the official functions compute."""
    torch.manual_seed(0)
    mixer = GatedDeltaNet(LayerContext(width=D, length=T), **OPTIONS)
    for p in mixer.parameters():
        p.data = torch.randn_like(p) * p[0].numel() ** -0.5 if p.dim() > 1 else 0.5 * torch.randn_like(p)
    return mixer, torch.randn(B, T, D, requires_grad=True)


def compare(name, oracle, mixer, x, layer, to_ours):
    """`to_ours` turns gradients by official name into ours by our name."""
    proof = oracle("gated_delta_net", f"transformers, {name}")
    proof.equal(mixer(x)[0], layer(x), leaves(mixer, input=x), leaves(layer, input=x), renamed=to_ours)


@pytest.mark.parametrize("negative", [False, True])
def test_olmo_hybrid(oracle, negative):
    from transformers.models.olmo_hybrid import OlmoHybridConfig
    from transformers.models.olmo_hybrid.modeling_olmo_hybrid import OlmoHybridGatedDeltaNet

    mixer, x = ours()
    mixer.largest_beta = 2.0 if negative else 1.0
    layer = OlmoHybridGatedDeltaNet(OlmoHybridConfig(**CONFIG, linear_allow_neg_eigval=negative), 0)
    state = mixer.state_dict()
    convs = [state.pop(f"{name}_conv1d.weight") for name in "qkv"]
    layer.load_state_dict({**state, "conv1d.weight": torch.cat(convs)})

    def to_ours(official):
        parts = official.pop("conv1d.weight").split(WIDTHS)
        return {**official, **{f"{name}_conv1d.weight": part for name, part in zip("qkv", parts, strict=True)}}

    compare("OlmoHybridGatedDeltaNet", oracle, mixer, x, layer, to_ours)


def test_qwen3_next(oracle):
    """q, k, v and the gate z lie in one matrix there, key head by key head, and so do b and a."""
    from transformers.models.qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    mixer, x = ours()
    layer = Qwen3NextGatedDeltaNet(Qwen3NextConfig(**CONFIG), 0)
    each = VALUE_HEADS // HEADS

    def by_head(weight):
        return weight.view(HEADS, -1, D)

    state = mixer.state_dict()
    qkvz = torch.cat([by_head(state[f"{name}_proj.weight"]) for name in "qkvg"], dim=1).flatten(0, 1)
    ba = torch.cat([by_head(state[f"{name}_proj.weight"]) for name in "ba"], dim=1).flatten(0, 1)
    same = {"input": "input", "dt_bias": "dt_bias", "A_log": "A_log"}
    same |= {"o_norm.weight": "norm.weight", "o_proj.weight": "out_proj.weight"}
    convs = torch.cat([state[f"{name}_conv1d.weight"] for name in "qkv"])
    joined = {"in_proj_qkvz.weight": qkvz, "in_proj_ba.weight": ba, "conv1d.weight": convs}
    layer.load_state_dict(joined | {there: state[name] for name, there in same.items() if name != "input"})

    def to_ours(official):
        qkvz = by_head(official["in_proj_qkvz.weight"]).split([K, K, each * V, each * V], dim=1)
        ba = by_head(official["in_proj_ba.weight"]).split([each, each], dim=1)
        convs = official["conv1d.weight"].split(WIDTHS)
        return {
            **{f"{name}_proj.weight": part.flatten(0, 1) for name, part in zip("qkvg", qkvz, strict=True)},
            **{f"{name}_proj.weight": part.flatten(0, 1) for name, part in zip("ba", ba, strict=True)},
            **{f"{name}_conv1d.weight": part for name, part in zip("qkv", convs, strict=True)},
            **{name: official[there] for name, there in same.items()},
        }

    compare("Qwen3NextGatedDeltaNet", oracle, mixer, x, layer, to_ours)
