"""Sliding-window attention against RecurrentGemma's and Mistral's (transformers); the op against local-attention."""

import pytest
import torch

from zoo.contract import LayerContext, Part
from zoo.layers.banded_attention import attend
from zoo.layers.local_attention import LocalAttention

from .compare import drawn, in_pieces, vectors

B, T, D = 2, 45, 32


def to_ours(official):
    return {name.replace("o_proj", "out_proj"): value for name, value in official.items()}


def window_mask(window):
    """0 where a query may look, −∞ elsewhere."""
    ahead = torch.arange(T, dtype=torch.float64) - torch.arange(T)[:, None]
    return torch.where((ahead <= 0) & (ahead > -window), 0.0, -torch.inf).double()[None, None]


def compare(proof, ours, peer, call):
    """Under the same random weights: outputs, all gradients; then our steps, 1 and the rest."""
    x = vectors(B, T, D)
    want = proof.layers(ours, drawn(peer, 0.4), x, call, renamed=to_ours)
    proof.outputs(in_pieces(ours, x, [1, T - 1])[0], want)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "window", "bias"), [(4, 1, 6, False), (2, 2, 1, True), (4, 2, 45, False)]
)
def test_recurrent_gemma(oracle, heads, kv_heads, window, bias):
    """Multi-query attention with rotary positions on half of the features; no bias but on the output."""
    gemma = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    config = gemma.RecurrentGemmaConfig(
        hidden_size=D, num_attention_heads=heads, num_key_value_heads=kv_heads, attention_window_size=window,
        attention_bias=bias, num_hidden_layers=1,
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    peer = gemma.RecurrentGemmaAttention(config, layer_idx=0)
    context = LayerContext(width=D, length=T, positions=Part("rope", fraction=0.5))
    ours = LocalAttention(context, heads=heads, kv_heads=kv_heads, window=window, bias=bias)
    steps, mask = torch.arange(T)[None].expand(B, T), window_mask(window)

    def call(x):
        return peer(x, position_ids=steps, attention_mask=mask)[0]

    # Theirs takes the angles of its rotations in float32, and its softmax too.
    compare(oracle("local", "transformers, RecurrentGemmaAttention"), ours, peer, call)


@pytest.mark.parametrize(("heads", "kv_heads", "head_width", "window"), [(4, 2, None, 7), (3, 1, 10, 2)])
def test_mistral(oracle, heads, kv_heads, head_width, window):
    mistral = pytest.importorskip("transformers.models.mistral.modeling_mistral")
    config = mistral.MistralConfig(
        hidden_size=D,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_width,
        sliding_window=window,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    peer = mistral.MistralAttention(config, layer_idx=0)
    rotary = mistral.MistralRotaryEmbedding(config)
    options = {"heads": heads, "kv_heads": kv_heads, "head_width": head_width, "window": window}
    context = LayerContext(width=D, length=T, positions=Part("rope"))
    ours = LocalAttention(context, **options, bias=False, out_bias=False)

    def call(x):
        return peer(x, rotary(x, torch.arange(T)[None]), window_mask(window))[0]

    compare(oracle("local", "transformers, MistralAttention"), ours, peer, call)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("causal", "reach"), [(True, 5), (False, 9)])
def test_lucidrains(oracle, causal, reach, padded):
    """Its window counts the keys on one side, without the query."""
    package = pytest.importorskip("local_attention")
    peer = package.LocalAttention(reach, causal=causal, exact_windowsize=True, use_rotary_pos_emb=False)
    torch.manual_seed(0)
    q, k, v = (vectors(B, 3, T, 8) for _ in range(3))
    lengths = torch.tensor([T, 17]) if padded else torch.tensor([T, T])
    mask = torch.arange(T) < lengths[:, None]
    want = peer(q, k, v, mask=mask if padded else None)
    y = attend(q, k, v, before=reach, after=0 if causal else reach, valid=mask if padded else None)
    y, want = (out * mask[:, None, :, None] for out in (y, want))
    oracle("local", "local-attention, LocalAttention").equal(y, want, {"q": q, "k": k, "v": v})
