"""TODO mega."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.mega import Mega
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
    paper="Ma et al. 2022, Mega: Moving Average Equipped Gated Attention, arXiv:2209.10655",
    source="https://github.com/facebookresearch/mega (fairseq/modules/moving_average_gated_attention.py)",
    deviations=(
        "residual='post' is the official block with prenorm=False, residual='pre' that with prenorm=True",
        "scores of laplace and relu2 are divided by the number of keys that a query sees, as in the official code",
        "projections start at N(0, 1/fan_in), where the official code has N(0, 0.02)",
        "α, β, γ, δ, ω, the relative positions and biases do not decay; the official optimiser decays everything",
        "α and δ have the roles of the published code (and transformers), p = σ(δ) and q = 1 - p σ(α); the paper swaps "
        "them. Both ways, the present counts in both averages. Another commit of the official file differs in both",
        "no truncation of the moving average (the official models stop it at 1024 or 8192 steps when training)",
        "no dropout; the token table is not scaled by sqrt(D)",
    ),
)
def mega(
    *,
    zdim: int | None = None,
    hdim: int | None = None,
    ndim: int = 16,
    chunk_size: int = -1,
    attention_activation: Literal["softmax", "laplace", "relu2"] = "softmax",
    rel_pos_bias: Literal["simple", "rotary"] = "simple",
) -> Recipe:
    """Mega: single-head gated attention over exponential moving averages, in chunks or over the whole sequence."""
    mixer = Part(
        Mega,
        zdim=zdim,
        hdim=hdim,
        ndim=ndim,
        chunk_size=chunk_size,
        attention_activation=attention_activation,
        rel_pos_bias=rel_pos_bias,
    )
    return Recipe(
        mixer=mixer, channel=Part("mlp", activation="silu", expand=2.0), residual="post", norm="layer", positions="none"
    )
