"""Hyena (Poli et al. 2023, arXiv:2302.10866, section 3; official: HazyResearch/safari, standalone_hyena.py).

    x⁰, ..., x^{N−1}, v = depthwise short convolution of x W_in
    v ← h^o ∗ (x^{N−1−o} ⊙ v) + b^o ⊙ (x^{N−1−o} ⊙ v)    for o = 0, ..., N − 2
    y = (x⁰ ⊙ v) W_out

for order N. The filters h^o are as long as the longest sequence, and implicit: an MLP of the time step with sines for
activations, under an exponential window,

    h(t) = MLP(z_t) ⊙ (e^{−|δ| t} + shift),    z_t = [t, Re e^{−iωf}, Im e^{−iωf}]

with t from 0 to 1 over the longest sequence, so that its length is part of the function. Channel o·D + d of the MLP is
channel d of filter o, as in standalone_hyena.py; src/models/sequence/hyena.py has d·(N − 1) + o.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.linear import Linear
from zoo.ops.long_convolution import convolve
from zoo.ops.precision import at_least_fp32, no_autocast
from zoo.ops.short_convolution import short_convolution


@register(
    family="state spaces and long convolutions",
    paper="Poli et al. 2023, Hyena Hierarchy: Towards Larger Convolutional Language Models, arXiv:2302.10866",
    source="https://github.com/HazyResearch/safari (standalone_hyena.py; src/models/sequence/hyena.py)",
    deviations=(
        "order>2: the filters' channels are laid out as in standalone_hyena.py (order first), not as in "
        "src/models/sequence/hyena.py",
        "decoding keeps all past inputs of each long convolution; the official code cannot decode step by step",
        "sequences longer than built for are refused; the official code cuts them",
        "the two projections start at N(0, 1/fan_in), the last one scaled by 1/sqrt(2 depth)",
        "the filter's skip (filter_fn.bias) does not decay",
        "no dropout, outer mixing, heads, blocks, inner_factor or post_order_ffn",
        "both ways: two operators, one in reverse time, as the official code has no bidirectional one",
    ),
)
class Hyena(Mixer):
    """Hyena: gates between implicit convolutions as long as the sequence, in a Pre-LN transformer block.

    State: the inputs of each long convolution so far, `z` (B, S, N − 1, D), which grow with every step as a KV cache
    does; how many of them count in each row, `n` (B,); the last inputs of the short convolution, `short`.

    Args:
        filter_order: width of the filters' MLP. emb_dim: numbers in z_t, odd. num_inner_mlps: its hidden layers beyond
            the first. short_filter_order: width of the short convolution. w: where the frequency of the sines starts.
        fast_decay_pct, slow_decay_pct, target: the windows fall to `target` within these fractions of the length,
            channels being spread between the two. shift: what remains of them.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True, length="max")
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        order: int = 2,
        filter_order: int = 64,
        emb_dim: int = 3,
        num_inner_mlps: int = 2,
        short_filter_order: int = 3,
        w: float = 1.0,
        fast_decay_pct: float = 0.3,
        slow_decay_pct: float = 1.5,
        target: float = 1e-2,
        shift: float = 0.0,
    ) -> None:
        super().__init__(context)
        if order < 2:
            raise ValueError(f"hyena: order must be at least 2, got {order}")
        if not 0 < fast_decay_pct <= slow_decay_pct or not 0 < target < 1:
            raise ValueError(
                f"hyena: need 0 < fast_decay_pct <= slow_decay_pct and 0 < target < 1, got {fast_decay_pct}, "
                f"{slow_decay_pct} and {target}"
            )
        if short_filter_order < 1:
            raise ValueError(f"hyena: short_filter_order must be at least 1, got {short_filter_order}")
        D = context.width
        self.width, self.order, self.l_max, self.gain = D, order, context.length, context.gain
        self.in_proj = Linear(D, (order + 1) * D)
        self.short_filter = nn.Conv1d(
            (order + 1) * D, (order + 1) * D, short_filter_order, groups=(order + 1) * D, padding=short_filter_order - 1
        )
        self.filter_fn = Filter(
            (order - 1) * D,
            context.length,
            filter_order=filter_order,
            emb_dim=emb_dim,
            num_inner_mlps=num_inner_mlps,
            w=w,
            decays=(math.log(target) / slow_decay_pct, math.log(target) / fast_decay_pct),
            shift=shift,
        )
        self.out_proj = Linear(D, D)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        """As `Mixer.forward`.

        Raises:
            ValueError: longer than the filters, counted from the first step.
        """
        _, T, D = x.shape
        S = T if state is None else state["z"].shape[1] + T
        if self.l_max < S:
            raise ValueError(f"hyena: {S} steps exceed the {self.l_max} that the filters were built for")
        # Masked before the projection for the sake of NaN; the short convolution masks what its bias makes of that.
        u = self.in_proj(x if mask is None else x.masked_fill(~mask[..., None], 0))
        with no_autocast(x.device):
            *gates, v = self._short(u, mask, state).split(D, dim=2)
            K = self.filter_fn(S).view(S, self.order - 1, D).permute(1, 2, 0)  # (N − 1, D, S)
            bias = at_least_fp32(self.filter_fn.bias).view(self.order - 1, D)
            at = None if state is None else state["n"][:, None] + torch.arange(T, device=x.device)
            inputs = []
            for o, gate in enumerate(reversed(gates[1:])):
                z = v * gate if mask is None else (v * gate).masked_fill(~mask[..., None], 0)
                if state is None or at is None:
                    v = convolve(z, K[o], bias[o])
                else:
                    inputs.append(_append(state["z"][:, :, o], z, at))
                    v = _convolve_at(at_least_fp32(inputs[-1]), K[o], at) + bias[o] * z
            y = v * gates[0]
        new = None if state is None else self._next(state, u, inputs, mask)
        return self.out_proj(y.to(x.dtype)), new

    def _short(self, u: Float[Tensor, "B T E"], mask: Tensor | None, state: State | None) -> Float[Tensor, "B T E"]:
        w, before = self.short_filter.weight[:, 0], None if state is None else state["short"]
        return short_convolution(u, w, self.short_filter.bias, before, mask, narrow=True)

    def _next(self, state: State, u: Tensor, inputs: list[Tensor], mask: Tensor | None) -> State:
        line, width = torch.cat([state["short"], u.to(state["short"].dtype)], dim=1), state["short"].shape[1]
        steps = torch.full_like(state["n"], u.shape[1]) if mask is None else mask.sum(1)
        last = steps[:, None] + torch.arange(width, device=u.device)
        short = line.gather(1, last[..., None].expand(-1, -1, u.shape[2])).to(state["short"].dtype)
        return {"z": torch.stack(inputs, dim=2), "short": short, "n": state["n"] + steps}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """No inputs yet; kept in float32 at least."""
        dtype = torch.promote_types(dtype, torch.float32)
        z = torch.zeros(batch, 0, self.order - 1, self.width, device=device, dtype=dtype)
        short = z.new_zeros(batch, self.short_filter.kernel_size[0] - 1, (self.order + 1) * self.width)
        return {"z": z, "short": short, "n": z.new_zeros(batch, dtype=torch.long)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Both projections by fan-in; the short convolution keeps PyTorch's; see `Filter` for the filters."""
        fan_in_(self.in_proj)
        fan_in_(self.out_proj, self.gain or residual_scale(depth))
        self.short_filter.reset_parameters()
        self.filter_fn.reset_parameters()

    def param_overrides(self) -> dict[str, ParamOverride]:
        """The filters' MLP learns at 1e-3 at most, z at 1e-5; nothing of the filters decays, nor do biases."""
        names = [name for name, _ in self.named_parameters() if name.startswith("filter_fn.implicit_filter")]
        biases = ["in_proj.bias", "short_filter.bias", "out_proj.bias", "filter_fn.bias"]
        hints = dict.fromkeys(names, ParamOverride(lr_max=1e-3, decay=False)) | dict.fromkeys(
            biases, ParamOverride(decay=False)
        )
        return hints | {"filter_fn.pos_emb.z": ParamOverride(lr_max=1e-5, decay=False)}


class Filter(nn.Module):
    """h and the skip b, for C channels and L steps. `filter(S)` gives the first S of them, (S, C)."""

    def __init__(
        self,
        C: int,
        L: int,
        *,
        filter_order: int,
        emb_dim: int,
        num_inner_mlps: int,
        w: float,
        decays: tuple[float, float],
        shift: float,
    ) -> None:
        super().__init__()
        if emb_dim < 3 or emb_dim % 2 == 0:
            raise ValueError(f"hyena: emb_dim must be odd and at least 3 (time, cosines, sines), got {emb_dim}")
        if filter_order < 1 or num_inner_mlps < 0:
            raise ValueError(f"hyena: no MLP of num_inner_mlps {num_inner_mlps} layers of filter_order {filter_order}")
        if w <= 0:
            raise ValueError(f"hyena: w must be positive, got {w}")
        self.w, self.decays, self.shift = w, decays, shift
        self.bias = nn.Parameter(torch.empty(C))
        self.pos_emb: Any = nn.Module()  # these two for the official names
        self.modulation: Any = nn.Module()
        self.pos_emb.z = nn.Parameter(torch.empty(1, L, emb_dim))
        self.pos_emb.register_buffer("t", torch.empty(1, L, 1))
        self.modulation.register_buffer("deltas", torch.empty(1, 1, C))
        sine = Sine(filter_order)  # one for all layers, as in the official code
        inner = [m for _ in range(num_inner_mlps) for m in (nn.Linear(filter_order, filter_order), sine)]
        self.implicit_filter = nn.Sequential(
            nn.Linear(emb_dim, filter_order), sine, *inner, nn.Linear(filter_order, C, bias=False)
        )

    def forward(self, S: int) -> Float[Tensor, "S C"]:
        h = at_least_fp32(self.pos_emb.z[0, :S])
        for layer in self.implicit_filter:
            h = layer(h)
        return h * (
            torch.exp(-at_least_fp32(self.pos_emb.t[0, :S]) * at_least_fp32(self.modulation.deltas[0]).abs())
            + self.shift
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """z and the window by their formulas, sines of frequency w, b ~ N(0, 1); PyTorch's layers."""
        _, L, emb_dim = self.pos_emb.z.shape
        bands, device = (emb_dim - 1) // 2, self.bias.device
        t = torch.linspace(0, 1, L, device=device, dtype=torch.float64)[:, None]
        f = torch.linspace(1e-4, bands - 1, bands, device=device, dtype=torch.float64)
        angle = f * 2 * math.pi / L * torch.arange(L, device=device)[:, None]
        self.pos_emb.t.copy_(t)
        self.pos_emb.z.copy_(torch.cat([t, angle.cos(), -angle.sin()], dim=1))
        self.modulation.deltas.copy_(torch.linspace(*self.decays, self.bias.numel(), device=device))
        for layer in self.implicit_filter:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
            elif isinstance(layer, Sine):
                nn.init.constant_(layer.freq, self.w)
        nn.init.normal_(self.bias)


class Sine(nn.Module):
    """sin(freq ⊙ x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.freq = nn.Parameter(torch.empty(1, width))

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B C"]:
        return torch.sin(self.freq * x)


def _append(past: Float[Tensor, "B S D"], new: Float[Tensor, "B T D"], at: Int[Tensor, "B T"]) -> Tensor:
    """`past` with each row's new steps behind its valid ones: padding moves to the end, (B, S + T, D)."""
    line = F.pad(past, (0, 0, 0, new.shape[1]))
    return line.scatter(1, at[..., None].expand_as(new), new.to(past.dtype))


def _convolve_at(z: Float[Tensor, "B S D"], K: Float[Tensor, "D S"], at: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """(K ∗ z)_t for the steps t in `at`."""
    if at.shape[1] > 1:
        return convolve(z, K).gather(1, at[..., None].expand(-1, -1, z.shape[2]))
    lag = at - torch.arange(z.shape[1], device=z.device)  # (B, S)
    weights = K.T[lag.clamp(min=0)]  # whatever they are where lag < 0: nothing but zeros stands there
    return torch.einsum("bsd,bsd->bd", weights, z)[:, None]
