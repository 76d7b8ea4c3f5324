"""Nemotron-H: Mamba-2 and MLPs by turns, now and then one layer of attention (NVIDIA 2025, section 2.1).

    x ← x + f(RMSNorm(x)),    f = Mamba-2, MLP, by turns,    in each tenth attention for the MLP, which follows it
    Mamba-2    S_t = e^{Δ_t A} S_{t−1} + B_t (Δ_t x_t)ᵀ,    y_t = S_tᵀ C_t + D x_t,    out = RMSNorm(y ⊙ SiLU(z)) W_out
    MLP    W_2 ReLU(W_1 x)²

`zoo.architectures.mamba2` has Δ, B, C and z. Attention has no positions.
"""

from typing import Literal, TypeAlias

from zoo.architectures import register
from zoo.architectures.mamba2 import Mamba2
from zoo.layers.attention import Attention
from zoo.types import Part, Recipe

Kind: TypeAlias = Literal["linear_attention", "full_attention", "mlp"]
MIXED: tuple[Kind, ...] = ("linear_attention", "mlp")
PATTERN: tuple[Kind, ...] = (*MIXED * 3, "linear_attention", "full_attention", "mlp")


@register(
    family="hybrids",
    paper="NVIDIA 2025, Nemotron-H: A Family of Accurate and Efficient Hybrid Mamba-Transformer Models, "
    "arXiv:2504.03624",
    source="https://github.com/huggingface/transformers (models/nemotron_h)",
    deviations=(
        "one pattern of nine layers, four of Mamba-2, one of attention and four MLPs; Nemotron-H-8B has 52, 24 of them "
        "Mamba-2 and 4 attention, at distances that differ by some",
        "one group of B and C by default, officially 8; the MLP is 4 times as wide, officially 5¼",
        "two layers count as one block where an MLP follows, so that a pattern is 5 of depth",
    ),
)
def nemotron_h(
    *,
    heads: int = 4,
    kv_heads: int = 1,
    head_dim: int | None = None,
    d_state: int = 128,
    d_conv: int = 4,
    expand: float = 2,
    headdim: int | None = None,
    ngroups: int = 1,
    dt_limit: tuple[float, float] | None = None,
    mlp_expand: float = 4.0,
    layer_types: tuple[Kind, ...] = PATTERN,
) -> Recipe:
    """Nemotron-H: Mamba-2 and squared-ReLU MLPs by turns, with attention in one layer of nine.

    `heads`, `kv_heads` and `head_dim` are of attention, `d_state` to `dt_limit` of Mamba-2. In `layer_types` an MLP
    stands behind another layer.
    """
    kinds = {
        "linear_attention": Part(
            Mamba2, d_state=d_state, d_conv=d_conv, expand=expand, headdim=headdim, ngroups=ngroups, dt_limit=dt_limit
        ),
        "full_attention": Part(Attention, heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=False),
    }
    mlp = Part("mlp", activation="relu2", bias=False, expand=mlp_expand)
    mixers: list[Part] = []
    channels: list[Part | None] = []
    for kind in layer_types:
        if kind != "mlp":
            mixers.append(kinds[kind])
            channels.append(None)
        elif channels and channels[-1] is None:
            channels[-1] = mlp
        else:
            raise ValueError("nemotron_h: in layer_types an mlp must stand behind another layer")
    return Recipe(
        tuple(mixers),
        channel=tuple(channels),
        residual="pre",
        norm="rms_eps5",
        depth=5,
    )
