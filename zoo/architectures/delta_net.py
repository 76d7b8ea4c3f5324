"""DeltaNet: linear attention that overwrites instead of adding (Yang et al. 2024, arXiv:2406.06484, section 3).

    q_t, k_t = norm(act(conv(x W_q)))_t, norm(act(conv(x W_k)))_t,    v_t = SiLU(conv(x W_v))_t,    β_t = σ(x_t W_b)
    S_t = S_{t−1} + β_t k_t (v_t − S_{t−1}ᵀ k_t)ᵀ,    y_t = RMSNorm(S_tᵀ q_t / √d) W_o        (norm per head of width d)

S moves by (I − β_t k_t k_tᵀ): with |k_t| = 1 its eigenvalues are 1 and 1 − β_t. β_t = 2σ(x_t W_b) lets the latter be
negative, with which a layer can track state such as parity (Grazzi et al. 2025, arXiv:2411.12537). Official code:
fla-org/flash-linear-attention, fla/layers/delta_net.py.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mixer, Part, State, Traits
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.multi_head import split_heads
from zoo.layers.short_convolution import ShortConvolution, side_by_side
from zoo.ops import norms, precision
from zoo.ops.delta_rule import delta_rule
from zoo.ops.linear import few, joined
from zoo.ops.short_convolution import Unit

Activation: TypeAlias = Literal["silu", "relu", "elu", "identity"]
Norm: TypeAlias = Literal["l2", "sum"]


@register(
    family="fast weights and matrix states",
    paper="Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule over Sequence Length, "
    "arXiv:2406.06484",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/delta_net.py, fla/models/delta_net)",
    deviations=(
        "queries are scaled by 1/√d, as in the official code; the paper has no scale (but for ε the norm removes it)",
        "values pass through SiLU after their convolution, as in the official code",
        "the SwiGLU is 8/3 times as wide, not rounded up to a multiple of 256",
        "weights start at N(0, 1/fan_in), not N(0, 0.02), the projection to the residual at 1/√(2·depth) of it",
        "convolutions keep PyTorch's initial values, as in the official layer alone; the official model has N(0, 0.02)",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class DeltaNet(Mixer):
    """DeltaNet: linear attention that overwrites what a key held, with short convolutions and unit keys.

    State: `S` (B, H, K, V) in float32 at least, and the last inputs of the convolutions q, k and v.

    Args:
        expand_k, expand_v: widths of all keys and of all values together, over the model's.
        use_beta: β from the input; 1 without (2 with `allow_neg_eigval`).
        use_gate: multiply the normed output by SiLU(x W_g).
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
        allow_neg_eigval: β in (0, 2) instead of (0, 1).
        qk_activation, qk_norm: act and norm of q and k; `l2` makes them unit vectors, `sum` makes their absolute
            values sum to 1.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        use_beta: bool = True,
        use_gate: bool = False,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        qk_activation: Activation = "silu",
        qk_norm: Norm = "l2",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(context)
        if heads < 1:
            raise ValueError(f"delta_net: heads must be at least 1, got {heads}")
        if conv_size < 1:
            raise ValueError(f"delta_net: kernel size must be at least 1, got conv_size {conv_size}")
        if norm_eps <= 0:
            raise ValueError(f"delta_net: norm_eps must be positive, got {norm_eps}")
        if qk_activation not in get_args(Activation):
            raise ValueError(f"delta_net: qk_activation {qk_activation!r} is not one of {get_args(Activation)}")
        if qk_norm not in get_args(Norm):
            raise ValueError(f"delta_net: qk_norm {qk_norm!r} is not one of {get_args(Norm)}")
        D, keys, values = context.width, round(context.width * expand_k), round(context.width * expand_v)
        for what, expand, width in (("key", "expand_k", keys), ("value", "expand_v", values)):
            if width < 1 or width % heads:
                raise ValueError(f"delta_net: {what} width {width} does not divide into {heads} heads ({expand} · {D})")
        self.heads, self.K, self.V, self.gain = heads, keys // heads, values // heads, context.gain
        self.use_beta, self.use_gate, self.use_short_conv = use_beta, use_gate, use_short_conv
        self.largest_beta = 2.0 if allow_neg_eigval else 1.0
        self.qk_activation, self.qk_norm = qk_activation, qk_norm
        self.unit = use_short_conv and qk_norm == "l2" and qk_activation in ("silu", "identity")
        self.together = unit_queries_and_keys(heads, self.K, values) if self.unit and qk_activation == "silu" else None
        self.q_proj = nn.Linear(D, keys, bias=False)
        self.k_proj = nn.Linear(D, keys, bias=False)
        self.v_proj = nn.Linear(D, values, bias=False)
        if use_beta:
            self.b_proj = nn.Linear(D, heads, bias=False)
        if use_short_conv:
            act: Literal["silu"] | None = "silu" if qk_activation == "silu" else None
            self.q_conv1d = ShortConvolution(keys, conv_size, bias=conv_bias, activation=act)
            self.k_conv1d = ShortConvolution(keys, conv_size, bias=conv_bias, activation=act)
            self.v_conv1d = ShortConvolution(values, conv_size, bias=conv_bias)
        if use_gate:
            self.g_proj = nn.Linear(D, values, bias=False)
        self.o_norm = HeadNorm(self.V, norm_eps)
        self.o_proj = nn.Linear(values, D, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
        q, k, v, new, dtype = self._project(x, mask, state)
        with precision.no_autocast(x.device):
            if not self.unit:
                q, k = self._normalise(q, dtype, self.K**-0.5), self._normalise(k, dtype)
            beta = self._beta(x)
            if mask is not None:
                beta = beta.masked_fill(~mask[:, None], 0)
            o, S = delta_rule(q, k, v.to(dtype), beta, state=None if state is None else state["S"])
        gate = self.g_proj(x).unflatten(-1, (self.heads, -1)) if self.use_gate else None
        y = self.o_proj(self.o_norm(o.transpose(1, 2), gate).flatten(2).to(x.dtype))
        return y, None if state is None else {**new, "S": S.to(state["S"].dtype)}

    def _project(
        self, x: Tensor, mask: Tensor | None, state: State | None
    ) -> tuple[Tensor, Tensor, Tensor, State, torch.dtype]:
        """q, k and v by head, activated but for `elu` and `relu`; the convolutions' state; the projections' dtype.

        Where nothing stands between convolution and norm, q and k are normed.
        """
        lines, new = project_together(self, self.together, x, mask, state)
        dtype = lines["v"].dtype
        if self.together:
            q, k, v = (split_heads(line, self.heads) for line in lines.values())
            return q, k, v, new, dtype
        units = {"q": Unit((self.K**-0.5,) * self.heads), "k": Unit((1.0,) * self.heads)} if self.unit else {}
        for name, line in lines.items():
            if self.use_short_conv:
                conv = getattr(self, f"{name}_conv1d")
                given, narrow = None if state is None else state[name], self.unit or name == "v"
                lines[name], new[name] = conv(line, mask=mask, state=given, unit=units.get(name), narrow=narrow)
            elif name == "v" or self.qk_activation == "silu":
                lines[name] = F.silu(line)
        q, k, v = (split_heads(line, self.heads) for line in lines.values())
        return q, k, v, new, dtype

    def _normalise(self, x: Float[Tensor, "B H T K"], dtype: torch.dtype, scale: float = 1.0) -> Tensor:
        if self.qk_activation == "elu":
            x = F.elu(precision.at_least_fp32(x)) + 1
        elif self.qk_activation == "relu":
            x = F.relu(x)
        if self.qk_norm == "l2":
            return norms.unit(x.transpose(1, 2), scale, dtype).transpose(1, 2)
        return (scale * F.normalize(precision.at_least_fp32(x), p=1.0, dim=-1, eps=1e-6)).to(dtype)

    def _beta(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T"]:
        if not self.use_beta:
            return precision.at_least_fp32(x.new_full((x.shape[0], self.heads, x.shape[1]), self.largest_beta))
        return self.largest_beta * few(x, self.b_proj.weight).sigmoid().transpose(1, 2)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """S in float32 at least, and (B, channels, conv_size − 1) for each convolution."""
        wide = torch.promote_types(dtype, torch.float32)
        S = torch.zeros(batch, self.heads, self.K, self.V, device=device, dtype=wide)
        if not self.use_short_conv:
            return {"S": S}
        convs = {"q": self.q_conv1d, "k": self.k_conv1d, "v": self.v_conv1d}
        return {**{name: conv.init_state(batch, device=device, dtype=dtype) for name, conv in convs.items()}, "S": S}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Linear layers N(0, 1/fan_in), the output scaled by 1/√(2·depth); PyTorch's convolutions; norm weights one."""
        reset_projections(self, depth, self.gain)


def unit_queries_and_keys(heads: int, K: int, values: int) -> Unit | None:
    """Of q (norm 1/√K), k (norm 1) and v (as it is) side by side; None if v does not divide into heads of K."""
    return None if values % K else Unit((K**-0.5,) * heads + (1.0,) * heads + (0.0,) * (values // K))


def project_together(
    mixer: nn.Module, unit: Unit | None, x: Tensor, mask: Tensor | None, state: State | None
) -> tuple[dict[str, Tensor], State]:
    """q, k and v of x by the linear layers of those names in `mixer`, as one product.

    With a `unit` also through their convolutions, as one, and normed; the state is then what these carry on.
    """
    projections: list[Any] = [mixer.get_submodule(f"{name}_proj") for name in "qkv"]
    every, new = joined(x, *(part.weight for part in projections)), State()
    if unit:
        convolutions: list[Any] = [mixer.get_submodule(f"{name}_conv1d") for name in "qkv"]
        every, new = side_by_side(convolutions, every, "qkv", mask=mask, state=state, unit=unit)
    parts = every.split([part.out_features for part in projections], dim=-1)
    return dict(zip("qkv", parts, strict=True)), new


class HeadNorm(nn.Module):
    """RMSNorm over the width of a head, times activation(gate) if there is one; in float32 at least."""

    def __init__(self, width: int, eps: float, activation: norms.Activation = "swish") -> None:
        super().__init__()
        self.eps, self.activation = eps, activation
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, o: Float[Tensor, "*N V"], gate: Float[Tensor, "*N V"] | None = None) -> Float[Tensor, "*N V"]:
        return norms.rms(o, self.weight, self.eps, gate, self.activation)


def reset_projections(mixer: nn.Module, depth: int, gain: float | None) -> None:
    """Initial values of everything in `mixer` that is a linear layer, a short convolution or a norm."""
    for name, part in mixer.named_children():
        if isinstance(part, ShortConvolution):
            part.reset_parameters()
        elif isinstance(part, HeadNorm):
            nn.init.ones_(part.weight)
        elif isinstance(part, nn.Linear):
            scale = {"o_proj": gain or residual_scale(depth), "v_proj": gain or 1.0}
            fan_in_(part, scale.get(name, 1.0))
