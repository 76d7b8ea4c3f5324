"""Reformer's LSH attention against reformer-pytorch and transformers, under the rotations that each draws."""

import pytest
import torch

from zoo.architectures.reformer import Reformer
from zoo.contract import LayerContext

from .compare import drawn, leaves, swapped, vectors

B, D = 2, 12


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
    ours.load_state_dict({**swapped(names)(drawn(peer).state_dict()), "rotations": ours.rotations})
    x = vectors(B, T, D)
    torch.manual_seed(7)
    want = peer(x)
    torch.manual_seed(7)
    ours.rotations.copy_(torch.randn(1, *ours.rotations.shape[1:], dtype=torch.float64).expand_as(ours.rotations))
    own, rename = leaves(ours, x=x), swapped(names | {"x": "x"})
    own = {name: own[name] for name in ["x", *names]}
    oracle("reformer", "reformer-pytorch, LSHSelfAttention").equal(
        ours(x)[0], want, own, leaves(peer, x=x), renamed=rename
    )


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
    peer = port.LSHSelfAttention(config).double().eval()
    context = LayerContext(width=D, length=T, causal=causal)
    options = {"chunk": chunk, "buckets": buckets, "hashes": hashes, "before": before, "after": after}
    ours = drawn(Reformer(context, heads=heads, head_dim=head_dim, **options))
    peer.load_state_dict({k: v for k, v in ours.state_dict().items() if k.startswith(("query_key", "value"))})
    x = vectors(B, T, D)
    want = ours.out(peer(x).hidden_states)
    torch.manual_seed(7)
    ours.rotations.copy_(torch.randn(ours.rotations.shape, dtype=torch.float64))
    own, official = leaves(ours, x=x), leaves(peer, x=x)
    proof = oracle("reformer", "transformers, LSHSelfAttention")
    proof.equal(ours(x)[0], want, {name: own[name] for name in official}, official)
