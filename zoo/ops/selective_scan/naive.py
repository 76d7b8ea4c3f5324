"""The selective scan as the recurrence reads (Gu & Dao 2023, arXiv:2312.00752, section 3.2; official code
state-spaces/mamba, ops/selective_scan_interface.py, `selective_scan_ref`).

    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    y_t = C_t h_t + D u_t

Each of the D channels has a state of N numbers; B_t and C_t are shared by the channels. The input enters by Euler's
rule, Δ B, as the official code has it, and not by the zero-order hold of the paper's eq. 4.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import at_least_fp32, promote


def selective_scan(
    u: Float[Tensor, "B T D"],
    delta: Float[Tensor, "B T D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B T N"],
    C: Float[Tensor, "B T N"],
    D: Float[Tensor, " D"] | None = None,
    state: Float[Tensor, "B D N"] | None = None,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """All y (in u's dtype) and the last state (float32 at least), one `step` at a time. Δ > 0 and A < 0 as they are."""
    outputs = []
    for t in range(u.shape[1]):
        y, state = step(u[:, t], delta[:, t], A, B[:, t], C[:, t], D, state)
        outputs.append(y)
    assert state is not None
    return torch.stack(outputs, dim=1), state


def gated_selective_scan(
    u: Float[Tensor, "B T D"],
    delta: Float[Tensor, "B T D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B T N"],
    C: Float[Tensor, "B T N"],
    D: Float[Tensor, " D"],
    z: Float[Tensor, "B T D"],
    bias: Float[Tensor, " D"],
    state: Float[Tensor, "B D N"] | None = None,
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D N"]]:
    """y ⊙ SiLU(z) and the last state, of a scan with softplus(Δ + bias) for Δ: no step where Δ is −∞."""
    y, h = selective_scan(at_least_fp32(u), F.softplus(at_least_fp32(delta) + at_least_fp32(bias)), A, B, C, D, state)
    return (y * F.silu(at_least_fp32(z))).to(u.dtype), h


def step(
    u: Float[Tensor, "B D"],
    delta: Float[Tensor, "B D"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B N"],
    C: Float[Tensor, "B N"],
    D: Float[Tensor, " D"] | None = None,
    state: Float[Tensor, "B D N"] | None = None,
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D N"]]:
    """One step: y_t and h_t."""
    dtype, wide = u.dtype, promote(u, delta, A, B, C, D, state)
    u, delta, A, B, C = (x.to(wide) for x in (u, delta, A, B, C))
    h = (delta * u)[..., None] * B[:, None]
    if state is not None:
        h = h + torch.exp(delta[..., None] * A) * state.to(wide)
    y = (h * C[:, None]).sum(-1)
    return (y if D is None else y + D.to(wide) * u).to(dtype), h
