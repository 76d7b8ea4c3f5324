"""ALiBi, RoPE and xPos against x-transformers; RoPE also against transformers, in both conventions."""

import pytest
import torch

from zoo.layers.positions import relative
from zoo.types import Part

T, d, H = 19, 16, 6
AT = torch.arange(T)[None]


def heads(seed):
    return torch.randn(2, H, T, d, generator=torch.Generator().manual_seed(seed))


def module(name, **options):
    return relative(Part(name, **options), heads=H, head_width=d, causal=True)


def scores(rotate_q, rotate_k):
    return rotate_q(heads(0)) @ rotate_k(heads(1)).transpose(-1, -2)


def test_alibi(oracle):
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    wanted = x_transformers.AlibiPositionalBias(heads=H, total_heads=H)(T, T)
    past = torch.ones(T, T, dtype=torch.bool).tril()
    found = module("alibi").bias(AT, AT)[0]
    oracle("pre_ln", "x-transformers AlibiPositionalBias (positions: alibi)").outputs(found[:, past], wanted[:, past])


@pytest.mark.parametrize("name", ["rope", "xpos"])
def test_rotations(oracle, name):
    """x-transformers interleaves; with xPos its scales are centred, which scores cannot tell."""
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    official = x_transformers.RotaryEmbedding(d, use_xpos=name == "xpos", scale_base=512)
    freqs, scale = official.forward_from_seq_len(T)
    apply = x_transformers.apply_rotary_pos_emb
    wanted = scores(lambda q: apply(q, freqs, scale), lambda k: apply(k, freqs, scale**-1 if name == "xpos" else 1.0))
    ours = module(name, convention="interleaved")
    found = scores(lambda q: ours.rotate(q, AT, key=False), lambda k: ours.rotate(k, AT, key=True))
    oracle("pre_ln", f"x-transformers RotaryEmbedding (positions: {name})").outputs(found, wanted)


def test_rope_of_halves(oracle):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    angle = torch.cat([AT[..., None] * 10000 ** (-torch.arange(0, d, 2) / d)] * 2, -1)
    q, k = llama.apply_rotary_pos_emb(heads(0), heads(1), angle.cos(), angle.sin())
    ours, proof = module("rope"), oracle("pre_ln", "transformers Llama apply_rotary_pos_emb (positions: rope)")
    proof.outputs(ours.rotate(heads(0), AT, key=False), q)
    proof.outputs(ours.rotate(heads(1), AT, key=True), k)
