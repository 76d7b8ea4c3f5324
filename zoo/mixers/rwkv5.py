"""RWKV-5.2, "Eagle" (Peng et al. 2024, arXiv:2404.05892, section 4; official code BlinkDL/RWKV-LM,
RWKV-v5/src/model.py, RWKV_Tmix_x052 and RWKV_CMix_x052, and RWKV-v5/cuda/wkv5_cuda.cu).

Both sublayers first mix each input with the one before it (the token shift), x^μ_t = μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}. Time
mixing then keeps a matrix S for every head of N channels, which forgets by a constant w per channel:

    r, k, v, g = x^{μr} W_r, x^{μk} W_k, x^{μv} W_v, silu(x^{μg} W_g)
    y_t = r_tᵀ (S_{t−1} + diag(u) k_t v_tᵀ),    S_t = diag(w) S_{t−1} + k_t v_tᵀ,    w = exp(−exp(time_decay))
    out = (GroupNorm(y) ⊙ g) W_o

with u = time_faaaa. Channel mixing is that of RWKV-4, 3.5 times as wide inside:

    r, k = x^{μr} W_r, x^{μk} W_k,    out = σ(r) ⊙ (max(k, 0)² W_v)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.layers.multi_head import split_heads
from zoo.mixers import rwkv4
from zoo.mixers.rwkv4 import shift
from zoo.ops.linear_attention import linear_attention
from zoo.ops.precision import at_least_fp32, no_autocast


class Heads(Mixer):
    """What RWKV-5 and RWKV-6 share: the recurrence and what follows it. They differ in how they come by x^μ and w.

    State: the last input `x` (B, D), and `S` (B, H, N, N), keys by values, in float32 at least.

    Args:
        head_size: N. dim_att: the width of all heads together, None for that of the layer.
        head_size_divisor: y is divided by it before the GroupNorm (eps 1e-5).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    time_decay: nn.Parameter

    def __init__(self, context: LayerContext, *, head_size: int, dim_att: int | None, head_size_divisor: float) -> None:
        super().__init__(context)
        C, A = context.width, context.width if dim_att is None else dim_att
        self.heads, self.head_size = count_heads(A, head_size), head_size
        check_divisor(head_size_divisor)
        self.time_faaaa = nn.Parameter(torch.empty(self.heads, head_size))
        self.receptance, self.key, self.value, self.gate = (nn.Linear(C, A, bias=False) for _ in range(4))
        self.output = nn.Linear(A, C, bias=False)
        self.ln_x = nn.GroupNorm(self.heads, A, eps=1e-5 * head_size_divisor**2)  # of y, as good as 1e-5 of y / divisor

    def wkv(
        self,
        r: Float[Tensor, "B T A"],
        k: Float[Tensor, "B T A"],
        v: Float[Tensor, "B T A"],
        log_w: Float[Tensor, "#B H T N"],
        mask: Bool[Tensor, "B T"] | None,
        state: State | None,
    ) -> tuple[Float[Tensor, "B T A"], Float[Tensor, "B H N N"]]:
        """GroupNorm(y) and the last S, from `state` on; a masked step neither forgets nor adds."""
        r, k, v = (at_least_fp32(split_heads(x, self.heads)) for x in (r, k, v))
        if mask is not None:
            off = ~mask[:, None, :, None]
            k, v, log_w = k.masked_fill(off, 0), v.masked_fill(off, 0), log_w.masked_fill(off, 0)
        S = None if state is None else state["S"]
        y, S = linear_attention(r, k, v, log_w, S, bonus=at_least_fp32(self.time_faaaa))
        return norm_heads(self.ln_x, y), S

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        x = torch.zeros(batch, self.key.in_features, device=device, dtype=dtype)
        return {"x": x, "S": at_least_fp32(x.new_zeros(batch, self.heads, self.head_size, self.head_size))}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As the classes and `generate_init_weight`: ramps over channels and depth, orthogonal matrices, W_o zero."""
        A = self.output.in_features
        n = torch.arange(A, device=self.time_decay.device)
        up, ramp = layer / max(depth - 1, 1), n / max(A - 1, 1)
        self.time_decay.copy_((-6 + 5 * ramp ** (0.7 + 1.3 * up)).view_as(self.time_decay))
        self.time_faaaa.copy_((up * (1 - ramp) + 0.1 * ((n + 1) % 3 - 1)).view_as(self.time_faaaa))
        for matrix, gain in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0), (self.gate, 0.1)):
            nn.init.orthogonal_(matrix.weight, gain=gain)
        nn.init.zeros_(self.output.weight)
        nn.init.constant_(self.ln_x.weight, ((1 + layer) / depth) ** 0.7)
        nn.init.zeros_(self.ln_x.bias)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Twice the learning rate on `time_decay`; no weight decay on anything but the five matrices."""
        return param_overrides(self, twice="time_decay")


class TimeMix(Heads):
    """Time mixing with a constant decay. State and arguments: see `Heads`."""

    def __init__(
        self, context: LayerContext, *, head_size: int = 32, dim_att: int | None = None, head_size_divisor: float = 8.0
    ) -> None:
        super().__init__(context, head_size=head_size, dim_att=dim_att, head_size_divisor=head_size_divisor)
        for c in "kvrg":
            self.register_parameter(f"time_mix_{c}", nn.Parameter(torch.empty(1, 1, context.width)))
        self.time_decay = nn.Parameter(torch.empty(self.heads, head_size))
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        previous, last = shift(x, mask, state)
        xk, xv, xr, xg = (torch.lerp(previous, x, getattr(self, f"time_mix_{c}").to(x.dtype)) for c in "kvrg")
        log_w = -torch.exp(at_least_fp32(self.time_decay))[None, :, None].expand(-1, -1, x.shape[1], -1)
        y, S = self.wkv(self.receptance(xr), self.key(xk), self.value(xv), log_w, mask, state)
        out = self.output((y * F.silu(self.gate(xg))).to(x.dtype))
        return out, None if state is None else {"x": last, "S": S}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `Heads`; the mixing vectors are ramps too."""
        super().reset_parameters(layer=layer, depth=depth)
        up, down = layer / max(depth - 1, 1), 1 - layer / depth  # 0 to 1, and 1 to almost 0
        for c in "kvrg":
            mix = getattr(self, f"time_mix_{c}")
            ramp = (torch.arange(mix.shape[-1], device=mix.device) / mix.shape[-1]) ** (
                0.5 * down if c in "rg" else down
            )
            mix.copy_(ramp + 0.3 * up if c == "v" else ramp)


class ChannelMix(rwkv4.ChannelMix):
    """Channel mixing of RWKV-4, 3.5 times as wide inside; W_k starts orthogonal (`generate_init_weight`)."""

    axes = (1, 1)

    def __init__(self, context: LayerContext, *, expand: float = 3.5) -> None:
        super().__init__(context, expand=expand)

    def key_gain(self) -> float:
        return 1.0


def check_divisor(head_size_divisor: float) -> None:
    """Raises ValueError where nothing can be divided by it."""
    if head_size_divisor <= 0:
        raise ValueError(f"rwkv: head_size_divisor must be positive, got {head_size_divisor}")


def count_heads(width: int, head_size: int) -> int:
    """How many heads of `head_size` make up `width`.

    Raises:
        ValueError: none, or not a whole number; or heads of one channel, of which the norm over heads leaves nothing.
    """
    if head_size < 2:
        raise ValueError(f"rwkv: heads need at least 2 channels, got head_size {head_size}")
    if width < 1 or width % head_size:
        raise ValueError(f"rwkv: width {width} does not divide into heads of {head_size} (dim_att, head_size)")
    return width // head_size


def norm_heads(ln_x: nn.GroupNorm, y: Float[Tensor, "B H T N"]) -> Float[Tensor, "B T A"]:
    """Each head of each step to mean 0 and variance 1, in float32 at least; then scaled and shifted per channel."""
    with no_autocast(y.device):
        rows = at_least_fp32(y).transpose(1, 2).flatten(2)
        normed = F.group_norm(
            rows.flatten(0, 1), ln_x.num_groups, at_least_fp32(ln_x.weight), at_least_fp32(ln_x.bias), ln_x.eps
        )
        return normed.view_as(rows)


def param_overrides(mixer: Mixer, twice: str | None = None) -> dict[str, ParamOverride]:
    """No weight decay on the module's own parameters (its layers decide for theirs); one may learn twice as fast."""
    own = [name for name, _ in mixer.named_parameters(recurse=False)]
    return {name: ParamOverride(lr_scale=2.0 if name == twice else 1.0, decay=False) for name in own}
