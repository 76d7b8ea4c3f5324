"""The gated delta rule and Gated DeltaNet against transformers: Qwen3-Next's operators, both models' layers."""

import pytest
import torch

from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.contract import LayerContext
from zoo.ops.delta_rule import delta_rule

from .compare import gradients_of

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
    inputs = {str(i): x.requires_grad_() for i, x in enumerate((q, k, v, g, beta, S))}
    want = getattr(qwen, name)(q, k, v, g=g, beta=beta, initial_state=S, output_final_state=True)
    first = [x.transpose(1, 2) for x in (q * 5**-0.5, k, v, beta, g)]
    o, last = delta_rule(*first, state=S)
    got = o.transpose(1, 2), last
    proof = oracle("gated_delta_net", f"transformers, qwen3_next {name}")
    for ours, theirs in zip(got, want, strict=True):
        proof.outputs(ours, theirs)
    joined = [torch.cat([y.flatten() for y in pair]) for pair in (got, want)]
    cotangent = torch.randn_like(joined[0])
    proof.gradients(*(gradients_of(y, cotangent, inputs) for y in joined))


def ours():
    """Our layer and inputs in float32, in which the official functions compute."""
    torch.manual_seed(0)
    return GatedDeltaNet(LayerContext(width=D, length=T), **OPTIONS), torch.randn(B, T, D, requires_grad=True)


def randomised(layer):
    for p in layer.parameters():
        p.data = torch.randn_like(p) * p[0].numel() ** -0.5 if p.dim() > 1 else 0.5 * torch.randn_like(p)
    return layer


def parts(tensors, name, letters):
    return {name.format(letter): part for letter, part in zip(letters, tensors, strict=True)}


@pytest.mark.parametrize("negative", [False, True])
def test_olmo_hybrid(oracle, negative):
    from transformers.models.olmo_hybrid import OlmoHybridConfig
    from transformers.models.olmo_hybrid.modeling_olmo_hybrid import OlmoHybridGatedDeltaNet

    mixer, x = ours()
    mixer.largest_beta = 2.0 if negative else 1.0
    layer = OlmoHybridGatedDeltaNet(OlmoHybridConfig(**CONFIG, linear_allow_neg_eigval=negative), 0)

    def to_ours(official):
        same = {name: value for name, value in official.items() if name != "conv1d.weight"}
        return same | parts(official["conv1d.weight"].split(WIDTHS), "{}_conv1d.weight", "qkv")

    oracle("gated_delta_net", "transformers, OlmoHybridGatedDeltaNet").layers(
        mixer, randomised(layer), x, renamed=to_ours
    )


def test_qwen3_next(oracle):
    """q, k, v and the gate z lie in one matrix there, key head by key head, and so do b and a."""
    from transformers.models.qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

    mixer, x = ours()
    layer = Qwen3NextGatedDeltaNet(Qwen3NextConfig(**CONFIG), 0)
    each = VALUE_HEADS // HEADS
    same = {"dt_bias": "dt_bias", "A_log": "A_log", "o_norm.weight": "norm.weight", "o_proj.weight": "out_proj.weight"}

    def by_head(weight, sizes):
        return [part.flatten(0, 1) for part in weight.view(HEADS, -1, D).split(sizes, dim=1)]

    def to_ours(official):
        qkvz = by_head(official["in_proj_qkvz.weight"], [K, K, each * V, each * V])
        found = parts(qkvz, "{}_proj.weight", "qkvg")
        found |= parts(by_head(official["in_proj_ba.weight"], [each, each]), "{}_proj.weight", "ba")
        found |= parts(official["conv1d.weight"].split(WIDTHS), "{}_conv1d.weight", "qkv")
        return found | {name: official[there] for name, there in same.items()}

    oracle("gated_delta_net", "transformers, Qwen3NextGatedDeltaNet").layers(
        mixer, randomised(layer), x, renamed=to_ours
    )
