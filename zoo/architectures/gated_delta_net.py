"""Gated DeltaNet: the delta rule with Mamba-2's decay (Yang, Kautz and Hatamizadeh 2025, arXiv:2412.06464, section 3).

    q_t, k_t, v_t = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_k)))_t, SiLU(conv(x W_v))_t
    β_t = σ(x_t W_b),    ln α_t = −e^{A_log} softplus(x_t W_a + dt_bias)            (one of each per head)
    S ← α_t S_{t−1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    y_t = (RMSNorm(S_tᵀ q_t / √d) ⊙ SiLU(x_t W_g)) W_o

With more value heads than key heads, each key head serves as many consecutive value heads. Official code:
fla-org/flash-linear-attention, fla/layers/gated_deltanet.py; also NVlabs/GatedDeltaNet.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.delta_net import HeadNorm, project_together, reset_projections, unit_queries_and_keys
from zoo.contract import LayerContext, Mixer, ParamOverride, Part, State, Traits
from zoo.layers.multi_head import split_heads
from zoo.layers.short_convolution import ShortConvolution
from zoo.ops import norms, precision
from zoo.ops.delta_rule import delta_rule
from zoo.ops.linear import few
from zoo.ops.linear_attention.naive import repeat
from zoo.ops.short_convolution import Unit

Activation: TypeAlias = Literal["swish", "sigmoid"]


@register(
    family="fast weights and matrix states",
    paper="Yang, Kautz and Hatamizadeh 2025, Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gated_deltanet.py)",
    deviations=(
        "4 heads of ¾ of the width between them (all of it without a gate), the official advice for any width; "
        "the official default is 6 heads of 256",
        "e^A_log starts at 1e-4 at least; the official U(0, 16) may draw 0, whose logarithm would never move",
        "the SwiGLU is 8/3 times as wide, not rounded up to a multiple of 256",
        "weights start at N(0, 1/fan_in), not N(0, 0.02), the projection to the residual at 1/√(2·depth) of it",
        "convolutions keep PyTorch's initial values, as in the official layer alone; the official model has N(0, 0.02)",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class GatedDeltaNet(Mixer):
    """Gated DeltaNet: the delta rule with a decay per head, short convolutions, unit keys and an output gate.

    State: `S` (B, H_v, K, V) in float32 at least, and the last inputs of the convolutions.

    Args:
        head_dim: K; None for ¾ of the width over the heads, or all of it without a gate, which makes about 6 width²
            parameters (official docstring).
        expand_v: V / K.
        value_heads: H_v, a multiple of `heads`; None for as many.
        use_gate, output_gate_activation: the gate SiLU(x W_g) on the output, or σ(x W_g).
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
        allow_neg_eigval: β in (0, 2) instead of (0, 1).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        expand_v: float = 2.0,
        value_heads: int | None = None,
        use_gate: bool = True,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        norm_eps: float = 1e-5,
        output_gate_activation: Activation = "swish",
    ) -> None:
        super().__init__(context)
        H = heads if value_heads is None else value_heads
        if heads < 1 or H < 1 or H % heads:
            raise ValueError(f"gated_delta_net: {H} value heads (value_heads) are not a multiple of {heads} heads")
        if conv_size < 1:
            raise ValueError(f"gated_delta_net: kernel size must be at least 1, got conv_size {conv_size}")
        if norm_eps <= 0:
            raise ValueError(f"gated_delta_net: norm_eps must be positive, got {norm_eps}")
        if output_gate_activation not in get_args(Activation):
            known = ", ".join(get_args(Activation))
            raise ValueError(
                f"gated_delta_net: output_gate_activation {output_gate_activation!r} is not one of {known}"
            )
        if head_dim is None:
            head_dim = (3 * context.width // 4 if use_gate else context.width) // heads
        if head_dim < 1:
            raise ValueError(
                f"gated_delta_net: width {context.width} is too small for {heads} heads: head_dim is {head_dim}"
            )
        V = round(head_dim * expand_v)
        if V < 1 or not math.isclose(V, head_dim * expand_v, rel_tol=1e-5):
            raise ValueError(f"gated_delta_net: expand_v {expand_v} times head width {head_dim} is not a whole number")
        D, keys, values = context.width, heads * head_dim, H * V
        self.heads, self.value_heads, self.K, self.V, self.gain = heads, H, head_dim, V, context.gain
        self.use_gate, self.use_short_conv = use_gate, use_short_conv
        self.largest_beta = 2.0 if allow_neg_eigval else 1.0
        self.together = unit_queries_and_keys(heads, head_dim, values) if use_short_conv else None
        self.q_proj = nn.Linear(D, keys, bias=False)
        self.k_proj = nn.Linear(D, keys, bias=False)
        self.v_proj = nn.Linear(D, values, bias=False)
        self.a_proj = nn.Linear(D, H, bias=False)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.A_log = nn.Parameter(torch.empty(H))
        self.dt_bias = nn.Parameter(torch.empty(H))
        if use_short_conv:
            self.q_conv1d = ShortConvolution(keys, conv_size, bias=conv_bias)
            self.k_conv1d = ShortConvolution(keys, conv_size, bias=conv_bias)
            self.v_conv1d = ShortConvolution(values, conv_size, bias=conv_bias)
        if use_gate:
            self.g_proj = nn.Linear(D, values, bias=False)
        self.o_norm = HeadNorm(V, norm_eps, output_gate_activation)
        self.o_proj = nn.Linear(values, D, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, heads: int, head_dim: int | None, **_: Any) -> int:
        return 4 * heads if head_dim is None else 1  # so that ¾ of the width divides into heads

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
        q, k, v, new = self._project(x, mask, state)
        with precision.no_autocast(x.device):
            # e^{A_log} up to 16 would turn bfloat16's rounding of a into several per cent of α.
            a, b = (few(x, z.weight) for z in (self.a_proj, self.b_proj))
            q, k = (repeat(z, self.value_heads) for z in (q, k))
            beta, log_decay = self.largest_beta * b.sigmoid(), self.log_decay(a)
            if mask is not None:
                beta, log_decay = (z.masked_fill(~mask[..., None], 0) for z in (beta, log_decay))
            S = None if state is None else state["S"]
            o, S = delta_rule(q, k, v, beta.transpose(1, 2), log_decay.transpose(1, 2), S)
        gate = self.g_proj(x).unflatten(-1, (self.value_heads, -1)) if self.use_gate else None
        y = self.o_proj(self.o_norm(o.transpose(1, 2), gate).flatten(2).to(x.dtype))
        return y, None if state is None else {**new, "S": S.to(state["S"].dtype)}

    def log_decay(self, a: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """ln α = −e^{A_log} softplus(a + dt_bias) ≤ 0, in float32 at least."""
        return -precision.at_least_fp32(self.A_log).exp() * F.softplus(
            precision.at_least_fp32(a) + precision.at_least_fp32(self.dt_bias)
        )

    def _project(self, x: Tensor, mask: Tensor | None, state: State | None) -> tuple[Tensor, Tensor, Tensor, State]:
        """q, k and v by head in the dtype of the projections, activated, q and k normed; the convolutions' state."""
        lines, new = project_together(self, self.together, x, mask, state)
        if not self.together:
            self._activate(lines, mask, state, new)
        q, k, v = lines.values()
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.value_heads), new

    def _activate(self, lines: dict[str, Tensor], mask: Tensor | None, state: State | None, new: State) -> None:
        """Convolve, if at all, activate and norm q, k and v one by one. What convolutions carry on goes into `new`."""
        units = {"q": Unit((self.K**-0.5,) * self.heads), "k": Unit((1.0,) * self.heads)}
        for name, line in lines.items():
            if self.use_short_conv:
                conv, given = getattr(self, f"{name}_conv1d"), None if state is None else state[name]
                lines[name], new[name] = conv(line, mask=mask, state=given, unit=units.get(name), narrow=True)
            else:
                lines[name] = F.silu(line)
                if name in units:
                    heads, scale = self.heads, units[name].scales[0]
                    lines[name] = norms.unit(lines[name].unflatten(-1, (heads, -1)), scale).flatten(2)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """S in float32 at least, and (B, channels, conv_size − 1) for each convolution."""
        wide = torch.promote_types(dtype, torch.float32)
        S = torch.zeros(batch, self.value_heads, self.K, self.V, device=device, dtype=wide)
        if not self.use_short_conv:
            return {"S": S}
        convs = {"q": self.q_conv1d, "k": self.k_conv1d, "v": self.v_conv1d}
        return {**{name: conv.init_state(batch, device=device, dtype=dtype) for name, conv in convs.items()}, "S": S}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """e^{A_log} ~ U(0, 16), softplus(dt_bias) log-uniform in [1e-3, 1e-1] (as in Mamba-2); the rest as DeltaNet."""
        reset_projections(self, depth, self.gain)
        self.A_log.uniform_(0, 16).clamp_(min=1e-4).log_()  # the clamp because ln 0 = −∞ would never learn
        dt = self.dt_bias.uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on A_log and dt_bias."""
        return {name: ParamOverride(decay=False) for name in ("A_log", "dt_bias")}
