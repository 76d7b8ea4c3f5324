"""What RWKV-4 to 7 share: the token shift, channel mixing, heads with a matrix state."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.ranges import hidden_units, positive
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, take_steps, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention


def shift(
    x: Float[Tensor, "B T D"], mask: Mask | None, state: State | None
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
    """The input before each step (zero before the first), and the last valid one. Padding must stand on the right."""
    first = torch.zeros_like(x[:, 0]) if state is None else state["x"]
    line = torch.cat([first[:, None].to(x.dtype), x], dim=1)
    last = line[:, -1] if mask is None else take_steps(line, mask.sum(1, keepdim=True)).squeeze(1)
    return line[:, :-1], last.to(first.dtype)


class ChannelMixing(Mixer):
    """Channel mixing, `expand` times as wide inside. State: the last input `x` (B, D).

        r, k = x^{μr} W_r, x^{μk} W_k,    y = σ(r) ⊙ (max(k, 0)² W_v)

    RWKV-4 to 7 differ in the mixing vectors' names, shape and start, and in how large W_k starts; 7 has no gate σ(r).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    mixes: ClassVar[tuple[str, ...]] = ("time_mix_k", "time_mix_r")
    """The names of the mixing vectors of k and, where there is a gate, r."""
    axes: ClassVar[tuple[int, ...]] = ()
    """The axes before the channels in their shape."""
    weighs_previous: ClassVar[bool] = False
    """Whether they weigh the previous input (RWKV-6 and 7), or the present one."""
    power: ClassVar[int] = 1
    """Of the share of layers from here on up, to which their ramps over channels bend."""
    widening_gain: ClassVar[bool] = False
    """Whether W_k starts √(out/in) as large where it widens (RWKV-4)."""

    def __init__(self, context: LayerContext, *, expand: float) -> None:
        super().__init__(context)
        C, hidden = context.width, hidden_units("rwkv channel mixing", expand, context)
        for name in self.mixes:
            self.register_parameter(name, nn.Parameter(torch.empty(*self.axes, C)))
        self.key = nn.Linear(C, hidden, bias=False)
        self.receptance = nn.Linear(C, C, bias=False) if len(self.mixes) > 1 else None
        self.value = nn.Linear(hidden, C, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        previous, last = shift(x, mask, state)
        before, after = (x, previous) if self.weighs_previous else (previous, x)
        k, *r = (torch.lerp(before, after, getattr(self, name).to(x.dtype)) for name in self.mixes)
        gate = None if self.receptance is None else torch.sigmoid(self.receptance(*r))
        y = self.value(torch.relu(self.key(k)).square())
        return y if gate is None else gate * y, None if state is None else {"x": last}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": torch.zeros(batch, self.key.in_features, device=device, dtype=dtype)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As `RWKV_ChannelMix` and `RWKV_Init`: ramps over channels, W_k orthogonal, the other two matrices zero."""
        C, hidden = self.key.in_features, self.key.out_features
        for name in self.mixes:
            mix = getattr(self, name)
            ramp = (torch.arange(C, device=mix.device) / C) ** ((1 - layer / depth) ** self.power)
            mix.copy_(1 - ramp if self.weighs_previous else ramp)
        nn.init.orthogonal_(self.key.weight, gain=max(hidden / C, 1) ** 0.5 if self.widening_gain else 1.0)
        for zero in (self.receptance, self.value):
            if zero is not None:
                nn.init.zeros_(zero.weight)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on the mixing vectors."""
        return dict.fromkeys(self.mixes, ParamOverride(decay=False))


class MatrixTimeMixing(Mixer):
    """The time mixing of RWKV-5 and 6, which differ in x^μ and w: see `mixed` and `log_decay`.

    State: the last input `x` (B, D), and `S` (B, H, N, N), keys by values.

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
        positive("rwkv", head_size_divisor=head_size_divisor)
        self.time_faaaa = nn.Parameter(torch.empty(self.heads, head_size))
        self.receptance, self.key, self.value, self.gate = (nn.Linear(C, A, bias=False) for _ in range(4))
        self.output = nn.Linear(A, C, bias=False)
        self.ln_x = nn.GroupNorm(self.heads, A, eps=1e-5 * head_size_divisor**2)  # of y, as good as 1e-5 of y / divisor

    @classmethod
    def width_multiple(cls, *, head_size: int, dim_att: int | None, **_: Any) -> int:
        return 1 if dim_att else max(1, head_size)

    def mixed(self, x: Float[Tensor, "B T D"], previous: Float[Tensor, "B T D"]) -> list[Float[Tensor, "B T D"]]:
        """x^μ for w, k, v, r and g."""
        raise NotImplementedError

    def log_decay(self, xw: Float[Tensor, "B T D"]) -> Float[Tensor, "#B H T N"]:
        """ln w_t."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        previous, last = shift(x, mask, state)
        xw, xk, xv, xr, xg = self.mixed(x, previous)
        y, S = self.wkv(self.receptance(xr), self.key(xk), self.value(xv), self.log_decay(xw), mask, state)
        out = self.output((y * F.silu(self.gate(xg))).to(x.dtype))
        return out, None if state is None else {"x": last, "S": S}

    @in_fp32
    def wkv(
        self,
        r: Float[Tensor, "B T A"],
        k: Float[Tensor, "B T A"],
        v: Float[Tensor, "B T A"],
        log_w: Float[Tensor, "#B H T N"],
        mask: Mask | None,
        state: State | None,
    ) -> tuple[Float[Tensor, "B T A"], Float[Tensor, "B H N N"]]:
        """GroupNorm(y) and the last S, from `state` on; a masked step neither forgets nor adds."""
        r, k, v = (split_heads(x, self.heads) for x in (r, k, v))
        k, v, log_w = (zero_padding(x, mask, 2) for x in (k, v, log_w))
        y, S = linear_attention(r, k, v, log_w, None if state is None else state["S"], bonus=self.time_faaaa)
        return norm_heads(self.ln_x, y), S

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        x = torch.zeros(batch, self.key.in_features, device=device, dtype=dtype)
        S = zeros_fp32(batch, self.heads, self.head_size, self.head_size, device=device, dtype=dtype)
        return {"x": x, "S": S}

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
        return param_overrides(self, time_decay=2.0)


def count_heads(width: int, head_size: int) -> int:
    """The number of heads of `head_size` channels in `width`; those of one channel the norm would set to zero."""
    if head_size < 2:
        raise ValueError(f"rwkv: heads need at least 2 channels, got head_size {head_size}")
    if width < 1 or width % head_size:
        raise ValueError(f"rwkv: width {width} does not divide into heads of {head_size} (dim_att, head_size)")
    return width // head_size


@in_fp32
def norm_heads(ln_x: nn.GroupNorm, y: Float[Tensor, "B H T N"]) -> Float[Tensor, "B T A"]:
    """Each head of each step to mean 0 and variance 1; then scaled and shifted per channel."""
    rows = merge_heads(y)
    normed = F.group_norm(rows.flatten(0, 1), ln_x.num_groups, ln_x.weight, ln_x.bias, ln_x.eps)
    return normed.view_as(rows)


def param_overrides(mixer: Mixer, **lr_scale: float) -> dict[str, ParamOverride]:
    """No weight decay on the mixer's own parameters (its layers decide for theirs), and rates scaled by `lr_scale`."""
    own = [name for name, _ in mixer.named_parameters(recurse=False)]
    return {name: ParamOverride(lr_scale=lr_scale.get(name, 1.0), decay=False) for name in own}
