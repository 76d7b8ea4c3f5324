"""Longformer against LongformerSelfAttention of transformers, which takes its softmax in float32."""

import pytest
import torch

from zoo.architectures.longformer import Longformer
from zoo.contract import LayerContext

from .compare import drawn, gradients_of, leaves, vectors

theirs = pytest.importorskip("transformers.models.longformer.modeling_longformer")

B, D = 3, 24


def official(peer, x, mask, global_tokens):
    """Their layer on a sequence padded to a multiple of its window, cut back."""
    T, window = x.shape[1], 2 * peer.one_sided_attn_window_size
    x = torch.nn.functional.pad(x, (0, 0, 0, -T % window))
    mask = torch.nn.functional.pad(mask, (0, -T % window))
    is_global = mask & (torch.arange(x.shape[1]) < global_tokens)
    code = torch.where(is_global, 10000.0, torch.where(mask, 0.0, -10000.0)).to(x.dtype)
    y = peer(
        x, attention_mask=code, is_index_masked=~mask, is_index_global_attn=is_global, is_global_attn=global_tokens > 0
    )[0]  # fmt: skip
    return y[:, :T]


@pytest.mark.parametrize(
    ("T", "heads", "window", "global_tokens", "lengths"),
    [
        (48, 4, 8, 1, [48, 48, 48]),
        (48, 2, 4, 3, [48, 30, 7]),
        (48, 3, 16, 0, [48, 44, 41]),  # theirs has NaN gradients where a window is all padding
        (83, 4, 6, 2, [83, 50, 9]),
        (13, 2, 20, 1, [13, 6, 1]),
    ],
)
def test_outputs_and_gradients(oracle, T, heads, window, global_tokens, lengths):
    config = theirs.LongformerConfig(
        hidden_size=D, num_attention_heads=heads, attention_window=[window], attention_probs_dropout_prob=0.0
    )
    torch.manual_seed(0)
    peer = drawn(theirs.LongformerSelfAttention(config, layer_id=0), 0.4)
    context = LayerContext(width=D, length=T, causal=False)
    ours = Longformer(context, heads=heads, window=window, global_tokens=global_tokens).double()
    names = [name for name, _ in peer.named_parameters() if global_tokens or "global" not in name]
    ours.load_state_dict({**ours.state_dict(), **{name: peer.get_parameter(name) for name in names}})
    x, mask = vectors(B, T, D), torch.arange(T) < torch.tensor(lengths)[:, None]
    proof = oracle("longformer", "transformers, LongformerSelfAttention")
    y, want = ours(x, mask=None if mask.all() else mask)[0], ours.out(official(peer, x, mask, global_tokens))
    proof.outputs(y[mask], want[mask])
    weight = torch.randn(int(mask.sum()), D, dtype=torch.float64)
    have, expected = (
        gradients_of(out[mask], weight, {name: leaves(layer, x=x)[name] for name in ["x", *names]})
        for out, layer in ((y, ours), (want, peer))
    )
    # A softmax does not feel what all its keys share: the gradient of their bias is rounding, in float32 with theirs.
    for name in ("key.bias", "key_global.bias") if global_tokens else ("key.bias",):
        assert (
            max(have.pop(name).abs().max(), expected.pop(name).abs().max()) < 1e-5 * expected["key.weight"].abs().max()
        )
    proof.gradients(have, expected)
