"""YOCO in more layers than the checks have: a self-decoder, one cache, and layers that read it."""

import pytest
import torch

import zoo
from zoo.architectures.yoco import YOCO, CrossAttention, GatedRetention
from zoo.blocks.bidirectional import Bidirectional
from zoo.checks.subject import Subject
from zoo.contract import LayerContext, leaves
from zoo.layers.local_attention import LocalAttention

from .mixers import drawn, mixers_of, vectors


def made(depth, **options):
    shape = zoo.Shape(length=40, vocab=7, outputs=7, width=32, depth=depth)
    return drawn(zoo.build("yoco", "lm", shape=shape, **options), 0.3).eval().backbone


@pytest.mark.parametrize(
    ("options", "first"), [({}, GatedRetention), ({"self_decoder": "swa", "window_size": 5}, LocalAttention)]
)
def test_the_middle_layer_alone_makes_a_cache(options, first):
    layers = mixers_of(Subject("yoco"), made(5, **options))
    assert [type(layer.attn) for layer in layers] == [first] * 2 + [CrossAttention] * 3
    assert [layer.shared_kv_builder is not None for layer in layers] == [False, False, True, False, False]


@pytest.mark.parametrize("options", [{"kv_heads": 2, "qk_norm": True}, {"self_decoder": "swa", "window_size": 5}])
@torch.no_grad()
def test_five_layers_continue_past_padding_and_look_back_only(options):
    backbone, x = made(5, **options), vectors(3, 31, 32)
    whole = backbone(x)[0]
    lengths = torch.tensor([[17], [9], [1]])
    mask, state = torch.arange(17) < lengths, backbone.init_state(3, device="cpu", dtype=x.dtype)
    junk = torch.where(mask[..., None], x[:, :17], 9.0)
    y, state = backbone(junk, mask=mask, state=state)
    torch.testing.assert_close(y[mask], whole[:, :17][mask], rtol=1e-9, atol=1e-9)
    for t in range(17, 20):
        now = torch.stack([x[row, n + t - 17] for row, n in enumerate(lengths[:, 0])])[:, None]
        y, state = backbone(now, state=state)
        want = torch.stack([whole[row, n + t - 17] for row, n in enumerate(lengths[:, 0])])[:, None]
        torch.testing.assert_close(y, want, rtol=1e-9, atol=1e-9)
    assert sum(leaf.shape[2:3] == (20,) for leaf in leaves(state)) == 2  # keys and values, once


def test_a_layer_behind_needs_the_cache():
    layer = YOCO(LayerContext(16, 8, layer=2, depth=3))
    with pytest.raises(ValueError, match="no layer before this one"):
        layer(torch.zeros(1, 3, 16), shared_context={})


@torch.no_grad()
def test_the_cache_is_made_from_what_was_there_before_the_norm():
    """Both ways, too: backwards, from that in reverse."""
    context = LayerContext(16, 8, layer=1, depth=2)
    layer, h, x = drawn(YOCO(context)), vectors(1, 6, 16), 3 * vectors(1, 6, 16).flip(2)
    y = layer(x, shared_context={"residual": h})[0]
    assert not torch.allclose(y, layer(x)[0])
    both = Bidirectional(layer, layer)(x, shared_context={"residual": h})[0]
    back = layer(x.flip(1), shared_context={"residual": h.flip(1)})[0].flip(1)
    torch.testing.assert_close(both, y + back, rtol=1e-10, atol=1e-10)
