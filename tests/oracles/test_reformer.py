"""Reformer's LSH attention against reformer-pytorch and transformers, under the rotations that each draws."""

import pytest
import torch

from zoo.architectures.reformer import Reformer
from zoo.contract import LayerContext

from .compare import drawn, swapped, vectors

B, D = 2, 12


def seeded(layer):
    """The layer with the seed that its rotations are drawn from in each call."""

    def call(x):
        torch.manual_seed(7)
        return layer(x)

    return call


@pytest.mark.parametrize(
    ("causal", "hashes", "across_buckets", "duplicates"),
    [
        (True, 1, True, True),
        (False, 3, True, True),
        (True, 2, False, True),
        (False, 3, True, False),
        (True, 3, False, False),
    ],
)
def test_lucidrains(oracle, causal, hashes, across_buckets, duplicates):
    package = pytest.importorskip("reformer_pytorch.reformer_pytorch")
    torch.manual_seed(0)
    T, H, chunk = 24, 3, 4
    both = {"attend_across_buckets": across_buckets, "allow_duplicate_attention": duplicates}
    peer = package.LSHSelfAttention(D, heads=H, bucket_size=chunk, n_hashes=hashes, causal=causal, **both)
    ours = Reformer(
        LayerContext(width=D, length=T, causal=causal),
        heads=H,
        chunk=chunk,
        buckets=T // chunk,
        hashes=hashes,
        rotations_per_head=False,
        across_buckets=across_buckets,
        duplicates=duplicates,
        scaled=True,
        bias=True,
    ).double()
    names = {"query_key.weight": "toqk.weight", "value.weight": "tov.weight"}
    names |= {"out.weight": "to_out.weight", "out.bias": "to_out.bias"}
    torch.manual_seed(7)
    ours.rotations.copy_(torch.randn(1, *ours.rotations.shape[1:], dtype=torch.float64).expand_as(ours.rotations))
    proof = oracle("reformer", "reformer-pytorch, LSHSelfAttention")
    proof.layers(ours, drawn(peer), vectors(B, T, D), seeded(peer), renamed=swapped(names))


@pytest.mark.parametrize(
    ("T", "heads", "head_dim", "chunk", "buckets", "hashes", "before", "after", "causal"),
    [
        (16, 3, 4, 4, 4, 1, 1, 0, True),
        (24, 2, 5, 4, [2, 4], 3, 1, 0, False),
        (24, 2, 6, 6, 8, 2, 1, 1, False),
        (20, 4, 3, 2, [2, 2, 4], 2, 2, 0, True),
        (32, 2, 6, 8, 8, 4, 0, 0, True),
        (6, 2, 6, 8, 4, 4, 1, 0, True),
    ],
)
def test_transformers(oracle, T, heads, head_dim, chunk, buckets, hashes, before, after, causal):
    port = pytest.importorskip("transformers.models.reformer.modeling_reformer")
    torch.manual_seed(0)
    config = port.ReformerConfig(
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
    peer = port.LSHSelfAttention(config).eval()
    context = LayerContext(width=D, length=T, causal=causal)
    options = {"chunk": chunk, "buckets": buckets, "hashes": hashes, "before": before, "after": after}
    ours = drawn(Reformer(context, heads=heads, head_dim=head_dim, **options))
    torch.manual_seed(7)
    ours.rotations.copy_(torch.randn(ours.rotations.shape, dtype=torch.float64))
    proof, call = oracle("reformer", "transformers, LSHSelfAttention"), seeded(peer)
    proof.layers(ours, drawn(peer), vectors(B, T, D), lambda x: ours.out(call(x).hidden_states), alone="out.")
