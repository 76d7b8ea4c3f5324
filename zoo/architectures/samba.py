"""Samba: Mamba and sliding-window attention by turns, each with an MLP (Ren et al. 2024, section 2.1).

    x ← x + f(RMSNorm(x)),    x ← x + SwiGLU(RMSNorm(x)),    f = Mamba, attention, by turns
    Mamba    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    y_t = (C_t h_t + D u_t) ⊙ SiLU(z_t)
    attention    y_t = Σ_{t − w < s ≤ t} softmax_s(R_t q_t · R_s k_s / √d) v_s

`zoo.architectures.mamba` has Δ, B, C, u and z; R is a rotation.
"""

from zoo.architectures import register
from zoo.architectures.mamba import Mamba
from zoo.layers.local_attention import LocalAttention
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="Ren et al. 2024, Samba: Simple Hybrid State Space Models for Efficient Unlimited Context Language Modeling, "
    "arXiv:2406.07522",
    source="https://github.com/microsoft/Samba; flash-linear-attention, fla/models/samba",
    deviations=(
        "the window is 64 steps, or a shorter length, by default; the paper has 2048",
        "weights start at N(0, 1/fan_in), the projection to the residual at 1/√(2·depth) of it",
    ),
)
def samba(*, heads: int = 4, kv_heads: int | None = None, window: int | None = None, d_state: int = 16) -> Recipe:
    """Samba: blocks of Mamba and of sliding-window attention by turns, each with a SwiGLU."""
    local = Part(LocalAttention, heads=heads, kv_heads=kv_heads, window=window, bias=False, out_bias=False)
    return Recipe(
        (Part(Mamba, d_state=d_state), local),
        channel=Part("glu", activation="silu", expand=8 / 3),
        residual="pre",
        norm="rms_eps5",
        positions="rope",
        width_multiple=2 * heads,
    )
