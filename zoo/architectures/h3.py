"""H3 (Fu, Dao et al. 2023, arXiv:2212.14052, section 3.1).

Two state-space models and two products stand in for the attention of one token to another:

    y_t = q_t ⊙ SSM_diag(k̄ ⊙ v)_t,    k̄ = SSM_shift(k),    q, k, v = x W_q, x W_k, x W_v,    out = y W_o

    shift    s_t = S s_{t−1} + B k_t,    k̄_t = C s_t + D k_t        (S s)_n = s_{n−1}: a memory of the last N inputs
    diag     S4D, x_t = Ā x_{t−1} + B̄ u_t,    y_t = 2 Re(C x_t) + D u_t

With head_dim d > 1 the product is an outer one within each of the D/d heads, u[i, j] = k̄_i v_j; the diagonal model is
one for the head, run over all d² of them; and q contracts i: y_j = Σ_i q_i y[i, j].
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.diagonal import DiagonalSystem, Disc, Init, discretise, initial
from zoo.layers.linear import Linear, branch_, log_step_
from zoo.layers.ranges import check_step_sizes
from zoo.layers.tensors import in_fp32, take_steps, zero_padding, zeros_fp32
from zoo.ops import h3
from zoo.ops.long_convolution import convolve, skipping
from zoo.ops.short_convolution import short_convolution


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
        layout: Literal["h d", "d h"] = "h d",
    ) -> None:
        super().__init__(context)
        if d_state < 2 or d_state % 2:
            raise ValueError(f"h3: d_state {d_state} must be even, modes come in conjugate pairs")
        if head_dim < 1 or context.width % head_dim:
            raise ValueError(f"h3: width {context.width} does not divide into heads of {head_dim} (head_dim)")
        check_step_sizes("h3", dt_min, dt_max)
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

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        if state is None and self.head_dim == 1 and h3.serves(x):
            return self._by_channel(x, mask), None
        y, new = self._by_step(self.q_proj(x), self.k_proj(x), self.v_proj(x), mask, state)
        return self.output_linear(y.to(x.dtype)), new

    @in_fp32
    def _by_step(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, state: State | None) -> Mixed:
        """y, and from a state the next."""
        (B, T, D), d = q.shape, self.head_dim
        s, z = (None, None) if state is None else (state["shift"], state["diag"])
        k, s = self.ssm_k_kernel["kernel"](zero_padding(k, mask), mask, s, self.ssm_k_D)
        q, k = (a.view(B, T, D // d, d, 1).permute(0, 3, 4, 1, 2) for a in (q, k))  # (B, d, 1, T, H)
        v = v.view(B, T, D // d, 1, d).permute(0, 3, 4, 1, 2)  # (B, 1, d, T, H)
        every = None if mask is None else mask.repeat_interleave(d * d, 0)
        kv = zero_padding((k * v).flatten(0, 2), every)
        y, z = self.kernel["kernel"](kv, every, z, self.D)
        y = q * y.view(B, d, d, T, D // d)
        y = y[:, 0] if d == 1 else y.sum(1)  # (B, d, T, H)
        y = y.permute(0, 2, 3, 1) if self.layout == "h d" else y.transpose(1, 2)
        return y.reshape(B, T, D), None if state is None else {"shift": s, "diag": z}

    def _by_channel(self, x: Float[Tensor, "B T D"], mask: Mask | None) -> Float[Tensor, "B T D"]:
        """As `_by_step` from a state of zero for d = 1, with time last: the order in which the projections' products
        give and take it."""
        B, T, D = x.shape
        weights, biases = zip(*((p.weight, p.bias) for p in (self.q_proj, self.k_proj, self.v_proj)), strict=True)
        features, bias = (torch.cat(weights) @ x.reshape(-1, D).T).view(3, D, B, T), torch.stack(biases)
        if mask is not None:
            features, bias = (features + bias[:, :, None, None]).masked_fill(~mask, 0), torch.zeros_like(bias)
        taps, (log_A, b, c) = self.ssm_k_kernel["kernel"].taps(self.ssm_k_D), self.kernel["kernel"].discretise()
        y = h3.h3(features, bias, taps, c * b, log_A, self.D)
        return self.output_linear(y.flatten(1).T).view(B, T, D)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        D, N = self.ssm_k_kernel["kernel"].B.shape
        shift = zeros_fp32(batch, D, N, device=device, dtype=dtype)
        return {"shift": shift, "diag": shift.new_zeros(batch, D * self.head_dim, N // 2, 2)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_` for the projections; both D standard normal."""
        branch_(self.q_proj, self.k_proj, values=self.v_proj, out=self.output_linear, depth=depth, gain=self.gain)
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

    @in_fp32
    def forward(
        self, k: Float[Tensor, "B T D"], mask: Mask | None, s: Float[Tensor, "B D N"] | None, skip: Tensor | float = 0.0
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"] | None]:
        """y and, from a state, the next."""
        T, N, C = k.shape[1], self.B.shape[1], self.C[0]
        if s is not None and T == 1:
            after = F.pad(s, (1, 0))[..., :N] + self.B * k[:, 0, :, None]
            after = after if mask is None else torch.where(mask[:, :, None], after, s)
            return (C * after).sum(-1)[:, None] + skip * k, after
        y = short_convolution(k, self.taps(skip))
        if s is None:
            return y, None
        responses = F.pad(C, (0, N)).unfold(-1, N, 1)  # (D, N + 1, N): the row l is C S^l
        left = torch.einsum("dlm,bdm->bdl", responses[:, 1:], s)  # C S^{t+1} s_0, nothing from t = N on
        left = F.pad(left, (0, max(T - N, 0)))[..., :T]
        return y + left.transpose(1, 2), self._last_state(k, mask, s, self.B)

    @in_fp32
    def taps(self, skip: Tensor | float = 0.0) -> Float[Tensor, "D N"]:
        """K_{N−1} … K_0: backwards, C is convolved with B."""
        backwards = convolve(self.C[0].flip(1).T[None], self.B)[0].T
        return skipping(backwards.flip(1), skip).flip(1)

    @staticmethod
    def _last_state(k: Tensor, mask: Mask | None, s: Tensor, B: Tensor) -> Tensor:
        """s_n = Σ_j B_{n−j} k_{T−1−j} + s_0[n − T], with T the valid steps of each row."""
        N, n = B.shape[1], torch.arange(B.shape[1], device=k.device)
        T = k.new_full((len(k),), k.shape[1], dtype=torch.long) if mask is None else mask.sum(1)
        ago = T[:, None] - 1 - n  # where the inputs stand that came 0, 1, ..., N − 1 steps ago
        recent = take_steps(k, ago.clamp(min=0)).masked_fill(ago[..., None] < 0, 0)
        old = (n - T[:, None])[:, None].expand_as(s)
        kept = s.gather(2, old.clamp(min=0)).masked_fill(old < 0, 0)
        lower = F.pad(B, (N - 1, 0)).unfold(-1, N, 1).flip(-1)  # (D, N, N): lower[n, j] = B_{n−j}
        return torch.einsum("dnj,bjd->bdn", lower, recent) + kept

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

    @in_fp32
    def discretise(self) -> DiagonalSystem:
        """The system at step size Δ = e^{log_dt}."""
        A = torch.complex(-self.inv_A_real.exp(), self.A_imag)
        B, C = torch.view_as_complex(self.B), torch.view_as_complex(self.C[0])
        return discretise(A, B, C, self.log_dt.exp()[:, None], self.disc)

    @in_fp32
    def forward(
        self, u: Float[Tensor, "GB T H"], mask: Mask | None, x: Tensor | None, skip: Float[Tensor, " H"]
    ) -> tuple[Float[Tensor, "GB T H"], Float[Tensor, "B GH M 2"] | None]:
        """y, for G sequences to each row; from a state x also the next."""
        system = self.discretise()
        if x is None:
            return convolve(u, system.kernel(u.shape[1]), skip), None
        y, after = system.resume(
            u, torch.view_as_complex(x.contiguous()).reshape(len(u), *system.log_A.shape), mask, skip
        )
        return y, torch.view_as_real(after).reshape(x.shape)

    @torch.no_grad()
    def reset_parameters(self, init: Init, dt_min: float, dt_max: float) -> None:
        """A as S4D's, B = 1, C complex standard normal, Δ log-uniform."""
        re, im, _ = (torch.from_numpy(value) for value in initial(init, 2 * self.A_imag.shape[1]))
        log_step_(self.log_dt, dt_min, dt_max)
        self.inv_A_real.copy_(torch.log(-re))
        self.A_imag.copy_(-im)
        self.B.copy_(torch.tensor([1.0, 0.0]))
        nn.init.normal_(self.C, std=0.5**0.5)
