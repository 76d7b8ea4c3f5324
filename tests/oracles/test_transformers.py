"""Transformers against Hugging Face transformers: whole small models under the same weights."""

import pytest
import torch
from torch import nn

import zoo
from zoo.blocks.heads import TwoStacks
from zoo.contract import Batch, LayerContext, Recipe, Shape
from zoo.published.names import to_ours
from zoo.published.transformers.counterparts import gpt2_pairs, llama_pairs
from zoo.types import Part

hf = pytest.importorskip("transformers")

V, D, N, H, T, B = 13, 24, 3, 4, 11, 2


def ours(name, role="lm", **options):
    shape = Shape(length=T, vocab=V, outputs=V, target_length=T, width=D, depth=N)
    return zoo.build(name, role, shape=shape, heads=H, **options).double().eval()


def theirs(kind, config):
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = kind(config).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return model


def load(model, weights):
    """Weights into our model, by our names, all of them."""
    named = dict(model.named_parameters())
    assert named.keys() == weights.keys(), sorted(named.keys() ^ weights.keys())
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(weights[name])


def compare(proof, model, reference, weights, y, y_theirs):
    """Outputs, and the gradients of a random cotangent; `weights` maps our names to functions of theirs' parameters."""
    proof.outputs(y, y_theirs)
    cotangent = torch.randn_like(y)
    (y * cotangent).sum().backward()
    (y_theirs * cotangent).sum().backward()
    gradients = weights(lambda p: p.grad)
    proof.gradients({name: p.grad for name, p in model.named_parameters()}, gradients)


def renamed(pairs, reference):
    """What `compare` wants of a table of names."""
    return lambda of: to_ours(pairs, {name: of(p) for name, p in reference.named_parameters()}, "theirs")


def ids():
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def test_gpt2(oracle):
    config = hf.GPT2Config(
        vocab_size=V, n_positions=T, n_embd=D, n_layer=N, n_head=H, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    reference, model = theirs(hf.GPT2LMHeadModel, config), ours("gpt2")

    weights = renamed(gpt2_pairs(model), reference)
    load(model, weights(lambda p: p.data))
    compare(
        oracle("gpt2", "transformers GPT2LMHeadModel"),
        model,
        reference,
        weights,
        model(Batch(inputs=ids())),
        reference(ids()).logits,
    )


@pytest.mark.parametrize("kv_heads", [H, 2])
def test_llama(oracle, kv_heads):
    config = hf.LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=64, num_hidden_layers=N, num_attention_heads=H,
        num_key_value_heads=kv_heads, max_position_embeddings=T, rms_norm_eps=1e-6, tie_word_embeddings=False,
    )  # fmt: skip
    reference, model = theirs(hf.LlamaForCausalLM, config), ours("transformer_pp", kv_heads=kv_heads)

    weights = renamed(llama_pairs(model), reference)
    load(model, weights(lambda p: p.data))
    compare(
        oracle("transformer_pp", "transformers LlamaForCausalLM"),
        model,
        reference,
        weights,
        model(Batch(inputs=ids())),
        reference(ids()).logits,
    )


def bart_parts(block, kind):
    """(norm, {ours: [theirs, …]}) of each sublayer of a BART layer; several of theirs are stacked."""

    def attention(module, cross=False):
        q, k, v = module.q_proj, module.k_proj, module.v_proj
        return (
            {"q": [q], "kv": [k, v], "out": [module.out_proj]}
            if cross
            else {"qkv": [q, k, v], "out": [module.out_proj]}
        )

    parts = [(block.self_attn_layer_norm, attention(block.self_attn))]
    if kind == "decoder":
        parts.append((block.encoder_attn_layer_norm, attention(block.encoder_attn, cross=True)))
    return [*parts, (block.final_layer_norm, {"up": [block.fc1], "down": [block.fc2]})]


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

    def weights(of):
        found = {}
        for kind in ("encoder", "decoder"):
            sublayers = [part for block in getattr(reference, kind).layers for part in bart_parts(block, kind)]
            for i, (norm, parts) in enumerate(sublayers):
                at = f"{kind}.sublayers.{i}"
                found |= {f"{at}.norm.weight": of(norm.weight), f"{at}.norm.bias": of(norm.bias)}
                for name, layers in parts.items():
                    found[f"{at}.inner.{name}.weight"] = torch.cat([of(layer.weight) for layer in layers])
                    found[f"{at}.inner.{name}.bias"] = torch.cat([of(layer.bias) for layer in layers])
        return found

    load(model, weights(lambda p: p.data))
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
    compare(proof, model, reference, weights, y, theirs_y)


@pytest.mark.parametrize("decoder", [False, True])
def test_t5_bias(oracle, decoder):
    """The bias itself, for both directions and far distances, and attention without a scale."""
    from transformers.models.t5.modeling_t5 import T5Attention

    from zoo.layers.attention import Attention

    config = hf.T5Config(
        d_model=D,
        d_kv=D // H,
        num_heads=H,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=50,
        dropout_rate=0,
    )
    config.is_decoder = decoder
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    reference = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double().eval()
    with torch.no_grad():
        for p in reference.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    positions = Part("t5", buckets=16, max_distance=50)
    model = Attention(
        LayerContext(width=D, length=80, causal=decoder, positions=positions), heads=H, bias=False, scale=1.0
    ).double()

    def weights(of):
        qkv = torch.cat([of(reference.q.weight), of(reference.k.weight), of(reference.v.weight)])
        table = of(reference.relative_attention_bias.weight)
        return {"positions.table": table, "qkv.weight": qkv, "out.weight": of(reference.o.weight)}

    load(model, weights(lambda p: p.data))
    x = torch.randn(B, 80, D, dtype=torch.float64)
    mask = torch.zeros(1, 1, 80, 80, dtype=torch.float64)
    if decoder:
        mask = mask.masked_fill(~torch.ones(80, 80, dtype=torch.bool).tril(), float("-inf"))
    y, wanted = model(x)[0], reference(x, mask=mask)[0]
    name = "T5 decoder" if decoder else "T5 encoder"
    compare(oracle("pre_ln", f"transformers {name} attention (positions: t5)"), model, reference, weights, y, wanted)
