"""Options that change what a mixer computes keep the contract too; test_contract.py asks it of the defaults."""

import pytest
import torch

from zoo import checks
from zoo.architectures.bigbird import BigBird
from zoo.checks.subject import Subject, T

from .mixers import mixers_of

CHECKS = ("causality", "both_ways", "resumption", "padding", "padded_state", "batching", "gradients", "extremes")
VARIANTS = [
    ("bigbird", {"block_size": 1, "random_blocks": 1}),
    ("delta_net", {"heads": 3, "expand_k": 0.5, "expand_v": 2.0, "use_gate": True, "conv_size": 3, "conv_bias": True}),
    ("delta_net", {"allow_neg_eigval": True, "qk_activation": "identity", "conv_size": 1}),
    ("delta_net", {"use_short_conv": False, "qk_activation": "elu", "qk_norm": "sum", "heads": 1}),
    ("delta_net", {"use_beta": False, "qk_activation": "relu", "heads": 2}),
    ("fast_weights", {"rule": "sum"}),
    ("fast_weights", {"feature_map": "dpfp", "nu": 3, "d_head": 5, "heads": 2}),
    ("fast_weights", {"feature_map": "relu", "attention_norm": True}),
    ("fast_weights", {"rule": "sum", "feature_map": "dpfp", "nu": 1}),
    ("gated_delta_net", {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "conv_size": 3}),
    ("gated_delta_net", {"use_gate": False, "use_short_conv": False, "allow_neg_eigval": True}),
    ("gla", {"heads": 2, "kv_heads": 1, "expand_k": 1.0, "expand_v": 2.0, "clamp_min": -0.05}),
    ("gla", {"use_short_conv": True, "conv_size": 3, "conv_bias": True, "feature_map": "sigmoid", "gate_fn": "relu"}),
    ("gla", {"use_output_gate": False, "elementwise_affine": False, "gate_logit_normalizer": 1.0}),
    ("gss", {"imag_exp": False, "d_state": 5}),
    ("h3", {"head_dim": 2, "d_state": 8, "disc": "bilinear"}),
    ("hyena", {"order": 3, "short_filter_order": 1}),
    ("hyena", {"order": 4, "short_filter_order": 5}),
    ("linear_transformer", {"heads": 2, "d_keys": 5, "d_values": 3}),
    ("linformer", {"k": 5, "sharing": "none"}),
    ("linformer", {"k": 5, "sharing": "key_value"}),
    ("local", {"window": 6, "kv_heads": 1, "positions": {"rope": {"fraction": 0.5}}}),
    ("local", {"window": 6, "kv_heads": 1, "positions": "t5"}),
    ("longformer", {"window": 6, "global_tokens": 0}),
    ("longformer", {"window": 6, "global_tokens": 4}),
    ("mamba2", {"ngroups": 2, "headdim": 4, "dt_limit": (0.01, 1.0)}),
    ("mega", {"chunk_size": 5, "attention_activation": "laplace"}),
    ("mega", {"attention_activation": "laplace", "rel_pos_bias": "rotary"}),
    ("mega", {"chunk_size": 5, "rel_pos_bias": "rotary"}),
    ("nystromformer", {"num_landmarks": 4, "conv_kernel_size": 3}),
    ("performer", {"kernel": "relu"}),
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
]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_variant(name, options):
    subject = Subject(name, options)
    found = [checks.apply(check, subject) for check in CHECKS]
    assert [result for result in found if result.status == "failed"] == []


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_nan_in_padding_leaves_no_trace(name, options):
    """In a mixer without the norm before it; a row may be all padding."""
    subject, mask = Subject(name, options), torch.arange(T) < torch.tensor([T, T // 2, 0])[:, None]
    for role in subject.backbones:
        for mixer in mixers_of(subject, subject.random(role)):
            x = subject.vectors()
            y = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)[0]
            assert name == "synthesizer" or bool(y.isfinite().all())  # there a step of NaN gives NaN
            torch.testing.assert_close(y[mask], mixer(x, mask=mask)[0][mask], rtol=0, atol=0)


def test_the_sparse_variant_of_bigbird_is_sparse():
    """By default sequences as short as those of the checks have full attention."""
    model = Subject("bigbird", {"block_size": 1, "random_blocks": 1}).build("classify")
    assert all(module.plan is not None for module in model.modules() if isinstance(module, BigBird))
