"""Long convolutions between gates."""

from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
    paper="Fu, Dao et al. 2023, Hungry Hungry Hippos: Towards Language Modeling with State Space Models, "
    "arXiv:2212.14052",
    source="https://github.com/HazyResearch/H3 (src/models/ssm/h3.py, ss_kernel_diag.py, ss_kernel_shift.py)",
    deviations=(
        "head_dim>1: channels leave the layer head by head, as from the official fused kernel; without that kernel the "
        "official layer orders them (d h), which the mixer offers as layout='d h'",
        "the projections start at N(0, 1/fan_in), the last one scaled by 1/sqrt(2 depth); the official model takes "
        "N(0, 0.02) for all of them (its rule for output layers names another parameter)",
        "C and D of both models do not decay; the official code exempts A, B and Δ only",
        "GELU is exact (erf), where the official MLP uses the tanh approximation; no dropout; the head is not tied",
        "B is trained in the shift model, as in the official code; the paper fixes it at e₁",
    ),
)
def h3(
    *,
    d_state: int = 64,
    head_dim: int = 1,
    init: Literal["lin", "inv", "legs", "real"] = "lin",
    disc: Literal["zoh", "bilinear"] = "bilinear",
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
) -> Recipe:
    """H3: a shift and a diagonal state-space model between multiplicative gates, in a Pre-LN transformer block."""
    mixer = Part("h3", d_state=d_state, head_dim=head_dim, init=init, disc=disc, dt_min=dt_min, dt_max=dt_max)
    return Recipe(mixer=mixer, channel=Part("mlp"), residual="pre", norm="layer", width_multiple=max(1, head_dim))


@register(
    paper="Poli et al. 2023, Hyena Hierarchy: Towards Larger Convolutional Language Models, arXiv:2302.10866",
    source="https://github.com/HazyResearch/safari (standalone_hyena.py; src/models/sequence/hyena.py)",
    deviations=(
        "order>2: the filters' channels are laid out as in standalone_hyena.py (order first), not as in "
        "src/models/sequence/hyena.py",
        "decoding keeps all past inputs of each long convolution; the official code cannot decode step by step",
        "sequences longer than built for are refused; the official code cuts them",
        "the two projections start at N(0, 1/fan_in), the last one scaled by 1/sqrt(2 depth)",
        "the filter's skip (filter_fn.bias) does not decay",
        "no dropout, outer mixing, heads, blocks, inner_factor or post_order_ffn",
        "both ways: two operators, one in reverse time, as the official code has no bidirectional one",
    ),
)
def hyena(
    *,
    order: int = 2,
    filter_order: int = 64,
    emb_dim: int = 3,
    num_inner_mlps: int = 2,
    short_filter_order: int = 3,
    w: float = 1.0,
) -> Recipe:
    """Hyena: gates between implicit convolutions as long as the sequence, in a Pre-LN transformer block."""
    mixer = Part(
        "hyena",
        order=order,
        filter_order=filter_order,
        emb_dim=emb_dim,
        num_inner_mlps=num_inner_mlps,
        short_filter_order=short_filter_order,
        w=w,
    )
    return Recipe(mixer=mixer, channel=Part("mlp"), residual="pre", norm="layer")


@register(
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
        "mega",
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
