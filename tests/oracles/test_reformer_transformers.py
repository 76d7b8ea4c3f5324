"""Reformer's LSH attention against transformers' LSHSelfAttention, under the rotations that its seed draws."""

import pytest
import torch
from torch import nn

from zoo.architectures.reformer import Reformer
from zoo.contract import LayerContext

theirs = pytest.importorskip("transformers.models.reformer.modeling_reformer")

B, D = 2, 12
CASES = [  # T, heads, head_dim, chunk, buckets, hashes, before, after, causal
    (16, 3, 4, 4, 4, 1, 1, 0, True),
    (24, 2, 5, 4, [2, 4], 3, 1, 0, False),
    (24, 2, 6, 6, 8, 2, 1, 1, False),
    (20, 4, 3, 2, [2, 2, 4], 2, 2, 0, True),
    (32, 2, 6, 8, 8, 4, 0, 0, True),
    (6, 2, 6, 8, 4, 4, 1, 0, True),
]


@pytest.mark.parametrize(("T", "heads", "head_dim", "chunk", "buckets", "hashes", "before", "after", "causal"), CASES)
def test_same_weights_and_hashes_give_the_same_outputs_and_gradients(
    oracle, T, heads, head_dim, chunk, buckets, hashes, before, after, causal
):
    torch.manual_seed(0)
    config = theirs.ReformerConfig(
        hidden_size=D,
        num_attention_heads=heads,
        attention_head_size=head_dim,
        num_buckets=buckets,
        num_hashes=hashes,
        lsh_attn_chunk_length=chunk,
        lsh_num_chunks_before=before,
        lsh_num_chunks_after=after,
        lsh_attention_probs_dropout_prob=0.0,
        is_decoder=causal,
        hash_seed=7,
    )
    peer = theirs.LSHSelfAttention(config).double().eval()
    ours = Reformer(
        LayerContext(width=D, length=T, causal=causal),
        heads=heads,
        head_dim=head_dim,
        chunk=chunk,
        buckets=buckets,
        hashes=hashes,
        before=before,
        after=after,
    ).double()
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    peer.load_state_dict({k: v for k, v in ours.state_dict().items() if k.startswith(("query_key", "value"))})
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    want = ours.out(peer(x).hidden_states)
    torch.manual_seed(7)
    ours.rotations.copy_(torch.randn(ours.rotations.shape, dtype=torch.float64))
    have = ours(x)[0]
    proof, weights = oracle("reformer", "transformers, LSHSelfAttention"), torch.randn_like(want)
    proof.outputs(have, want)
    names = {"x": (x, x), "query_key": (ours.query_key.weight, peer.query_key.weight)}
    names["value"] = (ours.value.weight, peer.value.weight)
    a = torch.autograd.grad((have * weights).sum(), [pair[0] for pair in names.values()])
    b = torch.autograd.grad((want * weights).sum(), [pair[1] for pair in names.values()])
    proof.gradients(dict(zip(names, a, strict=True)), dict(zip(names, b, strict=True)))
