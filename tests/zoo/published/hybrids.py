"""Small random hybrids of transformers: no option a default that another value could be."""

import torch

from tests.zoo.models import randomise

V, T = 70, 70
SIZES = {
    "vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
ALPHA = 8**0.25
FAMILIES = {
    "qwen3_next": {
        "head_dim": 16, "linear_key_head_dim": 8, "linear_value_head_dim": 12, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_conv_kernel_dim": 3, "moe_intermediate_size": 12, "num_experts": 4,
        "shared_expert_intermediate_size": 24, "num_experts_per_tok": 2, "norm_topk_prob": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e3, "partial_rotary_factor": 0.25},
    },
    "kimi_linear": {
        "num_key_value_heads": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
        "kv_lora_rank": 10, "q_lora_rank": 14, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6,
        "linear_head_dim": 12, "linear_num_heads": 3, "linear_conv_kernel_dim": 3, "n_shared_experts": 2,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
        "routed_scaling_factor": 1.7,
    },
    "minimax": {
        "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 16,
        "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
        **dict.fromkeys(("full_attn_alpha_factor", "linear_attn_alpha_factor", "mlp_alpha_factor"), ALPHA),
        "full_attn_beta_factor": 0.7, "linear_attn_beta_factor": 1.3, "mlp_beta_factor": 0.9,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e3},
    },
    "jamba": {
        "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 8, "mamba_d_conv": 3, "mamba_expand": 3,
        "mamba_dt_rank": 5, "attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 0,
    },
    "nemotron_h": {
        "layer_types": ["linear_attention", "mlp", "linear_attention", "full_attention", "mlp"], "head_dim": 16,
        "mamba_num_heads": 4, "mamba_head_dim": 12, "ssm_state_size": 8, "n_groups": 2, "conv_kernel": 3,
    },
    "falcon_h1": {
        "head_dim": 16, "mamba_d_ssm": 48, "mamba_n_heads": 4, "mamba_d_head": 12, "mamba_d_state": 8,
        "mamba_d_conv": 3, "mamba_n_groups": 2, "mamba_rms_norm": True, "mamba_norm_before_gate": False,
        "embedding_multiplier": 3.0, "lm_head_multiplier": 0.5, "key_multiplier": 0.4, "attention_in_multiplier": 1.2,
        "attention_out_multiplier": 0.6, "ssm_in_multiplier": 1.1, "ssm_out_multiplier": 0.8,
        "ssm_multipliers": [0.9, 1.2, 0.7, 1.4, 0.8], "mlp_multipliers": [0.8, 1.3], "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e3},
    },
    "olmo_hybrid": {
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 12,
        "linear_conv_kernel_dim": 3, "rope_parameters": None,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    },
    "recurrent_gemma": {
        "lru_width": 40, "num_key_value_heads": 1, "attention_window_size": 9, "conv1d_width": 3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e3, "partial_rotary_factor": 0.5},
    },
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "attn_layer_indices": [1]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_heads": 4, "num_blocks": 4},
}  # fmt: skip
OURS = {
    "qwen3_next": "qwen3_next", "kimi_linear": "kimi_linear", "minimax": "minimax", "jamba": "jamba",
    "nemotron_h": "nemotron_h", "falcon_h1": "falcon_h1", "olmo_hybrid": "olmo_hybrid", "recurrent_gemma": "griffin",
}  # fmt: skip
"""Our architecture for a family that through=zoo opens."""


def hybrid(transformers, family, **more):
    """Every parameter, and every correction of a router, random."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family], **more})
    model = randomise(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager"), 0.1)
    config._experts_implementation = "eager"
    for name, buffer in model.named_buffers():
        if name.endswith("correction_bias"):
            buffer.normal_(std=0.3)
    return model


def ids(batch=2):
    return torch.randint(V, (batch, T), generator=torch.Generator().manual_seed(1))
