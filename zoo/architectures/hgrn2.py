"""HGRN2: HGRN with its state expanded to a matrix (Qin et al. 2024, arXiv:2404.07904, section 3).

    q_t, i_t = SiLU(x_t W_q), x_t W_i,    f_t = b + (1 − b) ⊙ σ(x_t W_f),    b = Σ_{0 < j ≤ l} softmax_j(γ)
    S_t = diag(f_t) S_{t−1} + (1 − f_t) i_tᵀ,    y_t = RMSNorm(S_tᵀ q_t / √K) W_o

per head, with the norm over all heads: gated linear attention whose keys are what its forget gate f leaves. The bound b
of layer l is a sum over the layers below, by the softmax over layers of γ, `lower_bounds`; the lowest layer has none.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.lower_bound import forget_gate
from zoo.layers.norms import RMSNorm
from zoo.layers.projections import ProjectedMixer
from zoo.layers.ranges import at_least_one, head_width, positive
from zoo.layers.tensors import merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention


@register(
    family="fast weights and matrix states",
    paper="Qin et al. 2024, HGRN2: Gated Linear RNNs with State Expansion, arXiv:2404.07904",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/hgrn2.py, fla/models/hgrn2)",
    deviations=(
        "each layer but the lowest has a copy of γ to itself, the official model one for all; they start equal, at 0",
        "4 heads, with states as wide as high; officially heads of 128 (expand_ratio), whatever the width",
        "outputs are scaled by 1/√K, as in the official code; the paper has no scale (but for ε the norm removes it)",
        "q passes through SiLU and there is no output gate, as in the official code",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class HGRN2(ProjectedMixer):
    """HGRN2: linear attention whose keys are 1 − f, of a forget gate f that is bounded from below, more so further up.

    State: `S` (B, H, K, D / H) in float32 at least, and the last inputs (B, channels, conv_size − 1) of convolutions.

    Args:
        expand_ratio: K, by which the state is larger than what HGRN carries; None for D / H.
        use_lower_bound: b; without it f = σ(x W_f) in every layer.
        use_short_conv, conv_size, conv_bias: a depthwise causal convolution over each of q, f and i, before SiLU and σ.
        norm_eps: ε of the norm.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        expand_ratio: int | None = None,
        use_lower_bound: bool = True,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(context)
        at_least_one("hgrn2", expand_ratio=expand_ratio, conv_size=conv_size)
        positive("hgrn2", norm_eps=norm_eps)
        D, V = context.width, head_width("hgrn2", context.width, heads)
        self.heads, self.V, self.K, self.layer = heads, V, V if expand_ratio is None else expand_ratio, context.layer
        widths = {"q": heads * self.K, "f": heads * self.K, "i": D}
        self.add_projections(D, widths, conv_size if use_short_conv else None, bias=conv_bias, activation=None)
        bounded = use_lower_bound and context.layer > 0
        self.lower_bounds = nn.Parameter(torch.zeros(context.depth, heads * self.K)) if bounded else None
        self.g_norm = RMSNorm(D, norm_eps)
        self.o_proj = nn.Linear(D, D, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        (q, f, i), new = self.project(x, mask, state)
        log_f, k = (zero_padding(z, mask) for z in forget_gate(f, self.lower_bounds, self.layer))
        q, k, i, log_f = (split_heads(z, self.heads) for z in (F.silu(q), k.to(i.dtype), i, log_f))
        before = None if state is None else state["S"]
        o, new["S"] = linear_attention(q, k, i, log_f, before, scale=self.K**-0.5)
        return self.o_proj(self.g_norm(merge_heads(o)).to(x.dtype)), None if state is None else new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        S = zeros_fp32(batch, self.heads, self.K, self.V, device=device, dtype=dtype)
        return {"S": S, **super().init_state(batch, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """γ = 0: b = l/L; for all else see `ProjectedMixer`."""
        super().reset_parameters(layer=layer, depth=depth)
        if self.lower_bounds is not None:
            nn.init.zeros_(self.lower_bounds)
