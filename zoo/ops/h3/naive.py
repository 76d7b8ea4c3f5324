"""H3 as its equations read (Fu, Dao et al. 2023, arXiv:2212.14052, section 3.1), from a state of zero.

u_t = v_t ⊙ Σ_{j<W} w_j ⊙ k_{t−W+1+j}
y_t = q_t ⊙ (2 Re Σ_n c_n x_t^n + D ⊙ u_t),    x_t^n = a_n x_{t−1}^n + u_t
"""

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor


def h3(
    features: Float[Tensor, "3 D B T"],
    bias: Float[Tensor, "3 D"],
    w: Float[Tensor, "D W"],
    c: Complex[Tensor, "D N"],
    log_a: Complex[Tensor, "D N"],
    skip: Float[Tensor, " D"],
) -> Float[Tensor, "D B T"]:
    """y of channels side by side; q, k and v are features plus their bias."""
    (q, k, v), W = features + bias[:, :, None, None], w.shape[1]
    line = F.pad(k, (W - 1, 0)).unfold(-1, W, 1)
    u = v * torch.einsum("dj,dbtj->dbt", w, line)
    x, outputs = torch.zeros(*u.shape[:2], c.shape[1], dtype=c.dtype, device=c.device), []
    for t in range(u.shape[2]):
        x = log_a.exp()[:, None] * x + u[:, :, t, None]
        outputs.append(2 * (c[:, None] * x).real.sum(-1) + skip[:, None] * u[:, :, t])
    return q * torch.stack(outputs, dim=-1)
