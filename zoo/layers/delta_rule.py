"""What the layers of the delta rule share (fla-org/flash-linear-attention, fla/layers/delta_net.py, gated_deltanet.py):
projections with short convolutions in front of it, queries and keys of unit length; a norm over each head behind it.
"""

import math
from itertools import zip_longest
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixer, ParamOverride, State, Traits
from zoo.layers.linear import fan_in_, few, joined, residual_scale, softplus_bias_
from zoo.layers.norms import HeadNorm
from zoo.layers.short_convolution import ShortConvolution, side_by_side
from zoo.layers.tensors import in_fp32, split_heads, zeros_fp32
from zoo.ops import norms
from zoo.ops.short_convolution import Unit


class DeltaRuleHeads(Mixer):
    """Heads of a delta rule: q, k, v = unit(SiLU(conv(·))), unit(SiLU(conv(·))), SiLU(conv(·)), W_o (norm(o) ⊙ gate).

    A subclass projects, and adds its modules in the order of the official layer. State: `S` (B, H_v, K, V) in float32
    at least, and the last inputs (B, channels, conv_size − 1) of the convolutions `q`, `k` and `v`, if any.

    Args:
        steps: keys and values of each token, n.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    parts: ClassVar[int] = 1
    """Of the width over the heads; keys take some of them where no `head_dim` says how wide they are."""

    def __init__(self, context: LayerContext, *, heads: int, value_heads: int, K: int, V: int, steps: int = 1) -> None:
        super().__init__(context)
        self.heads, self.value_heads, self.K, self.V, self.gain = heads, value_heads, K, V, context.gain
        self.width, self.steps, self.use_short_conv = context.width, steps, False
        self.widths = heads * K, steps * heads * K, steps * value_heads * V

    @classmethod
    def width_multiple(cls, *, head_dim: int | None = None, **options: Any) -> int:
        return cls.parts * super().width_multiple(**options) if head_dim is None else 1

    def add_convolutions(self, size: int, *, bias: bool, activation: Literal["silu"] | None = "silu") -> None:
        """A short convolution for each of q, k and v; `activation` is that of q and k."""
        self.use_short_conv = True
        for name, width, act in zip("qkv", self.widths, (activation, activation, "silu"), strict=True):
            self.add_module(f"{name}_conv1d", ShortConvolution(width, size, bias=bias, activation=act))

    def add_decay(self, heads: int, channels: int = 1) -> None:
        """The rate and the bias of `log_decay`, the one for each head, the other for each of its channels."""
        self.A_log = nn.Parameter(torch.empty(heads))
        self.dt_bias = nn.Parameter(torch.empty(heads * channels))

    def add_output(self, eps: float, *, gate: norms.Activation | None, low_rank: bool = False) -> None:
        """The norm over each head, times a gate if `gate` names its activation, and W_o.

        The gate is x W_g, or with `low_rank` x W_g¹ W_g² + c, through the width of one head.
        """
        D, values = self.width, self.value_heads * self.V
        self.g_proj: nn.Module | None = None
        if gate is not None:
            self.g_proj = LowRank(D, self.V, values, bias=True) if low_rank else nn.Linear(D, values, bias=False)
        self.o_norm = HeadNorm(self.V, eps, gate or "swish")
        self.o_proj = nn.Linear(values, D, bias=False)

    def by_head(
        self,
        features: Float[Tensor, "B T F"],
        mask: Mask | None,
        state: State | None,
        *,
        silu: bool = True,
        unit: bool = True,
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H S K"], Float[Tensor, "B G S V"], State]:
        """q, k and v by head from features side by side, and the next state of the convolutions.

        k and v have n steps for each of q's. With `silu` q and k pass through SiLU, as v does; with `unit` they get the
        norms 1/√K and 1.
        """
        new, widths, key_heads = State(), self.widths, self.steps * self.heads
        scales = (self.K**-0.5, 1.0) if unit else ()
        if self.use_short_conv and silu and unit and widths[2] % self.K == 0:
            # As one convolution, in which v counts as heads of K that keep their norm.
            norm = Unit((self.K**-0.5,) * self.heads + (1.0,) * key_heads + (0.0,) * (widths[2] // self.K))
            convolutions: list[Any] = [self.get_submodule(f"{name}_conv1d") for name in "qkv"]
            features, new = side_by_side(convolutions, features, "qkv", mask=mask, state=state, unit=norm)
            lines = list(features.split(widths, dim=-1))
        else:
            lines = list(features.split(widths, dim=-1))
            for i, (name, scale) in enumerate(zip_longest("qkv", scales)):
                heads = self.heads if name == "q" else key_heads
                if self.use_short_conv:
                    before, head = None if state is None else state[name], scale and Unit((scale,) * heads)
                    convolution, narrow = self.get_submodule(f"{name}_conv1d"), unit or name == "v"
                    lines[i], new[name] = convolution(lines[i], mask=mask, state=before, unit=head, narrow=narrow)
                    continue
                if silu or name == "v":
                    lines[i] = F.silu(lines[i])
                if scale:
                    lines[i] = norms.unit(lines[i].unflatten(-1, (heads, -1)), scale).flatten(2)
        q, k, v = lines[0], *(in_turn(z, self.steps) for z in lines[1:])
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.value_heads), new

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
        for name, part in self.named_modules():
            if isinstance(part, nn.Linear):
                fan_in_(part, scale.get(name.partition(".")[0], 1.0))
            elif isinstance(part, ShortConvolution | HeadNorm):
                part.reset_parameters()

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on rates, biases and scales."""
        own = (name for name, _ in self.named_parameters(recurse=False))
        return dict.fromkeys(own, ParamOverride(decay=False))


class DeltaRuleMixer(DeltaRuleHeads):
    """Heads of a delta rule with one projection for each of q, k and v, and β; see `DeltaRuleHeads`."""

    b_proj: nn.Linear

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int,
        value_heads: int,
        K: int,
        V: int,
        allow_neg_eigval: bool = False,
        steps: int = 1,
    ) -> None:
        super().__init__(context, heads=heads, value_heads=value_heads, K=K, V=V, steps=steps)
        self.largest_beta = 2.0 if allow_neg_eigval else 1.0
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(context.width, width, bias=False) for width in self.widths)

    def project(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, state: State | None, *, silu: bool = True, unit: bool = True
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H S K"], Float[Tensor, "B G S V"], State]:
        """q, k and v: see `by_head`."""
        features = joined(x, self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        return self.by_head(features, mask, state, silu=silu, unit=unit)

    def beta(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """β = σ(x W_b), or twice that, in float32 at least."""
        return self.largest_beta * few(x, self.b_proj.weight).sigmoid()


def head_sizes(
    name: str, width: float, heads: int, value_heads: int | None, head_dim: int | None, expand_v: float
) -> tuple[int, int, int]:
    """H_v, K and V of the mixer called `name`: `head_dim` is K, or None for `width` over the heads; V = K · expand_v.

    Raises:
        ValueError: H_v is no multiple of the heads, or K or V no whole number from 1.
    """
    H = heads if value_heads is None else value_heads
    if heads < 1 or H < 1 or H % heads:
        raise ValueError(f"{name}: {H} value heads (value_heads) are not a multiple of {heads} heads")
    K = int(width) // heads if head_dim is None else head_dim
    if K < 1:
        raise ValueError(f"{name}: a width of {width:g} is too small for {heads} heads: head_dim is {K}")
    V = round(K * expand_v)
    if V < 1 or not math.isclose(V, K * expand_v, rel_tol=1e-5):
        raise ValueError(f"{name}: expand_v {expand_v} times head width {K} is not a whole number")
    return H, K, V


def in_turn(x: Float[Tensor, "B T F"], n: int) -> Float[Tensor, "B S E"]:
    """The n parts of each step one after the other, S = n·T steps of F = n·E features."""
    return x.unflatten(-1, (n, -1)).flatten(1, 2)


class LowRank(nn.Sequential):
    """x W¹ W² + c: two linear layers with nothing between them."""

    def __init__(self, width: int, rank: int, features: int, *, bias: bool = False) -> None:
        super().__init__(nn.Linear(width, rank, bias=False), nn.Linear(rank, features, bias=bias))

    def exact(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T F"]:
        """x W¹ W² in float32 at least: see `few`."""
        layers: list[Any] = list(self)
        return few(few(x, layers[0].weight), layers[1].weight)


@in_fp32
def log_decay(
    a: Float[Tensor, "B T F"],
    A_log: Float[Tensor, " H"],
    dt_bias: Float[Tensor, " F"],
    lower_bound: float | None = None,
) -> Float[Tensor, "B T F"]:
    """ln α = −e^A softplus(a + b) ≤ 0, or lower_bound · σ(e^A (a + b)), of H heads, or of F/H channels in each."""
    rate = A_log.exp().repeat_interleave(len(dt_bias) // len(A_log))
    if lower_bound is None:
        return -rate * F.softplus(a + dt_bias)
    return lower_bound * torch.sigmoid(rate * (a + dt_bias))


@torch.no_grad()
def decay_(A_log: Float[Tensor, " H"], dt_bias: Float[Tensor, " F"], slowest: float = 0.0) -> None:
    """e^A ~ U(slowest, 16), softplus(b) log-uniform in [1e-3, 1e-1] (as in Mamba-2)."""
    A_log.uniform_(slowest, 16).clamp_(min=1e-4).log_()  # the clamp because ln 0 = −∞ would never learn
    softplus_bias_(dt_bias, 1e-3, 1e-1)
