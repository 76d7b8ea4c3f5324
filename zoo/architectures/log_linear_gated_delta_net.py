"""Log-linear Gated DeltaNet: Gated DeltaNet that keeps its past in log T states (Guo et al. 2025, arXiv:2506.04761,
section 3.4).

    q, k, v, β, α as in Gated DeltaNet,    λ_t = softplus(L ⊙ x_t W_l)
    o_t = Σ_{s ≤ t} λ_t[lev(t, s)] (A_t ⋯ A_{s+1} β_s k_s v_sᵀ)ᵀ q_t / √d,    A_t = α_t (I − β_t k_t k_tᵀ)
    y = (RMSNorm(o) ⊙ SiLU(x W_g)) W_o

lev(t, t) = 0, and else the position of the highest bit in which t and s differ: a step sees the past in blocks of 1, 2,
4, … steps, larger the longer ago, each with a weight of its own. With λ = 1 it is Gated DeltaNet.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.tensors import in_fp32, split_heads, zero_padding, zeros_fp32
from zoo.ops.log_linear_attention import levels_of, log_linear_delta_rule


@register(
    family="fast weights and matrix states",
    paper="Guo et al. 2025, Log-Linear Attention, arXiv:2506.04761",
    source="https://github.com/HanGuo97/log-linear-attention (hattention/modeling_h_gated_deltanet.py)",
    deviations=(
        "as many levels as the longest sequence has, where the official code has 15, for 16,384 steps; in a longer one "
        "the highest level has all that is older",
        "4 heads of ¾ of the width between them, the official advice for any width; the official default is 6 heads of "
        "256",
        "e^A_log starts at 1e-4 at least; the official U(0, 16) may draw 0, whose logarithm would never move",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class LogLinearGatedDeltaNet(GatedDeltaNet):
    """Log-linear Gated DeltaNet: a delta rule with a state for each level of a binary tree over the past, each weighed.

    State: the last inputs of the convolutions `q`, `k` and `v`, the states `S` (B, H_v, levels − 1, K, V) in float32 at
    least, and how many `steps` (B) they are of.

    Args:
        levels: of λ; None for as many as the longest sequence has.
        heads, head_dim, expand_v, value_heads, conv_size, norm_eps: as in Gated DeltaNet.
    """

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        expand_v: float = 2.0,
        value_heads: int | None = None,
        conv_size: int = 4,
        norm_eps: float = 1e-5,
        levels: int | None = None,
    ) -> None:
        if levels is not None and levels < 2:
            name = "log_linear_gated_delta_net"
            raise ValueError(f"{name}: levels must be at least 2, of the present step and of the past, got {levels}")
        super().__init__(
            context,
            heads=heads,
            head_dim=head_dim,
            expand_v=expand_v,
            value_heads=value_heads,
            conv_size=conv_size,
            norm_eps=norm_eps,
        )
        self.levels = levels_of(context.length) if levels is None else levels
        self.l_proj = nn.Linear(context.width, self.value_heads * self.levels, bias=False)
        self.L = nn.Parameter(torch.empty(self.value_heads, self.levels))
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        (q, k, v, beta, g), new = self.heads_of(x, mask, state)
        past = None if state is None else (state["S"], state["steps"])
        o, after = log_linear_delta_rule(q, k, v, beta, g, self.scales(self.l_proj(x)), past, mask)
        if after is None:
            return self.read(o, x), None
        new["S"], new["steps"] = after
        return self.read(o, x), new

    @in_fp32
    def scales(self, dl: Float[Tensor, "B T HL"]) -> Float[Tensor, "B H T L"]:
        """λ."""
        return F.softplus(self.L[:, None] * split_heads(dl, self.value_heads))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        state = super().init_state(batch, device=device, dtype=dtype)
        sizes = batch, self.value_heads, self.levels - 1, self.K, self.V
        state["S"] = zeros_fp32(*sizes, device=device, dtype=dtype)
        state["steps"] = torch.zeros(batch, device=device, dtype=torch.long)
        return state

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """L = 1; the rest as Gated DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        if hasattr(self, "L"):
            self.L.fill_(1.0)
