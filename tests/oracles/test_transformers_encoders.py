"""BigBird, Longformer, Nyströmformer and FNet against transformers, each with random weights in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import zoo
from zoo.architectures.bigbird import BigBird
from zoo.architectures.fnet import Fourier
from zoo.architectures.longformer import Longformer
from zoo.architectures.nystromformer import Nystromformer
from zoo.contract import LayerContext, Shape

from .compare import drawn, gradients_of, leaves, swapped, vectors

pytest.importorskip("transformers")

from transformers.models.big_bird import modeling_big_bird
from transformers.models.fnet import modeling_fnet
from transformers.models.longformer import modeling_longformer
from transformers.models.nystromformer import modeling_nystromformer

B, D = 3, 24


def bigbirds(T, heads, block_size, random_blocks, seed, *, bias=True, kind="block_sparse"):
    """Our mixer, and theirs with random weights."""
    config = modeling_big_bird.BigBirdConfig(
        hidden_size=D, num_attention_heads=heads, block_size=block_size, num_random_blocks=random_blocks, use_bias=bias,
        attention_probs_dropout_prob=0.0, max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    if kind == "original_full":
        peer = modeling_big_bird.BigBirdSelfAttention(config)
    else:
        peer = modeling_big_bird.BigBirdBlockSparseAttention(config, seed=seed)
    context = LayerContext(width=D, length=T, causal=False, layer=seed)
    ours = BigBird(context, heads=heads, block_size=block_size, random_blocks=random_blocks, bias=bias).double()
    return ours, drawn(peer, 0.4).train()


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
def test_bigbird(oracle, T, heads, block_size, random_blocks, seed, lengths, training):
    """In training our plan is theirs; evaluating, theirs is block 0 throughout, which we load."""
    ours, peer = bigbirds(T, heads, block_size, random_blocks, seed, bias=seed != 7)
    if not training:
        peer.eval()
        ours.plan.zero_()
    pad = -T % block_size

    def call(x, mask):
        padded = F.pad(mask, (0, pad)).double()
        masks = modeling_big_bird.BigBirdModel.create_masks_for_block_sparse_attn(padded, block_size)
        blocked, band, rows, columns = masks
        return peer(F.pad(x, (0, 0, 0, pad)), band, rows, columns, blocked, blocked)[0][:, :T]

    compare(oracle("bigbird", "transformers, BigBirdBlockSparseAttention"), ours, peer, call, T, lengths)


@pytest.mark.parametrize(("N", "r", "heads", "seed"), [(8, 1, 2, 0), (40, 3, 4, 3), (13, 2, 1, 11)])
def test_plan_of_bigbird(N, r, heads, seed):
    """The draws themselves, number by number."""
    ours, peer = bigbirds(N * 2, heads, 2, r, seed)
    np.random.seed(seed)  # as they do
    lengths, counts = peer._get_rand_attn_plan(N * 2, 2, r)
    want = peer._bigbird_block_rand_mask_with_head(N * 2, N * 2, 2, 2, heads, lengths, counts)
    assert np.array_equal(ours.plan.numpy(), np.stack(want))


@pytest.mark.parametrize("lengths", [[28, 28, 28], [28, 11, 1]])
def test_bigbird_of_few_blocks(oracle, lengths):
    """Up to (5 + 2r) b steps their model takes full attention."""
    ours, peer = bigbirds(28, 2, 4, 1, 0, kind="original_full")
    assert ours.plan is None

    def call(x, mask):
        return peer(x, attention_mask=torch.where(mask, 0.0, -torch.inf).double()[:, None, None])[0]

    compare(oracle("bigbird", "transformers, BigBirdSelfAttention"), ours, peer, call, 28, lengths)


def longformer(peer, x, mask, global_tokens):
    """Their layer on a sequence padded to a multiple of its window, cut back."""
    T, window = x.shape[1], 2 * peer.one_sided_attn_window_size
    x, mask = F.pad(x, (0, 0, 0, -T % window)), F.pad(mask, (0, -T % window))
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
def test_longformer(oracle, T, heads, window, global_tokens, lengths):
    """Theirs takes its softmax in float32."""
    config = modeling_longformer.LongformerConfig(
        hidden_size=D, num_attention_heads=heads, attention_window=[window], attention_probs_dropout_prob=0.0
    )
    torch.manual_seed(0)
    peer = drawn(modeling_longformer.LongformerSelfAttention(config, layer_id=0), 0.4)
    context = LayerContext(width=D, length=T, causal=False)
    ours = Longformer(context, heads=heads, window=window, global_tokens=global_tokens).double()
    names = [name for name, _ in peer.named_parameters() if global_tokens or "global" not in name]
    ours.load_state_dict({**ours.state_dict(), **{name: peer.get_parameter(name) for name in names}})
    x, mask = vectors(B, T, D), torch.arange(T) < torch.tensor(lengths)[:, None]
    proof = oracle("longformer", "transformers, LongformerSelfAttention")
    y = ours(x, mask=None if mask.all() else mask)[0]
    want = ours.out(longformer(peer, x, mask, global_tokens))
    proof.outputs(y[mask], want[mask])
    weight = torch.randn(int(mask.sum()), D, dtype=torch.float64)
    have, expected = (
        gradients_of(out[mask], weight, {name: leaves(layer, x=x)[name] for name in ["x", *names]})
        for out, layer in ((y, ours), (want, peer))
    )
    # A softmax does not feel what all its keys share: the gradient of their bias is rounding, in float32 with theirs.
    for name in ("key.bias", "key_global.bias") if global_tokens else ("key.bias",):
        rounding = max(have.pop(name).abs().max(), expected.pop(name).abs().max())
        assert rounding < 1e-5 * expected["key.weight"].abs().max()
    proof.gradients(have, expected)


@pytest.mark.parametrize("init_option", ["original", "exact"])
@pytest.mark.parametrize(
    ("T", "m", "heads", "kernel"), [(24, 6, 3, 5), (16, 4, 2, None), (20, 10, 4, 65), (8, 8, 2, 3)]
)
def test_nystromformer(oracle, T, m, heads, kernel, init_option):
    torch.manual_seed(0)
    config = modeling_nystromformer.NystromformerConfig(
        hidden_size=12, num_attention_heads=heads, num_landmarks=m, segment_means_seq_len=T,
        conv_kernel_size=kernel or 1,
    )  # fmt: skip
    config.attention_probs_dropout_prob = 0.0
    peer = modeling_nystromformer.NystromformerSelfAttention(config).eval()
    peer.init_option = init_option  # the option that should set it raises there
    if kernel is None:  # a config without a convolution does not validate, though the layer takes it
        peer.conv_kernel_size = None
        del peer.conv
    options = {"num_landmarks": m, "conv_kernel_size": kernel, "init_option": init_option}
    ours = drawn(Nystromformer(LayerContext(width=12, length=T, causal=False), heads=heads, **options))
    proof = oracle("nystromformer", "transformers, NystromformerSelfAttention")
    proof.layers(ours, drawn(peer), vectors(2, T, 12), lambda x: ours.out(peer(x)[0]), alone="out.")


@pytest.mark.parametrize(("T", "width"), [(13, 8), (12, 6), (7, 5), (1, 4), (6, 1)])
def test_transform_of_fnet(oracle, T, width):
    x, mixer = vectors(2, T, width), Fourier(LayerContext(width=width, length=T, causal=False))
    want = modeling_fnet.FNetBasicFourierTransform(modeling_fnet.FNetConfig())(x)[0]
    oracle("fnet", "transformers, FNetBasicFourierTransform").equal(mixer(x)[0], want, {"x": x})


def test_fnet(oracle):
    """Mixing, feed-forward and Post-LN, with the blocks that zoo.build makes."""
    torch.manual_seed(0)
    T, width, depth = 12, 16, 2
    config = modeling_fnet.FNetConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth, hidden_dropout_prob=0
    )
    peer = drawn(modeling_fnet.FNetEncoder(config), 0.3).eval()
    ours = zoo.build("fnet", "classify", shape=Shape(length=T, outputs=3, vocab=5, width=width, depth=depth)).backbone
    there = {"sublayers.{0}.norm": "fourier.output.LayerNorm", "sublayers.{1}.norm": "output.LayerNorm"}
    there |= {"sublayers.{1}.inner.up": "intermediate.dense", "sublayers.{1}.inner.down": "output.dense"}
    names = {
        f"{here.format(2 * i, 2 * i + 1)}.{part}": f"layer.{i}.{other}.{part}"
        for i in range(depth)
        for here, other in there.items()
        for part in ("weight", "bias")
    }
    proof, x = oracle("fnet", "transformers, FNetEncoder"), vectors(2, T, width)
    proof.layers(ours, peer, x, lambda x: peer(x, return_dict=False)[0], renamed=swapped(names))
