"""Mega's exponential moving averages over channels (Ma et al. 2022, arXiv:2209.10655, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Mask
from zoo.layers import vandermonde
from zoo.layers.tensors import align_right, in_fp32
from zoo.ops.long_convolution import convolve


class EMA(nn.Module):
    """The moving average over D channels (fairseq/modules/exponential_moving_average.py), in one direction or in both.

    Both ways, D more kernels look ahead, from the present on: it counts in both.
    """

    def __init__(self, D: int, N: int, *, both_ways: bool) -> None:
        super().__init__()
        self.both_ways = both_ways
        rows = 2 * D if both_ways else D
        self.delta, self.alpha, self.beta = (nn.Parameter(torch.empty(rows, N, 1)) for _ in range(3))
        self.gamma = nn.Parameter(torch.empty(rows, N))
        self.omega = nn.Parameter(torch.empty(D))

    @in_fp32
    def forward(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, h: Float[Tensor, "B D N"] | None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"] | None]:
        """s and, given h, the h after the valid steps; in float32 at least. x must be 0 at masked steps."""
        T, (log_q, write, read), after = x.shape[1], self.coefficients(), None
        if h is not None and T == 1:
            after = log_q.exp() * h + write * x[:, 0, :, None]
            y = (read * after).sum(-1)[:, None]
            after = after if mask is None else torch.where(mask[:, :, None], after, h)
        elif h is not None:
            y = convolve(x, _powers(read * write, log_q, T)) + _powers(read * log_q.exp() * h, log_q, T).mT
            right, n = align_right(x, mask)
            last = vandermonde.accumulate(right, _complex(log_q)).real
            after = (n[:, None, None] * log_q).exp() * h + write * last
        else:
            K = _powers(read * write, log_q, T)
            y = convolve(x, K[: x.shape[2]])
            if self.both_ways:
                y = y + convolve(x.flip(1), K[x.shape[2] :]).flip(1)
        return F.silu(y + self.omega * x), after

    @in_fp32
    def coefficients(self) -> tuple[Float[Tensor, "D N"], Float[Tensor, "D N"], Float[Tensor, "D N"]]:
        """log q, p β and γ / √N. q = σ(−δ) + σ(δ) σ(−α), written so that it never rounds to 0."""
        alpha, delta, beta = (p[..., 0] for p in (self.alpha, self.delta, self.beta))
        log_q = torch.logaddexp(F.logsigmoid(-delta), F.logsigmoid(delta) + F.logsigmoid(-alpha))
        return log_q, delta.sigmoid() * beta, self.gamma * self.gamma.shape[1] ** -0.5

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
