"""Options that a mixer cannot have are refused where it is built, and inputs it was not built for when they come.

Values that are none of an option's choices are refused before: tests/zoo/test_refusals.py.
"""

import pytest
import torch

from zoo.contract import LayerContext

from .mixers import make_mixer, part_of

T = 17
REFUSED = {
    "attention": [({"heads": 5}, "does not divide"), ({"head_dim": 0}, "head_dim"), ({"scale": 0.0}, "scale")],
    "based": [({"heads": 5}, "width 12"), ({"feature_dim": 0}, "feature_dim"), ({"eps": -1.0}, "eps")],
    "base_conv": [({"expand_proj": 0}, "two halves"), ({"kernel_size": 0}, "kernel_size")],
    "bigbird": [({"heads": 5}, "does not divide"), ({"block_size": 0}, "0"), ({"random_blocks": 0}, "0")],
    "comba": [({"heads": 64}, "too small"), ({"head_dim": 5, "expand_v": 1.5}, "whole number"),
        ({"conv_size": 0}, "conv_size")],
    "convformer": [({"columns": 0}, "columns"), ({"kernel": 4}, "odd"), ({"kernel": -1}, "kernel"),
        ({"expand": 0.01}, "no hidden unit")],
    "delta_net": [({"heads": 5}, "key width 12 does not divide into 5 heads"), ({"heads": 0}, "at least 1"),
        ({"expand_v": 0.25, "heads": 2}, "value width 3"), ({"conv_size": 0}, "conv_size")],
    "deltaformer": [({"heads": 5}, "does not divide into 5 heads")],
    "differential": [({"heads": 5}, "does not divide into 10 heads"), ({"heads": 0}, "heads"),
        ({"kv_heads": 4}, "cannot share 4 heads")],
    "forgetting": [({"heads": 5}, "does not divide"), ({"kv_heads": 3}, "cannot share 3 heads")],
    "fast_weights": [({"heads": 5}, "does not divide into 5 heads"), ({"heads": 0}, "does not divide"),
        ({"d_head": 0}, "d_head"), ({"feature_map": "dpfp", "nu": 6}, "between 1 and 5")],
    "gated_delta_net": [({"heads": 4, "value_heads": 6}, "not a multiple"), ({"heads": 0}, "not a multiple"),
        ({"head_dim": 5, "expand_v": 1.5}, "whole number"), ({"heads": 64}, "too small"),
        ({"head_dim": 0}, "too small"), ({"conv_size": 0}, "conv_size")],
    "gated_delta_net_2": [({"value_heads": 6}, "not a multiple"), ({"conv_size": 0}, "conv_size")],
    "gated_delta_product": [({"num_householder": 0}, "num_householder"), ({"value_heads": 6}, "not a multiple")],
    "gated_slot_attention": [({"heads": 5}, "keys 12 wide"), ({"heads": 2, "kv_heads": 4}, "kv_heads"),
        ({"expand_v": 0.25, "heads": 2}, "values 3 wide"), ({"num_slots": 0}, "num_slots"),
        ({"gate_logit_normalizer": 0.0}, "gate_logit_normalizer"), ({"conv_size": 0}, "conv_size")],
    "gmlp": [({"expand": 0.1}, "even number"), ({"expand": 1.25}, "even number")],
    "gss": [({"d_hidden": 0}, "d_hidden"), ({"expand": 0.01}, "expand"), ({"d_state": 0}, "d_state")],
    "h3": [({"d_state": 7}, "even"), ({"head_dim": 5}, "width 12 does not divide into heads of 5"),
        ({"dt_min": 1}, "dt")],
    "hgrn": [({"expand_ratio": 0.05}, "no unit"), ({"conv_size": 0}, "conv_size"), ({"norm_eps": 0.0}, "norm_eps")],
    "hgrn2": [({"heads": 5}, "does not divide into 5 heads"), ({"expand_ratio": 0}, "expand_ratio"),
        ({"conv_size": 0}, "conv_size")],
    "lightning_attention": [({"heads": 5}, "does not divide into 5 heads"), ({"head_dim": 0}, "head_dim")],
    "hyena": [({"order": 1}, "order"), ({"emb_dim": 4}, "odd"), ({"emb_dim": 1}, "odd"),
        ({"short_filter_order": 0}, "short_filter_order"), ({"filter_order": 0}, "MLP"),
        ({"num_inner_mlps": -1}, "MLP")],
    "hymba": [({"heads": 5}, "width 12 does not divide into 5 heads"), ({"kv_heads": 3}, "cannot share 3 heads"),
        ({"expand": 1.25}, "values: width 15"), ({"kq_head_dim": 0}, "kq_head_dim"),
        ({"window": 0}, f"window 0 must lie in 1 .. {T}"), ({"d_state": 0}, "d_state")],
    "kda": [({"value_heads": 6}, "not a multiple"), ({"lower_bound": 0.0}, "negative"),
        ({"norm_eps": 0.0}, "norm_eps")],
    "linear_transformer": [({"heads": 5}, "width 12"), ({"d_keys": 0}, "d_keys"), ({"eps": 0.0}, "eps")],
    "linformer": [({"heads": 5}, "does not divide into 5 heads"), ({"k": T + 1}, f"k must lie in 1 .. {T}"),
        ({"k": 0}, "k must lie in 1")],
    "log_linear_gated_delta_net": [({"levels": 1}, "levels"), ({"value_heads": 6}, "not a multiple")],
    "log_linear_mamba2": [({"head_dim": 5}, "heads of 5"), ({"n_groups": 5}, "5 groups"), ({"levels": 1}, "levels"),
        ({"state_size": 0}, "state_size"), ({"conv_kernel": 0}, "conv_kernel")],
    "longformer": [({"window": 3}, "even"), ({"window": 0}, "even"), ({"heads": 5}, "does not divide"),
        ({"global_tokens": -1}, "-1")],
    "lru": [({"d_hidden": 0}, "d_hidden"), ({"r_min": 0.9, "r_max": 0.5}, "r_min < r_max"),
        ({"r_max": 1.1}, "r_max"), ({"max_phase": -3.1}, "max_phase")],
    "mamba": [({"d_state": 0}, "d_state"), ({"d_conv": 0}, "d_conv"), ({"expand": 0.05}, "expand"),
        ({"dt_min": 1.0}, "dt_min")],
    "mamba2": [({"headdim": 5}, "heads of 5"), ({"ngroups": 5}, "5 groups"), ({"norm_groups": 5}, "24 into 5"),
        ({"d_ssm": 28, "headdim": 4}, "d_ssm 28"), ({"d_state": 0}, "d_state"), ({"chunk_size": 0}, "chunk_size"),
        ({"A_init_range": (0.0, 1.0)}, "A_init_range"), ({"dt_max": 1e-4}, "dt_min")],
    "mamba3": [({"headdim": 5}, "24 channels do not divide into heads of 5"), ({"ngroups": 5}, "5 groups"),
        ({"rope_fraction": 0.3}, "rope_fraction"), ({"d_state": 2}, "2 channels to turn"), ({"dt_max": 1e-4}, "dt_min"),
        ({"is_mimo": True, "d_state": 7}, "even"), ({"mimo_rank": 0}, "mimo_rank"), ({"A_floor": 0.0}, "A_floor")],
    "mega": [({"zdim": 0}, "at least 1"), ({"ndim": 0}, "at least 1"),
        ({"zdim": 3, "rel_pos_bias": "rotary"}, "even zdim"), ({"chunk_size": 0}, "chunk_size")],
    "mesa_net": [({"heads": 5}, "does not divide into 5 heads"), ({"head_dim": 0}, "head_dim"),
        ({"conv_size": 0}, "conv_size"), ({"max_cg_step_training": 0}, "max_cg_step_training"),
        ({"lambda_lower_bound": 1.0}, "starts at 1"), ({"lambda_lower_bound": 0.0}, "between 0")],
    "mla": [({"heads": 0}, "heads"), ({"kv_lora_rank": 0}, "kv_lora_rank"), ({"q_lora_rank": 0}, "q_lora_rank"),
        ({"qk_rope_head_dim": 0}, "qk_rope_head_dim"), ({"v_head_dim": 0}, "v_head_dim"),
        ({"norm_eps": 0.0}, "norm_eps")],
    "mlp_mixer": [({"tokens_ratio": 0.01}, "leaves no hidden units")],
    "mlstm": [({"heads": 3, "round_proj_up_to_multiple_of": 64}, "64 units, .* do not divide into 3 heads"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"qkv_proj_blocksize": 5, "round_proj_up_to_multiple_of": 64}, "blocks"),
        ({"proj_factor": 0}, "proj_factor"), ({"conv1d_kernel_size": 0}, "conv1d_kernel_size must be at least 1"),
        ({"round_proj_up_to_multiple_of": 0}, "round_proj_up_to_multiple_of must be")],
    "moba": [({"heads": 5}, "does not divide into 5 heads"), ({"moba_chunk_size": 0}, "moba_chunk_size"),
        ({"moba_topk": 0}, "moba_topk"), ({"heads": 4, "kv_heads": 3}, "evenly")],
    "nsa": [({"heads": 5}, "does not divide into 5 heads"), ({"block_size": 0}, "block_size"),
        ({"block_counts": 2}, "block_counts must be at least 3, got 2"), ({"window_size": 0}, "window_size"),
        ({"head_dim": 0}, "head_dim")],
    "nystromformer": [({"heads": 5}, "does not divide into 5 heads"), ({"num_landmarks": 0}, "at least 1"),
        ({"conv_kernel_size": 4}, "odd")],
    "parallax": [({"heads": 5}, "does not divide into 5 heads"), ({"heads": 4, "kv_heads": 3}, "evenly")],
    "path": [({"heads": 5}, "does not divide into 5 heads"), ({"heads": 4, "kv_heads": 3}, "evenly"),
        ({"conv_size": 0}, "conv_size")],
    "performer": [({"heads": 5}, "does not divide into 5 heads"), ({"features": 0}, "at least 1"),
        ({"eps": 0.0}, "must be positive")],
    "raven": [({"heads": 5}, "keys 12 wide"), ({"topk": 0}, "topk must lie in 1 .. 3"), ({"topk": 4}, "topk must lie"),
        ({"num_slots": 0}, "num_slots"), ({"heads": 2, "kv_heads": 4}, "kv_heads")],
    "reformer": [({"heads": 5}, "does not divide into 5 heads"), ({"buckets": 3}, "even"),
        ({"buckets": []}, "even"), ({"chunk": 0}, "chunk must be at least 1"),
        ({"hashes": 0}, "hashes must be at least 1"), ({"before": -1}, "negative"),
        ({"duplicates": False, "after": 1}, "before=1 and after=0")],
    "mixture_of_memories": [({"topk": 5}, r"topk 5 must lie in 1 \.\. 4"), ({"topk": 0}, "topk"),
        ({"num_memories": 0}, "num_memories"), ({"heads": 64}, "too small")],
    "precond_gated_delta_net": [({"squash_x": 1.0}, r"squash_x must lie in \(1, 2\]"),
        ({"squash_eps": 0.0}, "squash_eps"), ({"value_heads": 6}, "not a multiple")],
    "retnet": [({"heads": 5}, "width 12"), ({"heads": 4}, "even"),
        ({"heads": 3, "value_factor": 0.4}, "values 4 wide")],
    "rodimus": [({"expand_ratio": 0}, "expand_ratio"), ({"input_gate_low_rank": 0}, "input_gate_low_rank"),
        ({"conv_size": 0}, "conv_size"), ({"k_norm_eps": 0.0}, "k_norm_eps")],
    "rwkv5": [({"head_size": 5}, "does not divide into heads"), ({"head_size": 1}, "at least 2 channels"),
        ({"head_size": 4, "dim_att": 10}, "does not divide into heads"),
        ({"head_size": 4, "dim_att": 0}, "does not divide into heads|at least 2 channels")],
    "s4": [({"d_state": 7}, "even"), ({"init": "legt"}, "rank 2"), ({"n_ssm": 5}, "n_ssm 5"),
        ({"n_ssm": 0}, "n_ssm 0"), ({"init": "hippo", "n_ssm": 1}, "even for init hippo"),
        ({"channels": 0}, "channels"), ({"dt_min": 1}, "dt")],
    "s4d": [({"d_state": 7}, "even"), ({"dt_min": 1}, "dt"), ({"n_ssm": 36}, "divide")],
    "s5": [({"d_state": 12, "blocks": 4}, "d_state 12 does not divide into 4 blocks"), ({"blocks": 0}, "blocks"),
        ({"dt_min": 1}, "dt")],
    "sinkhorn": [({"heads": 5}, "does not divide"), ({"block_size": 0}, "positive"),
        ({"temperature": 0.0}, "positive")],
    "slstm": [({"heads": 5}, "width 12 does not divide into 5 heads"),
        ({"heads": 2, "conv1d_kernel_size": -1}, "conv1d_kernel_size")],
    "synthesizer": [({"heads": 5}, "does not divide into 5 heads"), ({"rank": 0}, "rank must be at least 1"),
        ({"factor": T + 1}, f"factor must lie in 1 .. {T}")],
    "titans": [({"heads": 5}, "does not divide into 5 heads"), ({"head_dim": 0}, "head_dim"),
        ({"chunk_size": 0}, "chunk_size"), ({"conv_size": 0}, "conv_size"), ({"norm_eps": 0.0}, "norm_eps")],
    "ttt_linear": [({"heads": 5}, "does not divide into 5 heads"), ({"heads": 4}, "even, got 3"),
        ({"heads": 2, "mini_batch_size": 0}, "mini_batch_size"), ({"heads": 2, "conv_kernel": 0}, "conv_kernel"),
        ({"heads": 2, "ttt_base_lr": 0.0}, "ttt_base_lr"), ({"heads": 2, "rope_theta": -1.0}, "rope_theta")],
    "wall": [({"heads": 5}, "does not divide into 5 heads"), ({"heads": 4, "kv_heads": 3}, "evenly")],
    "yoco": [({"heads": 5}, "does not divide"), ({"kv_heads": 3}, "cannot share 3 heads"),
        ({"norm_eps": 0.0}, "norm_eps"), ({"gate_logit_normalizer": 0.0}, "gate_logit_normalizer")],
}  # fmt: skip


def build(name, **options):
    context = LayerContext(width=12, length=T, causal=part_of(name).kind.traits.causal != "no")
    return make_mixer(name, context, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"), [(name, *case) for name, cases in REFUSED.items() for case in cases], ids=str
)
def test_options_that_cannot_be(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "steps", "message"),
    [
        ("gmlp", {"expand": 2}, T - 1, f"exactly {T}"),
        ("mlp_mixer", {}, T - 1, f"exactly {T}"),
        ("mlp_mixer", {}, T + 1, f"exactly {T}"),
        ("linformer", {"heads": 3, "k": 5}, T + 1, f"at most {T}"),
        ("bigbird", {"heads": 2, "block_size": 1, "random_blocks": 1}, T + 1, f"{T} at most"),
        ("sinkhorn", {"heads": 2}, T + 1, f"{T} at most"),
        ("hyena", {}, T + 1, f"hyena: {T + 1} steps exceed the {T}"),
        ("mega", {}, T + 1, f"mega: {T + 1} steps exceed the {T}"),
        ("synthesizer", {"heads": 3}, T + 1, f"at most {T}"),
    ],
)
def test_lengths_that_cannot_be(name, options, steps, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)(torch.zeros(1, steps, 12))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [("hyena", {}, "exceed"), ("mega", {}, "exceed"), ("synthesizer", {"heads": 3}, f"{T + 1} steps")],
)
def test_a_state_counts_towards_the_length(name, options, message):
    mixer = build(name, **options)
    _, state = mixer(torch.zeros(1, T, 12), state=mixer.init_state(1, device="cpu", dtype=torch.float32))
    with pytest.raises(ValueError, match=message):
        mixer(torch.zeros(1, 1, 12), state=state)
