"""H3 (Fu, Dao et al. 2023, arXiv:2212.14052, section 3.1; official: HazyResearch/H3, src/models/ssm/h3.py).

Two state-space models and two products stand in for the attention of one token to another:

    y_t = q_t ⊙ SSM_diag(k̄ ⊙ v)_t,    k̄ = SSM_shift(k),    q, k, v = x W_q, x W_k, x W_v,    out = y W_o

    shift    s_t = S s_{t−1} + B k_t,    k̄_t = C s_t + D k_t        (S s)_n = s_{n−1}: a memory of the last N inputs
    diag     S4D, x_t = Ā x_{t−1} + B̄ u_t,    y_t = 2 Re(C x_t) + D u_t

With head_dim d > 1 the product is an outer one within each of the D/d heads, u[i, j] = k̄_i v_j; the diagonal model is
one for the head, run over all d² of them; and q contracts i: y_j = Σ_i q_i y[i, j].
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.s4d import Disc, Discrete, Init, discretise, initial
from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.linear import Linear
from zoo.ops import h3, vandermonde
from zoo.ops.long_convolution import convolve, skipping
from zoo.ops.precision import at_least_fp32, no_autocast
from zoo.ops.short_convolution import short_convolution

Layout: TypeAlias = Literal["h d", "d h"]


@register(
    family="state spaces and long convolutions",
    paper="Fu, Dao et al. 2023, Hungry Hungry Hippos: Towards Language Modeling with State Space Models, "
    "arXiv:2212.14052",
    source="https://github.com/HazyResearch/H3 (src/models/ssm/h3.py, ss_kernel_diag.py, ss_kernel_shift.py)",
    deviations=(
        "head_dim>1: channels leave the layer head by head, as from the official fused kernel; without that kernel the "
        "official layer orders them (d h), which the mixer offers as layout='d h'",
        "the projections start at N(0, 1/fan_in), the last one scaled by 1/sqrt(2 depth); the official model takes "
        "N(0, 0.02) for all of them (its rule for output layers names another parameter)",
        "C and D of both models do not decay; the official code exempts A, B and Δ only",
        "GELU is exact (erf), where the official MLP uses the tanh approximation; no dropout; the head is not tied",
        "B is trained in the shift model, as in the official code; the paper fixes it at e₁",
    ),
)
class H3(Mixer):
    """H3: a shift and a diagonal state-space model between multiplicative gates, in a Pre-LN transformer block.

    State, in float32 at least: `shift` (B, D, N), and `diag` (B, d·D, N/2, 2) in the order (i, j, head).

    Args:
        d_state: N of both models, even. head_dim: d, divides the width. init, disc, dt_min, dt_max: as in S4D.
        layout: how the output's channels are ordered where d > 1. "h d", head by head as q, k and v are, is the fused
            kernel's (src/ops/fftconv.py, fftconv_h3_ref); "d h" is what the official layer does without that kernel.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        d_state: int = 64,
        head_dim: int = 1,
        init: Init = "lin",
        disc: Disc = "bilinear",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        layout: Layout = "h d",
    ) -> None:
        super().__init__(context)
        if d_state < 2 or d_state % 2:
            raise ValueError(f"h3: d_state {d_state} must be even, modes come in conjugate pairs")
        if head_dim < 1 or context.width % head_dim:
            raise ValueError(f"h3: width {context.width} does not divide into heads of {head_dim} (head_dim)")
        if disc not in get_args(Disc):
            raise ValueError(f"h3: unknown disc {disc!r}; known: {', '.join(get_args(Disc))}")
        if layout not in get_args(Layout):
            raise ValueError(f"h3: unknown layout {layout!r}; known: {', '.join(get_args(Layout))}")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"h3: need 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")
        D, H = context.width, context.width // head_dim
        self.head_dim, self.layout, self.gain = head_dim, layout, context.gain
        self.init, self.dt_min, self.dt_max = init, dt_min, dt_max
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        # Each model one level down, for the official parameter names.
        self.ssm_k_kernel: Any = nn.ModuleDict({"kernel": Shift(D, d_state)})
        self.ssm_k_D = nn.Parameter(torch.empty(D))
        self.kernel: Any = nn.ModuleDict({"kernel": Diagonal(H, d_state, disc)})
        self.D = nn.Parameter(torch.empty(H))
        self.output_linear = Linear(D, D)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, head_dim: int, **_: Any) -> int:
        return max(1, head_dim)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        (B, T, D), d = x.shape, self.head_dim
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
        if state is None and d == 1 and h3.serves(x):
            return self._by_channel(x, mask), None
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        s, z = (None, None) if state is None else (state["shift"], state["diag"])
        with no_autocast(x.device):
            q, k, v = at_least_fp32(q), _valid(k, mask), at_least_fp32(v)
            k, s = self.ssm_k_kernel["kernel"](k, mask, s, at_least_fp32(self.ssm_k_D))
            q, k = (a.view(B, T, D // d, d, 1).permute(0, 3, 4, 1, 2) for a in (q, k))  # (B, d, 1, T, H)
            v = v.view(B, T, D // d, 1, d).permute(0, 3, 4, 1, 2)  # (B, 1, d, T, H)
            kv = _valid((k * v).flatten(0, 2), None if mask is None else mask.repeat_interleave(d * d, 0))
            y, z = self.kernel["kernel"](kv, mask, z, at_least_fp32(self.D))
            y = q * y.view(B, d, d, T, D // d)
            y = y[:, 0] if d == 1 else y.sum(1)  # (B, d, T, H)
            y = y.permute(0, 2, 3, 1) if self.layout == "h d" else y.transpose(1, 2)
        y = self.output_linear(y.reshape(B, T, D).to(x.dtype))
        return y, None if state is None else {"shift": s, "diag": z}

    def _by_channel(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T D"]:
        """As `forward` from a state of zero for d = 1, with time last: in that order the projections' products give
        and take it."""
        B, T, D = x.shape
        weights, biases = zip(*((p.weight, p.bias) for p in (self.q_proj, self.k_proj, self.v_proj)), strict=True)
        features, bias = (torch.cat(weights) @ x.reshape(-1, D).T).view(3, D, B, T), torch.stack(biases)
        if mask is not None:
            features, bias = (features + bias[:, :, None, None]).masked_fill(~mask, 0), torch.zeros_like(bias)
        with no_autocast(x.device):
            taps = self.ssm_k_kernel["kernel"].taps(at_least_fp32(self.ssm_k_D))
            log_A, b, c = self.kernel["kernel"].discretise()
        y = h3.h3(features, at_least_fp32(bias), taps, c * b, log_A, at_least_fp32(self.D))
        return self.output_linear(y.flatten(1).T).view(B, T, D)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        dtype, (D, N) = torch.promote_types(dtype, torch.float32), self.ssm_k_kernel["kernel"].B.shape
        shift = torch.zeros(batch, D, N, device=device, dtype=dtype)
        return {"shift": shift, "diag": shift.new_zeros(batch, D * self.head_dim, N // 2, 2)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Projections by fan-in; B = e₁ and C as a convolution's weights in the shift model; S4D's initial values in
        the other, B = 1 and C complex standard normal; both D standard normal.
        """
        fan_in_(self.q_proj)
        fan_in_(self.k_proj)
        fan_in_(self.v_proj, self.gain or 1.0)
        fan_in_(self.output_linear, self.gain or residual_scale(depth))
        self.ssm_k_kernel["kernel"].reset_parameters()
        self.kernel["kernel"].reset_parameters(self.init, self.dt_min, self.dt_max)
        for skip in (self.ssm_k_D, self.D):
            nn.init.normal_(skip)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """B of both models, A and Δ learn at 1e-3 at most; nothing of the two models decays."""
        names = [name for name, _ in self.named_parameters() if ".kernel." in name]
        slow = [name for name in names if not name.endswith(".C")]
        hints = dict.fromkeys([*names, "ssm_k_D", "D"], ParamOverride(decay=False))
        return hints | dict.fromkeys(slow, ParamOverride(lr_max=1e-3, decay=False))


class Shift(nn.Module):
    """s_t = S s_{t−1} + B k_t, y_t = C s_t + D k_t: a convolution with N taps K_l = Σ_m C_{m+l} B_m, D added to K_0."""

    def __init__(self, D: int, N: int) -> None:
        super().__init__()
        self.B = nn.Parameter(torch.empty(D, N))
        self.C = nn.Parameter(torch.empty(1, D, N))

    def forward(
        self, k: Tensor, mask: Tensor | None, s: Tensor | None, skip: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """y (B, T, D) and, from a state (B, D, N), the next."""
        T, N = k.shape[1], self.B.shape[1]
        B, C = at_least_fp32(self.B), at_least_fp32(self.C)[0]
        if s is not None and T == 1:
            after = F.pad(at_least_fp32(s), (1, 0))[..., :N] + B * k[:, 0, :, None]
            if mask is not None:
                after = torch.where(mask[:, :, None], after, at_least_fp32(s))
            return (C * after).sum(-1)[:, None] + skip * k, after.to(s.dtype)
        y = short_convolution(k, self.taps(skip))
        if s is None:
            return y, None
        responses = F.pad(C, (0, N)).unfold(-1, N, 1)  # (D, N + 1, N): the row l is C S^l
        left = torch.einsum("dlm,bdm->bdl", responses[:, 1:], at_least_fp32(s))  # C S^{t+1} s_0
        return y + _cut(left, T).transpose(1, 2), self._last_state(k, mask, s, B)

    def taps(self, skip: Tensor | float = 0.0) -> Float[Tensor, "D N"]:
        """K_{N−1} … K_0: backwards, C is convolved with B."""
        B, C = at_least_fp32(self.B), at_least_fp32(self.C)[0]
        backwards = convolve(C.flip(1).T[None], B)[0].T
        return skipping(backwards.flip(1), skip).flip(1)

    @staticmethod
    def _last_state(k: Tensor, mask: Tensor | None, s: Tensor, B: Tensor) -> Tensor:
        """s_n = Σ_j B_{n−j} k_{T−1−j} + s_0[n − T], with T the valid steps of each row."""
        N, n = B.shape[1], torch.arange(B.shape[1], device=k.device)
        T = k.new_full((len(k),), k.shape[1], dtype=torch.long) if mask is None else mask.sum(1)
        ago = T[:, None] - 1 - n  # where the inputs stand that came 0, 1, ..., N − 1 steps ago
        recent = k.gather(1, ago.clamp(min=0)[..., None].expand(-1, -1, k.shape[2])).masked_fill(ago[..., None] < 0, 0)
        old = (n - T[:, None])[:, None].expand_as(s)
        kept = at_least_fp32(s).gather(2, old.clamp(min=0)).masked_fill(old < 0, 0)
        lower = F.pad(B, (N - 1, 0)).unfold(-1, N, 1).flip(-1)  # (D, N, N): lower[n, j] = B_{n−j}
        return (torch.einsum("dnj,bjd->bdn", lower, at_least_fp32(recent)) + kept).to(s.dtype)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """B = e₁; C ~ U(±N^{-½}), torch's weights for a convolution of width N."""
        nn.init.zeros_(self.B)
        self.B[:, 0] = 1
        self.C.uniform_(-(self.C.shape[-1] ** -0.5), self.C.shape[-1] ** -0.5)


class Diagonal(nn.Module):
    """S4D's system for H heads, A = −e^{inv_A_real} + i A_imag, over sequences that share it."""

    def __init__(self, H: int, N: int, disc: Disc) -> None:
        super().__init__()
        self.disc = disc
        self.log_dt = nn.Parameter(torch.empty(H))
        self.inv_A_real = nn.Parameter(torch.empty(H, N // 2))
        self.A_imag = nn.Parameter(torch.empty(H, N // 2))
        self.B = nn.Parameter(torch.empty(H, N // 2, 2))
        self.C = nn.Parameter(torch.empty(1, H, N // 2, 2))

    def discretise(self) -> Discrete:
        """log Ā, B̄ and C at step size Δ = e^{log_dt}."""
        A = torch.complex(-at_least_fp32(self.inv_A_real).exp(), at_least_fp32(self.A_imag))
        B, C = torch.view_as_complex(at_least_fp32(self.B)), torch.view_as_complex(at_least_fp32(self.C)[0])
        dt = at_least_fp32(self.log_dt).exp()[:, None]
        return discretise(A, B, C, dt, self.disc)

    def forward(
        self, u: Tensor, mask: Tensor | None, x: Tensor | None, skip: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor | None]:
        """y (G·B, T, H) for u of that shape, G sequences to each row; from a state (B, G·H, N/2, 2) also the next."""
        T, (log_A, B, C) = u.shape[1], self.discretise()
        if x is None:
            return convolve(u, vandermonde.evaluate((C * B)[None], log_A, T)[0], skip), None
        G = len(u) // len(x)
        n = u.new_full((len(x), 1), T, dtype=torch.long) if mask is None else mask.sum(1, keepdim=True)
        n = n.repeat_interleave(G, 0)[..., None]  # (G·B, 1, 1), the valid steps
        x0, A = torch.view_as_complex(at_least_fp32(x)).reshape(len(u), *log_A.shape), torch.exp(log_A)
        if T == 1:
            after = torch.where(n > 0, A * x0 + B * u[:, 0, :, None], x0)
            y = 2 * (C * after).real.sum(-1)[:, None] + skip * u
        else:
            y = convolve(u, vandermonde.evaluate((C * B)[None], log_A, T)[0], skip)
            y = y + vandermonde.evaluate(C * A * x0, log_A, T).transpose(1, 2)  # 2 Re(C Ā^{t+1} x_0)
            # The valid steps to the right: zeros before them leave no trace in the state.
            order = (torch.arange(T, device=u.device)[:, None] + n) % T
            after = torch.exp(n * log_A) * x0 + B * vandermonde.accumulate(u.gather(1, order.expand_as(u)), log_A)
        return y, torch.view_as_real(after).reshape(x.shape).to(x.dtype)

    @torch.no_grad()
    def reset_parameters(self, init: Init, dt_min: float, dt_max: float) -> None:
        """A as S4D's, B = 1, C complex standard normal, Δ log-uniform."""
        re, im, _ = (torch.from_numpy(value) for value in initial(init, 2 * self.A_imag.shape[1]))
        self.log_dt.uniform_(math.log(dt_min), math.log(dt_max))
        self.inv_A_real.copy_(torch.log(-re))
        self.A_imag.copy_(-im)
        self.B.copy_(torch.tensor([1.0, 0.0]))
        nn.init.normal_(self.C, std=0.5**0.5)


def _valid(x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T D"]:
    return x if mask is None else x.masked_fill(~mask[..., None], 0)


def _cut(K: Float[Tensor, "*B N"], T: int) -> Float[Tensor, "*B T"]:
    """The first T of N numbers, followed by zeros where N < T."""
    return F.pad(K, (0, max(T - K.shape[-1], 0)))[..., :T]
