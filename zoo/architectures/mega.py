"""Mega, moving-average equipped gated attention (Ma et al. 2022, arXiv:2209.10655, section 3).

    h_t = p ⊙ β x_t + q ⊙ h_{t−1},    s_t = SiLU(γᵀ h_t / √N + ω x_t),    p = σ(δ),    q = 1 − p σ(α)
    v = SiLU(x W_v),    u, z', r, h' = split(s W),    u ← σ(u),    z' ← SiLU(z'),    r ← SiLU(r)
    Q, K = γ₀ ⊙ z' + β₀, γ₁ ⊙ z' + β₁,    a = f(Q Kᵀ + b) v    with one head and relative positions b
    y = u ⊙ (SiLU(h' + (r ⊙ a) W_h) − x)

The first line is the multi-dimensional damped moving average s = EMA(x), with N numbers h for each channel; over a
whole sequence s = SiLU(K ∗ x + ω x) with K_l = Σ_n γ_n p_n β_n q_n^l / √N. D, E and z are the widths of model, values
and queries. f is softmax, of scores scaled by 1/√z, or laplace or relu2 of scores divided by the number of keys. With
chunk_size C attention stays within chunks of C steps, and costs O(T C).

The last x is the residual stream, before any norm: the official block is LN(x + y) or, with `prenorm`, x + y, which the
residual types "post" and "pre" make of this mixer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, Part, State, Traits, Unsupported
from zoo.layers.linear import Linear, fan_in_
from zoo.layers.moving_average import EMA
from zoo.layers.positions.by_distance import RotaryBias, SimpleBias
from zoo.layers.ranges import at_least_one
from zoo.layers.tensors import in_fp32, put_steps, take_steps, zero_padding, zeros_fp32


@register(
    family="state spaces and long convolutions",
    paper="Ma et al. 2022, Mega: Moving Average Equipped Gated Attention, arXiv:2209.10655",
    source="https://github.com/facebookresearch/mega (fairseq/modules/moving_average_gated_attention.py)",
    deviations=(
        "residual='post' is the official block with prenorm=False, residual='pre' that with prenorm=True",
        "scores of laplace and relu2 are divided by the number of keys that a query sees, as in the official code",
        "projections start at N(0, 1/fan_in), where the official code has N(0, 0.02)",
        "α, β, γ, δ, ω, the relative positions and biases do not decay; the official optimiser decays everything",
        "α and δ have the roles of the published code (and transformers), p = σ(δ) and q = 1 - p σ(α); the paper swaps "
        "them. Both ways, the present counts in both averages. Another commit of the official file differs in both",
        "no truncation of the moving average (the official models stop it at 1024 or 8192 steps when training)",
        "no dropout; the token table is not scaled by sqrt(D)",
    ),
    channel=Part("mlp", activation="silu", expand=2.0),
    residual="post",
)
class Mega(Mixer):
    """Mega: single-head gated attention over exponential moving averages, in chunks or over the whole sequence.

    State: `h` (B, D, N) of the EMA, keys `k` and values `v` of the current chunk (of everything, without chunks), and
    `n` (B,), how many of them count in each row.

    Args:
        zdim, hdim: z and E; None for max(1, D/4) and 2 D, the official ratios. ndim: N. chunk_size: C, −1 for none.
        rel_pos_bias: "simple", one learned number per distance, which without chunks ends at the length built for; or
            "rotary", two learned vectors rotated against each other, for any distance.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True, length="max")
    shared_context = True

    def __init__(
        self,
        context: LayerContext,
        *,
        zdim: int | None = None,
        hdim: int | None = None,
        ndim: int = 16,
        chunk_size: int = -1,
        attention_activation: Literal["softmax", "laplace", "relu2"] = "softmax",
        rel_pos_bias: Literal["simple", "rotary"] = "simple",
    ) -> None:
        super().__init__(context)
        D = context.width
        zdim = max(1, D // 4) if zdim is None else zdim
        if rel_pos_bias == "rotary" and zdim % 2:
            raise ValueError(f"mega: rotary needs an even zdim, got {zdim}")
        hdim = 2 * D if hdim is None else hdim
        at_least_one("mega", zdim=zdim, hdim=hdim, ndim=ndim)
        if chunk_size != -1 and chunk_size < 1:
            raise ValueError(f"mega: chunk_size must be at least 1, or -1 for no chunks, got {chunk_size}")
        self.zdim, self.hdim, self.chunk_size, self.activation = zdim, hdim, chunk_size, attention_activation
        self.causal = context.causal
        self.move = EMA(D, ndim, both_ways=not context.causal)
        self.v_proj = Linear(D, hdim)
        self.mx_proj = Linear(D, zdim + hdim + 2 * D)
        self.h_proj = Linear(hdim, D)
        self.gamma = nn.Parameter(torch.empty(2, zdim))
        self.beta = nn.Parameter(torch.empty(2, zdim))
        self.longest: int | None = context.length if rel_pos_bias == "simple" and chunk_size < 0 else None
        if self.longest is None:
            self.traits = dataclasses.replace(self.traits, length="any")  # type: ignore[misc]  # depends on options
        reach = context.length if chunk_size < 0 else chunk_size
        self.rel_pos_bias = SimpleBias(reach) if rel_pos_bias == "simple" else RotaryBias(zdim)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        """As `Mixer.forward`. The residual that u weighs the new value against is in `shared_context`, or is x."""
        S = x.shape[1] + (0 if state is None or self.chunk_size > 0 else state["k"].shape[1])
        if self.longest is not None and self.longest < S:
            raise ValueError(f"mega: {S} steps exceed the {self.longest} that the relative positions reach")
        if state is not None and not self.causal:
            raise Unsupported("a bidirectional Mega cannot continue from a state")
        x = zero_padding(x, mask)
        v = F.silu(self.v_proj(x))
        s, h = self.move(x, mask, None if state is None else state["h"])
        u, zr, hx = self.mx_proj(s.to(x.dtype)).split([x.shape[2], self.zdim + self.hdim, x.shape[2]], dim=2)
        z, r = F.silu(zr).split([self.zdim, self.hdim], dim=2)
        q, k = z * self.gamma[0] + self.beta[0], z * self.gamma[1] + self.beta[1]
        new: State | None = None
        if state is None:
            a = self._attend_all(q, k, v, mask)
        else:
            a, new = self._attend_on(q, k, v, mask, state)
            new = {"h": h, **new}
        residual = x if shared_context is None else shared_context.get("residual", x)
        y = torch.sigmoid(u) * (F.silu(hx + self.h_proj(a * r)) - residual)
        return y.to(x.dtype), new

    def _attend_all(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None) -> Float[Tensor, "B T E"]:
        T = q.shape[1]
        C = T if self.chunk_size < 0 else min(self.chunk_size, T)
        q, k, v = (_chunks(a, C) for a in (q, k, v))
        keys = None
        if not self.causal and (mask is not None or T % C):
            n = torch.full((1,), T, device=q.device) if mask is None else mask.sum(1)
            keys = (n[:, None] - C * torch.arange(q.shape[1], device=q.device)).clamp(1, C)  # valid ones of each chunk
        return self._attend(q, k, v, keys=keys).flatten(1, 2)[:, :T]

    def _attend_on(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, state: State
    ) -> tuple[Float[Tensor, "B T E"], State]:
        """Each row's new steps stand right behind its valid ones, so that places are positions."""
        (B, T, _), S, n = q.shape, state["k"].shape[1], state["n"]
        steps = torch.full_like(n, T) if mask is None else mask.sum(1)
        k, v = zero_padding(k, mask), zero_padding(v, mask)
        at = n[:, None] + torch.arange(T, device=q.device)
        more = T if self.chunk_size < 0 else -(-(S - 1 + T) // S) * S - S  # in chunks, n < S = C steps came before
        k, v = (put_steps(F.pad(old, (0, 0, 0, more)), a, at) for old, a in ((state["k"], k), (state["v"], v)))
        n = n + steps
        if self.chunk_size < 0:
            return self._attend(q[:, None], k[:, None], v[:, None], at=at[:, None])[:, 0], {"k": k, "v": v, "n": n}
        if T == 1:
            a = self._attend(q[:, None], k[:, None], v[:, None], at=at[:, None])[:, 0]
        else:
            lined = put_steps(q.new_zeros(B, k.shape[1], self.zdim), q, at)
            a = self._attend(*(_chunks(b, S) for b in (lined, k, v))).flatten(1, 2)
            a = take_steps(a, at)
        place = torch.arange(S, device=q.device)
        last, n = (n[:, None] - n[:, None] % S + place).clamp(max=k.shape[1] - 1), n % S
        k, v = (zero_padding(take_steps(b, last), place < n[:, None]) for b in (k, v))
        return a, {"k": k, "v": v, "n": n}

    def _attend(
        self,
        q: Float[Tensor, "B K Q Z"],
        k: Float[Tensor, "B K C Z"],
        v: Float[Tensor, "B K C E"],
        *,
        at: Int[Tensor, "B K Q"] | None = None,
        keys: Int[Tensor, "#B K"] | None = None,
    ) -> Float[Tensor, "B K Q E"]:
        """Attention within K chunks. Queries stand at `at` (None: 0, 1, ...); only the first `keys` keys are seen."""
        C = k.shape[2]
        place = torch.arange(C, device=q.device)
        distances = self.rel_pos_bias(C)  # of distance s − t = 1 − C, ..., C − 1
        # Row t of the first form starts at distance −t; places would cost a gather over (C, C).
        bias = distances.unfold(0, C, 1).flip(0) if at is None else distances[(C - 1 - at)[..., None] + place]
        seen = None
        if self.causal:
            seen = place <= (place if at is None else at)[..., None]
        elif keys is not None:
            seen = (place < keys[..., None])[:, :, None]
        q = q.to(k.dtype)
        softmax = self.activation == "softmax"
        weights = self._weights((q * self.zdim**-0.5 if softmax else q) @ k.transpose(2, 3), bias, seen)
        return weights.to(v.dtype) @ v

    @in_fp32
    def _weights(self, scores: Tensor, bias: Tensor, seen: Tensor | None) -> Float[Tensor, "B K Q C"]:
        """f of the scores and their bias, 0 for keys that are not seen."""
        if self.activation == "softmax":
            scores = scores + bias
            return (scores if seen is None else scores.masked_fill(~seen, float("-inf"))).softmax(-1)
        count = scores.shape[-1] if seen is None else seen.sum(-1, keepdim=True)
        weights = ELEMENTWISE[self.activation](scores / count + bias)
        return weights if seen is None else weights.masked_fill(~seen, 0)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        h = zeros_fp32(batch, *self.move.gamma.shape, device=device, dtype=dtype)
        k = torch.zeros(batch, max(self.chunk_size, 0), self.zdim, device=device, dtype=dtype)
        n = torch.zeros(batch, device=device, dtype=torch.long)
        return {"h": h, "k": k, "v": k.new_zeros(batch, k.shape[1], self.hdim), "n": n}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Projections by fan-in, none scaled for depth as u gates them; γ ~ N(0, 0.02²) and β = 0, the official way."""
        for linear in (self.v_proj, self.mx_proj, self.h_proj):
            fan_in_(linear)
        nn.init.normal_(self.gamma, std=0.02)
        nn.init.zeros_(self.beta)
        self.move.reset_parameters()
        for parameter in self.rel_pos_bias.parameters():
            nn.init.normal_(parameter, std=0.02)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay but on the three matrices."""
        free = [name for name, _ in self.named_parameters() if not name.endswith("proj.weight")]
        return dict.fromkeys(free, ParamOverride(decay=False))


def _laplace(x: Tensor) -> Tensor:
    """The normal distribution function that comes nearest relu² (paper, section 3.2): μ = √½, σ = 1/√(4π)."""
    return 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2))))


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {"laplace": _laplace, "relu2": lambda x: F.relu(x).square()}


def _chunks(x: Float[Tensor, "B T E"], C: int) -> Float[Tensor, "B K C E"]:
    """Chunks of C steps, the last one filled up with zeros."""
    return F.pad(x, (0, 0, 0, -x.shape[1] % C)).unflatten(1, (-1, C))
