"""Gated linear attention (Yang et al. 2024, arXiv:2312.06635, section 4.4).

    q, k, v = x W_q, x W_k, x W_v,    α = σ(x W_α¹ W_α² + b_α)^{1/τ}
    S_t = diag(α_t) S_{t−1} + k_t v_tᵀ,    o_t = S_tᵀ q_t / √K
    y = (RMSNorm(o) ⊙ swish(x W_r)) W_o

per head, with a decay α for every key channel, kept close to 1 by τ = 16. With fewer key/value heads, each serves a
group of neighbouring query heads. Optionally a short convolution and SiLU act on q, k and v first.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.deviations import SWIGLU_WIDTH
from zoo.layers.linear import fan_in_, residual_scale
from zoo.layers.norms import HeadNorm
from zoo.layers.ranges import at_least_one, head_sizes, positive, shared_heads, width_multiple
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import split_heads, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention
from zoo.ops.linear_attention.naive import repeat
from zoo.ops.precision import at_least_fp32

Activation: TypeAlias = Literal["swish", "sigmoid", "relu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"swish": F.silu, "sigmoid": torch.sigmoid, "relu": F.relu}


@register(
    family="fast weights and matrix states",
    paper="Yang et al. 2024, Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv:2312.06635",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gla.py, fla/models/gla)",
    deviations=(
        "the norm is called g_norm; official weights that call it g_norm_swish_gate load as well",
        SWIGLU_WIDTH,
        "weights start at N(0, 1/fan_in), not N(0, 0.02), and the projection into the residual stream at 1/√(2·depth) "
        "of it; convolutions keep PyTorch's initial values, as in the official layer (the official model: N(0, 0.02))",
        "gates and feature maps are swish, sigmoid or relu only",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class GLA(Mixer):
    """Gated linear attention: every key channel of the state decays as the input says; output gate, RMSNorm, SwiGLU.

    State: `S` (B, H, K, V) in float32 at least, and the last inputs (B, channels, conv_size − 1) of the convolutions.

    Args:
        kv_heads: heads of keys, values and decays; None for as many as queries have.
        expand_k, expand_v: the width of all keys and of all values, relative to D.
        feature_map: applied to q and k.
        use_short_conv, conv_size, conv_bias: a depthwise causal convolution with SiLU over each of q, k and v.
        use_output_gate, gate_fn: the gate behind the norm. elementwise_affine, norm_eps: the norm's weight and ε.
        gate_logit_normalizer: τ. gate_low_rank_dim: the columns of W_α¹. clamp_min: a lower bound of ln α.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        feature_map: Activation | None = None,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        use_output_gate: bool = True,
        gate_fn: Activation = "swish",
        elementwise_affine: bool = True,
        norm_eps: float = 1e-5,
        gate_logit_normalizer: float = 16.0,
        gate_low_rank_dim: int = 16,
        clamp_min: float | None = None,
    ) -> None:
        super().__init__(context)
        at_least_one("gla", heads=heads, conv_size=conv_size, gate_low_rank_dim=gate_low_rank_dim)
        kv_heads = shared_heads("gla", heads, kv_heads)
        self.K, self.V = head_sizes("gla", context.width, heads, expand_k, expand_v)
        D, K, V = context.width, heads * self.K, heads * self.V
        positive("gla", norm_eps=norm_eps, gate_logit_normalizer=gate_logit_normalizer)
        if clamp_min is not None and clamp_min > 0:
            raise ValueError(f"gla: clamp_min must not be positive, got {clamp_min}")
        self.heads, self.kv_heads = heads, kv_heads
        self.tau, self.clamp_min, self.use_output_gate = gate_logit_normalizer, clamp_min, use_output_gate
        self.feature_map = None if feature_map is None else ACTIVATIONS[feature_map]
        for part, size in {"q": K, "k": kv_heads * self.K, "v": kv_heads * self.V}.items():
            self.add_module(f"{part}_proj", nn.Linear(D, size, bias=False))
            if use_short_conv:
                self.add_module(f"{part}_conv1d", ShortConvolution(size, conv_size, bias=conv_bias))
        if use_output_gate:
            self.g_proj = nn.Linear(D, V, bias=False)
        self.gk_proj = nn.Sequential(
            nn.Linear(D, gate_low_rank_dim, bias=False), nn.Linear(gate_low_rank_dim, kv_heads * self.K)
        )
        self.g_norm = HeadNorm(self.V, norm_eps, gate_fn, weight=elementwise_affine)
        self.o_proj = nn.Linear(V, D, bias=False)
        self.register_load_state_dict_pre_hook(_rename_norm)

    @classmethod
    def width_multiple(cls, *, heads: int, expand_k: float, expand_v: float, **_: Any) -> int:
        return width_multiple(heads, expand_k, expand_v)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        new: State = {}
        q, k, v = (self._project(name, x, mask, state, new) for name in "qkv")
        if self.feature_map is not None:
            q, k = self.feature_map(q), self.feature_map(k)
        log_decay = F.logsigmoid(at_least_fp32(self.gk_proj(x))) * (1 / self.tau)
        if self.clamp_min is not None:
            log_decay = log_decay.clamp(min=self.clamp_min)
        k, log_decay = zero_padding(k, mask), zero_padding(log_decay, mask)
        q = split_heads(q, self.heads)
        k, v, log_decay = (repeat(split_heads(z, self.kv_heads), self.heads) for z in (k, v, log_decay))
        before = None if state is None else state["S"]
        o, new["S"] = linear_attention(q, k, v, log_decay, before, scale=self.K**-0.5)
        gate = self.g_proj(x).unflatten(-1, (self.heads, -1)) if self.use_output_gate else None
        y = self.o_proj(self.g_norm(o.transpose(1, 2), gate).flatten(2).to(x.dtype))
        return y, None if state is None else new

    def _project(self, name: str, x: Tensor, mask: Mask | None, state: State | None, new: State) -> Tensor:
        """q, k or v. The next state of its convolution goes into `new`."""
        y, convolve = self.get_submodule(f"{name}_proj")(x), getattr(self, f"{name}_conv1d", None)
        if convolve is not None:
            y, new[name] = convolve(y, mask=mask, state=None if state is None else state[name])
        return y

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        state: State = {"S": zeros_fp32(batch, self.heads, self.K, self.V, device=device, dtype=dtype)}
        for name in "qkv":
            convolution = getattr(self, f"{name}_conv1d", None)
            if convolution is not None:
                state[name] = convolution.init_state(batch, device=device, dtype=dtype)
        return state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), W_o scaled by 1/√(2·depth), b_α = 0 (α = 0.96), norm 1; convolutions as PyTorch's."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                fan_in_(module)
            elif isinstance(module, (ShortConvolution, HeadNorm)):
                module.reset_parameters()
        fan_in_(self.o_proj, residual_scale(depth))


def _rename_norm(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Load official weights, which call the norm g_norm_swish_gate where one kernel computes norm and gate."""
    if f"{prefix}g_norm_swish_gate.weight" in state_dict:
        state_dict[f"{prefix}g_norm.weight"] = state_dict.pop(f"{prefix}g_norm_swish_gate.weight")
