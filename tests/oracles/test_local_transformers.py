"""Sliding-window attention against RecurrentGemma's and Mistral's (transformers); the op against local-attention."""

import pytest
import torch

from zoo.contract import LayerContext, Part
from zoo.layers.local_attention import LocalAttention
from zoo.ops.local_attention import attend

B, T, D = 2, 45, 32


def pair(ours, peer):
    """The same random weights in both; ours by name."""
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.4)
    ours.load_state_dict({name.replace("o_proj", "out_proj"): value for name, value in peer.state_dict().items()})
    return ours


def window_mask(window):
    """0 where a query may look, −∞ elsewhere."""
    ahead = torch.arange(T, dtype=torch.float64) - torch.arange(T)[:, None]
    return torch.where((ahead <= 0) & (ahead > -window), 0.0, -torch.inf).double()[None, None]


def compare(proof, ours, peer, call, x):
    """Outputs, and gradients of the input and every parameter; then our steps, 1 and the rest."""
    y, want = ours(x)[0], call(x)
    proof.outputs(y, want)
    weight = torch.randn_like(want)
    names = [name.replace("o_proj", "out_proj") for name, _ in peer.named_parameters()]
    wanted = torch.autograd.grad((want * weight).sum(), [x, *peer.parameters()])
    found = torch.autograd.grad((y * weight).sum(), [x, *(ours.get_parameter(name) for name in names)])
    assert set(names) == {name for name, _ in ours.named_parameters()}
    proof.gradients(dict(zip(["x", *names], found, strict=True)), dict(zip(["x", *names], wanted, strict=True)))
    state, pieces = ours.init_state(B, device="cpu", dtype=torch.float64), []
    for piece in x.split([1, T - 1], dim=1):
        y, state = ours(piece, state=state)
        pieces.append(y)
    proof.outputs(torch.cat(pieces, 1), want)


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
    peer = gemma.RecurrentGemmaAttention(config, layer_idx=0).double()
    context = LayerContext(width=D, length=T, positions=Part("rope", fraction=0.5))
    ours = pair(LocalAttention(context, heads=heads, kv_heads=kv_heads, window=window, bias=bias).double(), peer)
    steps, mask = torch.arange(T)[None].expand(B, T), window_mask(window)

    def call(x):
        return peer(x, position_ids=steps, attention_mask=mask)[0]

    # Theirs takes the angles of its rotations in float32, and its softmax too.
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    compare(oracle("local", "transformers, RecurrentGemmaAttention"), ours, peer, call, x)


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
    peer = mistral.MistralAttention(config, layer_idx=0).double()
    rotary = mistral.MistralRotaryEmbedding(config)
    options = {"heads": heads, "kv_heads": kv_heads, "head_width": head_width, "window": window}
    context = LayerContext(width=D, length=T, positions=Part("rope"))
    ours = pair(LocalAttention(context, **options, bias=False, out_bias=False).double(), peer)

    def call(x):
        return peer(x, rotary(x, torch.arange(T)[None]), window_mask(window))[0]

    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    compare(oracle("local", "transformers, MistralAttention"), ours, peer, call, x)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("causal", "reach"), [(True, 5), (False, 9)])
def test_lucidrains(oracle, causal, reach, padded):
    """Its window counts the keys on one side, without the query."""
    package = pytest.importorskip("local_attention")
    peer = package.LocalAttention(reach, causal=causal, exact_windowsize=True, use_rotary_pos_emb=False)
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, 3, T, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    lengths = torch.tensor([T, 17]) if padded else torch.tensor([T, T])
    mask = torch.arange(T) < lengths[:, None]
    want = peer(q, k, v, mask=mask if padded else None)
    y = attend(q, k, v, before=reach, after=0 if causal else reach, valid=mask if padded else None)
    proof = oracle("local", "local-attention, LocalAttention")
    weight = torch.randn_like(want) * mask[:, None, :, None]
    proof.outputs(y * mask[:, None, :, None], want * mask[:, None, :, None])
    found, wanted = (torch.autograd.grad((out * weight).sum(), [q, k, v]) for out in (y, want))
    proof.gradients(dict(zip("qkv", found, strict=True)), dict(zip("qkv", wanted, strict=True)))
