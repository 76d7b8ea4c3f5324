"""PaTH attention and NSA beside the naive forms of flash-linear-attention, recorded in float64."""

import pytest
import torch

from zoo.architectures.nsa import NSA
from zoo.contract import LayerContext
from zoo.layers.blocks import means
from zoo.ops.carried_attention import path_attention, path_attention_naive

from .compare import gradients_of

SOURCE = "flash-linear-attention bc3b101, {} (recorded)"


def heads_first(x):
    return [x[name].transpose(1, 2) for name in ("q", "k", "v")]


@pytest.mark.parametrize("form", [path_attention, path_attention_naive])
def test_path_attention(oracle, frontier_parity, monkeypatch, form):
    monkeypatch.setattr("zoo.ops.carried_attention.chunked.CHUNK", 8)
    data, x = frontier_parity("fla_path_attn")
    o, _ = form(*heads_first(x), x["w"].transpose(1, 2), x["beta"].transpose(1, 2))
    proof = oracle("path", SOURCE.format("naive_path_attn"))
    proof.outputs(o.transpose(1, 2), data["output"], 1e-9)
    found = gradients_of(o.transpose(1, 2), data["cotangent"], x)
    proof.gradients(found, {name: data[f"grad.input.{name}"] for name in x}, 1e-8)


def test_native_sparse_attention(oracle, frontier_parity):
    data, x = frontier_parity("fla_nsa")
    options = {"heads": 16, "kv_heads": 1, "head_dim": 6, "block_size": 4, "block_counts": 4, "window_size": 5}
    mixer, (q, k, v) = NSA(LayerContext(width=16, length=27), **options), heads_first(x)
    now = torch.arange(27)[None]
    branches = mixer.branches(q, k, v, now, first=True)
    y = sum(
        x[f"g_{kind}"][..., None] * o.transpose(1, 2) for kind, o in zip(("cmp", "slc", "swa"), branches, strict=True)
    )
    proof = oracle("nsa", SOURCE.format("naive_nsa"))
    proof.outputs(y, data["output"], 1e-9)
    found = gradients_of(y, data["cotangent"], x)
    proof.gradients(found, {name: data[f"grad.input.{name}"] for name in x}, 1e-8)
    past = 4 * torch.arange(1, 8) <= now[..., None] + 1
    selected = mixer.select(q, means(k, 4), past[:, None], now).transpose(1, 2)
    indices = data["aux.block_indices_sorted"]
    official = torch.zeros(*selected.shape[:3], 8, dtype=torch.bool).scatter(-1, indices % 8, True)[..., :7]
    assert torch.equal(selected, official)  # −1, for none, goes to the eighth place
