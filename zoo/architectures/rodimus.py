"""Rodimus: a matrix state whose forget gate is sharpened by a temperature (He et al. 2024, arXiv:2410.06577).

    u, z = x W_up, x W_gate,    s = SiLU(conv(u)),    G = softplus(s W_G + b_G),    τ = σ(s W_τ + b_τ)
    q, k = s W_q, G^τ ⊙ s W_k / |s W_k|,    v = σ(u W_1 W_2 + b) ⊙ u
    S_t = diag(e^{−τ_t G_t}) S_{t−1} + k_t v_tᵀ,    o_t = S_tᵀ q_t / √K + w ⊙ s_t
    y_t = RMSNorm(o_t ⊙ SiLU(z_t)) W_down

with one head, 2 D wide. G writes as it forgets, and τ chooses how much of it does; w is `residual_weight`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.mamba2 import GatedRMSNorm
from zoo.contract import LayerContext, Mask, Mixed, Mixer, State, Traits
from zoo.deviations import INITIAL_WEIGHTS
from zoo.layers.linear import branch_, few, softplus_bias_
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention


@register(
    family="fast weights and matrix states",
    paper="He et al. 2024, Rodimus*: Breaking the Accuracy-Efficiency Trade-Off with Efficient Attentions, "
    "arXiv:2410.06577",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/rodimus.py, fla/models/rodimus)",
    deviations=(
        "blocks are Rodimus alone; Rodimus+, the official default, adds window attention and a SwiGLU to each",
        "outputs are scaled by 1/√K, as in the official code; the paper has no scale",
        INITIAL_WEIGHTS,
        "the convolution keeps PyTorch's initial values, as the official layer does; the official model has N(0, 0.02)",
    ),
    channel=None,
    norm="rms_eps5",
    depth=8,
)
class Rodimus(Mixer):
    """Rodimus: linear attention of one wide head, whose forgetting, writing and values are each gated; no MLP.

    State: `S` (B, 1, K, 2 D) in float32 at least, and the last inputs `conv` (B, 2 D, conv_size − 1).

    Args:
        expand_ratio: K. input_gate_low_rank: the columns of W_1; None for D / 64, 16 at least.
        use_short_conv, conv_size, conv_bias: the depthwise causal convolution with SiLU; without it s = u.
        norm_eps, k_norm_eps: ε of the norm, and the least |s W_k|.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        expand_ratio: int = 64,
        input_gate_low_rank: int | None = None,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = True,
        norm_eps: float = 1e-5,
        k_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__(context)
        at_least_one("rodimus", expand_ratio=expand_ratio, input_gate_low_rank=input_gate_low_rank, conv_size=conv_size)
        positive("rodimus", norm_eps=norm_eps, k_norm_eps=k_norm_eps)
        D, K, inner = context.width, expand_ratio, 2 * context.width
        inner += -inner % 8
        rank = max(D // 64, 16) if input_gate_low_rank is None else input_gate_low_rank
        self.K, self.inner, self.k_norm_eps = K, inner, k_norm_eps
        self.gate_proj = nn.Linear(D, inner, bias=False)
        self.up_proj = nn.Linear(D, inner, bias=False)
        self.activation_norm = GatedRMSNorm(inner, groups=1, before_gate=False, eps=norm_eps)
        self.down_proj = nn.Linear(inner, D, bias=False)
        self.short_conv = ShortConvolution(inner, conv_size, bias=conv_bias) if use_short_conv else None
        self.residual_weight = nn.Parameter(torch.ones(inner))
        self.k_proj = nn.Linear(inner, K, bias=False)
        self.q_proj = nn.Linear(inner, K, bias=False)
        self.g_gate_proj = nn.Linear(inner, K)
        self.tau_gate_proj = nn.Linear(inner, K)
        low, high = nn.Linear(inner, rank, bias=False), nn.Linear(rank, inner)
        self.i_gate_proj = nn.Sequential(low, high, nn.Sigmoid())

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        u, new = self.up_proj(x), State()
        s = u
        if self.short_conv is not None:
            before = None if state is None else state["conv"]
            s, new["conv"] = self.short_conv(u, mask=mask, state=before, narrow=True)
        k, log_decay = (zero_padding(z, mask)[:, None] for z in self._gated(s))
        v = (self.i_gate_proj(u) * u)[:, None]
        before = None if state is None else state["S"]
        o, new["S"] = linear_attention(self.q_proj(s)[:, None], k.to(v.dtype), v, log_decay, before, scale=self.K**-0.5)
        y = self.activation_norm(o[:, 0] + self.residual_weight.to(s.dtype) * s, self.gate_proj(x))
        return self.down_proj(y.to(x.dtype)), None if state is None else new

    @in_fp32
    def _gated(self, s: Float[Tensor, "B T E"]) -> tuple[Float[Tensor, "B T K"], Float[Tensor, "B T K"]]:
        """k and the log decay −τ G."""
        G = F.softplus(few(s, self.g_gate_proj.weight, self.g_gate_proj.bias))
        tau = torch.sigmoid(few(s, self.tau_gate_proj.weight, self.tau_gate_proj.bias))
        written = G.clamp(min=1e-30) ** tau  # as the slope of a power of 0 is infinite
        return F.normalize(few(s, self.k_proj.weight), dim=-1, eps=self.k_norm_eps) * written, -tau * G

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        state: State = {"S": zeros_fp32(batch, 1, self.K, self.inner, device=device, dtype=dtype)}
        if self.short_conv is not None:
            state["conv"] = self.short_conv.init_state(batch, device=device, dtype=dtype)
        return state

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """G starts log-uniform in [1e-3, 1e-1], τ uniform in [1/16, 0.9], w = 1; gates small; W ~ N(0, 1/fan_in)."""
        branch_(self.gate_proj, self.up_proj, self.q_proj, self.k_proj, out=self.down_proj, depth=depth)
        for part in (self.g_gate_proj, self.tau_gate_proj, *self.i_gate_proj):
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight, gain=2**-2.5)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        softplus_bias_(self.g_gate_proj.bias, 1e-3, 1e-1, floor=1e-4)
        self.tau_gate_proj.bias.uniform_(1 / 16, 0.9).logit_()
        nn.init.ones_(self.residual_weight)
        nn.init.ones_(self.activation_norm.weight)
        if self.short_conv is not None:
            self.short_conv.reset_parameters()
