"""Options that change what a mixer computes keep the contract too; test_contract.py asks it of the defaults."""

import pytest
import torch

from zoo import checks
from zoo.architectures.bigbird import BigBird
from zoo.architectures.bilinear_attention import BilinearAttention
from zoo.checks.subject import Subject, T
from zoo.layers.attention import Attention

from .mixers import start

CHECKS = ("causality", "both_ways", "resumption", "padding", "padded_state", "batching", "gradients", "extremes")
VARIANTS = [
    ("bigbird", {"block_size": 1, "random_blocks": 1}),
    ("comba", {"heads": 2, "head_dim": 5, "expand_v": 1.2, "conv_size": 3, "conv_bias": True}),
    ("comba", {"use_output_gate": False, "use_output_correction": False, "use_inner_decay": False}),
    ("comba", {"use_short_conv": False}),
    ("convformer", {"columns": 3, "kernel": 3, "expand": 1.5}),
    ("delta_net", {"heads": 3, "expand_k": 0.5, "expand_v": 2.0, "use_gate": True, "conv_size": 3, "conv_bias": True}),
    ("delta_net", {"allow_neg_eigval": True, "qk_activation": "identity", "conv_size": 1}),
    ("delta_net", {"use_short_conv": False, "qk_activation": "elu", "qk_norm": "sum", "heads": 1}),
    ("delta_net", {"use_beta": False, "qk_activation": "relu", "heads": 2}),
    ("differential", {"heads": 4, "kv_heads": 2, "positions": "none"}),
    ("deltaformer", {"heads": 2, "qkv_bias": True, "qk_norm": True}),
    ("fast_weights", {"rule": "sum"}),
    ("fast_weights", {"feature_map": "dpfp", "nu": 3, "d_head": 5, "heads": 2}),
    ("fast_weights", {"feature_map": "relu", "attention_norm": True}),
    ("fast_weights", {"rule": "sum", "feature_map": "dpfp", "nu": 1}),
    ("forgetting", {"kv_heads": 2, "qkv_bias": True, "qk_norm": True, "use_output_gate": True}),
    ("gated_attention", {"kv_heads": 2, "head_dim": 24, "sinks": True, "bias": True}),
    ("gated_attention", {"kv_heads": 1, "sinks": True, "positions": "alibi"}),
    ("gated_delta_net", {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "conv_size": 3}),
    ("gated_delta_net", {"use_gate": False, "use_short_conv": False, "allow_neg_eigval": True}),
    ("gated_delta_net_2", {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "allow_neg_eigval": True}),
    ("gated_delta_net_2", {"use_short_conv": False}),
    ("gated_delta_product", {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "num_householder": 3}),
    ("gated_delta_product", {"use_forget_gate": False, "use_short_conv": False, "use_output_gate": False}),
    ("gated_delta_product", {"num_householder": 1, "allow_neg_eigval": False, "conv_size": 3, "conv_bias": True}),
    ("gla", {"heads": 2, "kv_heads": 1, "expand_k": 1.0, "expand_v": 2.0, "clamp_min": -0.05}),
    ("gla", {"use_short_conv": True, "conv_size": 3, "conv_bias": True, "feature_map": "sigmoid", "gate_fn": "relu"}),
    ("gla", {"use_output_gate": False, "elementwise_affine": False, "gate_logit_normalizer": 1.0}),
    ("gss", {"imag_exp": False, "d_state": 5}),
    ("h3", {"head_dim": 2, "d_state": 8, "disc": "bilinear"}),
    ("hyena", {"order": 3, "short_filter_order": 1}),
    ("hyena", {"order": 4, "short_filter_order": 5}),
    ("hymba", {"kv_heads": 2, "kq_head_dim": 6, "global_attn_idx": [], "window": 5, "kv_reuse": False, "bias": True}),
    ("hymba", {"heads": 2, "expand": 1.5, "inner_norms": False, "conv_bias": False, "positions": "none"}),
    ("kda", {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "conv_size": 3, "conv_bias": True}),
    ("kda", {"lower_bound": -5.0, "allow_neg_eigval": True, "use_short_conv": False}),
    ("linear_transformer", {"heads": 2, "d_keys": 5, "d_values": 3}),
    ("linformer", {"k": 5, "sharing": "none"}),
    ("linformer", {"k": 5, "sharing": "key_value"}),
    ("local", {"window": 6, "kv_heads": 1, "positions": {"rope": {"fraction": 0.5}}}),
    ("local", {"window": 6, "kv_heads": 1, "positions": "t5"}),
    ("longformer", {"window": 6, "global_tokens": 0}),
    ("longformer", {"window": 6, "global_tokens": 4}),
    ("mamba2", {"ngroups": 2, "headdim": 4, "dt_limit": (0.01, 1.0)}),
    ("mamba3", {"ngroups": 2, "headdim": 4, "d_state": 6, "rope_fraction": 1.0, "is_outproj_norm": True}),
    ("mamba3", {"is_mimo": True, "mimo_rank": 3, "d_state": 8}),
    ("mamba3", {"is_mimo": True, "mimo_rank": 2, "d_state": 8, "headdim": 4, "is_outproj_norm": True}),
    ("mega", {"chunk_size": 5, "attention_activation": "laplace"}),
    ("mega", {"attention_activation": "laplace", "rel_pos_bias": "rotary"}),
    ("mega", {"chunk_size": 5, "rel_pos_bias": "rotary"}),
    ("mesa_net", {"heads": 2, "head_dim": 5, "use_output_gate": True, "conv_size": 3, "conv_bias": True}),
    ("mla", {"q_lora_rank": 9, "qk_rope_head_dim": 6, "kv_lora_rank": 5, "v_head_dim": 7, "qk_nope_head_dim": 3}),
    ("mixture_of_memories", {"num_memories": 5, "topk": 3, "shared_mem": False, "head_dim": 5, "expand_v": 1.2}),
    ("mixture_of_memories", {"single_kv_proj": True, "use_output_gate": False, "conv_size": 3, "conv_bias": True}),
    ("moba", {"moba_chunk_size": 3, "moba_topk": 2, "kv_heads": 2, "qk_norm": True, "use_output_gate": True}),
    ("nsa", {"block_size": 2, "block_counts": 4, "window_size": 3, "kv_heads": 2, "head_dim": 6, "qkv_bias": True}),
    ("nystromformer", {"num_landmarks": 4, "conv_kernel_size": 3}),
    ("parallax", {"kv_heads": 2, "qkv_bias": True, "qk_norm": True}),
    ("path", {"kv_heads": 2, "use_forget_gate": True, "use_qk_norm": True, "use_low_rank_w": False, "conv_bias": True}),
    ("path", {"use_forget_gate": True, "use_w_shortconv": False}),
    ("performer", {"kernel": "relu"}),
    ("precond_gated_delta_net", {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "squash_x": 2.0}),
    ("precond_gated_delta_net", {"use_gate": False, "use_short_conv": False, "allow_neg_eigval": True}),
    ("reformer", {"chunk": 4, "hashes": 2, "duplicates": False}),
    ("reformer", {"chunk": 4, "hashes": 2, "across_buckets": False}),
    ("reformer", {"chunk": 4, "hashes": 2, "before": 2, "after": 1}),
    ("rwkv5", {"dim_att": 64}),
    ("rwkv6", {"dim_att": 64, "mix_lora": 2, "decay_lora": 3}),
    ("s4", {"init": "legt", "rank": 2, "d_state": 8}),
    ("s4", {"init": "hippo", "n_ssm": 2, "d_state": 8}),
    ("s4", {"channels": 2, "rank": 3, "d_state": 8}),
    ("s4d", {"disc": "bilinear", "init": "legs", "d_state": 8}),
    ("s4d", {"init": "real", "d_state": 8}),
    ("s5", {"d_state": 8, "blocks": 2, "conj_sym": False}),
    ("sinkhorn", {"block_size": 4, "sort_net": "attention"}),
    ("synthesizer", {"variant": "factorized_dense"}),
    ("synthesizer", {"variant": "random"}),
    ("synthesizer", {"variant": "factorized_random"}),
    ("synthesizer", {"variant": "random", "dot": "alpha"}),
    ("synthesizer", {"variant": "dense", "dot": "plus"}),
    ("titans", {"heads": 2, "head_dim": 5, "chunk_size": 5, "use_gate": False, "use_short_conv": False}),
    ("ttt_linear", {"mini_batch_size": 5, "share_qk": False, "use_gate": False, "heads": 2}),
    ("yoco", {"self_decoder": "swa", "window_size": 6, "kv_heads": 2, "qk_norm": True, "depth": 5}),
    ("yoco", {"gate_logit_normalizer": 2.0, "positions": "none"}),
    ("wall", {"kv_heads": 2, "qkv_bias": True, "qk_norm": True, "use_output_gate": True, "use_scalar_gate": True}),
]


def variants(architecture):
    return [options for name, options in VARIANTS if name == architecture]


def test_variants(architecture):
    for options in variants(architecture):
        subject = Subject(architecture, options)
        found = [checks.apply(check, subject) for check in CHECKS]
        assert [result for result in found if result.status == "failed"] == [], options


MASKED_FIRST = {
    "based", "bigbird", "comba", "delta_net", "deltaformer", "differential", "fast_weights", "forgetting",
    "gated_delta_net", "gated_delta_net_2", "gated_delta_product", "gla", "griffin", "gss", "h3", "hyena", "hymba",
    "kda", "linear_transformer", "local", "longformer", "lru", "mamba", "mamba2", "mamba3", "mesa_net",
    "mixture_of_memories", "mla", "mlp_mixer", "mlstm", "moba", "nsa", "parallax", "path",
    "precond_gated_delta_net", "reformer", "retnet", "rg_lru", "s4", "s4d", "s5", "sinkhorn", "slstm", "titans",
    "ttt_linear", "wall", "yoco",
}  # fmt: skip
"""They mask before any projection, so that NaN reaches no gradient of a weight either."""


def test_nan_in_padding_leaves_no_trace(architecture):
    """In a mixer without the norm before it: not in valid outputs, in the next state, or in gradients of weights."""
    for options in ({}, *variants(architecture)):
        subject = Subject(architecture, options)
        if {Attention, BilinearAttention} & {part.kind for part in subject.recipe.mixers}:
            pytest.skip("a softmax over all keys multiplies NaN by zero")
        for role in subject.backbones:
            model = subject.random(role, steps=2 * T)
            apart = 1 if subject.recipe.channels[0] is None else 2
            for mixer in [sublayer.inner for sublayer in model.backbone.sublayers][::apart]:
                steps = model.shape.length if mixer.traits.length == "fixed" else T
                mask = torch.arange(steps) < torch.tensor([T, T // 2, 1, 0])[:, None]
                x, state = subject.vectors(4, steps), None
                if role == "lm" and mixer.traits.resumable:
                    state = run(mixer, subject.vectors(4, 3), None, start(mixer, x))[1]
                wanted, after = run(mixer, x, mask, state)
                y, other = run(mixer, torch.where(mask[..., None], x, float("nan")), mask, state)
                torch.testing.assert_close(y[mask], wanted[mask], rtol=0, atol=0)
                torch.testing.assert_close(other, after, rtol=0, atol=0)
                if architecture in MASKED_FIRST:
                    loss, parameters = y[mask].square().sum(), list(mixer.parameters())
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                    assert all(bool(g.isfinite().all()) for g in (y, *gradients) if g is not None)


def run(mixer, x, mask, state):
    extra = {"shared_context": {"residual": x}} if mixer.shared_context else {}
    return mixer(x, mask=mask, state=state, **extra)


def test_the_sparse_variant_of_bigbird_is_sparse():
    """By default sequences as short as those of the checks have full attention."""
    model = Subject("bigbird", {"block_size": 1, "random_blocks": 1}).build("classify")
    assert all(module.plan is not None for module in model.modules() if isinstance(module, BigBird))
