"""BigBird against BigBirdBlockSparseAttention of transformers, random blocks included, and its full attention."""

import numpy as np
import pytest
import torch

from zoo.architectures.bigbird import BigBird
from zoo.contract import LayerContext

from .compare import drawn, vectors

theirs = pytest.importorskip("transformers.models.big_bird.modeling_big_bird")

B, D = 3, 24


def layers(T, heads, block_size, random_blocks, seed, *, bias=True, kind="block_sparse"):
    """Our mixer, and theirs with random weights."""
    config = theirs.BigBirdConfig(
        hidden_size=D, num_attention_heads=heads, block_size=block_size, num_random_blocks=random_blocks, use_bias=bias,
        attention_probs_dropout_prob=0.0, max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    full = kind == "original_full"
    peer = theirs.BigBirdSelfAttention(config) if full else theirs.BigBirdBlockSparseAttention(config, seed=seed)
    peer = drawn(peer, 0.4).train()
    context = LayerContext(width=D, length=T, causal=False, layer=seed)
    return BigBird(context, heads=heads, block_size=block_size, random_blocks=random_blocks, bias=bias).double(), peer


def compare(proof, ours, peer, call, T, lengths):
    x, mask = vectors(B, T, D), torch.arange(T) < torch.tensor(lengths)[:, None]
    proof.layers(ours, peer, x, lambda x: ours.out(call(x, mask)), alone="out.", mask=mask)


@pytest.mark.parametrize(
    ("T", "heads", "block_size", "random_blocks", "seed", "lengths"),
    [
        (32, 2, 4, 1, 0, [32, 32, 32]),
        (60, 4, 5, 3, 7, [60, 60, 60]),
        (60, 3, 5, 2, 1, [60, 41, 8]),
        (66, 2, 3, 2, 5, [66, 66, 2]),
        (61, 2, 4, 1, 2, [61, 61, 30]),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_block_sparse(oracle, T, heads, block_size, random_blocks, seed, lengths, training):
    """In training our plan is theirs; evaluating, theirs is block 0 throughout, which we load."""
    ours, peer = layers(T, heads, block_size, random_blocks, seed, bias=seed != 7)
    if not training:
        peer.eval()
        ours.plan.zero_()
    pad = -T % block_size

    def call(x, mask):
        padded = torch.nn.functional.pad(mask, (0, pad)).double()
        masks = theirs.BigBirdModel.create_masks_for_block_sparse_attn(padded, block_size)
        blocked, band, rows, columns = masks
        return peer(torch.nn.functional.pad(x, (0, 0, 0, pad)), band, rows, columns, blocked, blocked)[0][:, :T]

    compare(oracle("bigbird", "transformers, BigBirdBlockSparseAttention"), ours, peer, call, T, lengths)


@pytest.mark.parametrize(("N", "r", "heads", "seed"), [(8, 1, 2, 0), (40, 3, 4, 3), (13, 2, 1, 11)])
def test_plan(N, r, heads, seed):
    """The draws themselves, number by number."""
    ours, peer = layers(N * 2, heads, 2, r, seed)
    np.random.seed(seed)  # as they do
    lengths, counts = peer._get_rand_attn_plan(N * 2, 2, r)
    want = peer._bigbird_block_rand_mask_with_head(N * 2, N * 2, 2, 2, heads, lengths, counts)
    assert np.array_equal(ours.plan.numpy(), np.stack(want))


@pytest.mark.parametrize("lengths", [[28, 28, 28], [28, 11, 1]])
def test_few_blocks(oracle, lengths):
    """Up to (5 + 2r) b steps their model takes full attention."""
    ours, peer = layers(28, 2, 4, 1, 0, kind="original_full")
    assert ours.plan is None

    def call(x, mask):
        return peer(x, attention_mask=torch.where(mask, 0.0, -torch.inf).double()[:, None, None])[0]

    compare(oracle("bigbird", "transformers, BigBirdSelfAttention"), ours, peer, call, 28, lengths)
