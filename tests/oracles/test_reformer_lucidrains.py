"""Reformer's LSH attention against the PyPI package reformer-pytorch, under the rotations that it draws."""

import pytest
import torch
from torch import nn

from zoo.architectures.reformer import Reformer
from zoo.contract import LayerContext

theirs = pytest.importorskip("reformer_pytorch.reformer_pytorch")

B, T, D, H, CHUNK = 2, 24, 12, 3, 4
CASES = [  # causal, hashes, across_buckets, duplicates
    (True, 1, True, True),
    (False, 3, True, True),
    (True, 2, False, True),
    (False, 3, True, False),
    (True, 3, False, False),
]


@pytest.mark.parametrize(("causal", "hashes", "across_buckets", "duplicates"), CASES)
def test_same_weights_and_hashes_give_the_same_outputs_and_gradients(
    oracle, causal, hashes, across_buckets, duplicates
):
    torch.manual_seed(0)
    peer = theirs.LSHSelfAttention(
        D,
        heads=H,
        bucket_size=CHUNK,
        n_hashes=hashes,
        causal=causal,
        attend_across_buckets=across_buckets,
        allow_duplicate_attention=duplicates,
    ).double()
    ours = Reformer(
        LayerContext(width=D, length=T, causal=causal),
        heads=H,
        chunk=CHUNK,
        buckets=T // CHUNK,
        hashes=hashes,
        rotations_per_head=False,
        across_buckets=across_buckets,
        duplicates=duplicates,
        scaled=True,
        bias=True,
    ).double()
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.5)
    there = {"query_key.weight": "toqk.weight", "value.weight": "tov.weight"}
    there |= {"out.weight": "to_out.weight", "out.bias": "to_out.bias"}
    state = peer.state_dict()
    ours.load_state_dict({**{here: state[name] for here, name in there.items()}, "rotations": ours.rotations})
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(7)
    want = peer(x)
    torch.manual_seed(7)
    ours.rotations.copy_(torch.randn(1, *ours.rotations.shape[1:], dtype=torch.float64).expand_as(ours.rotations))
    have = ours(x)[0]
    proof, weights = oracle("reformer", "reformer-pytorch, LSHSelfAttention"), torch.randn_like(want)
    proof.outputs(have, want)
    own, others = dict(ours.named_parameters()), dict(peer.named_parameters())
    a = torch.autograd.grad((have * weights).sum(), [x, *(own[name] for name in there)])
    b = torch.autograd.grad((want * weights).sum(), [x, *(others[name] for name in there.values())])
    proof.gradients(dict(zip(["x", *there], a, strict=True)), dict(zip(["x", *there], b, strict=True)))
