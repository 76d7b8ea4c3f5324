"""Transformers against Hugging Face transformers: whole small models under the same weights."""

import pytest
import torch
from torch import nn

import zoo
from zoo.blocks.heads import TwoStacks
from zoo.contract import Batch, LayerContext, Recipe, Shape
from zoo.layers.attention import Attention
from zoo.published.names import to_ours
from zoo.published.transformers.counterparts import gpt2_pairs, llama_pairs
from zoo.types import Part

from .compare import drawn, leaves, shaken, vectors

hf = pytest.importorskip("transformers")

V, D, N, H, T, B = 13, 24, 3, 4, 11, 2


def ours(name, role="lm", **options):
    shape = Shape(length=T, vocab=V, outputs=V, target_length=T, width=D, depth=N)
    return zoo.build(name, role, shape=shape, heads=H, **options).double().eval()


def theirs(kind, config):
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    return shaken(kind(config), 0.2).eval()


def load(model, weights):
    """Weights into our model, by our names, all of them."""
    named = leaves(model)
    assert named.keys() == weights.keys(), sorted(named.keys() ^ weights.keys())
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(weights[name])


def compare_models(proof, model, reference, pairs):
    """Logits and gradients of language models whose parameters have each other's names in `pairs`."""

    def renamed(official):
        return to_ours(pairs, official, "theirs")

    load(model, renamed({name: p.data for name, p in reference.named_parameters()}))
    y, want = model(Batch(inputs=ids())), reference(ids()).logits
    proof.equal(y, want, leaves(model), leaves(reference), renamed=renamed)


def ids():
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def test_gpt2(oracle):
    config = hf.GPT2Config(
        vocab_size=V, n_positions=T, n_embd=D, n_layer=N, n_head=H, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    reference, model = theirs(hf.GPT2LMHeadModel, config), ours("gpt2")
    compare_models(oracle("gpt2", "transformers GPT2LMHeadModel"), model, reference, gpt2_pairs(model))


@pytest.mark.parametrize("kv_heads", [H, 2])
def test_llama(oracle, kv_heads):
    config = hf.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=N, num_attention_heads=H,
        num_key_value_heads=kv_heads, max_position_embeddings=T, rms_norm_eps=1e-6, tie_word_embeddings=False,
    )  # fmt: skip
    reference, model = theirs(hf.LlamaForCausalLM, config), ours("transformer_pp", kv_heads=kv_heads)
    compare_models(oracle("transformer_pp", "transformers LlamaForCausalLM"), model, reference, llama_pairs(model))


SELF = ("self_attn", {"qkv": [f"self_attn.{x}_proj" for x in "qkv"], "out": ["self_attn.out_proj"]})
ENCODED = [f"encoder_attn.{x}_proj" for x in ("q", "k", "v", "out")]
CROSS = ("encoder_attn", {"q": ENCODED[:1], "kv": ENCODED[1:3], "out": ENCODED[3:]})
MLP = ("final", {"up": ["fc1"], "down": ["fc2"]})
BART = {"encoder": (SELF, MLP), "decoder": (SELF, CROSS, MLP)}
"""The norm and {ours: theirs} of each sublayer of a layer; several of theirs are stacked."""


def bart_to_ours(p):
    found = {}
    for kind, sublayers in BART.items():
        for i in range(N):
            for j, (norm, parts) in enumerate(sublayers):
                at, there = f"{kind}.sublayers.{i * len(sublayers) + j}", f"{kind}.layers.{i}"
                for part in ("weight", "bias"):
                    found[f"{at}.norm.{part}"] = p[f"{there}.{norm}_layer_norm.{part}"]
                    for name, names in parts.items():
                        found[f"{at}.inner.{name}.{part}"] = torch.cat([p[f"{there}.{n}.{part}"] for n in names])
    return found


def test_bart_encoder_and_decoder(oracle):
    """Post-LN stacks with cross attention, from the same vectors (BART's embeddings are not those of 2017)."""
    config = hf.BartConfig(
        vocab_size=V, d_model=D, encoder_layers=N, decoder_layers=N, encoder_attention_heads=H,
        decoder_attention_heads=H, encoder_ffn_dim=4 * D, decoder_ffn_dim=4 * D, activation_function="relu",
        dropout=0, attention_dropout=0, activation_dropout=0, max_position_embeddings=T,
    )  # fmt: skip
    reference = theirs(hf.BartModel, config)
    recipe: Recipe = zoo.recipe("transformer_2017", heads=H)
    model = TwoStacks(recipe, LayerContext(width=D, length=T, depth=N), T).double().eval()

    load(model, bart_to_ours(reference.state_dict()))
    torch.manual_seed(1)
    source, target = torch.randn(B, T, D, dtype=torch.float64), torch.randn(B, 7, D, dtype=torch.float64)
    valid = torch.arange(T) < torch.tensor([[T], [6]])
    for stack in (reference.encoder, reference.decoder):  # BART's own embedding, out of the way
        stack.embed_positions.forward = lambda *_, **__: torch.zeros((), dtype=torch.float64)
        stack.layernorm_embedding = nn.Identity()
    theirs_memory = reference.encoder(inputs_embeds=source, attention_mask=valid.long()).last_hidden_state
    theirs_y = reference.decoder(
        inputs_embeds=target, encoder_hidden_states=theirs_memory, encoder_attention_mask=valid.long(), use_cache=False
    ).last_hidden_state
    memory = model.encoder(source, mask=valid)[0]
    y = model.decoder(target, shared_context={"memory": memory, "memory_mask": valid})[0]
    proof = oracle("transformer_2017", "transformers BartEncoder and BartDecoder")
    proof.outputs(memory[valid], theirs_memory[valid])
    used = {name: p for name, p in leaves(reference).items() if ".layers." in name}
    proof.equal(y, theirs_y, leaves(model), used, renamed=bart_to_ours)


@pytest.mark.parametrize("decoder", [False, True])
def test_t5_bias(oracle, decoder):
    """The bias itself, for both directions and far distances, and attention without a scale."""
    from transformers.models.t5.modeling_t5 import T5Attention

    config = hf.T5Config(
        d_model=D, d_kv=D // H, num_heads=H, dropout_rate=0,
        relative_attention_num_buckets=16, relative_attention_max_distance=50,
    )  # fmt: skip
    config.is_decoder = decoder
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    reference = drawn(T5Attention(config, has_relative_attention_bias=True, layer_idx=0), 0.3).eval()
    context = LayerContext(D, 80, decoder, positions=Part("t5", buckets=16, max_distance=50))
    model = Attention(context, heads=H, bias=False, scale=1.0)

    def renamed(p):
        qkv = torch.cat([p[f"{name}.weight"] for name in "qkv"])
        return {"positions.table": p["relative_attention_bias.weight"], "qkv.weight": qkv, "out.weight": p["o.weight"]}

    mask = torch.zeros(1, 1, 80, 80, dtype=torch.float64)
    if decoder:
        mask = mask.masked_fill(~torch.ones(80, 80, dtype=torch.bool).tril(), float("-inf"))
    proof = oracle("pre_ln", f"transformers T5 {'decoder' if decoder else 'encoder'} attention (positions: t5)")
    proof.layers(model, reference, vectors(B, 80, D), lambda x: reference(x, mask=mask)[0], renamed=renamed)
