"""Attention with other logits, caches or gates beside transformers' Qwen3, Qwen3-Next, gpt-oss, DeepSeek-V3 and
DiffLlama, and beside recordings of flash-linear-attention."""

import math

import pytest
import torch
from torch.func import functional_call

from zoo.architectures.differential import DifferentialAttention
from zoo.architectures.mla import MultiheadLatentAttention
from zoo.contract import LayerContext, Part
from zoo.layers.attention import Attention
from zoo.ops.attention import attend

from .compare import drawn, in_pieces, vectors

B, T, D = 2, 37, 32


def causal_mask():
    return torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)[None, None]


@pytest.fixture
def exact(in_float64, monkeypatch):
    """transformers has its softmax, and DiffLlama its λ, in float32 as well."""
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim, dtype=None: x.softmax(dim))
    monkeypatch.setattr(torch, "sum", lambda x, dim, dtype=None: x.sum(dim))


def theirs(name, layer, turning, base=10000.0, **config):
    """An attention layer of transformers with random weights, and what calls it; `turning` features turn."""
    port = pytest.importorskip(f"transformers.models.{name.lower()}.modeling_{name.lower()}")
    transformers = pytest.importorskip("transformers")
    prefix = layer.removesuffix("Attention")
    config = getattr(transformers, f"{prefix}Config")(hidden_size=D, num_hidden_layers=1, **config)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    peer = drawn(getattr(port, layer)(config, layer_idx=0), 0.4)
    angles = torch.arange(T)[:, None] * base ** -(torch.arange(0, turning, 2).double() / turning)
    angles = angles if prefix == "GptOss" else torch.cat([angles, angles], dim=-1)
    rotary = angles.cos()[None], angles.sin()[None]

    def call(x):
        return peer(x, position_embeddings=rotary, attention_mask=causal_mask())[0]

    return peer, call


def compare(proof, ours, peer, call, renamed, alone=""):
    """Outputs and all gradients; then our steps, 1, and the rest in two pieces."""
    x = vectors(B, T, D)
    want = proof.layers(ours, peer, x, call, renamed=renamed, alone=alone, tolerance=1e-9)
    proof.outputs(in_pieces(ours, x, [1, 20, T - 21])[0], want, 1e-9)


def joined(official):
    """The projections of queries, keys and values as one."""
    kinds = {name.rpartition(".")[2] for name in official if name.startswith("q_proj.")}
    found = {f"qkv.{kind}": torch.cat([official[f"{x}_proj.{kind}"] for x in "qkv"]) for kind in kinds}
    found |= {f"out.{kind}": official[f"o_proj.{kind}"] for kind in kinds}
    return found | {name: value for name, value in official.items() if "proj" not in name}


def test_qwen3(oracle, exact):
    peer, call = theirs("qwen3", "Qwen3Attention", 10, num_attention_heads=4, num_key_value_heads=2, head_dim=10)
    context = LayerContext(D, T, positions=Part("rope"))
    ours = Attention(context, heads=4, kv_heads=2, head_dim=10, bias=False, qk_norm=True)
    compare(oracle("gqa", "transformers, Qwen3Attention"), ours, peer, call, joined)


def test_qwen3_next(oracle, exact):
    """Its projection of queries has their gates beside each head's, and the weights of its norms are 1 + w."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "layer_types": ["full_attention"]}
    peer, call = theirs("qwen3_next", "Qwen3NextAttention", 2, 100.0, **sizes)
    context = LayerContext(D, T, positions=Part("rope", fraction=0.25, base=100.0))
    ours = Attention(context, heads=4, kv_heads=2, bias=False, qk_norm=True, gate=True)

    def renamed(official):
        q, gate = (part.flatten(0, 1) for part in official["q_proj.weight"].unflatten(0, (4, 2, 8)).unbind(1))
        return joined({**official, "q_proj.weight": q}) | {"gate.weight": gate}

    for norm in (peer.q_norm, peer.k_norm):
        norm.forward = lambda x, norm=norm: norm._norm(x) * norm.weight
    compare(oracle("gated_attention", "transformers, Qwen3NextAttention"), ours, peer, call, renamed)


def test_gpt_oss(oracle, exact):
    """Sinks, without its window and YaRN."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "layer_types": ["full_attention"]}
    peer, call = theirs("gpt_oss", "GptOssAttention", 6, 100.0, **sizes, attention_bias=True)
    context = LayerContext(D, T, positions=Part("rope", base=100.0))
    ours = Attention(context, heads=4, kv_heads=2, head_dim=6, sinks=True)
    compare(oracle("pre_ln", "transformers, GptOssAttention (sinks: true)"), ours, peer, call, joined)


@pytest.mark.parametrize("rank", [None, 9])
def test_deepseek(oracle, exact, rank):
    """Pairs of features lie side by side there, and one matrix makes the latent and the key that turns."""
    sizes = {"q_lora_rank": rank, "qk_rope_head_dim": 6, "kv_lora_rank": 10, "v_head_dim": 7, "qk_nope_head_dim": 5}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    peer, call = theirs("deepseek_v3", "DeepseekV3Attention", 6, **heads, **sizes, rope_interleave=True)
    context = LayerContext(D, T, positions=Part("rope", convention="interleaved"))
    ours = MultiheadLatentAttention(context, heads=4, norm_eps=1e-6, **sizes)

    def renamed(official):
        latent, turning = official["kv_a_proj_with_mqa.weight"].split([10, 6])
        found = {"kv_proj.0.weight": latent, "k_rope.weight": turning, "o_proj.weight": official["o_proj.weight"]}
        places = {"q_a_proj": "q_proj.0", "q_a_layernorm": "q_proj.1", "q_b_proj": "q_proj.2", "q_proj": "q_proj"}
        places |= {"kv_a_layernorm": "kv_proj.1", "kv_b_proj": "kv_proj.2"}
        return found | {f"{mine}.weight": official[f"{there}.weight"] for there, mine in places.items()
                        if f"{there}.weight" in official}  # fmt: skip

    compare(oracle("mla", "transformers, DeepseekV3Attention"), ours, peer, call, renamed)


@pytest.mark.parametrize("layer", [0, 3])
def test_diff_llama(oracle, exact, layer):
    """Heads of a pair stand half of all heads apart there, and so do the halves of a value; its norm has no weight."""
    H, d = 4, 8
    peer, call = theirs("diffllama", "DiffLlamaAttention", d, num_attention_heads=H, rms_norm_eps=1e-5)
    peer.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer)
    ours = DifferentialAttention(LayerContext(D, T, layer=layer, positions=Part("rope")), heads=2)

    def paired(weight):
        return weight.unflatten(0, (2, H // 2, d)).transpose(0, 1).flatten(0, 2)

    def renamed(official):
        found = {name: value for name, value in official.items() if name.startswith("lambda")}
        found |= {f"{x}_proj.weight": paired(official[f"{x}_proj.weight"]) for x in "qkv"}
        return found | {"out_proj.weight": official["o_proj.weight"]}

    compare(oracle("differential", "transformers, DiffLlamaAttention"), ours, peer, call, renamed, alone="subln")


def test_forgetting_scores(oracle, frontier_parity):
    """The decay as a bias of keys, which is one more feature, beside the official naive form."""
    data, leaves = frontier_parity("fla_forgetting_attn")
    q, k, v, g = (leaves[name].transpose(1, 2) for name in "qkvg")
    decay = g.flip(-1).cumsum(-1).flip(-1) - g
    y = attend(q, k, v, causal=True, bias=decay[:, :, None]).transpose(1, 2)
    oracle("forgetting", "flash-linear-attention, naive_forgetting_attn (recorded)").recorded(y, data, leaves, 1e-9)


def test_latent_layer(oracle, frontier_parity):
    data, leaves = frontier_parity("fla_mla_layer")
    sizes = {"q_lora_rank": 10, "qk_rope_head_dim": 4, "kv_lora_rank": 7, "v_head_dim": 6, "qk_nope_head_dim": 8}
    ours = MultiheadLatentAttention(LayerContext(24, 37, positions=Part("rope")), heads=3, **sizes).double()
    weights = {name: leaf for name, leaf in leaves.items() if name != "input"}
    y = functional_call(ours, weights, leaves["input"])[0]
    oracle("mla", "flash-linear-attention, MultiheadLatentAttention (recorded)").recorded(y, data, leaves, 1e-9)
