"""Multi-dimensional damped exponential moving average, the part of Mega that carries a state (Ma et al. 2022,
arXiv:2209.10655, section 3.1; official: facebookresearch/mega, fairseq/modules/exponential_moving_average.py).

    h_t = p ⊙ β x_t + q ⊙ h_{t−1},    s_t = SiLU(γᵀ h_t / √N + ω x_t),    p = σ(δ),    q = 1 − p σ(α)

with N numbers h for each channel. Over a whole sequence s = SiLU(K ∗ x + ω x) with K_l = Σ_n γ_n p_n β_n q_n^l / √N.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.ops import vandermonde
from zoo.ops.long_convolution import convolve
from zoo.ops.padding import align_right
from zoo.ops.precision import at_least_fp32, no_autocast


class EMA(nn.Module):
    """The moving average over D channels with N numbers each, in one direction or in both.

    Both ways, D more kernels look ahead, from the present on: it counts in both. The names are those of the published
    code, where p = σ(δ); in the paper, and in another commit of the official file, α and δ have each other's place,
    and that commit's second kernel starts at the step after the present.
    """

    def __init__(self, D: int, N: int, *, both_ways: bool) -> None:
        super().__init__()
        self.both_ways = both_ways
        rows = 2 * D if both_ways else D
        for name in ("delta", "alpha", "beta"):
            self.register_parameter(name, nn.Parameter(torch.empty(rows, N, 1)))
        self.gamma = nn.Parameter(torch.empty(rows, N))
        self.omega = nn.Parameter(torch.empty(D))

    delta: nn.Parameter
    alpha: nn.Parameter
    beta: nn.Parameter

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None, h: Float[Tensor, "B D N"] | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"] | None]:
        """s, and h after the valid steps. x must be 0 at masked steps."""
        with no_autocast(x.device):
            u, T, (log_q, write, read), after = at_least_fp32(x), x.shape[1], self.coefficients(), None
            if h is not None and T == 1:
                after = log_q.exp() * at_least_fp32(h) + write * u[:, 0, :, None]
                y = (read * after).sum(-1)[:, None]
                after = after if mask is None else torch.where(mask[:, :, None], after, at_least_fp32(h))
            elif h is not None:
                y = (
                    convolve(u, _powers(read * write, log_q, T))
                    + _powers(read * log_q.exp() * at_least_fp32(h), log_q, T).mT
                )
                u_right, n = align_right(u, mask)
                last = vandermonde.accumulate(u_right, _complex(log_q)).real
                after = (n[:, None, None] * log_q).exp() * at_least_fp32(h) + write * last
            else:
                K = _powers(read * write, log_q, T)
                y = convolve(u, K[: x.shape[2]])
                if self.both_ways:
                    y = y + convolve(u.flip(1), K[x.shape[2] :]).flip(1)
            y = F.silu(y + at_least_fp32(self.omega) * u)
        return y.to(x.dtype), None if h is None or after is None else after.to(h.dtype)

    def coefficients(self) -> tuple[Float[Tensor, "D N"], Float[Tensor, "D N"], Float[Tensor, "D N"]]:
        """log q, p β and γ / √N. q = σ(−δ) + σ(δ) σ(−α), written so that it never rounds to 0."""
        alpha, delta, beta = (at_least_fp32(p)[..., 0] for p in (self.alpha, self.delta, self.beta))
        log_q = torch.logaddexp(F.logsigmoid(-delta), F.logsigmoid(delta) + F.logsigmoid(-alpha))
        return log_q, delta.sigmoid() * beta, at_least_fp32(self.gamma) * self.gamma.shape[1] ** -0.5

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """α, δ ~ N(0, 0.2²), β ~ ±1 + N(0, 0.02²) with alternating signs, γ, ω ~ N(0, 1)."""
        nn.init.normal_(self.alpha, std=0.2)
        nn.init.normal_(self.delta, std=0.2)
        nn.init.normal_(self.beta, std=0.02)
        self.beta[:, ::2] += 1
        self.beta[:, 1::2] -= 1
        nn.init.normal_(self.gamma)
        nn.init.normal_(self.omega)


def _powers(c: Float[Tensor, "*B D N"], log_q: Float[Tensor, "D N"], L: int) -> Float[Tensor, "*B D L"]:
    """Σ_n c_n q_n^l for l < L."""
    y = vandermonde.evaluate(_complex(c.view(-1, *log_q.shape)) / 2, _complex(log_q), L)
    return y.view(*c.shape[:-1], L)


def _complex(x: Tensor) -> Tensor:
    return torch.complex(x, torch.zeros_like(x))
