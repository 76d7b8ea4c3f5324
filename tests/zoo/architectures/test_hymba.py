"""Hymba in more layers than the checks have: with windows and without, and keys and values that neighbours share."""

import pytest
import torch

import zoo
from zoo import checks
from zoo.architectures.hymba import Hymba, source
from zoo.checks.subject import Subject
from zoo.contract import LayerContext, leaves

from .mixers import drawn, mixers_of, vectors
from .test_variants import CHECKS

FULL = {0, 15, 31}
GROUPS = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [16, 17, 18], [19, 20], [21, 22], [23, 24],
          [25, 26], [27, 28], [29, 30]]  # fmt: skip
"""Those of nvidia/Hymba-1.5B-Base."""


def made(depth=8, **options):
    shape = zoo.Shape(length=40, vocab=7, outputs=7, width=32, depth=depth)
    return drawn(zoo.build("hymba", "lm", shape=shape, **options), 0.3).backbone


def test_official_groups_share():
    found = {i: [j for j in range(32) if source(j, 32, FULL) == i] for i in range(32)}
    assert [layers for layers in found.values() if len(layers) > 1] == GROUPS
    assert all(found[i] == [i] for i in FULL)


@pytest.mark.parametrize(
    ("full", "want"), [((), [0, 0, 0, 3, 3]), ((1, 9), [0, 1, 2, 2, 2]), ((4, 0), [0, 1, 1, 1, 4])]
)
def test_sources(full, want):
    assert [source(i, 5, full) for i in range(5)] == want


def test_windows_and_caches_of_eight_layers():
    backbone = made(window=5)
    layers = mixers_of(Subject("hymba"), backbone)
    assert [layer.window for layer in layers] == [None, 5, 5, None, 5, 5, 5, None]
    state = backbone.init_state(1, device="cpu", dtype=torch.float64)
    cached = ["k" in state[name] for name in state if state[name]]
    assert cached == [True, True, False, True, True, False, False, True]
    assert not any(layer.source != layer.layer for layer in mixers_of(Subject("hymba"), made(kv_reuse=False)))


@torch.no_grad()
def test_eight_layers_continue_past_padding_and_look_back_only():
    backbone, x = made(window=5).eval(), vectors(3, 31, 32)
    whole = backbone(x)[0]
    lengths = torch.tensor([[17], [9], [1]])
    mask, state = torch.arange(17) < lengths, backbone.init_state(3, device="cpu", dtype=x.dtype)
    junk = torch.where(mask[..., None], x[:, :17], float("nan"))
    y, state = backbone(junk, mask=mask, state=state)
    torch.testing.assert_close(y[mask], whole[:, :17][mask], rtol=1e-9, atol=1e-9)
    for t in range(17, 20):
        now = torch.stack([x[row, n + t - 17] for row, n in enumerate(lengths[:, 0])])[:, None]
        y, state = backbone(now, state=state)
        want = torch.stack([whole[row, n + t - 17] for row, n in enumerate(lengths[:, 0])])[:, None]
        torch.testing.assert_close(y, want, rtol=1e-9, atol=1e-9)
    assert sum(leaf.shape[2:3] == (20,) for leaf in leaves(state)) == 6  # keys and values of three layers


def test_recomputed_layers_read_the_keys_and_values_of_their_own_group():
    backbone, x = made(window=5).train(), vectors(2, 11, 32)
    found = []
    for backbone.recompute in (False, True):
        loss = backbone(x)[0].square().sum()
        found.append(torch.autograd.grad(loss, list(backbone.parameters())))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_layers_that_share_keep_the_contract():
    subject = Subject("hymba", {"global_attn_idx": [], "window": 5, "kv_heads": 2})
    found = [checks.apply(check, subject) for check in CHECKS]
    assert [result for result in found if result.status == "failed"] == []


def test_a_layer_behind_needs_the_cache():
    layer = Hymba(LayerContext(16, 8, layer=2, depth=8))
    with pytest.raises(ValueError, match="layer 2 reads keys and values of layer 1, which has none"):
        layer(torch.zeros(1, 3, 16), shared_context={})
