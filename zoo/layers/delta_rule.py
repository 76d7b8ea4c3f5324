"""What the layers of the delta rule share (fla-org/flash-linear-attention, fla/layers/delta_net.py, gated_deltanet.py):
projections with short convolutions in front of it, queries and keys of unit length; a norm over each head behind it.
"""

from itertools import zip_longest
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixer, State, Traits
from zoo.layers.linear import fan_in_, few, joined, residual_scale
from zoo.layers.norms import HeadNorm
from zoo.layers.short_convolution import ShortConvolution, side_by_side
from zoo.layers.tensors import split_heads, zeros_fp32
from zoo.ops import norms
from zoo.ops.short_convolution import Unit


class DeltaRuleMixer(Mixer):
    """q, k, v = unit(SiLU(conv(x W_q))), unit(SiLU(conv(x W_k))), SiLU(conv(x W_v)), and W_o (norm(o) ⊙ SiLU(x W_g)).

    A subclass adds its modules in the order of the official layer. State: `S` (B, H_v, K, V) in float32 at least, and
    the last inputs (B, channels, conv_size − 1) of the convolutions `q`, `k` and `v`, if any.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    b_proj: nn.Linear

    def __init__(
        self, context: LayerContext, *, heads: int, value_heads: int, K: int, V: int, allow_neg_eigval: bool
    ) -> None:
        super().__init__(context)
        self.heads, self.value_heads, self.K, self.V, self.gain = heads, value_heads, K, V, context.gain
        self.largest_beta = 2.0 if allow_neg_eigval else 1.0
        self.use_short_conv = False
        self.q_proj = nn.Linear(context.width, heads * K, bias=False)
        self.k_proj = nn.Linear(context.width, heads * K, bias=False)
        self.v_proj = nn.Linear(context.width, value_heads * V, bias=False)

    def add_convolutions(self, size: int, *, bias: bool, activation: Literal["silu"] | None = "silu") -> None:
        """A short convolution for each of q, k and v; `activation` is that of q and k."""
        self.use_short_conv = True
        for name, act in {"q": activation, "k": activation, "v": "silu"}.items():
            width: int = getattr(self, f"{name}_proj").out_features
            self.add_module(f"{name}_conv1d", ShortConvolution(width, size, bias=bias, activation=act))

    def add_output(self, eps: float, *, gate: norms.Activation | None) -> None:
        """The norm over each head, times a gate if `gate` names its activation, and W_o."""
        D, values = self.q_proj.in_features, self.v_proj.out_features
        self.g_proj = None if gate is None else nn.Linear(D, values, bias=False)
        self.o_norm = HeadNorm(self.V, eps, gate or "swish")
        self.o_proj = nn.Linear(values, D, bias=False)

    def project(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, state: State | None, *, silu: bool = True, unit: bool = True
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T K"], Float[Tensor, "B G T V"], State]:
        """q, k and v by head, and the next state of the convolutions.

        With `silu` q and k pass through SiLU, as v does; with `unit` they get the norms 1/√K and 1.
        """
        projections = self.q_proj, self.k_proj, self.v_proj
        widths = [projection.out_features for projection in projections]
        features, new = joined(x, *(projection.weight for projection in projections)), State()
        scales = (self.K**-0.5, 1.0) if unit else ()
        if self.use_short_conv and silu and unit and widths[2] % self.K == 0:
            # As one convolution, in which v counts as heads of K that keep their norm.
            norm = Unit((self.K**-0.5,) * self.heads + (1.0,) * self.heads + (0.0,) * (widths[2] // self.K))
            convolutions: list[Any] = [self.get_submodule(f"{name}_conv1d") for name in "qkv"]
            features, new = side_by_side(convolutions, features, "qkv", mask=mask, state=state, unit=norm)
            lines = list(features.split(widths, dim=-1))
        else:
            lines = list(features.split(widths, dim=-1))
            for i, (name, scale) in enumerate(zip_longest("qkv", scales)):
                if self.use_short_conv:
                    before, head = None if state is None else state[name], scale and Unit((scale,) * self.heads)
                    convolution, narrow = self.get_submodule(f"{name}_conv1d"), unit or name == "v"
                    lines[i], new[name] = convolution(lines[i], mask=mask, state=before, unit=head, narrow=narrow)
                    continue
                if silu or name == "v":
                    lines[i] = F.silu(lines[i])
                if scale:
                    lines[i] = norms.unit(lines[i].unflatten(-1, (self.heads, -1)), scale).flatten(2)
        q, k, v = (split_heads(z, H) for z, H in zip(lines, (self.heads, self.heads, self.value_heads), strict=True))
        return q, k, v, new

    def beta(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """β = σ(x W_b), or twice that, in float32 at least."""
        return self.largest_beta * few(x, self.b_proj.weight).sigmoid()

    def read(self, o: Float[Tensor, "B H T V"], x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """W_o (norm(o) ⊙ gate)."""
        gate = None if self.g_proj is None else self.g_proj(x).unflatten(-1, (self.value_heads, -1))
        return self.o_proj(self.o_norm(o.transpose(1, 2), gate).flatten(2).to(x.dtype))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        state: State = {"S": zeros_fp32(batch, self.value_heads, self.K, self.V, device=device, dtype=dtype)}
        for name in "qkv" if self.use_short_conv else "":
            convolution: Any = self.get_submodule(f"{name}_conv1d")
            state[name] = convolution.init_state(batch, device=device, dtype=dtype)
        return state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Linear layers N(0, 1/fan_in), W_o scaled by 1/√(2·depth); PyTorch's convolutions; norm weights one."""
        scale = {"o_proj": self.gain or residual_scale(depth), "v_proj": self.gain or 1.0}
        for name, part in self.named_children():
            if isinstance(part, nn.Linear):
                fan_in_(part, scale.get(name, 1.0))
            elif isinstance(part, ShortConvolution | HeadNorm):
                part.reset_parameters()
