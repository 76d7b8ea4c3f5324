"""Falcon-H1: attention and Mamba-2 side by side in every block (Falcon LLM Team 2025, section 2).

    x ← x + attention(RMSNorm(x)) + Mamba-2(RMSNorm(x)),    x ← x + SwiGLU(RMSNorm(x))
    attention(x)_t = Σ_{s ≤ t} softmax_s(R_t q_t · R_s k_s / √d) v_s W_O
    Mamba-2(x)_t = ((S_tᵀ C_t + D u_t) ⊙ SiLU(z_t)) W_out,    S_t = e^{Δ_t A} S_{t−1} + B_t (Δ_t u_t)ᵀ

`zoo.architectures.mamba2` has Δ, B, C, u and z; R is a rotation.
"""

from zoo.architectures import register
from zoo.architectures.mamba2 import Mamba2
from zoo.contract import LayerContext, Part, Traits
from zoo.layers.attention import Attention
from zoo.layers.side_by_side import Sum


@register(
    family="hybrids",
    paper="Falcon LLM Team 2025, Falcon-H1: A Family of Hybrid-Head Language Models Redefining Efficiency and "
    "Performance, arXiv:2507.22448",
    source="https://github.com/huggingface/transformers (models/falcon_h1)",
    deviations=(
        "no multipliers (µP): they are factors of the weights",
        "the Mamba-2 half has as many channels as the model is wide by default, officially 1 to 1½ times as many",
        "the base of rotations is 10⁴, officially 10¹¹",
        "initial values are those of mamba2 and transformer_pp; officially A = −1 … −H and Δ's bias 1",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms_eps5",
    positions="rope",
)
class FalconH1(Sum):
    """Falcon-H1: attention and a state space read the same input side by side, and their outputs are added.

    State: that of attention and that of Mamba-2.

    Args:
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads.
        head_dim: features of a head of attention; None for the width over heads.
        d_state, d_conv, headdim, ngroups, expand, dt_limit: see `zoo.architectures.mamba2`.
        mamba_rms_norm: norm the gated outputs of Mamba-2, with `mamba_norm_before_gate` its outputs before the gate.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int = 1,
        head_dim: int | None = None,
        d_state: int = 128,
        d_conv: int = 4,
        headdim: int | None = None,
        ngroups: int = 1,
        expand: float = 1,
        dt_limit: tuple[float, float] | None = None,
        mamba_rms_norm: bool = False,
        mamba_norm_before_gate: bool = False,
    ) -> None:
        attention = Attention(context, heads=heads, kv_heads=kv_heads, head_dim=head_dim, bias=False)
        space = Mamba2(
            context,
            d_state=d_state,
            d_conv=d_conv,
            headdim=headdim,
            ngroups=ngroups,
            expand=expand,
            dt_limit=dt_limit,
            rmsnorm=mamba_rms_norm,
            norm_before_gate=mamba_norm_before_gate,
        )
        super().__init__([attention, space])

    @classmethod
    def width_multiple(cls, *, heads: int, head_dim: int | None, **_: object) -> int:
        return 2 * heads if head_dim is None else 1  # rotations turn pairs of features
