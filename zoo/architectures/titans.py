"""Titans: a memory that learns at test time (Behrouz, Zhong and Mirrokni 2025, arXiv:2501.00663, sections 3 and 4.4).

    q_t, k_t, v_t = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_k)))_t, SiLU(conv(x W_v))_t
    α_t = σ(x_t W_α + b_α),    η_t = σ(x_t W_η + b_η),    θ_t = σ(x_t W_θ + b_θ)        (one of each per head)
    f(u; M) = u + LN(u M),    ℓ_t(M) = |f(k_t; M) − v_t|²
    S_t = η_t S_{t−1} − θ_t ∇ℓ_t(M_c),    M_t = (1 − α_t) M_{t−1} + S_t
    y_t = (RMSNorm(q_t M_t + LN(q_t M_t)) ⊙ SiLU(x_t W_g)) W_o

The memory is a matrix for each head, M_c what it was before the chunk of t, S its momentum (the surprise); the first M
is learned (`M0`). LN has a weight and a bias for each head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.layers.delta_rule import DeltaRuleMixer
from zoo.layers.linear import few
from zoo.layers.ranges import at_least_one, head_width, positive
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.precision import at_least_fp32
from zoo.ops.ttt import titans_linear

STARTS = {"alpha": -4.0, "eta": 0.0, "theta": -2.0}
"""Biases of the gates: α starts near 0.02, η near 0.5, θ near 0.12."""


@register(
    family="fast weights and matrix states",
    paper="Behrouz, Zhong and Mirrokni 2025, Titans: Learning to Memorize at Test Time, arXiv:2501.00663",
    source="https://github.com/fla-org/flash-linear-attention (fla/ops/titans/naive.py, the memory alone); the authors "
    "have published no code",
    deviations=(
        "the memory is the whole mixer (the paper's LMM, section 4.3), without attention or persistent tokens",
        "it is linear, and learns f(k) = k + LN(k M) as in TTT-Linear and in fla; the paper's is an MLP of one layer "
        "or more, with no LN in the formula of its loss",
        "the slope of LN is the exact one; fla's has its first term d times the standard deviation too large",
        "reads add LN(q M) to q M, as in fla",
        "gates are sigmoids, α starts near 0.02, η near 0.5 and θ near 0.12, and the first memory is learned, from "
        "N(0, 1): the paper says nothing of these",
        "4 heads that share the width",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class Titans(DeltaRuleMixer):
    """Titans' neural memory: a matrix that gradient descent with momentum and forgetting trains on keys and values.

    State: `M`, `S` and `W` (B, H, K, K) in float32 at least: by how much the memory has moved, its momentum, and by how
    much it had before the chunk under way; `count` (B), the steps of that; the last inputs (B, H K, conv_size − 1) of
    the convolutions `q`, `k` and `v`.

    Args:
        head_dim: K, of keys and values; None for width / heads.
        chunk_size: steps whose slopes are taken at the same memory.
        use_gate: multiply the normed output by SiLU(x W_g).
        use_short_conv, conv_size: the convolutions on q, k and v.
    """

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        chunk_size: int = 16,
        use_gate: bool = True,
        use_short_conv: bool = True,
        conv_size: int = 4,
        norm_eps: float = 1e-5,
    ) -> None:
        K = head_width("titans", context.width, heads, head_dim)
        at_least_one("titans", chunk_size=chunk_size, conv_size=conv_size)
        positive("titans", norm_eps=norm_eps)
        super().__init__(context, heads=heads, value_heads=heads, K=K, V=K, allow_neg_eigval=False)
        self.size = chunk_size
        for name in STARTS:
            self.add_module(f"{name}_proj", nn.Linear(context.width, heads))
        if use_short_conv:
            self.add_convolutions(conv_size, bias=False)
        self.norm_weight = nn.Parameter(torch.empty(heads, K))
        self.norm_bias = nn.Parameter(torch.empty(heads, K))
        self.M0 = nn.Parameter(torch.empty(heads, K, K))
        self.add_output(norm_eps, gate="swish" if use_gate else None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v, new = self.project(x, mask, state)
        q, k, v = self.K**0.5 * at_least_fp32(q), at_least_fp32(k), at_least_fp32(v)  # q as a unit vector too
        start = at_least_fp32(self.M0)
        M, under_way = start.expand(len(x), *start.shape), None
        if state is not None:
            M, under_way = M + state["M"], (state["S"], start + state["W"], state["count"])
        given: Any = (q, k, v - k, *self._gates(x), self.norm_weight, self.norm_bias, M, under_way, mask)
        u, after = titans_linear(*given, size=self.size)
        y = self.read(self._residual(u), x)
        if state is None:
            return y, None
        M, new["S"], W, new["count"] = after
        return y, new | {"M": M - start, "W": W - start}

    def _gates(self, x: Float[Tensor, "B T D"]) -> list[Float[Tensor, "B H T"]]:
        """θ, ln η and ln (1 − α), in float32 at least."""
        layers: list[Any] = [self.get_submodule(f"{name}_proj") for name in ("theta", "eta", "alpha")]
        theta, eta, alpha = (few(x, layer.weight, layer.bias) for layer in layers)
        return [gate.mT for gate in (theta.sigmoid(), F.logsigmoid(eta), F.logsigmoid(-alpha))]

    @in_fp32
    def _residual(self, u: Float[Tensor, "B H T K"]) -> Float[Tensor, "B H T K"]:
        """u + LN(u)."""
        normed = F.layer_norm(u, u.shape[-1:], eps=1e-6)
        return u + self.norm_weight[:, None] * normed + self.norm_bias[:, None]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        state = super().init_state(batch, device=device, dtype=dtype)
        memory = batch, self.heads, self.K, self.K
        state |= {name: zeros_fp32(*memory, device=device, dtype=dtype) for name in "MW"}
        return state | {"count": torch.zeros(batch, dtype=torch.long, device=device)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """The memory N(0, 1), of which a unit key reads numbers of that size; LN 1 and 0; biases of gates as `STARTS`;
        the rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        nn.init.normal_(self.M0)
        nn.init.ones_(self.norm_weight)
        nn.init.zeros_(self.norm_bias)
        for name, bias in STARTS.items():
            gate: Any = self.get_submodule(f"{name}_proj")
            nn.init.constant_(gate.bias, bias)
