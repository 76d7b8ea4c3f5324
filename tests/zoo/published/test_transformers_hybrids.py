"""Hybrids of transformers, as transformers runs them and in our own modules, whole and with what ours lack."""

from functools import partial

import pytest
import torch

import zoo
from tests.zoo import models
from tests.zoo.models import close, in_pieces, logits
from tests.zoo.published.hybrids import FAMILIES, OURS, T, V, hybrid, ids
from zoo.contract import Batch, Unsupported

transformers = pytest.importorskip("transformers", minversion="5.25")
refused = partial(models.refused, kind="transformers")


def saved(folder, family, **more):
    hybrid(transformers, family, **more).save_pretrained(folder)
    return folder


def numbers(state):
    """How many numbers a state holds, positions aside."""
    return sum(x.numel() for held in state["layers"].values() for x in held.values())


def cached(cache):
    """How many numbers a cache of transformers holds."""
    if hasattr(cache, "rnn_state"):
        return sum(x.numel() for three in cache.rnn_state.values() for x in three)
    found = [x for x in getattr(cache, "linear_cache", ()) if isinstance(x, torch.Tensor)]
    for layer in cache.layers:
        states = [getattr(layer, name, {}).values() for name in ("conv_states", "recurrent_states")]
        found += [getattr(layer, "keys", None), getattr(layer, "values", None), *states[0], *states[1]]
    return sum(x.numel() for x in found if x is not None)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_through_transformers(tmp_path, family):
    inner, tokens = hybrid(transformers, family), ids()
    inner.save_pretrained(tmp_path)
    want = inner(input_ids=tokens, use_cache=False).logits
    model = zoo.load(tmp_path)
    close(logits(model, tokens), want, 1e-6)
    assert (model.shape.vocab, model.shape.outputs) == (V, V)
    mask = torch.arange(T).expand(len(tokens), -1) < 10
    padded = model(Batch(inputs=torch.where(mask, tokens, 5), mask=mask))
    close(padded[:, :10], want[:, :10], 1e-5)
    if family == "recurrent_gemma":  # it keeps its recurrence in its modules
        with pytest.raises(Unsupported, match="recurrent_gemma of transformers cannot resume from a state here"):
            model.init_state(1)
        return
    for sizes in ([10, 1, 1, T - 12], 1):
        again, state = in_pieces(model, tokens, sizes)
        close(again, want, 1e-4)
    assert numbers(state) == cached(inner(input_ids=tokens, use_cache=True).cache)
    assert state["position"].tolist() == [T, T]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "recurrent_gemma"])
@torch.no_grad()
def test_a_state_does_not_change_and_can_be_cut(tmp_path, family):
    model, tokens = zoo.load(saved(tmp_path, family)), ids()
    _, state = model.extend(tokens[:, :9], model.init_state(2))
    first, _ = model.extend(tokens[:, 9:10], state)
    again, _ = model.extend(tokens[:, 9:10], state)
    assert torch.equal(first, again)
    layers = {i: {name: x[1:] for name, x in held.items()} for i, held in state["layers"].items()}
    alone, _ = model.extend(tokens[1:, 9:10], {"position": state["position"][1:], "layers": layers})
    close(alone, first[1:], 1e-5)


@pytest.mark.parametrize("family", OURS)
@torch.no_grad()
def test_through_our_modules(tmp_path, family):
    inner, tokens = hybrid(transformers, family), ids()
    inner.save_pretrained(tmp_path)
    want = inner(input_ids=tokens, use_cache=False).logits
    model = zoo.load(tmp_path, through="zoo")
    assert model.built["architecture"] == OURS[family]
    close(logits(model, tokens), want, 3e-5)  # float32; tests/oracles compares them in float64
    close(in_pieces(model, tokens, [10, 1, 1, T - 12])[0], want, 3e-5)
    assert torch.equal(logits(zoo.load(zoo.save(model, tmp_path / "ours")), tokens), logits(model, tokens))


@torch.no_grad()
def test_small_steps_of_nemotron_h(tmp_path):
    """No Δ is bounded below, in parallel or step by step, as transformers before 5.25 did in parallel."""
    inner, tokens = hybrid(transformers, "nemotron_h"), ids()
    for name, parameter in inner.named_parameters():
        if name.endswith("dt_bias"):
            parameter.fill_(-12.0)
    inner.save_pretrained(tmp_path)
    want = inner(input_ids=tokens, use_cache=False).logits
    for through in ("transformers", "zoo"):
        model = zoo.load(tmp_path, through=through)
        close(logits(model, tokens), want, 1e-5)
        close(in_pieces(model, tokens, 1)[0], want, 1e-5)


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("qwen3_next", {"mlp_only_layers": [1]}, "no mlp_only_layers [1]"),
        ("qwen3_next", {"shared_expert_intermediate_size": 20}, "no shared_expert_intermediate_size 20"),
        ("qwen3_next", {"rms_norm_eps": 1e-5}, "no rms_norm_eps 1e-05; only 1e-06"),
        ("kimi_linear", {"n_group": 2}, "no n_group 2"),
        ("minimax", {"mlp_alpha_factor": 2.0}, "no mlp_alpha_factor 2.0"),
        ("minimax", {"sliding_window": 4}, "no sliding_window 4"),
        ("jamba", {"mamba_proj_bias": True}, "no mamba_proj_bias True"),
        ("jamba", {"num_experts": 1}, "no num_experts 1"),
        ("nemotron_h", {"layer_types": ["linear_attention", "moe"], "moe_intermediate_size": 12}, "layer_types"),
        ("nemotron_h", {"layer_types": ["linear_attention", "mlp", "mlp"]}, "must stand behind another layer"),
        ("nemotron_h", {"mlp_hidden_act": "silu"}, "no mlp_hidden_act 'silu'"),
        ("falcon_h1", {"projectors_bias": True}, "no projectors_bias True"),
        ("olmo_hybrid", {"attention_bias": True}, "no attention_bias True"),
        ("recurrent_gemma", {"logits_soft_cap": 20.0}, "no logits_soft_cap 20.0"),
        ("recurrent_gemma", {"block_types": ["recurrent", "attention"]}, "no block_types"),
        ("lfm2", {}, "not lfm2; through=transformers opens any"),
    ],
)
def test_what_our_modules_do_not_have(tmp_path, family, options, words):
    refused(saved(tmp_path, family, **options), words, through="zoo")
