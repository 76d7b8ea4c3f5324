"""The mixture of experts against transformers, which weighs experts in float32: DeepSeek-V3's and Qwen3-Next's."""

import pytest
import torch

from zoo.contract import LayerContext
from zoo.layers.mixture_of_experts import MixtureOfExperts

from .compare import drawn, vectors

pytest.importorskip("transformers.models.qwen3_next")
D, HIDDEN, EXPERTS, TOP = 12, 10, 6, 3


def ours(official, *, shared, router):
    """Our parameters from the official ones."""
    found = {name: official[f"experts.{name}_proj"] for name in ("gate_up", "down")}
    found["router.weight"] = official[router]
    for name in ("gate", "up", "down"):
        found[f"shared.{name}.weight"] = official[f"{shared}.{name}_proj.weight"]
    if "shared_expert_gate.weight" in official:
        found["shared_gate.weight"] = official["shared_expert_gate.weight"]
    return found


@pytest.mark.parametrize("normalise", [True, False])
def test_deepseek(oracle, normalise):
    from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    torch.manual_seed(0)
    config = DeepseekV3Config(
        hidden_size=D, moe_intermediate_size=HIDDEN, n_routed_experts=EXPERTS, num_experts_per_tok=TOP, n_group=1,
        topk_group=1, norm_topk_prob=normalise, routed_scaling_factor=1.7, n_shared_experts=2, hidden_act="silu",
    )  # fmt: skip
    config._experts_implementation = "eager"
    layer = drawn(DeepseekV3MoE(config))
    correction = 0.3 * torch.randn(EXPERTS, dtype=torch.float64)
    layer.gate.e_score_correction_bias.copy_(correction)
    mixer = MixtureOfExperts(
        LayerContext(width=D, length=9), experts=EXPERTS, top_k=TOP, shared=2, expand=HIDDEN / D, normalise=normalise,
        scale=1.7,
    ).double()  # fmt: skip
    mixer.bias.data.copy_(correction)
    x, chosen = vectors(2, 9, D), layer.gate(torch.zeros(1, D))[2]
    assert not torch.equal(chosen.sort().values, torch.arange(TOP)[None])  # the correction decides
    mixer.bias.requires_grad_(False)
    oracle("moe", "transformers, DeepseekV3MoE").layers(
        mixer, layer, x, renamed=lambda p: ours(p, shared="shared_experts", router="gate.weight"), alone="bias",
        tolerance=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("normalise", [True, False])
def test_qwen(oracle, normalise):
    from transformers.models.qwen3_next import Qwen3NextConfig
    from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextSparseMoeBlock

    torch.manual_seed(0)
    config = Qwen3NextConfig(
        hidden_size=D, moe_intermediate_size=HIDDEN, shared_expert_intermediate_size=HIDDEN, num_experts=EXPERTS,
        num_experts_per_tok=TOP, norm_topk_prob=normalise, hidden_act="silu",
    )  # fmt: skip
    config._experts_implementation = "eager"
    layer = drawn(Qwen3NextSparseMoeBlock(config))
    mixer = MixtureOfExperts(
        LayerContext(width=D, length=9), experts=EXPERTS, top_k=TOP, expand=HIDDEN / D, score="softmax",
        normalise=normalise, shared_gate=True, balance=False,
    )  # fmt: skip
    oracle("moe", "transformers, Qwen3NextSparseMoeBlock").layers(
        mixer, layer, vectors(2, 9, D), tolerance=1e-6,
        renamed=lambda p: ours(p, shared="shared_expert", router="gate.weight"),
    )  # fmt: skip
