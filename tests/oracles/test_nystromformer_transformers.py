"""Nyströmformer against transformers' NystromformerSelfAttention."""

import pytest
import torch

from zoo.architectures.nystromformer import Nystromformer
from zoo.contract import LayerContext

from .compare import drawn, vectors

theirs = pytest.importorskip("transformers.models.nystromformer.modeling_nystromformer")

B, D = 2, 12


@pytest.mark.parametrize("init_option", ["original", "exact"])
@pytest.mark.parametrize(
    ("T", "m", "heads", "kernel"), [(24, 6, 3, 5), (16, 4, 2, None), (20, 10, 4, 65), (8, 8, 2, 3)]
)
def test_same_weights_give_the_same_outputs_and_gradients(oracle, T, m, heads, kernel, init_option):
    torch.manual_seed(0)
    config = theirs.NystromformerConfig(
        hidden_size=D, num_attention_heads=heads, num_landmarks=m, segment_means_seq_len=T, conv_kernel_size=kernel or 1
    )
    config.attention_probs_dropout_prob = 0.0
    peer = theirs.NystromformerSelfAttention(config).eval()
    peer.init_option = init_option  # the option that should set it raises there
    if kernel is None:  # a config without a convolution does not validate, though the layer takes it
        peer.conv_kernel_size = None
        del peer.conv
    options = {"num_landmarks": m, "conv_kernel_size": kernel, "init_option": init_option}
    ours = drawn(Nystromformer(LayerContext(width=D, length=T, causal=False), heads=heads, **options))
    proof = oracle("nystromformer", "transformers, NystromformerSelfAttention")
    proof.layers(ours, drawn(peer), vectors(B, T, D), lambda x: ours.out(peer(x)[0]), alone="out.")
