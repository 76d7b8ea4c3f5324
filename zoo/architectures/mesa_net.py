"""MesaNet: each step solves a least squares of all pairs so far (von Oswald et al. 2025, arXiv:2506.05233, section 2).

    q_t, k_t = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_k)))_t,    v_t = x_t W_v
    α_t = σ(x_t W_a + b_a),    β_t = σ(x_t W_b + b_b),    λ = softplus(l) + λ_min
    G_t = α_t G_{t−1} + β_t k_t k_tᵀ,    S_t = α_t S_{t−1} + β_t k_t v_tᵀ
    y_t = RMSNorm(S_tᵀ (G_t + diag λ)⁻¹ q_t) W_o

per head, with one α and β for each and one λ for each of its channels: ridge regression of values on keys, which weighs
older pairs less and is applied to the query. l is the parameter `lambda_params`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.linear import fan_in_, few, joined, residual_scale
from zoo.layers.norms import HeadNorm
from zoo.layers.ranges import at_least_one, head_width, positive
from zoo.layers.short_convolution import ShortConvolution, side_by_side
from zoo.layers.tensors import split_heads, zero_padding, zeros_fp32
from zoo.ops.mesa import mesa
from zoo.ops.precision import at_least_fp32
from zoo.ops.short_convolution import Unit

START = 1.0
"""What λ starts as."""


@register(
    family="fast weights and matrix states",
    paper="von Oswald et al. 2025, MesaNet: Sequence Modeling by Locally Optimal Test-Time Training, arXiv:2506.05233",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/mesa_net.py, fla/models/mesa_net)",
    deviations=(
        "4 heads that share the width; the official default is 16 of 128",
        "the solver runs in float32 at least, without the 1e-5 in the denominators of the official kernels, which read "
        "keys in float16 and stop at residuals of about 1e-3; a single step is solved exactly, where the official code "
        "iterates",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class MesaNet(Mixer):
    """MesaNet: the ridge regression of all values on their keys, solved anew at every step.

    State: `G` (B, H, K, K) and `S` (B, H, K, K) in float32 at least, and the last inputs (B, H K, conv_size − 1) of the
    convolutions `q` and `k`.

    Args:
        head_dim: K, of keys and values; None for width / heads.
        use_output_gate: multiply the normed output by SiLU(x W_g).
        conv_size, conv_bias: the convolutions on q and k.
        lambda_lower_bound: λ_min.
        max_cg_step_training: iterations of the solver over several steps, at most.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        use_output_gate: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
        lambda_lower_bound: float = 0.25,
        max_cg_step_training: int = 30,
    ) -> None:
        super().__init__(context)
        self.heads, D, K = heads, context.width, head_width("mesa_net", context.width, heads, head_dim)
        at_least_one("mesa_net", conv_size=conv_size, max_cg_step_training=max_cg_step_training)
        positive("mesa_net", norm_eps=norm_eps)
        if not 0 < lambda_lower_bound < START:
            raise ValueError(
                f"mesa_net: λ starts at {START:g}, so lambda_lower_bound must lie between 0 and that, got "
                f"{lambda_lower_bound:g}"
            )
        self.K, self.lambda_lower_bound, self.iterations = K, lambda_lower_bound, max_cg_step_training
        self.q_proj = nn.Linear(D, heads * K, bias=False)
        self.k_proj = nn.Linear(D, heads * K, bias=False)
        self.v_proj = nn.Linear(D, heads * K, bias=False)
        self.a_proj = nn.Linear(D, heads)
        self.b_proj = nn.Linear(D, heads)
        self.lambda_params = nn.Parameter(torch.empty(heads * K))
        self.q_conv1d = ShortConvolution(heads * K, conv_size, bias=conv_bias)
        self.k_conv1d = ShortConvolution(heads * K, conv_size, bias=conv_bias)
        self.g_proj = nn.Linear(D, heads * K, bias=False) if use_output_gate else None
        self.o_norm = HeadNorm(K, norm_eps)
        self.o_proj = nn.Linear(heads * K, D, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, heads: int, head_dim: int | None, **_: Any) -> int:
        return heads if head_dim is None else 1

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        features = joined(x, self.q_proj.weight, self.k_proj.weight)
        convolutions, norm = (self.q_conv1d, self.k_conv1d), Unit((1.0,) * 2 * self.heads)
        features, new = side_by_side(convolutions, features, "qk", mask=mask, state=state, unit=norm, narrow=False)
        q, k, v = (split_heads(z, self.heads) for z in (*features.chunk(2, dim=-1), self.v_proj(x)))
        beta, a = (few(x, layer.weight, layer.bias) for layer in (self.b_proj, self.a_proj))
        beta, log_decay = (zero_padding(z, mask).mT for z in (beta.sigmoid(), F.logsigmoid(a)))
        ridge = (F.softplus(at_least_fp32(self.lambda_params)) + self.lambda_lower_bound).unflatten(0, (self.heads, -1))
        before = None if state is None else (state["G"], state["S"])
        o, (new["G"], new["S"]) = mesa(q, k, v, beta, log_decay, ridge, before, iterations=self.iterations)
        gate = None if self.g_proj is None else self.g_proj(x).unflatten(-1, (self.heads, -1))
        y = self.o_proj(self.o_norm(o.transpose(1, 2), gate).flatten(2).to(x.dtype))
        return y, None if state is None else new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        square = batch, self.heads, self.K, self.K
        return {
            "G": zeros_fp32(*square, device=device, dtype=dtype),
            "S": zeros_fp32(*square, device=device, dtype=dtype),
            "q": self.q_conv1d.init_state(batch, device=device, dtype=dtype),
            "k": self.k_conv1d.init_state(batch, device=device, dtype=dtype),
        }

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), W_o scaled by 1/√(2·depth), biases 0, λ = 1, norm 1; PyTorch's convolutions."""
        for module in self.children():
            if isinstance(module, nn.Linear):
                fan_in_(module)
            elif isinstance(module, ShortConvolution | HeadNorm):
                module.reset_parameters()
        fan_in_(self.o_proj, residual_scale(depth))
        self.lambda_params.fill_(START - self.lambda_lower_bound).expm1_().log_()

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on λ."""
        return {"lambda_params": ParamOverride(decay=False)}
